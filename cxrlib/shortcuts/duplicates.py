"""Films and patients that occur more than once."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pandas as pd

from cxrlib.cohort import Cohort
from cxrlib.compute import cluster

ALIKE = 0.92  # correlation of the detail of two aligned images from which they are one film
WORTH = 0.6  # correlation of thumbnails from which two images are worth aligning
NEIGHBOURS = 5  # images that each image is aligned with, at most
BLOCK = 512  # rows of the table of similarities in memory at once
PAIRS = 64  # that one task aligns


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
    pairs = unique[_worth_aligning(small[unique])]
    some = (pairs[start : start + PAIRS] for start in range(0, len(pairs), PAIRS))
    tasks = [(small[each[:, 0]], small[each[:, 1]]) for each in some]
    aligned = cluster.collect(_align_all, tasks, "near-duplicates", progress=False)
    copies = np.setdiff1d(np.arange(len(first)), unique)
    pairs = np.concatenate([np.stack([first[copies], copies], axis=1), pairs])
    found = pd.DataFrame(pairs, columns=["one", "other"])
    found["similarity"] = np.concatenate([np.ones(len(copies)), *aligned])
    found["exact"] = found.index < len(copies)
    found = found[found["exact"] | (found["similarity"] >= threshold)]
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
    small, seen = np.empty((len(cohort), 64, 64), dtype=np.uint8), {}
    first = np.empty(len(cohort), dtype=np.int64)
    for number in range(len(cohort)):
        image = np.ascontiguousarray(cohort.images[number])
        small[number] = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
        first[number] = seen.setdefault(hashlib.sha256(image).digest(), number)
    return small, first


def _detail(image: np.ndarray, sigma: float) -> np.ndarray:
    """Subtract the surroundings and divide their contrast out."""
    image = image.astype(np.float32)
    image = image - cv2.GaussianBlur(image, (0, 0), sigma)
    contrast = np.sqrt(cv2.GaussianBlur(image * image, (0, 0), sigma))
    return image / (contrast + 2)  # 2 grey levels: what JPEG makes of an even area is no detail


def _worth_aligning(small: np.ndarray) -> np.ndarray:
    """Choose pairs, shape (m, 2), whose thumbnails are similar; in blocks, to save memory."""
    thumbs = [cv2.resize(each, (32, 32), interpolation=cv2.INTER_AREA) for each in small]
    detail = np.array([_detail(each, 6).ravel() for each in thumbs])
    detail -= detail.mean(axis=1, keepdims=True)
    detail /= np.linalg.norm(detail, axis=1, keepdims=True).clip(1e-9)
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(detail), BLOCK):
        similar = detail[start : start + BLOCK] @ detail.T
        here = np.arange(len(similar))
        similar[here, start + here] = -1  # itself
        nearest = np.argpartition(-similar, min(NEIGHBOURS, len(detail) - 1), axis=1)
        nearest = nearest[:, :NEIGHBOURS]
        row, place = np.nonzero(np.take_along_axis(similar, nearest, axis=1) >= WORTH)
        pairs.append(np.stack([start + row, nearest[row, place]], axis=1))
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)


def _align_all(ones, others) -> list[float]:
    return [_aligned_correlation(one, other) for one, other in zip(ones, others, strict=True)]


def _aligned_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Correlate the detail of two images where they overlap, one moved and scaled to fit."""
    rough = _detail(one, 4), _detail(other, 4)
    rule = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
    try:
        start = np.eye(2, 3, dtype=np.float32)
        _, move = cv2.findTransformECC(*rough, start, cv2.MOTION_AFFINE, rule, None, 5)
    except cv2.error:  # nothing in common, so the alignment ran away
        return -1.0
    one, other = _detail(one, 2), _detail(other, 2)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(other, move, one.shape, flags=how)
    overlap = cv2.warpAffine(np.ones_like(other), move, one.shape, flags=how) > 0.99
    if overlap.mean() < 0.6:
        return -1.0
    return float(np.corrcoef(one[overlap], moved[overlap])[0, 1])
