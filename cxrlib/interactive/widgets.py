"""Explorers: move something, and see what it does. The notebooks call them as ``widgets.NAME``.

Here are augmentation, the threshold and the learning rate; ``phantoms`` and ``prediction`` have
the others. Each is an :class:`ipywidgets.VBox`, of version 7 as in Colab, or 8; or a matplotlib
figure where nobody is there to move anything.
"""

from __future__ import annotations

import numpy as np

from cxrlib import NOT_CLINICAL, augment, metrics, plots
from cxrlib.interactive import explorer as page
from cxrlib.interactive.explorer import MOVE_IT, explorer, options, words
from cxrlib.interactive.frontend import is_movable
from cxrlib.interactive.phantoms import anatomy, knob, phantoms  # noqa: F401, handed on
from cxrlib.interactive.prediction import newest_models, prediction  # noqa: F401, handed on
from cxrlib.plots import style

STRONGEST_NOISE = 64  # grey levels; lesson 2 shows noise up to this


def augmentation(image: np.ndarray, note: str = ""):
    """Crop, flip and add noise by the controls share, flip, sigma and seed, beside the original.

    Parameters
    ----------
    image : ndarray, shape (height, width), uint8
    note : str
        What the reader must know about the image, such as "Synthetic images (phantoms).".
    """
    usual = {"share": augment.SMALLEST_CROP, "flip": True, "sigma": 8, "seed": 0}
    if not is_movable():
        both = [image, altered(image, **usual)]
        titles = ["original", "cropped, flipped, noisy"]
        return plots.image_grid(both, titles, columns=2, note=f"{note} {MOVE_IT}".strip())
    from ipywidgets import Checkbox, FloatSlider, IntSlider

    share, noise = {"min": 0.5, "max": 1, "step": 0.05}, {"max": STRONGEST_NOISE, "step": 2}
    controls = {
        "share": FloatSlider(usual["share"], **share, **options("share of the side")),
        "flip": Checkbox(usual["flip"], **options("flip")),
        "sigma": IntSlider(usual["sigma"], **noise, **options("noise, sigma")),
        "seed": IntSlider(usual["seed"], max=20, **options("seed")),
    }
    return explorer(controls, lambda **values: _show_copy(image, note, **values))


def altered(image: np.ndarray, share: float, flip: bool, sigma: float, seed: int) -> np.ndarray:
    """Make one copy, in the order of :func:`cxrlib.augment.augment`: crop, flip, noise."""
    rng = np.random.default_rng(seed)
    copy = augment.crop(image, share, rng)
    return augment.noise(augment.flip(copy) if flip else copy, sigma, rng)


def _show_copy(image, note, share, flip, sigma, seed) -> str:
    copy = altered(image, share, flip, sigma, seed)
    apart = np.abs(copy.astype(int) - image).mean()
    mirrored = "mirrored" if flip else "not mirrored"
    what = f"{share**2:.0%} of the area, {mirrored}, noise of {sigma} grey levels"
    return page.beside(
        page.picture(image, "The original film.", "original"),
        page.picture(copy, f"The same film changed: {what}.", f"copy: {what}"),
        wrap=False,  # to compare, both must be in sight, also on a phone
    ) + words(f"On average a pixel is {apart:.1f} grey levels from the original.", note)


def threshold(y_true, probability, patients=None, note: str = "", fold=None):
    """Move a threshold along a ROC curve; the confusion matrix and the scores follow.

    Parameters
    ----------
    y_true : array_like, shape (n,), of 0 and 1
        1 is the disease.
    probability : array_like, shape (n,), 0 to 1
    patients : array_like, shape (n,), optional
        Whose image it is; then patients are counted too.
    note : str
    fold : array_like, shape (n,), optional
        Which of several models answered; the AUC then compares images of one model only.

    Raises
    ------
    ValueError
        If values or lengths are wrong, or a class is missing, so that there is no curve.
    """
    from sklearn.metrics import roc_curve

    truth, p = metrics.check_binary(y_true, probability)
    if truth.all() or not truth.any():
        raise ValueError("A ROC curve needs ill and healthy images; y_true holds only one of them.")
    curve = (
        *roc_curve(truth, p, drop_intermediate=False)[:2],
        metrics.binary_scores(truth, p, fold=fold).loc["auc", "value"],
    )
    if not is_movable():
        return _static_threshold(truth, p, curve, note)
    from ipywidgets import FloatSlider

    slider = FloatSlider(0.5, min=0, max=1, step=0.01, **options("threshold"))

    def draw(threshold):
        return _show_threshold(truth, p, patients, curve, threshold) + words(note, NOT_CLINICAL)

    return explorer({"threshold": slider}, draw)


def _counts(truth, called) -> np.ndarray:
    """Count images: rows healthy and ill, columns called healthy and called ill."""
    return np.bincount(2 * truth + called, minlength=4).reshape(2, 2)


def _draw_curve(axis, curve, counts, threshold) -> None:
    (spared, alarms), (missed, hits) = counts
    false_alarms, found, area = curve
    axis.plot([0, 1], [0, 1], ":", color=style.GREY)
    axis.plot(false_alarms, found, color=style.BLUE, linewidth=2, label=f"AUC {area:.3f}")
    here = alarms / (alarms + spared), hits / (hits + missed)
    look = {"color": style.VERMILLION, "markersize": 11, "markeredgecolor": "black"}
    axis.plot(*here, "o", label=f"threshold {threshold:.2f}", **look)
    axis.set(xlabel="false alarms (1 - specificity)", ylabel="sensitivity")
    axis.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), aspect="equal")
    axis.legend(loc="lower right", fontsize=style.SMALL)


def _show_threshold(truth, p, patients, curve, threshold) -> str:
    from matplotlib.figure import Figure

    called, ill = p >= threshold, truth.sum()
    counts = (spared, alarms), (missed, found) = _counts(truth, called)
    well = spared + alarms
    shares = {
        "sensitivity": f"{found / ill:.0%}",
        "specificity": f"{spared / well:.0%}",
        "precision": f"{found / called.sum():.0%}" if called.any() else "undefined",
        "F1": f"{2 * found / (2 * found + missed + alarms):.0%}",
    }
    # Margins by hand: matplotlib's own layout would take longer than the drawing
    figure = Figure(figsize=(3.8, 3.6), dpi=100)
    axis = figure.add_axes([0.15, 0.14, 0.82, 0.83])
    axis.spines[["top", "right"]].set_visible(False)
    _draw_curve(axis, curve, counts, threshold)
    alt = (
        f"ROC curve, area {curve[2]:.3f}. At threshold {threshold:.2f} the point lies at "
        f"sensitivity {shares['sensitivity']} and {alarms / well:.0%} false alarms."
    )
    rows = [("healthy", spared, alarms), ("ill", missed, found)]
    matrix = page.table(["truth", "called healthy", "called ill"], rows, "Images")
    scores = page.table(["score", f"at {threshold:.2f}"], shares.items())
    said = [f"Of {ill} images of the ill, {missed} are missed;"]
    said += [f"of {well} images of the healthy, {alarms} raise an alarm."]
    if patients is not None:
        of = np.asarray(patients)
        missed, alarmed = set(of[truth]) - set(of[truth & called]), set(of[~truth & called])
        said += [f"Of {len(set(of[truth]))} ill patients, {len(missed)} are missed on every image;"]
        said += [
            f"of {len(set(of[~truth]))} healthy ones, {len(alarmed)} are alarmed at least once."
        ]
    return page.beside(page.drawing(figure, alt), f"{matrix}<br>{scores}") + words(*said)


def _static_threshold(truth, p, curve, note):
    counts = _counts(truth, p >= 0.5)
    figure, (left, right) = style.subplots(1, 2, height=3.6)
    _draw_curve(left, curve, counts, 0.5)
    style.heat_table(right, counts, counts, "")
    right.set_xticklabels(["called healthy", "called ill"])
    right.set_yticklabels(["healthy", "ill"])
    title = "The threshold 0.5 on the curve, and in counts of images"
    return style.finish(figure, title, f"{note}\n{MOVE_IT}".strip(), predictions=True)


def learning_rate(learn, note: str = ""):
    """Move the learning rate; the curve of the loss follows.

    Parameters
    ----------
    learn : callable
        Takes a rate, 0.001 to 100, and gives the losses: before the first step and after each.
    note : str
    """
    if not is_movable():
        figure, axis = style.subplots(height=3.2, width=5)
        for rate in (0.1, 1, 10):
            _draw_losses(axis, learn(rate), rate)
        return style.finish(figure, "", f"{note}\n{MOVE_IT}".strip(), legend=axis)
    from ipywidgets import FloatLogSlider

    slider = FloatLogSlider(1, base=10, min=-3, max=2, step=0.1, **options("learning rate"))
    return explorer({"rate": slider}, lambda rate: _show_losses(learn(rate), rate) + words(note))


def _draw_losses(axis, losses, rate: float) -> None:
    axis.plot(losses, linewidth=2, label=f"rate {rate:.3g}")
    axis.axhline(np.log(2), linestyle=":", color=style.GREY)  # who always says one half
    axis.set(xlabel="step", ylabel="loss", ylim=(0, max(1, *losses) * 1.05))


def _show_losses(losses, rate: float) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 3.2), dpi=100)
    axis = figure.add_axes([0.13, 0.15, 0.84, 0.82])
    axis.spines[["top", "right"]].set_visible(False)
    _draw_losses(axis, losses, rate)
    rises, first, last = int((np.diff(losses) > 0).sum()), losses[0], losses[-1]
    told = f"{len(losses) - 1} steps with a rate of {rate:.3g}: the loss goes from {first:.2f} to"
    told += f" {last:.2f}, and rises in {rises} of the steps."
    return page.drawing(figure, told) + words(told, "Dotted: always one half.")
