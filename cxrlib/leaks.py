"""Leaks: what a test set shares with the training set, and what that does to a score.

A classifier that only remembers, one nearest neighbour, is the best witness: with labels shuffled
among the patients there is nothing to learn, so whatever it still knows, it has seen before.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from cxrlib import split, views
from cxrlib.augment import expand
from cxrlib.cohort import Cohort

CLEAN = "split patients, then augment"
PROTOCOLS = {  # name: (how to divide, whether the copies are made before)
    "augment, then split images": (split.by_image, True),
    "split images, then augment": (split.by_image, False),
    "augment, then split patients": (split.by_patient, True),
    CLEAN: (split.by_patient, False),
}
TEST = 0.2  # share for testing, as in the paper
ALIKE = 0.92  # correlation of the detail of two aligned images from which they are one film
WORTH = 0.6  # correlation of thumbnails from which two images are worth aligning
NEIGHBOURS = 5  # images that each image is aligned with, at most
BLOCK = 512  # rows of the table of similarities in memory at once


class LeakError(ValueError):
    """An image set in which leaks cannot be looked for."""


def leakage(
    cohort,
    classes=None,
    repeats: int = 20,
    copies: int = 3,
    seed: int = 0,
    extract=None,
    most: int | None = 150,
    progress: bool = False,
    view: str | None = None,
) -> pd.DataFrame:
    """Test one nearest neighbour by four protocols, with true and with permuted labels.

    Permuted labels are shuffled among the patients; all images and copies of a patient keep one.
    A leaky protocol still scores well on them, which no knowledge of a disease can explain.

    Parameters
    ----------
    cohort : Cohort
        Originals, without augmented copies.
    classes : sequence of str, optional
        Labels to tell apart; all that occur by default.
    repeats : int
        Divisions, each with a seed of its own that all protocols share.
    copies : int
        Augmented copies of each image, made once for all repeats.
    seed : int
    extract : callable, optional
        A frozen backbone, as in :func:`cxrlib.views.features`.
    most : int, optional
        Images to use at most, whole patients, drawn at random and from each label in turn:
        150 images of 300 pixels take seconds, a thousand take minutes. None uses all.
    progress : bool
        Show a progress bar.
    view : str, optional
        What the classifier sees, a key of :data:`cxrlib.views.VIEWS`. By default the whole image
        where there is a backbone, and the grey histogram where there is none: a flip does not
        change it and a crop hardly does, so it recognises copies best.

    Returns
    -------
    DataFrame
        A row a protocol, kind of labels and repeat: ``protocol``, ``labels`` ('true' or
        'permuted'), ``repeat``, ``accuracy``, ``balanced accuracy`` (mean recall of the
        classes), ``own neighbour`` (share of the test images whose
        nearest training image shows the same patient), ``test images``, ``test patients``, and
        ``chance`` for the balanced accuracy.

    Raises
    ------
    LeakError
        If there are fewer than two classes, or no repeat.
    cxrlib.split.SplitError
        If a class has too few images or patients to be divided.
    """
    classes = list(classes or cohort.labels)
    if len(set(classes)) < 2 or repeats < 1:
        raise LeakError(f"Give two classes and one repeat or more, not {classes} and {repeats}.")
    part = _some(cohort.where(label=classes), most, seed)
    whole = expand(part, copies, seed)
    view = view or ("whole image" if extract else "histogram")
    described = views.features(whole, view, extract)
    whole = Cohort(whole.table.assign(row=np.arange(len(whole))), whole.images, cohort.name)
    numbers = range(repeats)
    if progress:
        from tqdm.auto import tqdm

        numbers = tqdm(numbers, desc="leakage", unit="repeat")
    rows = []
    for repeat in numbers:
        for labels, labelled in (("true", whole), ("permuted", _permute(whole, [seed, repeat]))):
            for protocol in PROTOCOLS:
                train, test = _divide(labelled, protocol, seed + repeat)
                first = {"protocol": protocol, "labels": labels, "repeat": repeat}
                rows.append(first | _remember(described, labelled.table, train, test))
    return pd.DataFrame(rows).assign(chance=1 / len(set(classes)))


def leakage_summary(
    table: pd.DataFrame, metric: str = "balanced accuracy", confidence: float = 0.95
) -> pd.DataFrame:
    """Average the repeats, and compare each protocol with the clean one.

    Repeats share images, so a plain t interval is too narrow; these have the correction of
    Nadeau and Bengio (2003, doi:10.1023/A:1024068626366). Excesses are paired by repeat. With
    few images a patient, an image-level split leaks little, and ten repeats need not show it.

    Parameters
    ----------
    table : DataFrame
        As :func:`leakage` gives it.
    metric : str
        One of its columns.
    confidence : float in (0, 1)

    Returns
    -------
    DataFrame
        A row a protocol and kind of labels: ``protocol``, ``labels``, ``mean``, ``sd`` (over
        the repeats), ``low``, ``high``, and ``excess`` over the clean protocol with ``excess
        low`` and ``excess high`` (NaN for the clean one itself). With one repeat there is no
        interval.
    """
    wide = table.pivot(index="repeat", columns=["labels", "protocol"], values=metric)
    rows = []
    for labels, protocol in itertools.product(table["labels"].unique(), PROTOCOLS):
        found, clean = wide[labels, protocol], wide[labels, CLEAN]
        mean, low, high = _corrected(found, confidence)
        row = {"protocol": protocol, "labels": labels, "mean": mean, "sd": found.std()}
        excess = (np.nan,) * 3 if protocol == CLEAN else _corrected(found - clean, confidence)
        low, high = np.clip((low, high), 0, 1)  # a share, though t knows nothing of that
        names = ("low", "high", "excess", "excess low", "excess high")
        rows.append(row | dict(zip(names, (low, high, *excess), strict=True)))
    return pd.DataFrame(rows)


def near_duplicates(cohort, threshold: float = ALIKE, progress: bool = False) -> pd.DataFrame:
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
    progress : bool
        Show a progress bar.

    Returns
    -------
    DataFrame
        A row a pair, most similar first: ``image``, ``other``, ``similarity`` (1 where exact),
        ``same patient``, ``same label`` (NA where unknown), ``exact`` (identical pixels). Of
        several identical images each is paired with the first of them only.
    """
    small, first = _reduce(cohort)
    same = np.flatnonzero(first != np.arange(len(first)))
    rows = [(first[number], number, 1.0, True) for number in same]
    unique = np.flatnonzero(first == np.arange(len(first)))
    pairs = unique[_worth_aligning(small[unique])]
    if progress:
        from tqdm.auto import tqdm

        pairs = tqdm(pairs, desc="near-duplicates", unit="pair")
    for one, other in pairs:
        similar = _aligned_correlation(small[one], small[other])
        if similar >= threshold:
            rows.append((one, other, similar, False))
    rows.sort(key=lambda row: (-row[2], row[0], row[1]))
    one, other, similar, exact = zip(*rows, strict=True) if rows else ([], [], [], [])
    left, right = (cohort.table.iloc[list(side)].reset_index(drop=True) for side in (one, other))
    return pd.DataFrame(
        {
            "image": left["image"],
            "other": right["image"],
            "similarity": np.array(similar, dtype=float),
            "same patient": _agree(left["patient"], right["patient"]),
            "same label": _agree(left["label"], right["label"]),
            "exact": np.array(exact, dtype=bool),
        }
    )


def patients_in_two_classes(cohort) -> pd.DataFrame:
    """List patients whose images have several labels: ``patient``, ``labels``, ``images``.

    It can be true (a disease comes and goes) or a mistake; a split by patient keeps either safe.
    """
    known = cohort.table.dropna(subset=["patient", "label"])
    grouped = known.groupby("patient", sort=True)["label"]
    table = grouped.agg(labels=lambda found: ", ".join(sorted(set(found))), images="size")
    return table[grouped.nunique() > 1].reset_index()


def split_overlap(cohort, column: str = "split", duplicates=None) -> pd.DataFrame:
    """Find what stands on two sides of a split that the table brings along.

    Parameters
    ----------
    cohort : Cohort
    column : str
        Of the table, such as one with 'train' and 'test'.
    duplicates : DataFrame, optional
        What :func:`near_duplicates` found; it is called where this is left out.

    Returns
    -------
    DataFrame
        ``kind`` ('patient', 'origin' or 'near-duplicate'), ``name``, ``sides``, ``images``.

    Raises
    ------
    LeakError
        If there is no such column, or it has fewer than two values.
    """
    sides = cohort.table.get(column, pd.Series(dtype=object))
    if sides.nunique() < 2:
        raise LeakError(f"{cohort.name}: the column {column!r} names no two sides of a split.")
    rows = []
    for kind in ("patient", "origin"):
        for name, found in sides.groupby(cohort.table[kind]):
            if found.nunique() > 1:
                rows.append((kind, name, _joined(found.dropna()), len(found)))
    side = dict(zip(cohort.table["image"], sides, strict=True))
    pairs = near_duplicates(cohort) if duplicates is None else duplicates
    for one, other in zip(pairs["image"], pairs["other"], strict=True):
        both = pd.Series([side[one], side[other]]).dropna()
        if both.nunique() > 1:
            rows.append(("near-duplicate", f"{one} ~ {other}", _joined(both), 2))
    return pd.DataFrame(rows, columns=["kind", "name", "sides", "images"])


def _some(cohort, most, seed):
    """Draw whole patients, from each label in turn, until there are `most` images."""
    if most is None or len(cohort) <= most:
        return cohort
    first = cohort.table.drop_duplicates("patient").sample(frac=1, random_state=seed)
    order = first.groupby("label").cumcount().sort_values(kind="stable").index
    patients = first.loc[order, "patient"]
    sizes = cohort.table["patient"].value_counts()
    kept = patients[sizes.loc[patients].cumsum().to_numpy() <= most]
    return cohort.take(cohort.table["patient"].isin(kept).to_numpy())


def _permute(cohort, seed):
    """Shuffle the labels among the patients; one with several labels counts with the first."""
    first = cohort.table.drop_duplicates("patient").set_index("patient")["label"]
    shuffled = np.random.default_rng(seed).permutation(first.to_numpy())
    label = cohort.table["patient"].map(dict(zip(first.index, shuffled, strict=True)))
    return Cohort(cohort.table.assign(label=label), cohort.images, cohort.name)


def _divide(whole, protocol, seed):
    """Give the rows for training (copies and all) and those for testing."""
    divide, before = PROTOCOLS[protocol]
    source = whole if before else whole.take(whole.table["copy"].to_numpy() == 0)
    test = divide(source, test=TEST, seed=seed).test.table["row"].to_numpy()
    if before:
        return np.setdiff1d(np.arange(len(whole)), test), test
    tested = whole.table["origin"].isin(whole.table["origin"].iloc[test])
    return np.flatnonzero(~tested), test


def _remember(described, table, train, test) -> dict:
    """Train one nearest neighbour and test it."""
    from sklearn.metrics import accuracy_score, balanced_accuracy_score
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler

    scale = StandardScaler().fit(described[train])
    memory = NearestNeighbors(n_neighbors=1, algorithm="brute")
    memory.fit(scale.transform(described[train]))
    found = memory.kneighbors(scale.transform(described[test]), return_distance=False)[:, 0]
    label, patient = table["label"].to_numpy(), table["patient"].to_numpy()
    answer = label[train][found]
    return {
        "accuracy": accuracy_score(label[test], answer),
        "balanced accuracy": balanced_accuracy_score(label[test], answer),
        "own neighbour": float(np.mean(patient[train][found] == patient[test])),
        "test images": len(test),
        "test patients": len(set(patient[test])),
    }


def _corrected(values, confidence: float) -> tuple[float, float, float]:
    """Mean and its interval by the corrected resampled t test."""
    from scipy.stats import t

    mean, repeats = float(np.mean(values)), len(values)
    if repeats < 2:
        return mean, np.nan, np.nan
    error = np.sqrt(np.var(values, ddof=1) * (1 / repeats + TEST / (1 - TEST)))
    wide = float(t.ppf((1 + confidence) / 2, repeats - 1) * error)
    return mean, mean - wide, mean + wide


def _reduce(cohort) -> tuple[np.ndarray, np.ndarray]:
    """Shrink the images to 64 x 64, and number for each the first one with the same pixels."""
    import hashlib

    import cv2

    small, seen = np.empty((len(cohort), 64, 64), dtype=np.uint8), {}
    first = np.empty(len(cohort), dtype=np.int64)
    for number in range(len(cohort)):
        image = np.ascontiguousarray(cohort.images[number])
        small[number] = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
        first[number] = seen.setdefault(hashlib.sha256(image).digest(), number)
    return small, first


def _detail(image: np.ndarray, sigma: float) -> np.ndarray:
    """Subtract the surroundings and divide their contrast out."""
    import cv2

    image = image.astype(np.float32)
    image = image - cv2.GaussianBlur(image, (0, 0), sigma)
    contrast = np.sqrt(cv2.GaussianBlur(image * image, (0, 0), sigma))
    return image / (contrast + 2)  # 2 grey levels: what JPEG makes of an even area is no detail


def _worth_aligning(small: np.ndarray) -> np.ndarray:
    """Choose pairs, shape (m, 2), whose thumbnails are similar; in blocks, to save memory."""
    import cv2

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


def _aligned_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Correlate the detail of two images where they overlap, one moved and scaled to fit."""
    import cv2

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


def _agree(one, other):
    known = (one.notna() & other.notna()).to_numpy()
    same = one.to_numpy() == other.to_numpy()
    return pd.arrays.BooleanArray(np.asarray(same, dtype=bool), ~known)


def _joined(names) -> str:
    return ", ".join(sorted(map(str, set(names))))
