"""Explorers: move something, and see what it does. The notebooks call them as ``widgets.NAME``.

Here is augmentation; the others are in ``thresholdwidget``, ``phantomwidget`` and
``predictionwidget`` (with ``uploads``), what all share is in ``explorer``. Where nobody is there
to move anything (see ``frontend``), each gives a figure instead. They work with ipywidgets 7,
which Colab has, and 8.
"""

from __future__ import annotations

import numpy as np

from cxrlib import augment
from cxrlib.explorer import (
    MOVE_IT,
    beside,
    explorer,
    is_movable,
    options,
    picture,
    words,
)
from cxrlib.phantomwidget import anatomy, knob, phantoms
from cxrlib.predictionwidget import newest_models, prediction
from cxrlib.thresholdwidget import threshold

__all__ = [
    "anatomy",
    "augmentation",
    "knob",
    "newest_models",
    "phantoms",
    "prediction",
    "threshold",
]
STRONGEST_NOISE = 64  # grey levels; lesson 2 shows noise up to this


def augmentation(image: np.ndarray, note: str = ""):
    """Crop, flip and add noise with sliders, beside the original.

    Parameters
    ----------
    image : ndarray, shape (height, width), uint8
    note : str
        What the reader must know about the image, such as "Synthetic images (phantoms).".

    Returns
    -------
    ipywidgets.VBox, or a matplotlib figure where nobody can move it
        Its controls are share, flip, sigma and seed.
    """
    usual = {"share": augment.SMALLEST_CROP, "flip": True, "sigma": 8, "seed": 0}
    if not is_movable():
        from cxrlib import plots

        both = [image, altered(image, **usual)]
        titles = ["original", "cropped, flipped, noisy"]
        return plots.image_grid(both, titles, columns=2, note=f"{note} {MOVE_IT}".strip())
    import ipywidgets

    controls = {
        "share": ipywidgets.FloatSlider(
            usual["share"], min=0.5, max=1, step=0.05, **options("share of the side")
        ),
        "flip": ipywidgets.Checkbox(usual["flip"], **options("flip")),
        "sigma": ipywidgets.IntSlider(
            usual["sigma"], min=0, max=STRONGEST_NOISE, step=2, **options("noise, sigma")
        ),
        "seed": ipywidgets.IntSlider(usual["seed"], min=0, max=20, **options("seed")),
    }
    return explorer(controls, lambda **values: _show_copy(image, note, **values))


def altered(image: np.ndarray, share: float, flip: bool, sigma: float, seed: int) -> np.ndarray:
    """Make one copy, in the order of :func:`cxrlib.augment.augment`: crop, flip, noise."""
    rng = np.random.default_rng(seed)
    copy = augment.crop(image, share, rng)
    if flip:
        copy = augment.flip(copy)
    return augment.noise(copy, sigma, rng)


def _show_copy(image, note, share, flip, sigma, seed) -> str:
    copy = altered(image, share, flip, sigma, seed)
    apart = np.abs(copy.astype(int) - image).mean()
    mirrored = "mirrored" if flip else "not mirrored"
    what = f"{share**2:.0%} of the area, {mirrored}, noise of {sigma} grey levels"
    return beside(
        picture(image, "The original film.", "original"),
        picture(copy, f"The same film changed: {what}.", f"copy: {what}"),
        wrap=False,  # to compare, both must be in sight, also on a phone
    ) + words(f"On average a pixel is {apart:.1f} grey levels from the original.", note)
