"""Ask whether chance would do as much: two classifiers on the same images, a confusion matrix."""

from __future__ import annotations

import math

import numpy as np

from cxrlib.metrics.checks import MetricsError, check_same_length, patient_numbers
from cxrlib.metrics.intervals import by_patient


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
    voices = by_patient(first.astype(int) - second, groups)
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
