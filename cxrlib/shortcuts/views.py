"""What a probe may see of an image: all of it, or only what says nothing about the lungs.

A radiograph is more than lungs: it has edges, corners, markers, a grey scale, a file format.
If a view without lungs tells the classes apart, so can a network, and its score need not be
about the disease (DeGrave et al. 2021, doi:10.1038/s42256-021-00338-7; Maguolo and Nanni 2021,
doi:10.1016/j.inffus.2021.04.008, covered the lungs as is done here).
"""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd

CELLS = 24  # an image is divided into CELLS x CELLS squares; all views are made of whole squares
FRAME = 2  # squares at each side that stay when the lungs are covered (8 % of the side)
CORNER = 3  # side of a corner in squares (12 %)
BINS = 32  # of the grey histogram
#: What a classifier is shown: the name of each view, and what it is.
VIEWS = {
    "whole image": "all of the image",
    "lungs covered": "the outer 8 % of each side; the centre, with the lungs, is black",
    "border": "the outer 4 % of each side",
    "corners": "a square of 12 % of the side in each corner",
    "thumbnail": "8 x 8 grey values",
    "histogram": f"how often each of {BINS} grey levels occurs; no places",
    "file": "format, height and width of the file; not one pixel",
}
WITHOUT_LUNGS = ("lungs covered", "border", "corners", "file")
FACTS = ("format", "height", "width")  # columns on files
BLOCK = 256  # images in memory at once


class ShortcutError(ValueError):
    """An experiment of this room that cannot be made as asked; it says why."""


def visible(view: str, side: int) -> np.ndarray:
    """Tell which pixels of a square image a view leaves: bool, shape (side, side)."""
    pixel = np.arange(side)
    edge = np.minimum(pixel, side - 1 - pixel) * CELLS // side  # squares from the nearest edge
    down, across = edge[:, None], edge[None, :]
    shown = {
        "lungs covered": (down < FRAME) | (across < FRAME),
        "border": (down < 1) | (across < 1),
        "corners": (down < CORNER) & (across < CORNER),
    }
    if view not in VIEWS:
        raise ShortcutError(f"There is no view {view!r}; there are {', '.join(VIEWS)}.")
    return shown.get(view, np.ones((side, side), dtype=bool))


def cover(images, view: str) -> np.ndarray:
    """Blacken what a view hides of images, shape (n, side, side), uint8."""
    images = np.asarray(images)
    return np.where(visible(view, images.shape[-1]), images, 0).astype(np.uint8)


def features(cohort, view: str = "whole image", extract=None) -> np.ndarray:
    """Describe each image of a cohort by what a view shows of it: (n, d), float32.

    Parameters
    ----------
    cohort : Cohort
    view : str
        A key of :data:`VIEWS`. Without a network, images are described by the brightness and the
        fine detail of each square that it leaves.
    extract : callable, optional
        From images (n, side, side) uint8 to features (n, d): a frozen backbone, as
        :func:`extractor` gives it. It sees whole and covered images only.

    Raises
    ------
    ShortcutError
        If there is no such view, or the table does not know the files' sizes.
    """
    shown = visible(view, cohort.images.shape[-1])
    if view == "file":
        return _file_facts(cohort)
    pixels = view not in ("thumbnail", "histogram")
    if extract is not None and pixels:
        return np.asarray(extract(_Covered(cohort.images, view)), dtype=np.float32)
    describe = {"thumbnail": _thumbnail, "histogram": _histogram}.get(view, _squares)
    found = [
        describe(image)
        for start in range(0, len(cohort), BLOCK)
        for image in cover(cohort.images[start : start + BLOCK], view)
    ]
    found = np.stack(found).astype(np.float32)
    if not pixels:
        return found
    kept = _shrink(shown.astype(np.uint8) * 255, CELLS).ravel() > 127
    return found[:, np.concatenate([kept, kept])]


class _Covered:
    """Images with a view's hidden part blackened, made only when they are asked for."""

    def __init__(self, images, view):
        self.images, self.view = images, view

    def __len__(self):
        return len(self.images)

    def __getitem__(self, key):
        return cover(self.images[key], self.view)


def _shrink(image: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


def _squares(image: np.ndarray) -> np.ndarray:
    """Mean brightness and mean fine detail of each square; what lies in one stays in it."""
    side = len(image) // CELLS * CELLS or CELLS
    image = _shrink(image, side).astype(np.float32) if side != len(image) else image.astype("f4")
    cells = image.reshape(CELLS, side // CELLS, CELLS, side // CELLS).swapaxes(1, 2)
    steps = np.abs(np.diff(cells, axis=2)).mean(axis=(2, 3))
    steps = steps + np.abs(np.diff(cells, axis=3)).mean(axis=(2, 3))
    return np.concatenate([cells.mean(axis=(2, 3)).ravel(), np.log1p(steps).ravel()])


def _thumbnail(image: np.ndarray) -> np.ndarray:
    return _shrink(image, 8).ravel()


def _histogram(image: np.ndarray) -> np.ndarray:
    counts = np.bincount(image.ravel() // (256 // BINS), minlength=BINS)
    return np.sqrt(counts / image.size)


def _file_facts(cohort) -> np.ndarray:
    """Format (one column each), and the logarithms of height and width."""
    lacking = [name for name in FACTS if name not in cohort.table]
    if lacking:
        raise ShortcutError(f"{cohort.name}: the table lacks {', '.join(lacking)} of the files.")
    sizes = np.log(cohort.table[["height", "width"]].to_numpy(dtype=np.float32))
    formats = pd.get_dummies(cohort.table["format"]).to_numpy(dtype=np.float32)
    return np.hstack([sizes, formats])


def extractor(name: str | None, weights: str = "auto"):
    """Prepare a frozen backbone for :func:`features`, with what is known of its weights.

    `name` is a class of ``keras.applications``, `weights` as in :func:`cxrlib.backbone.features`;
    without a name both results are None.
    """
    if not name:
        return None, None
    from functools import partial

    from cxrlib import backbone

    found = backbone.find_weights(name, weights)
    return partial(backbone.features, name=name, weights=found), found
