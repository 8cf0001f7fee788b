"""Scores as in Tables I and II of the paper, each with an interval, and calibration.

Images of one patient are no independent trials, so every interval counts patients. A share
(accuracy, recall, J = TP / (TP + FP + FN) for F1) gets Wilson's at the number of independent images
that say as much, an area under the curve DeLong's by patient (:func:`area`), and what is put
together from several scores on the same patients, such as a difference, an interval from theirs
(:func:`combine`). None is ever without width. `benchmarks/intervals.py` counts how often they hold
the truth. An image is called positive when its probability is *at or above* the threshold.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

ROUNDING = 1e-6  # a float32 softmax may end at 1.0000001
FEW = 3.001  # hits, or misses, so few that Wilson's interval ends too early: 3, or nearly


class MetricsError(ValueError):
    """Predictions that cannot be scored; the message names the argument at fault."""


def wilson(count: float, n: float, confidence=0.95, degrees=math.inf) -> tuple[float, float]:
    """Give Wilson's interval (low, high) for a proportion: `count` successes in `n` trials.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953. Where `n` is itself an estimate, its
    `degrees` of freedom (1 or more) widen the interval as Student's t does. Without a trial both
    ends are NaN; MetricsError if `count` is outside 0 to `n`, or `confidence` outside 0 to 1.
    """
    from scipy.special import stdtrit

    if not 0 <= count <= n:
        raise MetricsError(f"count={count} of n={n} is no proportion: give 0 <= count <= n.")
    check_confidence(confidence)
    if n == 0:
        return float("nan"), float("nan")
    share, z = count / n, float(stdtrit(degrees, (1 + confidence) / 2))
    centre = share + z * z / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = ((centre + side) / (1 + z * z / n) for side in (-reach, reach))
    return max(0.0, low), min(1.0, high)


def t_interval(values, confidence: float = 0.95, shared: float = 0.0) -> tuple:
    """Give the mean of repeats, and the ends of its t interval (NaN with fewer than two repeats).

    Where the repeats divide the same images anew, `shared` is images for testing by images for
    training: such results vary less than those of new images would (Nadeau and Bengio 2003,
    doi:10.1023/A:1024068626366).
    """
    from scipy.stats import t

    values = np.asarray(values, dtype=float)
    mean, repeats = float(values.mean()), len(values)
    if repeats < 2:
        return mean, float("nan"), float("nan")
    error = np.sqrt((1 / repeats + shared) * values.var(ddof=1))
    half = float(t.ppf((1 + confidence) / 2, repeats - 1) * error)
    return mean, mean - half, mean + half


class Estimate(NamedTuple):
    """A score, its interval, and what it rests on.

    ``count`` of ``n`` images or pairs, NA and n where it is no count; ``method`` names the
    interval, or says why there is none; ``parts`` are each patient's part in the deviation of the
    value from the truth, by patient (Series), from which :func:`combine` knows what goes together.
    """

    value: float
    low: float
    high: float
    count: float
    n: int
    method: str
    parts: pd.Series


def patient_numbers(patients, n: int) -> np.ndarray:
    """Give each image its patient's number, or one of its own where `patients` is None."""
    if patients is None:
        return np.arange(n)
    patients = pd.Series(np.asarray(patients))
    check_same_length(y_true=range(n), patients=patients)
    if patients.isna().any():
        row = int(patients.isna().to_numpy().argmax())
        raise MetricsError(f"patients: image number {row} has none; name one for every image.")
    return pd.factorize(patients)[0]


def independent_images(hits: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Say how many independent images tell as much of a share, and its degrees of freedom.

    n / (1 + (m - 1) r): m is the mean size of an image's group (Kish 1965), r the correlation of
    a patient's images by analysis of variance (Ridout, Demétrio and Firth 1999,
    doi:10.1111/j.0006-341X.1999.00137.x). One more patient, whose images all are what few others
    are, keeps r from being 0 where all agree.
    `hits` are bool (n,), `groups` the patients by number, int (n,).
    """
    sizes, sums = (_by_patient(each, groups).to_numpy() for each in (np.ones(len(hits)), hits))
    patients, n = len(sizes), sizes.sum()
    if patients == n:
        return n, math.inf
    often = (sizes**2).sum() / n
    rare = n / patients * (sums.sum() < n / 2)
    sizes, sums = np.append(sizes, n / patients), np.append(sums, rare)
    total, shares = sizes.sum(), sums / sizes
    between = (sizes * (shares - sums.sum() / total) ** 2).sum() / patients
    within = (sums * (1 - shares)).sum() / (total - patients - 1)
    usual = (total - (sizes**2).sum() / total) / patients
    alike = (between - within) / (between + (usual - 1) * within)
    return n / (1 + (often - 1) * np.clip(alike, 0, 1)), max(1, patients - 1)


def share(hits, among, groups, confidence=0.95, what="image") -> Estimate:
    """Estimate the share of `hits`, bool (n,), among images, bool (n,), of patients by number.

    Wilson's interval at :func:`independent_images`; within three of none or all it reaches as far
    as Poisson's does (Brown, Cai and DasGupta 2001, doi:10.1214/ss/1009213286).
    """
    from scipy.special import gammaincinv

    check_confidence(confidence)
    hits, rows = hits[among], groups[among]
    count, images = int(hits.sum()), len(hits)
    if images == 0:
        parts = pd.Series(dtype=float)
        return Estimate(np.nan, np.nan, np.nan, 0, 0, f"undefined: no {what}", parts)
    n, degrees = independent_images(hits, rows)
    value = count / images
    low, high = wilson(value * n, n, confidence, degrees)
    few, missing = value * n, (1 - value) * n
    if 0 < few <= FEW:
        low = min(low, gammaincinv(few, 1 - confidence) / n)
    if 0 < missing <= FEW:
        high = max(high, 1 - gammaincinv(missing, 1 - confidence) / n)
    parts = _by_patient((hits - value) / images, rows)
    method = "Wilson" if degrees == math.inf else "Wilson by patient"
    return Estimate(value, float(low), float(high), count, images, method, parts)


def f1(truth: np.ndarray, called: np.ndarray, groups: np.ndarray, confidence=0.95) -> Estimate:
    """Estimate F1, 2 J / (1 + J), and its interval from those of J = TP / (TP + FP + FN).

    `truth` and `called` are bool (n,).
    """
    found = share(truth & called, truth | called, groups, confidence, "positive image or call")
    low, value, high = (2 * end / (1 + end) for end in (found.low, found.value, found.high))
    slope = 2 / (1 + found.value) ** 2
    return Estimate(value, low, high, pd.NA, len(truth), found.method, found.parts * slope)


def area(truth, score, groups, confidence=0.95, fold=None, weights=None) -> Estimate:
    """Estimate the area under the ROC curve, 0 to 1, with DeLong's interval by patient.

    It is the share of pairs of a positive and a negative image that are in the right order, a tie
    counting half (Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747). Its variance adds
    what each patient's images contribute (Obuchowski 1997, doi:10.2307/2533958); the interval is
    Student's on the scale of log(area / (1 - area)). Its degrees of freedom count, in the class
    with fewer, the patients on whom the variance rests, 3 sum(d^2)^2 / sum(d^4), and are at most
    the patients less one. It is never wider than Wilson's for that class's patients, because no
    area varies more than a share of so many (Birnbaum and Klose 1957,
    doi:10.1214/aoms/1177706794), and is that where no pair is in the wrong order, or all are.

    Parameters
    ----------
    truth, score, groups : ndarray, shape (n,)
        bool; larger for positives; patients by number.
    fold : array_like, optional
        Which model scored an image: only images that the same one scored are compared, for the
        scales of models differ (Forman and Scholz 2010, doi:10.1145/1882471.1882479).
    weights : array_like, optional
        How often an image counts.
    """
    check_confidence(confidence)
    fold = np.zeros(len(truth), int) if fold is None else np.asarray(fold)
    weights = np.ones(len(truth)) if weights is None else np.asarray(weights, dtype=float)
    wins, against = np.zeros((2, len(truth)))
    for number in np.unique(fold):
        rows = np.flatnonzero(fold == number)
        wins[rows], against[rows] = _wins(truth[rows], score[rows], weights[rows])
    pairs = (weights * against)[truth].sum()
    if pairs == 0:
        why = "undefined: a class is missing from y_true"
        return Estimate(*[np.nan] * 3, pd.NA, len(truth), why, pd.Series(dtype=float))
    value = float((weights * wins)[truth].sum() / pairs)
    parts = weights * (wins - value * against) / pairs
    ill, other = (_by_patient(parts[kind], groups[kind]) for kind in (truth, ~truth))
    sizes = [_by_patient(weights[kind], groups[kind]) for kind in (truth, ~truth)]
    held = min(each.sum() ** 2 / (each**2).sum() for each in sizes)
    low, high, method = _area_interval(value, ill, other, held, confidence)
    parts = _by_patient(parts, groups)
    return Estimate(value, low, high, pd.NA, len(truth), method, parts)


def _by_patient(values, groups) -> pd.Series:
    patients, place = np.unique(groups, return_inverse=True)
    return pd.Series(np.bincount(place, values), patients)


def _wins(truth, score, weights) -> tuple[np.ndarray, np.ndarray]:
    """Count for each image those of the other class: in the right order with it, and all."""
    place = np.unique(score, return_inverse=True)[1]
    ill, other = (np.bincount(place, weights * kind) for kind in (truth, ~truth))
    below, above = np.cumsum(other) - other / 2, ill.sum() - np.cumsum(ill) + ill / 2
    wins = np.where(truth, below[place], above[place])
    return wins, np.where(truth, other.sum(), ill.sum())


def _area_interval(value, ill, other, held, confidence) -> tuple[float, float, str]:
    """Give the ends and the method.

    `ill` and `other` are the patients' parts in each class; `held` are the patients in the class
    with fewer, the less the more their images differ in number (Kish 1965).
    """
    patients = min(len(ill), len(other))
    if patients < 2:
        return 0.0, 1.0, "a class of one patient allows any value"
    everyone = len(ill.index.union(other.index))
    variance = sum(len(each) / (len(each) - 1) * (each**2).sum() for each in (ill, other))
    variance += 2 * everyone / (everyone - 1) * ill.mul(other).sum()
    widest = wilson(value * held, held, confidence)
    if not (0 < value < 1 and variance > 0):
        return *widest, "Wilson for the patients"
    carried = min((each**2).sum() ** 2 / (each**4).sum() for each in (ill, other) if each.any())
    low, high = _on_logit(value, variance, min(patients - 1, 3 * carried), confidence)
    return max(low, widest[0]), min(high, widest[1]), "DeLong by patient"


def _on_logit(value, variance, degrees, confidence) -> tuple[float, float]:
    from scipy.special import expit, logit, stdtrit

    reach = stdtrit(degrees, (1 + confidence) / 2) * math.sqrt(variance) / (value * (1 - value))
    return float(expit(logit(value) - reach)), float(expit(logit(value) + reach))


def combine(estimates, weights, paired: bool = True) -> Estimate:
    """Estimate a weighted sum of scores: a difference with the weights 1 and -1, or a mean.

    Its interval comes from theirs (Zou and Donner 2008, doi:10.1002/sim.3095). If `paired`, they
    are of the same patients by number, and how far they go together is the correlation of the
    parts that patients have in them; else they are independent.
    """
    values, lows, highs = (np.array([each[end] for each in estimates]) for end in range(3))
    weights = np.asarray(weights, dtype=float)
    undefined = [each.method for each in estimates if np.isnan(each.value)]
    method = undefined[0] if undefined else "of several, by patient"
    parts = pd.concat([each.parts for each in estimates], axis=1).fillna(0)
    lengths = np.sqrt((parts**2).sum()).to_numpy()
    together = (parts.T @ parts).to_numpy() / np.maximum(np.outer(lengths, lengths), 1e-300)
    together = together * paired
    np.fill_diagonal(together, 1)
    down, up = weights * (values - lows), weights * (highs - values)
    down, up = np.where(weights > 0, [down, up], [up, down])
    value = float(weights @ values)
    reach = [math.sqrt(max(side @ together @ side, 0)) for side in (down, up)]
    n = max(each.n for each in estimates)
    return Estimate(value, value - reach[0], value + reach[1], pd.NA, n, method, parts @ weights)


def binary_scores(
    y_true, probability, threshold=0.5, patients=None, confidence=0.95, fold=None
) -> pd.DataFrame:
    """Score a detector of one class: the columns of Table I, and more, with intervals.

    `y_true`, 0 and 1 or bool, `probability` of class 1, 0 to 1, and `patients`, whose image it is,
    have the shape (n,); where no patients are named, each image counts as one. `fold`, (n,), says
    which of several models answered: auc then compares only images that the same one saw
    (:func:`area`). MetricsError if lengths differ, or a value is missing or wrong.

    Rows accuracy, precision, recall, specificity, f1, auc. Columns value, low, high (0 to 1, NaN
    where undefined), count and n (the proportion's numerator and denominator; for f1 and auc no
    count, and n images) and method, or why a value is undefined.
    """
    return _scores(_binary(y_true, probability, threshold, patients, confidence, fold))


def binary_differences(
    y_true, first, second, threshold=0.5, patients=None, confidence=0.95, folds=(None, None)
) -> pd.DataFrame:
    """Score how much better the first of two detectors does on the same images, -1 to 1.

    `first` and `second` are probabilities, `folds` the fold of either; rows, columns and the rest
    are as in :func:`binary_scores`. The intervals are paired by patient (:func:`combine`).
    """
    ours, theirs = (
        _binary(y_true, probability, threshold, patients, confidence, fold)
        for probability, fold in zip((first, second), folds, strict=True)
    )
    return _scores({name: combine([ours[name], theirs[name]], [1, -1]) for name in ours})


def mcnemar(first, second, patients=None) -> dict:
    """Ask whether one of two classifiers is right more often, on the same images: McNemar's test.

    `first` and `second`, bool (n,), say which images each got right. Only images that one alone got
    right speak. A patient's images speak with one voice, that of the majority: the exact test
    counts patients (McNemar 1947, doi:10.1007/BF02295996, where each has one image).

    Returns ``first alone`` and ``second alone`` (patients for whom that one was right more often)
    and ``p``, two-sided; 1 where nobody speaks. MetricsError if lengths differ.
    """
    from scipy.stats import binomtest

    first, second = (np.asarray(right, dtype=bool) for right in (first, second))
    check_same_length(first=first, second=second)
    groups = patient_numbers(patients, len(first))
    voices = _by_patient(first.astype(int) - second, groups)
    ours, theirs = int((voices > 0).sum()), int((voices < 0).sum())
    p = float(binomtest(ours, ours + theirs).pvalue) if ours + theirs else 1.0
    return {"first alone": ours, "second alone": theirs, "p": p}


def patients_to_decide(
    value: float, low: float, high: float, patients: int, power: float = 0.8
) -> float:
    """Say how many patients would tell a difference from 0, were it what was found, as a float.

    In a share `power` of such studies the 95 % interval would leave 0 out. It shrinks as the root
    of the patients grows; where the end that faces 0 just reaches it, every other study would
    (0.5). Infinite where the difference is 0.
    """
    from scipy.stats import norm

    reach = value - low if value > 0 else high - value
    reach *= 1 + norm.ppf(power) / norm.ppf(0.975)
    return patients * (reach / value) ** 2 if value else math.inf


def _binary(y_true, probability, threshold, patients, confidence, fold=None) -> dict:
    truth, probability = check_binary(y_true, probability)
    groups = patient_numbers(patients, len(truth))
    called, everything = probability >= threshold, np.ones(len(truth), dtype=bool)
    shares = {
        "accuracy": (called == truth, everything, "image"),
        "precision": (truth, called, "image called positive"),
        "recall": (called, truth, "positive image"),
        "specificity": (~called, ~truth, "negative image"),
    }
    found = {
        name: share(hits, among, groups, confidence, what)
        for name, (hits, among, what) in shares.items()
    }
    found["f1"] = f1(truth, called, groups, confidence)
    return found | {"auc": area(truth, probability, groups, confidence, fold)}


def class_scores(
    y_true, probabilities, classes, patients=None, confidence=0.95, fold=None
) -> pd.DataFrame:
    """Score a classifier of several classes; the most probable class is its answer.

    `y_true` holds class numbers, as ``cohort.targets(classes)`` gives them, or names;
    `probabilities` have the shape (n, len(classes)). Rows ``accuracy``; for each class, one against
    the rest, ``precision NAME``, ``recall NAME`` and ``f1 NAME``; ``macro f1`` and ``macro auc``
    (plain means). The rest is as in :func:`binary_scores`.
    """
    return _scores(_classes(y_true, probabilities, classes, patients, confidence, fold))


def class_differences(
    y_true, first, second, classes, patients=None, confidence=0.95, folds=(None, None)
) -> pd.DataFrame:
    """Score how much better the first of two classifiers does on the same images, -1 to 1.

    `first` and `second` are probabilities as in :func:`class_scores`; the rest is as in
    :func:`binary_differences`.
    """
    ours, theirs = (
        _classes(y_true, probabilities, classes, patients, confidence, fold)
        for probabilities, fold in zip((first, second), folds, strict=True)
    )
    return _scores({name: combine([ours[name], theirs[name]], [1, -1]) for name in ours})


def _classes(y_true, probabilities, classes, patients, confidence, fold) -> dict[str, Estimate]:
    classes = list(classes)
    truth = class_numbers(y_true, classes, "y_true")
    probabilities = check_probabilities(probabilities, "probabilities")
    if probabilities.shape != (len(truth), len(classes)):
        said, needed = probabilities.shape, (len(truth), len(classes))
        raise MetricsError(f"probabilities has the shape {said}; images and classes need {needed}.")
    groups, answer = patient_numbers(patients, len(truth)), probabilities.argmax(axis=1)
    everything, areas, f1s = np.ones(len(truth), dtype=bool), [], []
    rows = {"accuracy": share(answer == truth, everything, groups, confidence)}
    for number, name in enumerate(classes):
        called, member = answer == number, truth == number
        found = share(member, called, groups, confidence, f"image called {name}")
        rows[f"precision {name}"] = found
        rows[f"recall {name}"] = share(called, member, groups, confidence, f"{name} image")
        f1s.append(f1(member, called, groups, confidence))
        rows[f"f1 {name}"] = f1s[-1]
        areas.append(area(member, probabilities[:, number], groups, confidence, fold))
    mean = np.full(len(classes), 1 / len(classes))
    return rows | {"macro f1": combine(f1s, mean), "macro auc": combine(areas, mean)}


def _scores(rows: dict[str, Estimate]) -> pd.DataFrame:
    kinds = {"value": float, "low": float, "high": float, "count": "Int64", "n": "Int64"}
    found = {name: each[:6] for name, each in rows.items()}
    table = pd.DataFrame.from_dict(found, orient="index", columns=[*kinds, "method"])
    return table.rename_axis("metric").astype(kinds)


def confusion(y_true, y_pred, classes) -> pd.DataFrame:
    """Count how often a class, of numbers or names (n,), was called what: a row an actual one."""
    classes = list(classes)
    actual = class_numbers(y_true, classes, "y_true")
    predicted = class_numbers(y_pred, classes, "y_pred")
    check_same_length(y_true=actual, y_pred=predicted)
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (actual, predicted), 1)
    return pd.DataFrame(counts, classes, classes).rename_axis(index="actual", columns="predicted")


def independence(matrix, times: int = 10_000, seed: int = 0) -> dict:
    """Ask whether answers hang on the truth in a confusion matrix: chi-squared, by shuffling.

    The textbook's p wants five expected images in every cell; this one needs none. It deals the
    same answers `times` times to the same images, at random (Patefield 1981, doi:10.2307/2346669),
    and says how often these counts stray as far from equal proportions in every row. Images count
    as independent: give one a patient.

    Returns ``chi-squared`` (0 or more) and ``p``, above 0 and up to 1.
    """
    from scipy.stats import random_table

    counts = np.asarray(matrix)
    rows, columns = counts.sum(axis=1), counts.sum(axis=0)
    if not counts.sum():
        raise MetricsError("matrix: it holds no image.")
    expected = np.outer(rows, columns) / counts.sum()
    dealt = random_table(rows, columns, seed=seed).rvs(times)
    scale = np.where(expected > 0, expected, 1)  # where none is expected, none is dealt
    found, luck = (((each - expected) ** 2 / scale).sum((-2, -1)) for each in (counts, dealt))
    p = (1 + (luck >= found - 1e-9).sum()) / (1 + times)
    return {"chi-squared": float(found), "p": float(p)}


def row_percent(matrix: pd.DataFrame) -> pd.DataFrame:
    """Lay a confusion matrix out as Table II: ``number of images``, and percent called what.

    Percentages (0 to 100, not rounded) are those of a row; NaN for a class without images.
    """
    images = matrix.sum(axis=1)
    percent = 100 * matrix.div(images.where(images > 0), axis=0)
    percent.insert(0, "number of images", images)
    return percent


def auc(y_true, probability, fold=None) -> float:
    """Area under the ROC curve, within folds; NaN where a class is missing. See :func:`area`."""
    truth, probability = check_binary(y_true, probability)
    return area(truth, probability, np.arange(len(truth)), fold=fold).value


def calibration(y_true, probability, bins: int = 10, patients=None) -> pd.DataFrame:
    """Compare what was promised with what happened, in equal bins that hold images.

    The columns are ``mean_probability``; ``fraction_positive``, with its 95 % interval ``low`` and
    ``high`` as :func:`share` gives it; ``n`` images.
    """
    truth, probability = check_binary(y_true, probability)
    if bins < 1:
        raise MetricsError(f"bins={bins}: give at least one bin.")
    number = np.minimum((probability * bins).astype(int), bins - 1)
    groups, rows = patient_numbers(patients, len(truth)), []
    for here in (number == each for each in np.unique(number)):
        found = share(truth, here, groups)
        rows.append((probability[here].mean(), *found[:3], found.n))
    columns = ["mean_probability", "fraction_positive", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


def brier(y_true, probability) -> float:
    """Mean squared error of the probabilities (Brier 1950): 0 is perfect, 0.25 a coin's."""
    truth, probability = check_binary(y_true, probability)
    return float(np.mean((probability - truth) ** 2))


def expected_calibration_error(y_true, probability, bins: int = 10) -> float:
    """Mean gap of the bins, weighted by images, 0 to 1 (doi:10.1609/aaai.v29i1.9602)."""
    table = calibration(y_true, probability, bins)
    gap = (table["mean_probability"] - table["fraction_positive"]).abs()
    return float(np.average(gap, weights=table["n"]))


def threshold_for(y_true, probability, sensitivity: float = 0.95) -> float:
    """Find the largest threshold that still finds this share, above 0 and up to 1, of positives.

    Choose it on validation data: on the test set, the sensitivity is no news.
    """
    truth, probability = check_binary(y_true, probability)
    if not 0 < sensitivity <= 1:
        raise MetricsError(f"sensitivity={sensitivity}: give a share above 0 and up to 1.")
    if not truth.any():
        raise MetricsError("y_true has no positive image, so no threshold finds any.")
    positives = np.sort(probability[truth])[::-1]
    needed = int(np.ceil(sensitivity * len(positives) - 1e-9))  # 0.55 * 100 is 55.000000000000007
    return float(positives[needed - 1])


def check_confidence(confidence: float) -> None:
    """Complain about a confidence that is no share."""
    if not 0 < confidence < 1:
        raise MetricsError(f"confidence={confidence}: give a share between 0 and 1, such as 0.95.")


def check_same_length(**arrays) -> None:
    """Complain about arrays, given by name, that differ in length."""
    if len(set(map(len, arrays.values()))) > 1:
        said = ", ".join(f"{name} has {len(array)}" for name, array in arrays.items())
        raise MetricsError(f"Lengths differ: {said}.")


def check_probabilities(probabilities, name: str) -> np.ndarray:
    """Turn probabilities into floats in 0 to 1, or complain about what they are instead."""
    try:
        values = np.asarray(probabilities, dtype=float)
    except (TypeError, ValueError) as error:
        raise MetricsError(f"{name}: not a rectangle of numbers ({error}).") from error
    if values.size == 0:
        raise MetricsError(f"{name} is empty: there is nothing to score.")
    if np.isnan(values).any():
        row = int(np.argwhere(np.isnan(values))[0][0])
        raise MetricsError(f"{name}: NaN for image number {row}; did the training diverge?")
    if values.min() < -ROUNDING or values.max() > 1 + ROUNDING:
        ends = f"{values.min():g} to {values.max():g}, not within 0 to 1"
        raise MetricsError(f"{name} runs from {ends}; give the output of a sigmoid or softmax.")
    return values.clip(0, 1)


def check_binary(y_true, probability) -> tuple[np.ndarray, np.ndarray]:
    """Turn labels into bool and probabilities into float, both of shape (n,), or complain."""
    probability = check_probabilities(probability, "probability")
    truth = np.asarray(y_true)
    for name, array in (("y_true", truth), ("probability", probability)):
        if array.ndim != 1:
            raise MetricsError(f"{name} has the shape {array.shape}; give one value an image.")
    check_same_length(y_true=truth, probability=probability)
    wrong = [value for value in pd.unique(pd.Series(truth)) if value not in (0, 1)]
    if wrong:
        raise MetricsError(f"y_true holds {wrong[0]!r}; it may hold 0 and 1 only.")
    return truth.astype(bool), probability


def class_numbers(values, classes: list, name: str) -> np.ndarray:
    """Turn numbers or names into class numbers, or complain about the first that is neither."""
    values = pd.Series(np.asarray(values))
    if values.empty:
        raise MetricsError(f"{name} is empty: there is nothing to score.")
    known = {number: number for number in range(len(classes))}
    numbers = values.map(known | {label: number for number, label in enumerate(classes)})
    if numbers.isna().any():
        wrong = values[numbers.isna()].iloc[0]
        raise MetricsError(f"{name} holds {wrong!r}, which is no class of {classes}.")
    return numbers.to_numpy(dtype=np.int64)


def calibration_fit(y_true, probability, patients=None, confidence=0.95) -> pd.DataFrame:
    """Give calibration intercept and slope: 0 and 1 if probabilities mean what they say.

    The intercept (calibration in the large, above 0 where illness is more frequent than promised)
    is that of a logistic regression with the logit of the probability as offset; the slope (below
    1 where the model is too sure of itself) is the logit's coefficient (Van Calster et al. 2019,
    doi:10.1186/s12916-019-1466-7). Standard errors are clustered by patient, with t quantiles on
    the patients of the smaller class minus one. Probabilities of 0 and 1, which have no logit, are
    taken for 1e-6 and 1 - 1e-6. Parameters and errors are as in :func:`binary_scores`.

    Rows intercept, slope. Columns value, low, high (NaN where undefined), n (images), method.
    """
    truth, probability = check_binary(y_true, probability)
    check_confidence(confidence)
    groups, drawn = (
        patient_numbers(patients, len(truth)),
        "image" if patients is None else "patient",
    )
    p = probability.clip(ROUNDING, 1 - ROUNDING)
    logit = np.log(p / (1 - p))
    freedom = min(len(np.unique(groups[truth == ill])) for ill in (True, False)) - 1
    columns = ["value", "low", "high", "n", "method"]
    rows = dict.fromkeys(("intercept", "slope"))
    for name in rows:
        why = "" if freedom > 0 else f"a class has fewer than two {drawn}s"
        if not why and name == "slope":  # then no largest likelihood, so no slope
            ill, well = logit[truth], logit[~truth]
            apart = ill.min() >= well.max() or well.min() >= ill.max()
            why = "the probabilities separate the classes" if apart else ""
            why = "all probabilities are alike" if np.ptp(logit) == 0 else why
        ends, method = [np.nan] * 3, f"undefined: {why}"
        if not why:
            ends = _logistic(truth, logit, groups, name == "slope", freedom, confidence)
            method = f"logistic regression, clustered by {drawn}"
        rows[name] = (*ends, len(truth), method)
    return pd.DataFrame.from_dict(rows, "index", columns=columns).rename_axis("metric")


def _logistic(truth, logit, groups, slope: bool, freedom: int, confidence: float) -> tuple:
    from scipy.stats import t
    from statsmodels.api import GLM, add_constant, families

    known = {} if slope else {"offset": logit}
    design = add_constant(logit) if slope else np.ones_like(logit)
    model = GLM(truth.astype(float), design, families.Binomial(), **known)
    found = model.fit(cov_type="cluster", cov_kwds={"groups": groups})
    value, reach = found.params[-1], t.ppf((1 + confidence) / 2, freedom) * found.bse[-1]
    return value, value - reach, value + reach


def net_benefit(y_true, probability, thresholds, prevalence=None) -> pd.DataFrame:
    """Give the net benefit of acting on the model, on everybody and on nobody: a decision curve.

    Index: the thresholds (above 0, below 1), the probabilities from which one would act. Columns
    model, everybody, nobody: true alarms minus false ones weighted by threshold / (1 - threshold),
    per patient (Vickers and Elkin 2006, doi:10.1177/0272989X06295361). `prevalence` is that of the
    place of use, by default the test's. MetricsError if a class is missing, or a value is wrong.
    """
    truth, probability = check_binary(y_true, probability)
    cuts = np.atleast_1d(np.asarray(thresholds, dtype=float))
    if not ((cuts > 0) & (cuts < 1)).all():
        raise MetricsError("thresholds: give probabilities above 0 and below 1.")
    rates = np.array([_rates(truth, probability >= cut) for cut in cuts])
    share = truth.mean() if prevalence is None else _share(prevalence)
    odds = cuts / (1 - cuts)
    curves = {
        "model": share * rates[:, 0] - (1 - share) * (1 - rates[:, 1]) * odds,
        "everybody": share - (1 - share) * odds,
        "nobody": 0.0,
    }
    return pd.DataFrame(curves, pd.Index(cuts, name="threshold"))


def decision_scores(y_true, probability, prevalence, threshold=0.5, miss=1.0, alarm=1.0) -> dict:
    """Score the calls at a threshold: ``balanced accuracy``, ``mcc`` and ``expected cost``.

    The cost per patient at a stated `prevalence` (0 to 1) is miss * prevalence * (1 - sensitivity)
    + alarm * (1 - prevalence) * (1 - specificity). Matthews' coefficient, -1 to 1, is 0 where all
    are called alike. MetricsError if a class is missing, or a value is wrong. They have no interval
    of their own: see those of recall and specificity in :func:`binary_scores`.
    """
    from sklearn.metrics import balanced_accuracy_score, matthews_corrcoef

    truth, probability = check_binary(y_true, probability)
    share, called = _share(prevalence), probability >= threshold
    found, spared = _rates(truth, called)
    return {
        "balanced accuracy": float(balanced_accuracy_score(truth, called)),
        "mcc": float(matthews_corrcoef(truth, called)),
        "expected cost": miss * share * (1 - found) + alarm * (1 - share) * (1 - spared),
    }


def _rates(truth, called) -> tuple[float, float]:
    if truth.all() or not truth.any():
        raise MetricsError("y_true holds one class only: the other's error rate is unknown.")
    return float(called[truth].mean()), float((~called[~truth]).mean())


def _share(prevalence: float) -> float:
    if not 0 <= prevalence <= 1:
        raise MetricsError(f"prevalence={prevalence}: give a share from 0 to 1.")
    return prevalence
