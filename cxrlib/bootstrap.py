"""Intervals for F1 and AUC, from resamples of patients.

A resample is how often each patient was drawn, which is a weight for each of their images:
all resamples are then one table of weights, and a score of all of them is a few array operations.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxrlib.checks import MetricsError, check_same_length


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


def weighted_f1(weights: np.ndarray, truth: np.ndarray, called: np.ndarray) -> np.ndarray:
    """Give F1 for each row of weights: 2 TP / (2 TP + FP + FN); NaN without any of the three."""
    hits = weights @ (truth & called)
    sizes = weights @ truth.astype(float) + weights @ called.astype(float)
    return np.divide(2 * hits, sizes, out=np.full(len(sizes), np.nan), where=sizes > 0)


def weighted_auc(weights: np.ndarray, truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Give the area under the ROC curve for each row of weights; NaN where a class is missing.

    It is the share of pairs of a positive and a negative image that are in the right order,
    a tie counting half (Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747).
    """
    order = np.argsort(probability, kind="stable")
    ties = np.flatnonzero(np.diff(probability[order], prepend=-1.0))
    sorted_weights, sorted_truth = weights[:, order], truth[order]
    positive = np.add.reduceat(sorted_weights * sorted_truth, ties, axis=1)
    negative = np.add.reduceat(sorted_weights * ~sorted_truth, ties, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    right = (positive * below).sum(axis=1)
    return np.divide(right, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def bootstrap_rows(
    measures, groups, drawn: str, confidence: float, resamples: int, seed: int
) -> dict:
    """Score all images and the resamples: rows of value, low, high, count, n, method.

    `measures` are functions from weights, shape (resamples, n), to scores, shape (resamples,).
    """
    if resamples < 1:
        raise MetricsError(f"resamples={resamples}: give at least one.")
    patients, n = groups.max() + 1, len(groups)
    rng = np.random.default_rng(seed)
    found = {name: [] for name in measures}
    at_once = max(1, 2_000_000 // n)  # bounds the memory, however many images there are
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        times = rng.multinomial(patients, np.full(patients, 1 / patients), size=size)
        weights = times[:, groups].astype(float)
        for name, measure in measures.items():
            found[name].append(measure(weights))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    rows = {}
    for name, measure in measures.items():
        value = float(measure(np.ones((1, n)))[0])
        if np.isnan(value):
            why = "a class is missing from y_true" if "auc" in name else "no positive image or call"
            rows[name] = (value, np.nan, np.nan, pd.NA, n, f"undefined: {why}")
            continue
        defined = np.concatenate(found[name])
        defined = defined[~np.isnan(defined)]
        # One patient drawn again and again would give an interval of no width at all.
        enough = patients > 1 and len(defined) > 0
        low, high = np.quantile(defined, tails) if enough else (np.nan, np.nan)
        rows[name] = (value, float(low), float(high), pd.NA, n, f"bootstrap by {drawn}")
    return rows
