"""Random crop, horizontal flip and Gaussian noise with OpenCV (paper, section III.B).

Copies are made when they are read, each from a seed of its own (the image's name, the copy's
number), so they cost no memory and are the same whichever way the images are split later,
however many threads make them.
"""

from __future__ import annotations

import zlib
from functools import cache
from statistics import NormalDist

import cv2
import numpy as np
import pandas as pd

from cxrlib.cohort import Cohort, CohortError, Rows
from cxrlib.parallel import share

SMALLEST_CROP = 0.85  # share of the side that a random crop keeps at least
LARGEST_NOISE = 8.0  # standard deviation in grey levels that a copy gets at most


def crop(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Cut a random window out of an image, uint8 (height, width), and enlarge it to the old size.

    `share`, in (0, 1], is the side of the window as a share of the image's side; 1 changes
    nothing, and others are a ValueError.
    """
    if not 0 < share <= 1:
        raise ValueError(f"A crop keeps a share in (0, 1] of the side, not {share}.")
    height, width = image.shape
    new_height, new_width = max(1, round(height * share)), max(1, round(width * share))
    top = int(rng.integers(0, height - new_height + 1))
    left = int(rng.integers(0, width - new_width + 1))
    window = image[top : top + new_height, left : left + new_width]
    return cv2.resize(window, (width, height), interpolation=cv2.INTER_LINEAR)


def flip(image: np.ndarray) -> np.ndarray:
    """Mirror an image, left for right. The heart then lies on the wrong side."""
    return cv2.flip(image, 1)


def noise(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise, and cut off at black and white.

    Noise in whole grey levels takes few values, so it is looked up rather than computed: a
    normal distribution is cut into 65,536 equally likely parts, and each pixel gets the median
    of one of them by chance. The largest lies at 4.3 standard deviations.

    The image is uint8 (height, width); `sigma` is the standard deviation in grey levels (of
    255), and a negative one a ValueError.
    """
    if sigma < 0:
        raise ValueError(f"Noise has a standard deviation of 0 or more, not {sigma}.")
    levels = np.clip(np.rint(sigma * _normal_parts()), -255, 255).astype(np.int16)
    words = rng.integers(2**64 - 1, size=-(-image.size // 4), dtype=np.uint64, endpoint=True)
    chosen = words.view(np.uint16)[: image.size].reshape(image.shape)
    return cv2.add(image, levels.take(chosen), dtype=cv2.CV_8U)


@cache
def _normal_parts() -> np.ndarray:
    """Median of each of 65,536 equally likely parts of the normal distribution, float32."""
    middles = ((number + 0.5) / 2**16 for number in range(2**16))
    return np.fromiter(map(NormalDist().inv_cdf, middles), np.float32, 2**16)


def augment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make one random copy: a crop of 85 to 100 %, a flip half the time, noise up to sigma 8.

    The paper names the three operations, not their strengths; these are ours.
    """
    copy = crop(image, rng.uniform(SMALLEST_CROP, 1), rng)
    if rng.random() < 0.5:
        copy = flip(copy)
    return noise(copy, rng.uniform(0, LARGEST_NOISE), rng)


class Augmented:
    """Images followed by their augmented copies, made when read. Behaves as a read-only array."""

    def __init__(self, images: Rows, names, copies: int, seed: int):
        self.images, self.names, self.copies, self.seed = images, list(names), copies, seed
        self.dtype = np.dtype(np.uint8)
        self.shape = (len(images) * (copies + 1), *images.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key) -> np.ndarray:
        if np.ndim(key) == 0 and not isinstance(key, slice):
            return self._make(int(key))
        numbers = np.arange(len(self))[key]
        stack = np.empty((len(numbers), *self.shape[1:]), dtype=np.uint8)

        def fill(place):
            stack[place] = self._make(int(numbers[place]))

        share(fill, len(numbers))
        return stack

    def _make(self, number: int) -> np.ndarray:
        original, copy = divmod(number, self.copies + 1)
        image = self.images[original]
        if copy == 0:
            return image
        name = zlib.crc32(str(self.names[original]).encode())
        return augment(image, np.random.default_rng([self.seed, name, copy]))


def expand(cohort: Cohort, copies: int = 3, seed: int = 0) -> Cohort:
    """Add augmented copies to a cohort: every image is followed by its copies.

    Parameters
    ----------
    cohort : Cohort
        Originals only; copies of copies are refused.
    copies : int
        Copies of each image. 3 makes four of one: 12 test images become the 48 that the
        paper's Table I fits (see lesson 08 for how that is inferred).
    seed : int

    Returns
    -------
    Cohort
        ``copies + 1`` times as long, with the columns ``origin`` (name of the original) and
        ``copy`` (0 for the original). Masks are left behind: a crop or flip moves them.

    Raises
    ------
    CohortError
        If `copies` is negative or the cohort holds copies already.
    """
    if copies < 0:
        raise CohortError(f"The number of copies must be 0 or more, not {copies}.")
    if "copy" in cohort.table and (cohort.table["copy"] > 0).any():
        raise CohortError(f"{cohort.name} holds augmented copies already; expand the originals.")
    table = cohort.table.loc[cohort.table.index.repeat(copies + 1)].reset_index(drop=True)
    table["copy"] = np.tile(np.arange(copies + 1), len(cohort))
    suffix = table["copy"].map(lambda number: f"#{number}" if number else "")
    table["image"] = table["image"].astype(str) + pd.Series(suffix, index=table.index)
    images = Augmented(cohort.images, cohort.table["image"], copies, seed)
    return Cohort(table, images, cohort.name)
