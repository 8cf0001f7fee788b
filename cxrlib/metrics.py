"""Scores as in Tables I and II of the paper, each with an interval, and calibration.

A proportion gets Wilson's interval, which keeps inside 0 to 1 also for few images. It takes images
for independent: where a patient has several, it is too narrow. F1 and AUC get a percentile
bootstrap that draws whole patients (Efron 1979, doi:10.1214/aos/1176344552). That knows only the
images at hand: an AUC of 1 gets the interval from 1 to 1, which is too sure of itself. An image is
called positive when its probability is *at or above* the threshold.
"""

from __future__ import annotations

import math
from functools import partial
from statistics import NormalDist

import numpy as np
import pandas as pd

ROUNDING = 1e-6  # a float32 softmax may end at 1.0000001


class MetricsError(ValueError):
    """Predictions that cannot be scored; the message names the argument at fault."""


def wilson(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Give Wilson's interval (low, high) for a proportion: `count` successes in `n` trials.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953. Without a trial both ends are NaN;
    MetricsError if `count` is outside 0 to `n`, or `confidence` outside 0 to 1.
    """
    if not 0 <= count <= n:
        raise MetricsError(f"count={count} of n={n} is no proportion: give 0 <= count <= n.")
    check_confidence(confidence)
    if n == 0:
        return float("nan"), float("nan")
    share, z = count / n, NormalDist().inv_cdf((1 + confidence) / 2)
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


def patient_numbers(patients, n: int) -> tuple[np.ndarray, str]:
    """Give each image its patient's number, and say what the bootstrap draws."""
    if patients is None:
        return np.arange(n), "image"
    patients = pd.Series(np.asarray(patients))
    check_same_length(y_true=range(n), patients=patients)
    if patients.isna().any():
        row = int(patients.isna().to_numpy().argmax())
        raise MetricsError(f"patients: image number {row} has none; name one for every image.")
    return pd.factorize(patients)[0], "patient"


def draw_patients(groups: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw patients with replacement: how often each image was drawn, float (resamples, n).

    `groups`, shape (n,), are the images' patients by number. So a resample is a row of weights.
    """
    patients = groups.max() + 1
    times = rng.multinomial(patients, np.full(patients, 1 / patients), size=resamples)
    return times[:, groups].astype(float)


def bootstrap(measures: dict, groups: np.ndarray, resamples: int, seed: int) -> dict:
    """Score resamples by `measures`, functions of weights: (resamples,), NaN where undefined."""
    if resamples < 1:
        raise MetricsError(f"resamples={resamples}: give at least one.")
    if groups.max() == 0:  # one patient again and again: an interval would have no width at all
        return {name: np.full(resamples, np.nan) for name in measures}
    rng = np.random.default_rng(seed)
    parts = []
    at_once = max(1, 2_000_000 // len(groups))  # bounds the memory, however many images there are
    for start in range(0, resamples, at_once):
        weights = draw_patients(groups, min(at_once, resamples - start), rng)
        parts.append([measure(weights) for measure in measures.values()])
    return dict(zip(measures, np.concatenate(parts, axis=1), strict=True))


def percentiles(scores: np.ndarray, confidence: float) -> tuple[float, float]:
    """Give the ends of the middle share of resampled scores; those that are NaN are left out."""
    defined = scores[~np.isnan(scores)]
    if len(defined) == 0:
        return np.nan, np.nan
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def bootstrap_rows(measures, groups, drawn, confidence, resamples, seed) -> dict:
    """Score all images, and resamples for an interval: rows of value, low, high, count, n, method.

    `measures` and `groups` as for :func:`bootstrap`; `drawn` ("patient") words the method.
    """
    found, n, rows = bootstrap(measures, groups, resamples, seed), len(groups), {}
    for name, measure in measures.items():
        value = float(measure(np.ones((1, n)))[0])
        ends, method = percentiles(found[name], confidence), f"bootstrap by {drawn}"
        if np.isnan(value):
            why = "a class is missing from y_true" if "auc" in name else "no positive image or call"
            ends, method = (np.nan, np.nan), f"undefined: {why}"
        rows[name] = (value, *ends, pd.NA, n, method)
    return rows


def binary_scores(
    y_true, probability, threshold=0.5, patients=None, confidence=0.95, resamples=1000, seed=0
) -> pd.DataFrame:
    """Score a detector of one class: the columns of Table I, and more, with intervals.

    `y_true`, 0 and 1 or bool, `probability` of class 1, 0 to 1, and `patients`, whose image it is,
    have the shape (n,). The bootstrap draws patients, or images where none are named, and leaves
    out resamples without a score. MetricsError if lengths differ, or a value is missing or wrong.

    Rows accuracy, precision, recall, specificity, f1, auc. Columns value, low, high (0 to 1, NaN
    where undefined), count and n (the proportion's numerator and denominator; for f1 and auc no
    count, and n images) and method, or why a value is undefined.
    """
    truth, probability = check_binary(y_true, probability)
    groups, drawn = patient_numbers(patients, len(truth))
    called = probability >= threshold
    rows = {
        "accuracy": _proportion(called == truth, "image", confidence),
        "precision": _proportion(truth[called], "image called positive", confidence),
        "recall": _proportion(called[truth], "positive image", confidence),
        "specificity": _proportion(~called[~truth], "negative image", confidence),
    }
    measures = {
        "f1": partial(weighted_f1, truth=truth, called=called),
        "auc": partial(weighted_auc, truth=truth, score=probability),
    }
    rows |= bootstrap_rows(measures, groups, drawn, confidence, resamples, seed)
    return _scores(rows)


def class_scores(
    y_true, probabilities, classes, patients=None, confidence=0.95, resamples=1000, seed=0
) -> pd.DataFrame:
    """Score a classifier of several classes; the most probable class is its answer.

    `y_true` holds class numbers, as ``cohort.targets(classes)`` gives them, or names;
    `probabilities` have the shape (n, len(classes)). Rows ``accuracy``; for each class, one against
    the rest, ``precision NAME``, ``recall NAME`` and ``f1 NAME``; ``macro f1`` and ``macro auc``
    (plain means). The rest is as in :func:`binary_scores`.
    """
    classes = list(classes)
    truth = class_numbers(y_true, classes, "y_true")
    probabilities = check_probabilities(probabilities, "probabilities")
    if probabilities.shape != (len(truth), len(classes)):
        said, needed = probabilities.shape, (len(truth), len(classes))
        raise MetricsError(f"probabilities has the shape {said}; images and classes need {needed}.")
    groups, drawn = patient_numbers(patients, len(truth))
    answer = probabilities.argmax(axis=1)
    rows = {"accuracy": _proportion(answer == truth, "image", confidence)}
    measures, areas = {}, []
    for number, name in enumerate(classes):
        called, member = answer == number, truth == number
        rows[f"precision {name}"] = _proportion(member[called], f"image called {name}", confidence)
        rows[f"recall {name}"] = _proportion(called[member], f"{name} image", confidence)
        rows[f"f1 {name}"] = None  # keeps the place; the bootstrap fills it
        measures[f"f1 {name}"] = partial(weighted_f1, truth=member, called=called)
        areas.append(partial(weighted_auc, truth=member, score=probabilities[:, number]))
    f1s = list(measures.values())
    measures["macro f1"] = lambda w: np.mean([f1(w) for f1 in f1s], axis=0)
    measures["macro auc"] = lambda w: np.mean([area(w) for area in areas], axis=0)
    return _scores(rows | bootstrap_rows(measures, groups, drawn, confidence, resamples, seed))


def _proportion(hits: np.ndarray, trial: str, confidence: float) -> tuple:
    count, n = int(np.sum(hits)), len(hits)
    if n == 0:
        return (np.nan, np.nan, np.nan, count, n, f"undefined: no {trial}")
    return (count / n, *wilson(count, n, confidence), count, n, "Wilson")


def _scores(rows: dict) -> pd.DataFrame:
    kinds = {"value": float, "low": float, "high": float, "count": "Int64", "n": "Int64"}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*kinds, "method"])
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


def row_percent(matrix: pd.DataFrame) -> pd.DataFrame:
    """Lay a confusion matrix out as Table II: ``number of images``, and percent called what.

    Percentages (0 to 100, not rounded) are those of a row; NaN for a class without images.
    """
    images = matrix.sum(axis=1)
    percent = 100 * matrix.div(images.where(images > 0), axis=0)
    percent.insert(0, "number of images", images)
    return percent


def weighted_f1(weights: np.ndarray, truth: np.ndarray, called: np.ndarray) -> np.ndarray:
    """Give F1 for each row of weights: 2 TP / (2 TP + FP + FN); NaN without any of the three."""
    hits = weights @ (truth & called)
    sizes = weights @ truth.astype(float) + weights @ called.astype(float)
    return np.divide(2 * hits, sizes, out=np.full(len(sizes), np.nan), where=sizes > 0)


def weighted_auc(weights, truth: np.ndarray, score: np.ndarray, fold=None) -> np.ndarray:
    """Give the area under the ROC curve, 0 to 1, for each row of weights; NaN without a pair.

    It is the share of pairs of a positive and a negative image that are in the right order,
    a tie counting half (Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747). `weights`
    are those of :func:`draw_patients`, `truth` is bool (n,), and `score` larger for positives.
    With `fold`, which model scored an image, only images that the same one scored are compared: the
    scales of models differ (Forman and Scholz 2010, doi:10.1145/1882471.1882479).
    """
    fold = np.zeros(len(truth), int) if fold is None else fold
    right, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for number in np.unique(fold):
        rows = np.flatnonzero(fold == number)
        order = rows[np.argsort(score[rows], kind="stable")]
        ties = np.flatnonzero(np.diff(score[order], prepend=-np.inf))
        drawn = weights[:, order]
        positive = np.add.reduceat(drawn * truth[order], ties, axis=1)
        negative = np.add.reduceat(drawn * ~truth[order], ties, axis=1)
        below = np.cumsum(negative, axis=1) - negative / 2
        right += (positive * below).sum(axis=1)
        pairs += positive.sum(axis=1) * negative.sum(axis=1)
    return np.divide(right, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def auc(y_true, probability) -> float:
    """Area under the ROC curve, 0 to 1; NaN where a class is missing. See :func:`weighted_auc`."""
    truth, probability = check_binary(y_true, probability)
    return float(weighted_auc(np.ones((1, len(truth))), truth, probability)[0])


def calibration(y_true, probability, bins: int = 10) -> pd.DataFrame:
    """Give ``mean_probability``, ``fraction_positive`` and ``n`` of equal bins that hold images."""
    truth, probability = check_binary(y_true, probability)
    if bins < 1:
        raise MetricsError(f"bins={bins}: give at least one bin.")
    number = np.minimum((probability * bins).astype(int), bins - 1)
    columns = {"mean_probability": probability, "fraction_positive": truth.astype(float)}
    held = pd.DataFrame(columns).groupby(number)
    return held.mean().assign(n=held.size()).reset_index(drop=True)


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
    groups, drawn = patient_numbers(patients, len(truth))
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
