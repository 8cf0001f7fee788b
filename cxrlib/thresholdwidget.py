"""An explorer of the threshold: the point on the ROC curve, and what it means for people."""

from __future__ import annotations

import numpy as np

from cxrlib import NOT_CLINICAL, metrics
from cxrlib.explorer import MOVE_IT, beside, drawing, explorer, is_movable, options, table, words
from cxrlib.style import BLUE, GREY, SMALL, VERMILLION


def threshold(y_true, probability, patients=None, note: str = ""):
    """Move a threshold along a ROC curve; the confusion matrix and the scores follow.

    Parameters
    ----------
    y_true : array_like, shape (n,), of 0 and 1
        1 is the disease.
    probability : array_like, shape (n,), 0 to 1
    patients : array_like, shape (n,), optional
        Whose image it is; then patients are counted too.
    note : str

    Returns
    -------
    ipywidgets.VBox, or a matplotlib figure where nobody can move it
        Its control is threshold.

    Raises
    ------
    cxrlib.metrics.MetricsError
        If lengths differ, an array is empty, or a value is missing or out of range.
    ValueError
        If one of the classes is missing, so that there is no curve.
    """
    truth, p = metrics.check_binary(y_true, probability)
    if truth.all() or not truth.any():
        raise ValueError("A ROC curve needs ill and healthy images; y_true holds only one of them.")
    curve = _curve(truth, p)
    if not is_movable():
        return _static_threshold(truth, p, curve, note)
    import ipywidgets

    slider = ipywidgets.FloatSlider(
        0.5, min=0, max=1, step=0.01, readout_format=".2f", **options("threshold")
    )

    def draw(threshold):
        return _show_threshold(truth, p, patients, curve, threshold) + words(note, NOT_CLINICAL)

    return explorer({"threshold": slider}, draw)


def rates(truth: np.ndarray, probability: np.ndarray, threshold: float) -> dict:
    """Count and score: an image at or above the threshold is called ill.

    Returns
    -------
    dict
        ``found``, ``missed``, ``alarms``, ``spared`` (counts of images), then sensitivity,
        specificity, precision and F1, NaN where undefined.
    """
    called = probability >= threshold
    found, alarms = int((called & truth).sum()), int((called & ~truth).sum())
    missed, spared = int(truth.sum()) - found, int((~truth).sum()) - alarms

    def share(part, rest):
        return part / (part + rest) if part + rest else float("nan")

    return {
        "found": found,
        "missed": missed,
        "alarms": alarms,
        "spared": spared,
        "sensitivity": share(found, missed),
        "specificity": share(spared, alarms),
        "precision": share(found, alarms),
        "F1": share(2 * found, missed + alarms),
    }


def _curve(truth, p):
    from sklearn.metrics import roc_auc_score, roc_curve

    false_alarms, found, _ = roc_curve(truth, p, drop_intermediate=False)
    return false_alarms, found, roc_auc_score(truth, p)


def _draw_curve(axis, curve, now, threshold) -> None:
    false_alarms, found, area = curve
    axis.plot([0, 1], [0, 1], ":", color=GREY)
    axis.plot(false_alarms, found, color=BLUE, linewidth=2, label=f"AUC {area:.3f}")
    here = (1 - now["specificity"], now["sensitivity"])
    label = f"threshold {threshold:.2f}"
    axis.plot(*here, "o", color=VERMILLION, markersize=11, markeredgecolor="black", label=label)
    axis.set(xlabel="false alarms (1 - specificity)", ylabel="sensitivity")
    axis.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), aspect="equal")
    axis.legend(loc="lower right", fontsize=SMALL)


def _show_threshold(truth, p, patients, curve, threshold) -> str:
    from matplotlib.figure import Figure

    now = rates(truth, p, threshold)
    # Margins by hand: matplotlib's own layout would take longer than the drawing
    figure = Figure(figsize=(3.8, 3.6), dpi=100)
    axis = figure.add_axes([0.15, 0.14, 0.82, 0.83])
    axis.spines[["top", "right"]].set_visible(False)
    _draw_curve(axis, curve, now, threshold)
    alt = (
        f"ROC curve, area {curve[2]:.3f}. At threshold {threshold:.2f} the point lies at "
        f"sensitivity {_percent(now['sensitivity'])} and {_percent(1 - now['specificity'])} "
        "false alarms."
    )
    matrix = table(
        ["truth", "called healthy", "called ill"],
        [
            ("healthy", now["spared"], now["alarms"]),
            ("ill", now["missed"], now["found"]),
        ],
        "Images",
    )
    scores = table(
        ["score", f"at {threshold:.2f}"],
        [(k, _percent(now[k])) for k in ("sensitivity", "specificity", "precision", "F1")],
    )
    return beside(drawing(figure, alt), f"{matrix}<br>{scores}") + words(
        *_in_words(truth, p >= threshold, patients, now)
    )


def _percent(share: float) -> str:
    return "undefined" if np.isnan(share) else f"{share:.0%}"


def _in_words(truth, called, patients, now) -> list[str]:
    """Say what the counts mean, for images and, where it is known whose they are, for people."""
    said = [
        f"Of {truth.sum()} images of the ill, {now['missed']} are missed;",
        f"of {(~truth).sum()} images of the healthy, {now['alarms']} raise an alarm.",
    ]
    if patients is None:
        return said
    patients = np.asarray(patients)
    ill, alarmed = set(patients[truth]), set(patients[~truth & called])
    missed = ill - set(patients[truth & called])
    well = set(patients[~truth])
    return [
        *said,
        f"Of {len(ill)} ill patients, {len(missed)} are missed on every image;",
        f"of {len(well)} healthy ones, {len(alarmed)} are alarmed by at least one.",
    ]


def _static_threshold(truth, p, curve, note):
    from cxrlib.style import finish, heat_table, subplots

    now = rates(truth, p, 0.5)
    figure, (left, right) = subplots(1, 2, height=3.6)
    _draw_curve(left, curve, now, 0.5)
    counts = np.array([[now["spared"], now["alarms"]], [now["missed"], now["found"]]])
    heat_table(right, counts, counts, "")
    right.set_xticklabels(["called healthy", "called ill"])
    right.set_yticklabels(["healthy", "ill"])
    title = "The threshold 0.5 on the curve, and in counts of images"
    return finish(figure, title, f"{note}\n{MOVE_IT}".strip(), predictions=True)
