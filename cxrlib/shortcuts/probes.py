"""A probe tells how well some features know the classes apart in patients never seen.

The classifier is kernel ridge regression, least squares on similarities. It is no network, but
it is quick, has nothing to tune, and one property makes it right for an audit: its predictions
are a fixed matrix times the labels. So the labels can be shuffled among the patients a thousand
times at the cost of one matrix product, and chance need not be assumed: it is measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxrlib.machine import one_thread
from cxrlib.metrics import area
from cxrlib.shortcuts.views import ShortcutError

RIDGE = 1.0  # penalty, where each image's similarity to itself is 1


@dataclass(frozen=True)
class Probe:
    """How well some features tell the classes apart.

    Attributes
    ----------
    auc, low, high : float
        Area under the ROC curve in patients left out of training; of more than two classes, that
        of the class that is told best: a shortcut in one must not drown in the mean. The 95 %
        interval draws patients and takes the trained models as given, so it is somewhat too
        narrow: on 120 patients without any signal it missed 0.5 in one of seven sets.
    p : float
        Share of shuffled labels that did as well (1 / (permutations + 1) at least), where the
        best class was looked for in each of them too. NaN where shuffling changes nothing.
    images, patients : int
    scores : ndarray, shape (n, classes), float
        Of each image, by a model that did not see its patient; higher means more like the class.
    best : int
        Number of the class whose area this is; 1 if there are two.
    """

    auc: float
    low: float
    high: float
    p: float
    images: int
    patients: int
    scores: np.ndarray
    best: int


def probe(
    features: np.ndarray, targets, patients, folds: int = 5, permutations: int = 999, seed: int = 0
) -> Probe:
    """Cross-validate by patient, and compare with shuffled labels.

    Patients are divided among the folds at random and not by class, so that shuffling the labels
    among them is fair, and the p value exact (Phipson and Smyth 2010,
    doi:10.2202/1544-6115.1585). Labels of a patient in several classes are shuffled among that
    patient's images.

    Parameters
    ----------
    features : ndarray, shape (n, d)
    targets : array_like, shape (n,), int
        Class numbers from 0; every class must occur.
    patients : array_like, shape (n,)
        Whose image it is.
    folds, permutations, seed : int

    Raises
    ------
    ShortcutError
        If there are fewer than two classes, fewer than two patients in one of them, or a
        feature is missing.
    """
    targets, groups = np.asarray(targets), pd.factorize(np.asarray(patients))[0]
    features = np.asarray(features, dtype=np.float64)
    _check(features, targets, groups, folds)
    rng = np.random.default_rng(seed)
    fold = rng.permutation(np.arange(groups.max() + 1) % folds)[groups]
    with one_thread():
        smoother = _smoother(_similarity(features), fold)
    classes = int(targets.max() + 1)
    scores = smoother @ np.eye(classes)[targets]
    wanted = [1] if classes == 2 else range(classes)
    shuffled = _shuffle(targets, groups, permutations, rng)
    areas = {k: fold_areas(smoother @ (shuffled == k), shuffled == k, fold) for k in wanted}
    measured = {k: fold_areas(scores[:, [k]], (targets == k)[:, None], fold)[0] for k in wanted}
    best = max(measured, key=lambda k: np.nan_to_num(measured[k]))
    p = _share_as_good(measured[best], np.stack(list(areas.values())))
    row = area(targets == best, scores[:, best], groups, fold=fold)
    return Probe(*row[:3], p, len(targets), int(groups.max() + 1), scores, int(best))


def _similarity(features: np.ndarray) -> np.ndarray:
    """Similarity, 0 to 1: a Gaussian of features' distance, as wide as the median one."""
    from scipy.spatial.distance import pdist, squareform

    spread = features.std(axis=0)
    useful = spread > 1e-9 * max(1.0, np.abs(features).max(initial=0))
    if not useful.any():  # all images look the same
        return np.ones((len(features), len(features)))
    scaled = (features[:, useful] - features[:, useful].mean(axis=0)) / spread[useful]
    squared = pdist(scaled, "sqeuclidean")
    middle = np.median(squared) or squared.mean() or 1.0
    return squareform(np.exp(-squared / middle)) + np.eye(len(features))


def _smoother(similar: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Matrix that turns the targets of all images into predictions for each.

    Row i holds 0 for the images of its own fold: a model that never saw them speaks. Each model
    predicts the mean of its own training targets, and deviations from it by kernel ridge.
    """
    found = np.zeros_like(similar)
    for number in np.unique(fold):
        out = np.flatnonzero(fold == number)
        rest = np.flatnonzero(fold != number)
        penalised = similar[np.ix_(rest, rest)] + RIDGE * np.eye(len(rest))
        weights = np.linalg.solve(penalised, similar[np.ix_(rest, out)]).T
        # Deviations from the mean of the training targets: W (y - mean) + mean
        weights += (1 - weights.sum(axis=1, keepdims=True)) / len(rest)
        found[np.ix_(out, rest)] = weights
    return found


def _shuffle(targets, groups, permutations, rng) -> np.ndarray:
    """Shuffle labels among patients of one class; within patients of several. (n, permutations).

    So a patient's images of one class stay together, and a patient has as many classes as before.
    """
    _, first, unit = np.unique(
        groups * (targets.max() + 1) + targets, return_index=True, return_inverse=True
    )
    owner, label = groups[first], targets[first]
    several = np.bincount(owner)[owner] > 1
    found = np.empty((len(targets), permutations), dtype=targets.dtype)
    for column in range(permutations):
        drawn = label.copy()
        drawn[~several] = rng.permutation(label[~several])
        for one in np.unique(owner[several]):
            drawn[owner == one] = rng.permutation(label[owner == one])
        found[:, column] = drawn[unit]
    return found


def _share_as_good(measured: float, by_chance: np.ndarray) -> float:
    """Share of shuffled labels whose best class reaches `measured`; NaN if none can be scored."""
    scored = ~np.isnan(by_chance).all(axis=0)
    if not scored.any() or np.isnan(measured):
        return float("nan")
    best = np.nanmax(by_chance[:, scored], axis=0)
    return float((1 + np.sum(best >= measured - 1e-12)) / (1 + len(best)))


def fold_areas(scores: np.ndarray, truth: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each column, over pairs within a fold.

    `scores` and `truth` (bool) have the shape (n, columns), `fold` (n,); a column without a fold
    of both classes gets NaN.
    """
    from scipy.stats import rankdata

    right, pairs = np.zeros((2, truth.shape[1]))
    for number in np.unique(fold):
        rows = fold == number
        positives = truth[rows].sum(axis=0)
        ranks = rankdata(scores[rows], axis=0)  # ties share one, as half a pair each
        right += (ranks * truth[rows]).sum(axis=0) - positives * (positives + 1) / 2
        pairs += positives * (rows.sum() - positives)
    return np.divide(right, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def _check(features, targets, groups, folds) -> None:
    if features.ndim != 2 or len(features) != len(targets) or len(targets) != len(groups):
        raise ShortcutError(
            f"features of shape {features.shape}, {len(targets)} targets and {len(groups)} "
            "patients don't fit: give one row, one target and one patient an image."
        )
    if not np.isfinite(features).all():
        raise ShortcutError("A feature is missing (NaN) or infinite.")
    if (groups < 0).any():
        raise ShortcutError("An image names no patient; give each one an id.")
    counts = pd.DataFrame({"class": targets, "patient": groups}).groupby("class")["patient"]
    counts = counts.nunique()
    if len(counts) < 2 or counts.min() < 2 or list(counts.index) != list(range(len(counts))):
        raise ShortcutError(
            f"A probe needs two classes with two patients each, better twenty; "
            f"patients by class: {counts.to_dict()}."
        )
    if not 2 <= folds <= groups.max() + 1:
        raise ShortcutError(f"folds={folds}: from 2 to the number of patients.")
