"""How alike two films are, though one is framed, mirrored, inverted, stamped on, or cropped.

Chest films resemble each other, so brightness is not compared but what is left when the
surroundings are subtracted and their contrast divided out: ribs, vessels, catheters. Even frames
are cut off. Windows of each image, as they are and mirrored, are correlated with all other images
at 20 x 20 pixels, in the space of their principal components, and once more without those that
all films share; an inverted film has the opposite sign. The most similar ones are aligned at
64 x 64 (Evangelidis and Psarakis 2008, doi:10.1109/TPAMI.2008.113), and the best of these at
128 x 128, where squares of 16 x 16 are correlated one by one.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import pandas as pd

from cxrlib.compute import cluster, share

WORTH = 0.5  # correlation of thumbnails from which two images are worth aligning
NEIGHBOURS = 2  # images that each image is aligned with, at most
CLOSE, CLOSER = 0.45, 1  # correlation, and how many of the neighbours, for the last comparison
AXES, SHARED = 180, 10  # principal components to search in; those a second search leaves out
BLOCK = 512  # rows of the table of similarities in memory at once
PAIRS = 64  # that one task compares
THUMB, COARSE, FINE = 20, 64, 128  # pixels of a side: to search, to align, to compare
# Left, top and side, as shares of the film's, of windows that a copy may show
WINDOWS = [(0, 0, 1.0), (0.03, 0.03, 0.94), (0.08, 0.08, 0.84)]
WINDOWS += [(x, y, 0.94) for x in (0, 0.06) for y in (0, 0.06)]
WINDOWS += [(x, y, 0.87) for x in (0.01, 0.065, 0.12) for y in (0.01, 0.065, 0.12)]
STARTS = np.array([[[s, 0, COARSE * x], [0, s, COARSE * y]] for x, y, s in WINDOWS], np.float32)
EDGE = 0.04  # share of the side that is not searched: traces of frames
EVEN, FRAMED = 24, 0.7  # grey levels that a frame varies by; share of the side that it leaves
TOLD = 0.35  # share of squares that must tell something


def alike_pairs(small: np.ndarray, film) -> pd.DataFrame:
    """Find the most similar other images of each image, and say how similar they are.

    Parameters
    ----------
    small : array, uint8 (n, 64, 64), from :func:`shrink`
    film : function of a row and a side in pixels, which shrinks that image to it

    Returns
    -------
    DataFrame
        ``one`` and ``other`` (rows, the smaller first), ``similarity`` (up to 1), ``how``
        ('', 'mirrored', 'inverted' or both).
    """
    pairs = _worth_aligning(small)
    moves = STARTS[pairs["look"] % len(WINDOWS)]
    done = _each(_align_all, pairs, moves, lambda number: small[number])
    alike = np.concatenate([[], *(found for found, _ in done)])
    moves = np.concatenate([moves[:0], *(found for _, found in done)])
    closer = _closest(pairs, alike)
    pairs, moves = pairs.iloc[closer], moves[closer]
    moves[:, :, 2] *= FINE / COARSE
    large = lru_cache(PAIRS)(lambda number: film(number, FINE))
    alike = np.concatenate([[], *_each(_compare_all, pairs, moves, large)])
    turned = np.array(["", "mirrored", "inverted", "mirrored, inverted"])
    how = turned[(pairs["look"] >= len(WINDOWS)) + 2 * (pairs["value"] < 0)]
    one, other = np.sort(pairs[["one", "other"]], axis=1).T
    return pd.DataFrame({"one": one, "other": other, "similarity": alike, "how": how})


def shrink(image: np.ndarray, side: int) -> np.ndarray:
    """Cut off an even frame, and another one within it, and shrink what is left.

    The image is uint8 (height, width), the result uint8 (side, side).
    """
    for _ in range(2):
        other = cv2.absdiff(image, np.full_like(image, image[0, 0]))
        inside = cv2.erode(other, np.ones((3, 3))) > EVEN  # no single pixels, and no blurred edge
        left, top, width, height = cv2.boundingRect(inside.view(np.uint8))
        if width < FRAMED * image.shape[1] or height < FRAMED * image.shape[0]:
            break
        image = image[top : top + height, left : left + width]
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


def _detail(image: np.ndarray, sigma: float) -> np.ndarray:
    """Subtract the surroundings and divide their contrast out."""
    image = image.astype(np.float32)
    image = image - cv2.GaussianBlur(image, (0, 0), sigma)
    contrast = np.sqrt(cv2.GaussianBlur(image * image, (0, 0), sigma))
    return image / (contrast + 2)  # 2 grey levels: what JPEG makes of an even area is no detail


def _worth_aligning(small: np.ndarray) -> pd.DataFrame:
    """Choose pairs of which a window of ``other`` resembles the whole ``one``.

    ``look`` is the number of the window, or of the mirrored one when all windows are counted;
    ``value`` is the correlation, negative where one of the two is inverted. Blocks save memory.
    """
    starts = range(0, len(small), BLOCK)
    whole = np.concatenate([_describe(small[start : start + BLOCK])[0] for start in starts])
    axes = np.linalg.eigh(whole.T @ whole)[1][:, : -AXES - 1 : -1]  # the greatest first
    shared, found = min(SHARED, len(small) // 20), []
    whole = whole @ axes
    own = _own(whole, shared)
    for start in starts:
        looks = _describe(small[start : start + BLOCK], WINDOWS, mirrored=True) @ axes
        found.append(_nearest(looks, whole, start, NEIGHBOURS))
        found.append(_nearest(_own(looks, shared), own, start, 1))
    table = pd.concat(found).sort_values("value", key=np.abs, ascending=False, kind="stable")
    ends = pd.DataFrame(np.sort(table[["one", "other"]], axis=1))  # a pair can be found twice
    return table[~ends.duplicated().to_numpy()].sort_values(["one", "other"])


def _own(vectors: np.ndarray, shared: int) -> np.ndarray:
    """Take the first components from unit vectors, and make unit vectors of what is left."""
    left = 1 - (vectors[..., :shared] ** 2).sum(axis=-1, keepdims=True)
    return vectors[..., shared:] / np.sqrt(left.clip(0.01))


def _nearest(looks: np.ndarray, whole: np.ndarray, start: int, most: int) -> pd.DataFrame:
    """Find for each image of a block, which begins at `start`, those that it resembles most."""
    similar = np.zeros((looks.shape[1], len(whole)), np.float32)
    for look in looks:
        product = look @ whole.T
        np.maximum(similar, np.abs(product, out=product), out=similar)
    here = np.arange(len(similar))
    similar[here, start + here] = 0  # itself
    most = min(most, len(whole) - 1)
    ones = np.argpartition(-similar, most, axis=1)[:, :most]
    row, place = np.nonzero(np.take_along_axis(similar, ones, axis=1) >= WORTH)
    one = ones[row, place]
    signed = np.stack([np.einsum("nd,nd->n", look[row], whole[one]) for look in looks])
    look = np.abs(signed).argmax(axis=0)
    value = np.take_along_axis(signed, look[None], axis=0)[0]
    return pd.DataFrame({"one": one, "other": start + row, "look": look, "value": value})


def _describe(small: np.ndarray, windows=WINDOWS[:1], mirrored: bool = False) -> np.ndarray:
    """Reduce windows of each image, and of its mirror image, to unit vectors of its detail.

    The shape is (windows or twice as many, images, 400).
    """
    detail = np.array([_detail(each, 5).clip(-2.5, 2.5) for each in small])
    found = []
    for maps in (detail, detail[:, :, ::-1])[: 1 + mirrored]:
        for left, top, part in windows:
            along = part * np.linspace(EDGE, 1 - EDGE, THUMB + 1, dtype=np.float32)
            down, across = _averages(top + along), _averages(left + along)
            vectors = (down @ maps @ across.T).reshape(len(maps), -1)
            vectors -= vectors.mean(axis=1, keepdims=True)
            found.append(vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9))
    return np.stack(found)


def _averages(ends: np.ndarray) -> np.ndarray:
    """Weights of pixels in the sums between two neighbours of the given shares of a side."""
    return np.diff(np.clip(COARSE * ends[:, None] - np.arange(COARSE), 0, 1), axis=0)


def _closest(pairs, alike) -> np.ndarray:
    """Choose the rows of the pairs that are among the most similar ones of either image."""
    order = np.argsort(-alike, kind="stable")
    order = order[alike[order] >= CLOSE]
    ends = pairs[["one", "other"]].to_numpy()[order]
    rank = pd.Series(ends.ravel()).groupby(ends.ravel()).cumcount().to_numpy().reshape(-1, 2)
    return np.sort(order[(rank < CLOSER).any(axis=1)])


def _each(function, pairs, moves, film) -> np.ndarray:
    """Hand pairs of images, the second one turned like the first, to a function, some at a time.

    The images are made when their task is, so that no memory grows with the number of pairs.
    """
    mirrored = (pairs["look"] >= len(WINDOWS)).to_numpy()
    inverted = (pairs["value"] < 0).to_numpy()

    def task(start):
        some = slice(start, start + PAIRS)
        ones, others = (np.stack([film(n) for n in pairs[end][some]]) for end in ("one", "other"))
        others[mirrored[some]] = others[mirrored[some], :, ::-1]
        others[inverted[some]] ^= 255
        return ones, others, moves[some]

    tasks = map(task, range(0, len(pairs), PAIRS))
    return cluster.collect(function, tasks, "near-duplicates", progress=False)


def _align_all(ones, others, moves):
    """Align thumbnails; say how alike they are then, and how the second ones were moved."""
    alike, moves = np.empty(len(ones)), moves.copy()

    def align(number):
        one, other = ones[number], others[number]
        moves[number] = _align(one, other, moves[number])
        same, most = _squares(one, other, moves[number], sigma=1, side=8)
        alike[number] = np.mean(same / most) if same.size else -1

    share(align, len(ones))
    return alike, moves


def _compare_all(ones, others, moves) -> np.ndarray:
    found = np.empty(len(ones))

    def compare(number):
        found[number] = _similarity(ones[number], others[number], moves[number])

    share(compare, len(ones))
    return found


def _align(one: np.ndarray, other: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Find how the second of two images is moved, scaled and turned to fit the first."""
    rule = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
    maps = _detail(one, 4), _detail(other, 4)
    try:
        return cv2.findTransformECC(*maps, move.copy(), cv2.MOTION_AFFINE, rule, None, 5)[1]
    except cv2.error:  # nothing in common, so the alignment ran away
        return move


def _similarity(one: np.ndarray, other: np.ndarray, move: np.ndarray) -> float:
    """Compare two images in fine and in coarse detail, and take what is more alike.

    Noise and compression spare the coarse detail; a stamp, a frame or another contrast harms
    few squares, or none. The factors make the same of strangers in both.
    """
    move = _align(one, other, move)
    fine, most = _squares(one, other, move, sigma=2, side=16)
    half = (
        cv2.resize(each, (COARSE, COARSE), interpolation=cv2.INTER_AREA) for each in (one, other)
    )
    coarse, most_coarse = _squares(*half, move * [1, 1, COARSE / FINE], sigma=4, side=8)
    if min(len(fine), len(coarse)) < TOLD * (FINE / 16) ** 2:
        return -1.0
    apart = 0.355 * (1 - np.mean(fine / most)), 2.6 * (1 - coarse.sum() / most_coarse.sum())
    return float(1 - min(apart))


def _squares(one: np.ndarray, other: np.ndarray, move: np.ndarray, sigma: float, side: int):
    """Covariance of detail in each square, and the largest that there could be there."""
    one, other = _detail(one, sigma), _detail(other, sigma)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    shown = cv2.warpAffine(np.ones_like(other), move, one.shape, flags=how)
    other = cv2.warpAffine(other, move, one.shape, flags=how)

    def mean(values):
        return cv2.resize(values, None, fx=1 / side, fy=1 / side, interpolation=cv2.INTER_AREA)

    first, second = mean(one), mean(other)
    spreads = mean(one * one) - first**2, mean(other * other) - second**2
    told = (mean(shown) > 0.9) & (np.minimum(*spreads) > 0.1)  # an even square tells nothing
    same = (mean(one * other) - first * second)[told]
    return same, np.sqrt(spreads[0][told] * spreads[1][told])
