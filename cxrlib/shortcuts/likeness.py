"""How alike two films are, though people or programs may have changed one of them.

Chest films resemble each other, so brightness is not compared but what is left when the
surroundings are subtracted and their contrast divided out: ribs, vessels, catheters.
"""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd

from cxrlib.machine import one_thread
from cxrlib.parallel import share

ALIKE = 0.92  # similarity of two aligned films from which they are one film
# Distances, as 1 less than a correlation, that make a similarity of 0.92: of the middle square,
# of the squares' mean, of all coarse detail, and of that without what all films share.
MIDDLE, MEAN, COARSELY, OWN = 0.12, 0.2, 0.06, 0.18
NEAR = 0.87  # similarity from which it is worth aligning films once more
# Correlation of thumbnails from which two films are worth comparing: in their places, in windows
WORTH, WORTH_ALIGNING = 0.4, 0.5
NEIGHBOURS = 2  # films that each film is aligned with, at most, in each of two searches
BLOCK = 64  # rows of the table of similarities in memory at once
SHARED, SHARED_OWN = 8, 40  # principal components, what all films share: to search, to compare
THUMB, OWN_SIDE, COARSE, FINE = 16, 32, 64, 128  # pixels of a side
# Left, top and side, as shares of the film's, of windows that a copy may show
WINDOWS = [(0, 0, 1.0), (0.03, 0.03, 0.94), (0.07, 0.07, 0.86)]
WINDOWS += [(x, y, 0.95) for x in (0, 0.05) for y in (0, 0.05)]
WINDOWS += [(x, y, 0.88) for x in (0, 0.06, 0.12) for y in (0, 0.06, 0.12)]
EDGE = 0.04  # share of the side that is not searched: traces of frames
EVEN, FRAMED = 24, 0.7  # grey levels that a frame varies by; share of the side that it leaves
TOLD = 0.25  # share of squares that must tell something


def see(image: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Shrink a film, uint8 (height, width), and put its reflection where it has an even frame.

    Returns the square, uint8 (side, side), and where it is no frame: left, top, right and bottom
    in pixels, int (4,).
    """
    height, width = image.shape
    left, top, right, bottom = 0, 0, width, height
    for _ in range(2):  # a frame within a frame
        inside = cv2.blur(image[top:bottom, left:right], (3, 3))
        told = cv2.absdiff(inside, np.full_like(inside, inside[0, 0])) > EVEN
        x, y, wide, high = cv2.boundingRect(told.view(np.uint8))
        if wide < FRAMED * (right - left) or high < FRAMED * (bottom - top):
            break
        # Smoothing widens the film by a pixel where a frame is cut off.
        right -= (right - left - x - wide) + (x + wide < right - left)
        bottom -= (bottom - top - y - high) + (y + high < bottom - top)
        left, top = left + x + (x > 0), top + y + (y > 0)
    frame = top, height - bottom, left, width - right
    filled = cv2.copyMakeBorder(image[top:bottom, left:right], *frame, cv2.BORDER_REFLECT)
    scale = side / np.array([width, height])
    box = np.append(np.ceil(scale * (left, top)), np.floor(scale * (right, bottom)))
    return cv2.resize(filled, (side, side), interpolation=cv2.INTER_AREA), box.astype(int)


def detail(image: np.ndarray, sigma: float) -> np.ndarray:
    """Subtract the surroundings and divide their contrast out: float32 (height, width)."""
    image = image.astype(np.float32)
    image = image - cv2.GaussianBlur(image, (0, 0), sigma)
    contrast = np.sqrt(cv2.GaussianBlur(image * image, (0, 0), sigma))
    return image / (contrast + 2)  # 2 grey levels: what JPEG makes of an even area is no detail


def candidates(small: np.ndarray, boxes: np.ndarray, numbers: np.ndarray) -> pd.DataFrame:
    """Choose pairs of films that are worth aligning, as thumbnails of their detail tell.

    Films are compared place by place, and windows of each with the whole of all others: without
    what all films share, because windows are many and some of strangers' fit by chance.

    Parameters
    ----------
    small, boxes : ndarray
        What :func:`see` gave at the side COARSE: uint8 (n, 64, 64) and int (n, 4).
    numbers : ndarray
        Of the films to compare, int (m,).

    Returns
    -------
    DataFrame
        ``one``, ``other``: numbers of the films; ``mirrored``, ``inverted``: whether ``other`` is;
        ``window``: what it shows, a number in WINDOWS, or -1 for all of it in its place.
    """
    begins = range(0, len(numbers), BLOCK)
    parts = [numbers[start : start + BLOCK] for start in begins]
    told = _told(boxes[numbers])
    whole = np.concatenate([_thumbs(_maps(small[part]), WINDOWS[0]) for part in parts])
    placed = whole * told
    energy = placed**2
    most = min(SHARED, len(numbers) // 20)
    shared = np.linalg.eigh(whole.T @ whole)[1][:, THUMB**2 - most :]
    for start in begins:
        whole[start : start + BLOCK] = _without(whole[start : start + BLOCK], shared)
    found = [pd.DataFrame()] * len(parts)

    def search(block):
        start, part = begins[block], parts[block]
        as_it_is = _maps(small[part]), boxes[part]
        looks = [as_it_is, mirror(*as_it_is)]
        in_place = (
            _masked(_thumbs(maps, WINDOWS[0]), _told(inside), placed, energy, told)
            for maps, inside in looks
        )
        in_windows = (
            _without(_thumbs(maps, window), shared) @ whole.T
            for maps, _ in looks
            for window in WINDOWS
        )
        alike = _nearest(in_place, start, WORTH).assign(window=-1)
        fits = _nearest(in_windows, start, WORTH_ALIGNING)
        fits = fits.assign(window=fits["look"] % len(WINDOWS), look=fits["look"] // len(WINDOWS))
        found[block] = pd.concat([alike, fits])

    with one_thread():
        share(search, len(parts))
    pairs = pd.concat(found, ignore_index=True)
    ends = pd.DataFrame(np.sort(pairs[["one", "other"]], axis=1)).assign(w=pairs["window"] < 0)
    pairs = pairs[~ends.duplicated()].sort_values(["one", "other", "window"], ignore_index=True)
    pairs[["one", "other"]] = numbers[pairs[["one", "other"]].to_numpy()]
    return pairs.assign(mirrored=pairs["look"] == 1, inverted=pairs["value"] < 0)


def mirror(films: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mirror films of shape (n, side, side), left for right, and the boxes of what they show."""
    turned = boxes.copy()
    turned[:, [0, 2]] = films.shape[-1] - boxes[:, [2, 0]]
    return films[:, :, ::-1], turned


def starts(pairs: pd.DataFrame) -> np.ndarray:
    """Say how each pair lies before it is aligned, as its window tells: float32 (m, 2, 3).

    The matrices bring places in ``one`` to those in ``other``, both seen at the side COARSE.
    """
    windows = np.array([*WINDOWS, WINDOWS[0]])[pairs["window"]]
    moves = np.zeros((len(pairs), 2, 3), np.float32)
    moves[:, 0, 0] = moves[:, 1, 1] = windows[:, 2]
    moves[:, :, 2] = COARSE * windows[:, :2]
    return moves


def align_all(ones, one_boxes, others, other_boxes, moves, in_place):
    """Align thumbnails that are not `in_place`; say how alike they are then, and how they lie."""
    alike, moves = np.empty(len(ones)), moves.copy()

    def align(number):
        pair = ones[number], one_boxes[number], others[number], other_boxes[number]
        if not in_place[number]:
            moves[number] = _align(*pair, moves[number])
        same, most = _squares(*pair, moves[number], sigma=1, side=8)
        alike[number] = np.median(same / most) if same.size else -1

    share(align, len(ones))
    return alike, moves


def compare_all(ones, one_boxes, others, other_boxes, moves, in_place, shared) -> np.ndarray:
    """Compare films seen at the side FINE, aligned once more where it is worth it: similarities."""
    found = np.empty(len(ones))

    def compare(number):
        pair = ones[number], one_boxes[number], others[number], other_boxes[number]
        found[number] = _similarity(*pair, moves[number], shared)
        if NEAR < found[number] < ALIKE and not in_place[number]:
            better = _similarity(*pair, _align(*pair, moves[number]), shared)
            found[number] = max(found[number], better)

    share(compare, len(ones))
    return found


def _told(boxes: np.ndarray) -> np.ndarray:
    """Say which points of the thumbnails lie within the boxes: float32 (n, THUMB * THUMB)."""
    points = COARSE * (EDGE + (1 - 2 * EDGE) * (np.arange(THUMB) + 0.5) / THUMB)
    inside = [
        (points > boxes[:, axis, None]) & (points < boxes[:, axis + 2, None]) for axis in (0, 1)
    ]
    across, down = inside
    return (down[:, :, None] & across[:, None]).reshape(len(boxes), -1).astype(np.float32)


def _maps(films: np.ndarray) -> np.ndarray:
    return np.array([detail(film, 5).clip(-2.5, 2.5) for film in films])


def _thumbs(maps: np.ndarray, window) -> np.ndarray:
    """Reduce a window of each film to a unit vector, (n, THUMB * THUMB)."""
    left, top, part = window
    along = part * np.linspace(EDGE, 1 - EDGE, THUMB + 1, dtype=np.float32)
    down, across = _averages(top + along), _averages(left + along)
    vectors = (down @ maps @ across.T).reshape(len(maps), -1)
    vectors -= vectors.mean(axis=1, keepdims=True)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)


def _averages(ends: np.ndarray) -> np.ndarray:
    """Weights of pixels in the sums between two neighbours of the given shares of a side."""
    return np.diff(np.clip(COARSE * ends[:, None] - np.arange(COARSE), 0, 1), axis=0)


def _without(vectors: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Take out what the films share most, their principal components, and rescale."""
    left = vectors - (vectors @ shared) @ shared.T
    return left / np.linalg.norm(left, axis=-1, keepdims=True).clip(0.2)


def _masked(films, told, others, others_energy, others_told) -> np.ndarray:
    """Correlate films with all others where neither has a frame."""
    films = films * told
    sizes = (films**2 @ others_told.T) * (told @ others_energy.T)
    return films @ others.T / np.sqrt(sizes).clip(1e-9)


def _nearest(products, start: int, worth: float) -> pd.DataFrame:
    """Find for each film of a block, which begins at `start`, those that it resembles most.

    Each product holds the correlations of one look at the films with all others.
    """
    best = next(products)
    look = np.zeros(best.shape, np.int8)
    for number, product in enumerate(products, 1):
        better = np.abs(product) > np.abs(best)
        np.copyto(best, product, where=better)
        look[better] = number
    here = np.arange(len(best))
    best[here, start + here] = 0  # itself
    most = min(NEIGHBOURS, best.shape[1] - 1)
    ones = np.argpartition(-np.abs(best), most, axis=1)[:, :most]
    row, place = np.nonzero(np.abs(np.take_along_axis(best, ones, axis=1)) >= worth)
    one = ones[row, place]
    value, look = best[row, one], look[row, one].astype(int)
    return pd.DataFrame({"one": one, "other": start + row, "look": look, "value": value})


def _align(one, box, other, other_box, given: np.ndarray) -> np.ndarray:
    """Find how the second of two films is moved, scaled and turned to fit the first.

    Evangelidis and Psarakis 2008, doi:10.1109/TPAMI.2008.113.
    """
    rule = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 1e-3)
    shown, there = _cut(detail(one, 4), box), detail(other, 4)
    move = _shifted(given, box[:2])
    try:
        _, move = cv2.findTransformECC(
            shown, there, move, cv2.MOTION_AFFINE, rule, _mask(other, other_box), 5
        )
    except cv2.error:
        return given  # nothing in common, so the alignment ran away
    return _shifted(move, -box[:2])


def _shifted(move: np.ndarray, by) -> np.ndarray:
    """Move the origin of the places that a matrix begins with."""
    return np.column_stack([move[:, :2], move[:, 2] + move[:, :2] @ by]).astype(np.float32)


def _mask(film, box) -> np.ndarray:
    """Mark the box: uint8, 1 within and 0 elsewhere."""
    mask = np.zeros(film.shape, np.uint8)
    _cut(mask, box)[:] = 1
    return mask


def _cut(image, box) -> np.ndarray:
    left, top, right, bottom = box
    return image[top:bottom, left:right]


def _similarity(one, box, other, other_box, move: np.ndarray, shared: np.ndarray) -> float:
    """Compare two films in fine and in coarse detail, and take what is more alike.

    Noise and compression spare the coarse detail; a stamp, a frame or another contrast harms
    few squares. Which distances count as much as each other was found among strangers.
    """
    same, most = _squares(one, box, other, other_box, move, sigma=2, side=16)
    if len(same) < TOLD * (FINE / 16) ** 2:
        return -1.0
    fine = min((1 - np.median(same / most)) / MIDDLE, (1 - np.mean(same / most)) / MEAN)
    half = {"fx": 0.5, "fy": 0.5, "interpolation": cv2.INTER_AREA}
    one, other = (cv2.resize(film, None, **half) for film in (one, other))
    box, other_box = (np.append(-(-each[:2] // 2), each[2:] // 2) for each in (box, other_box))
    pair = one, box, other, other_box, (move * [1, 1, 0.5]).astype(np.float32)
    same, most = _squares(*pair, sigma=4, side=8)
    coarse = (1 - same.sum() / most.sum()) / COARSELY if same.size else np.inf
    if coarse < min(fine, 1.5):  # else they are strangers, and the rest takes its time
        coarse = max(coarse, (1 - _own(*pair, shared)) / OWN)
    return float(1 - (1 - ALIKE) * min(fine, coarse))


def _own(one, box, other, other_box, move, shared: np.ndarray) -> float:
    """Correlate coarse detail without what all films share, at the places that both show."""
    detail_of_both, shown = _together(one, other, other_box, move, sigma=3)
    small = [_small(each.clip(-2.5, 2.5)) for each in detail_of_both]
    told = _small(shown * _mask(one, box)) > 0.9
    shared = np.column_stack([np.ones(told.sum()), shared[told]])
    both = np.stack([each[told] for each in small], axis=1)
    ridge = 1e-3 * np.eye(shared.shape[1])  # few places that both show might not tell all apart
    left = both - shared @ np.linalg.solve(shared.T @ shared + ridge, shared.T @ both)
    return np.corrcoef(left.T)[0, 1]


def shared_by_all(small: np.ndarray) -> np.ndarray:
    """Find what the detail of all films shares: principal components, (OWN_SIDE ** 2, <= 40)."""
    seen = np.array([_small(detail(film, 3).clip(-2.5, 2.5)) for film in small])
    turned = seen.reshape(-1, OWN_SIDE, OWN_SIDE)[:, :, ::-1].reshape(seen.shape)
    seen = np.concatenate([seen, turned])  # of two films either one can be the mirrored one
    seen -= seen.mean(axis=1, keepdims=True)
    most = min(SHARED_OWN, len(small) // 5)
    return np.linalg.eigh(seen.T @ seen)[1][:, OWN_SIDE**2 - most :]


def _small(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (OWN_SIDE, OWN_SIDE), interpolation=cv2.INTER_AREA).ravel()


def _squares(one, box, other, other_box, move, sigma: float, side: int):
    """Covariance of detail in each square, and the largest that there could be there."""
    both, shown = _together(one, other, other_box, move, sigma)
    one, there, shown = (_cut(each, box) for each in (*both, shown))

    def mean(values):
        return cv2.resize(values, None, fx=1 / side, fy=1 / side, interpolation=cv2.INTER_AREA)

    first, second = mean(one), mean(there)
    spreads = mean(one * one) - first**2, mean(there * there) - second**2
    told = (mean(shown) > 0.9) & (np.minimum(*spreads) > 0.1)  # an even square tells nothing
    same = (mean(one * there) - first * second)[told]
    return same, np.sqrt(spreads[0][told] * spreads[1][told])


def _together(one, other, other_box, move, sigma: float):
    """Detail of two films, the second one moved like the first, and what it shows there."""
    how = {"dsize": one.shape[::-1], "flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP}
    shown = cv2.warpAffine(_mask(other, other_box).astype(np.float32), move, **how)
    return (detail(one, sigma), cv2.warpAffine(detail(other, sigma), move, **how)), shown
