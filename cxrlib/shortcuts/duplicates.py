"""Films and patients that occur more than once."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import cv2
import numpy as np
import pandas as pd

from cxrlib.cohort import Cohort
from cxrlib.compute import cluster

ALIKE = 0.92  # similarity from which two images are one film
WORTH = 0.6  # correlation of thumbnails from which two images are worth aligning
NEIGHBOURS = 3  # images that each image is aligned with, at most
CLOSE, CLOSER = 0.4, 1  # from which such correlation, and how many of them are compared closely
BLOCK = 512  # rows of the table of similarities in memory at once
PAIRS = 64  # that one task aligns
THUMB, COARSE, FINE = 20, 64, 128  # pixels of a side: to search, to align, to compare
FINE_SHARE, COARSE_SHARE = 0.3, 1.25
FEWEST = 22
EVEN, FRAMED = 24, 0.7  # grey levels that a frame may vary by; share of the side that it leaves
# Left, top and side, as shares of a film's side, of windows that a copy may show
WINDOWS = [(0, 0, 1.0), (0.03, 0.03, 0.94), (0.08, 0.08, 0.84)]
WINDOWS += [(x, y, 0.94) for x in (0, 0.06) for y in (0, 0.06)]
WINDOWS += [(x, y, 0.87) for x in (0.01, 0.065, 0.12) for y in (0.01, 0.065, 0.12)]
EDGE = 0.04  # of the side that is not searched, for there remain traces of frames
STARTS = np.array([[[s, 0, COARSE * x], [0, s, COARSE * y]] for x, y, s in WINDOWS], np.float32)


def near_duplicates(cohort, threshold: float = ALIKE) -> pd.DataFrame:
    """Find images that are the same film: recompressed, resized, brighter, slightly cropped.

    Chest films resemble each other, so brightness is not compared but what is left when the
    surroundings are subtracted and their contrast divided out: ribs, vessels, catheters. Each
    image is compared with all others as a thumbnail of 32 x 32 pixels, then aligned with the
    few most similar ones at 64 x 64 (Evangelidis and Psarakis 2008, doi:10.1109/TPAMI.2008.113).
    A mirrored film, or one cropped by more than about 5 % of the side, is not found.

    Parameters
    ----------
    cohort : Cohort
    threshold : float
        Correlation of the aligned images from which they count as one film. Different patients
        reach 0.91 among phantoms, whose bones and vessels have one shape, and stay under 0.7
        among real films: there, 0.8 finds more crops and no more mistakes.

    Returns
    -------
    DataFrame
        A row a pair, most similar first: ``image``, ``other``, ``similarity`` (1 where exact),
        ``same patient``, ``same label`` (NA where unknown), ``exact`` (identical pixels). Of
        several identical images each is paired with the first of them only.
    """
    small, first = _reduce(cohort)
    unique = np.flatnonzero(first == np.arange(len(first)))
    pairs = _worth_aligning(small[unique])
    pairs[["one", "other"]] = unique[pairs[["one", "other"]].to_numpy()]
    moves = STARTS[pairs["look"] % len(WINDOWS)]
    alike, moves = _each(_align_all, pairs, moves, lambda number: small[number])
    closer = _closest(pairs, alike)
    pairs, moves = pairs.iloc[closer], moves[closer]
    moves[:, :, 2] *= FINE / COARSE
    film = lru_cache(PAIRS)(lambda number: _shrink(cohort.images[number], FINE))
    (alike,) = _each(_compare_all, pairs, moves, film)
    found = pairs.assign(similarity=alike, exact=False)
    copies = np.setdiff1d(np.arange(len(first)), unique)
    exact = pd.DataFrame({"one": first[copies], "other": copies, "similarity": 1.0, "exact": True})
    found = pd.concat([exact, found[found["similarity"] >= threshold]])
    found = found.sort_values(["similarity", "one", "other"], ascending=[False, True, True])
    one, other = (cohort.table.iloc[found.pop(side)] for side in ("one", "other"))
    one, other, found = (each.reset_index(drop=True) for each in (one, other, found))
    found.insert(0, "image", one["image"])
    found.insert(1, "other", other["image"])
    for place, column in ((3, "patient"), (4, "label")):
        same = (one[column] == other[column]).astype("boolean")
        found.insert(place, f"same {column}", same.mask(one[column].isna() | other[column].isna()))
    return found


def patients_in_two_classes(cohort) -> pd.DataFrame:
    """List patients whose images have several labels: ``patient``, ``labels``, ``images``.

    It can be true (a disease comes and goes) or a mistake; a split by patient keeps either safe.
    """
    known = cohort.table.dropna(subset=["patient", "label"])
    grouped = known.groupby("patient", sort=True)["label"]
    table = grouped.agg(labels=lambda found: ", ".join(sorted(set(found))), images="size")
    return table[grouped.nunique() > 1].reset_index()


def split_overlap(cohort, pairs: pd.DataFrame) -> pd.DataFrame:
    """Find what stands on two sides of the split that the table's column ``split`` names.

    `pairs` are what :func:`near_duplicates` found. The columns are ``kind`` ('patient', 'origin'
    or 'near-duplicate'), ``name``, ``sides``, ``images``.
    """
    side = cohort.table.set_index("image")["split"]
    groups = [
        (kind, name, found)
        for kind in ("patient", "origin")
        for name, found in cohort.table.groupby(kind)["split"]
    ]
    for one, other in zip(pairs["image"], pairs["other"], strict=True):
        groups.append(("near-duplicate", f"{one} ~ {other}", side[[one, other]]))
    rows = [
        (kind, name, ", ".join(sorted(map(str, set(found.dropna())))), len(found))
        for kind, name, found in groups
        if found.nunique() > 1
    ]
    return pd.DataFrame(rows, columns=["kind", "name", "sides", "images"])


def together(cohort, pairs: pd.DataFrame):
    """Give images that are copies of each other one patient, so that no fold divides them.

    `pairs` are what :func:`near_duplicates` found. In the new cohort only patients' names differ.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    patients, names = pd.factorize(cohort.table["patient"])
    of_image = dict(zip(cohort.table["image"], patients, strict=True))
    first = pairs["image"].map(of_image).to_numpy(dtype=int)
    second = pairs["other"].map(of_image).to_numpy(dtype=int)
    links = coo_matrix((np.ones(len(pairs)), (first, second)), shape=(len(names), len(names)))
    _, group = connected_components(links, directed=False)
    leader = names[pd.Series(group).drop_duplicates().index]
    table = cohort.table.assign(patient=leader[group[patients]])
    return Cohort(table, cohort.images, cohort.name, cohort.masks)


def _reduce(cohort) -> tuple[np.ndarray, np.ndarray]:
    """Shrink the images to 64 x 64, and number for each the first one with the same pixels."""
    small, seen = np.empty((len(cohort), COARSE, COARSE), dtype=np.uint8), {}
    first = np.empty(len(cohort), dtype=np.int64)
    for number in range(len(cohort)):
        image = np.ascontiguousarray(cohort.images[number])
        small[number] = _shrink(image, COARSE)
        first[number] = seen.setdefault(hashlib.sha256(image).digest(), number)
    return small, first


def _shrink(image: np.ndarray, side: int) -> np.ndarray:
    """Cut off an even frame, and another one within it, and shrink what is left."""
    for _ in range(2):
        smooth = cv2.blur(image, (3, 3))
        inside = cv2.absdiff(smooth, np.full_like(smooth, smooth[0, 0])) > EVEN
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


def _describe(detail: np.ndarray, left: float, top: float, share: float) -> np.ndarray:
    """Reduce a window of each map of detail, shape (n, 64, 64), to a unit vector, (n, 576)."""

    def average(start):
        ends = COARSE * (start + share * np.linspace(EDGE, 1 - EDGE, THUMB + 1, dtype=np.float32))
        return np.diff(np.clip(ends[:, None] - np.arange(COARSE, dtype=np.float32), 0, 1), axis=0)

    found = (average(top) @ detail @ average(left).T).reshape(len(detail), -1)
    found -= found.mean(axis=1, keepdims=True)
    return found / np.linalg.norm(found, axis=1, keepdims=True).clip(1e-9)


def _worth_aligning(small: np.ndarray) -> pd.DataFrame:
    """Choose pairs: a window of ``other``, perhaps mirrored, perhaps inverted, resembles ``one``.

    In blocks, to save memory.
    """
    detail = np.array([_detail(each, 5).clip(-2.5, 2.5) for each in small])
    whole, found = _describe(detail, *WINDOWS[0]), []
    nearest = min(NEIGHBOURS, len(small) - 1)
    for start in range(0, len(small), BLOCK):
        block = detail[start : start + BLOCK]
        turned = (block, block[:, :, ::-1])
        looks = [_describe(each, *window) for each in turned for window in WINDOWS]
        similar = np.zeros((len(block), len(small)), np.float32)
        for look in looks:
            np.maximum(similar, np.abs(look @ whole.T), out=similar)
        here = np.arange(len(block))
        similar[here, start + here] = 0  # itself
        ones = np.argpartition(-similar, nearest, axis=1)[:, :nearest]
        row, place = np.nonzero(np.take_along_axis(similar, ones, axis=1) >= WORTH)
        one = ones[row, place]
        signed = np.stack([np.einsum("nd,nd->n", look[row], whole[one]) for look in looks])
        look = np.abs(signed).argmax(axis=0)
        found.append(np.stack([one, start + row, look, signed[look, np.arange(len(look))]]))
    table = pd.DataFrame(np.concatenate(found, axis=1).T, columns=["one", "other", "look", "value"])
    table = table.sort_values("value", key=np.abs, ascending=False, kind="stable")
    ends = np.sort(table[["one", "other"]], axis=1)
    table = table[~pd.DataFrame(ends).duplicated().to_numpy()].sort_values(["one", "other"])
    return table.astype({"one": int, "other": int, "look": int})


def _closest(pairs, alike) -> np.ndarray:
    """Choose the rows of the pairs that are among the most similar ones of either image."""
    order = np.argsort(-alike, kind="stable")
    order = order[alike[order] >= CLOSE]
    ends = pairs[["one", "other"]].to_numpy()[order]
    rank = pd.Series(ends.ravel()).groupby(ends.ravel()).cumcount().to_numpy().reshape(-1, 2)
    return np.sort(order[(rank < CLOSER).any(axis=1)])


def _each(function, pairs, moves, film):
    """Give pairs of images, the second one turned like the first, to a function, some at a time."""

    def task(start):
        some = pairs.iloc[start : start + PAIRS]
        ones = np.stack([film(number) for number in some["one"]])
        others = np.stack([film(number) for number in some["other"]])
        mirrored = (some["look"] >= len(WINDOWS)).to_numpy()
        others[mirrored] = others[mirrored, :, ::-1]
        others[some["value"] < 0] ^= 255  # inverted
        return ones, others, moves[start : start + PAIRS]

    tasks = map(task, range(0, len(pairs), PAIRS))
    done = cluster.collect(function, tasks, "near-duplicates", progress=False)
    return [np.concatenate(each) for each in zip(*done, strict=True)]


def _align_all(ones, others, moves):
    """Align thumbnails; say how alike they are then, and how the second ones were moved."""
    alike = np.empty(len(ones))
    for number, (one, other) in enumerate(zip(ones, others, strict=True)):
        moves[number] = _align(_detail(one, 4), _detail(other, 4), moves[number])
        squares = _squares(_detail(one, 1), _detail(other, 1), moves[number], 8)
        alike[number] = np.mean(squares[0] / squares[1]) if squares.size else -1
    return alike, moves


def _align(one: np.ndarray, other: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Find how the second of two maps of detail is moved, scaled and turned to fit the first."""
    rule = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
    try:
        return cv2.findTransformECC(one, other, move, cv2.MOTION_AFFINE, rule, None, 5)[1]
    except cv2.error:  # nothing in common, so the alignment ran away
        return move


def _compare_all(ones, others, moves):
    given = zip(ones, others, moves, strict=True)
    return (np.array([_similarity(one, other, move) for one, other, move in given]),)


def _similarity(one: np.ndarray, other: np.ndarray, move: np.ndarray) -> float:
    """Compare two aligned images by squares of 16 x 16 pixels, in fine and in coarse detail.

    Noise and compression spare the coarse; a stamp or another contrast harms few squares.
    """
    move = _align(_detail(one, 4), _detail(other, 4), move)
    fine = _squares(_detail(one, 2), _detail(other, 2), move, 16)
    coarse = _squares(_detail(one, 6), _detail(other, 6), move, 16)
    if fine.shape[1] < FEWEST or coarse.shape[1] < FEWEST:
        return -1.0
    fine, coarse = np.mean(fine[0] / fine[1]), coarse[0].sum() / coarse[1].sum()
    return float(1 - min(FINE_SHARE * (1 - fine), COARSE_SHARE * (1 - coarse)))


def _squares(one: np.ndarray, other: np.ndarray, move: np.ndarray, side: int) -> np.ndarray:
    """Covariance in each square, and the largest that there could be, shape (2, n)."""
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    shown = cv2.warpAffine(np.ones_like(other), move, one.shape, flags=how)
    other = cv2.warpAffine(other, move, one.shape, flags=how)

    def mean(values):
        return cv2.resize(values, None, fx=1 / side, fy=1 / side, interpolation=cv2.INTER_AREA)

    first, second = mean(one), mean(other)
    spreads = mean(one * one) - first**2, mean(other * other) - second**2
    told = (mean(shown) > 0.9) & (np.minimum(*spreads) > 0.1)  # an even square tells nothing
    together = mean(one * other) - first * second
    return np.stack([together[told], np.sqrt(spreads[0][told] * spreads[1][told])])
