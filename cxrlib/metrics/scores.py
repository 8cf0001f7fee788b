"""Tables I and II of the paper: the scores of a detector, each with an interval, and counts.

An image is called positive when its probability is *at or above* the threshold.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxrlib.metrics.checks import (
    MetricsError,
    check_binary,
    check_probabilities,
    check_same_length,
    class_numbers,
    patient_numbers,
)
from cxrlib.metrics.intervals import Estimate, area, combine, f1, share


def binary_scores(
    y_true, probability, threshold=0.5, patients=None, confidence=0.95, fold=None
) -> pd.DataFrame:
    """Score a detector of one class: the columns of Table I, and more, with intervals.

    `y_true`, 0 and 1 or bool, `probability` of class 1, 0 to 1, and `patients`, whose image it is,
    have the shape (n,); where no patients are named, each image counts as one. `fold`, (n,), says
    which of several models answered: auc then compares only images that the same one saw
    (`area`). MetricsError if lengths differ, or a value is missing or wrong.

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
    are as in :func:`binary_scores`. The intervals are paired by patient (`combine`).
    """
    ours, theirs = (
        _binary(y_true, probability, threshold, patients, confidence, fold)
        for probability, fold in zip((first, second), folds, strict=True)
    )
    return _scores({name: combine([ours[name], theirs[name]], [1, -1]) for name in ours})


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


def row_percent(matrix: pd.DataFrame) -> pd.DataFrame:
    """Lay a confusion matrix out as Table II: ``number of images``, and percent called what.

    Percentages (0 to 100, not rounded) are those of a row; NaN for a class without images.
    """
    images = matrix.sum(axis=1)
    percent = 100 * matrix.div(images.where(images > 0), axis=0)
    percent.insert(0, "number of images", images)
    return percent


def auc(y_true, probability, fold=None) -> float:
    """Area under the ROC curve, within folds; NaN where a class is missing. See `area`."""
    truth, probability = check_binary(y_true, probability)
    return area(truth, probability, np.arange(len(truth)), fold=fold).value


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
