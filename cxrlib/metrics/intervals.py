"""A score with its interval: shares, F1, areas under the curve, and what is made of several.

Images of one patient are no independent trials, so every interval counts patients. A share
(accuracy, recall, J = TP / (TP + FP + FN) for F1) gets Wilson's at the number of independent images
that say as much, an area under the curve DeLong's by patient (:func:`area`), and what is put
together from several scores on the same patients, such as a difference, an interval from theirs
(:func:`combine`). None is ever without width. `benchmarks/intervals.py` counts how often they hold
the truth.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxrlib.metrics.checks import MetricsError, check_confidence

FEW = 3.001  # hits, or misses, so few that Wilson's interval ends too early: 3, or nearly


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


def independent_images(hits: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Say how many independent images tell as much of a share, and its degrees of freedom.

    n / (1 + (m - 1) r): m is the mean size of an image's group (Kish 1965), r the correlation of
    a patient's images by analysis of variance (Ridout, Demétrio and Firth 1999,
    doi:10.1111/j.0006-341X.1999.00137.x). One more patient, whose images all are what few others
    are, keeps r from being 0 where all agree.
    `hits` are bool (n,), `groups` the patients by number, int (n,).
    """
    sizes, sums = (by_patient(each, groups).to_numpy() for each in (np.ones(len(hits)), hits))
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
    parts = by_patient((hits - value) / images, rows)
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
    ill, other = (by_patient(parts[kind], groups[kind]) for kind in (truth, ~truth))
    sizes = [by_patient(weights[kind], groups[kind]) for kind in (truth, ~truth)]
    held = min(each.sum() ** 2 / (each**2).sum() for each in sizes)
    low, high, method = _area_interval(value, ill, other, held, confidence)
    parts = by_patient(parts, groups)
    return Estimate(value, low, high, pd.NA, len(truth), method, parts)


def by_patient(values, groups) -> pd.Series:
    """Add up what the images of each patient, by number, bring: a Series by patient."""
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
