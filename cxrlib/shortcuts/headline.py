"""The honest headline: one model, scored in four ways.

The same features and the same classifier, (1) under the paper's protocol, (2) under the clean
one, (3) under the clean one with the lungs covered, and (4) at another hospital.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxrlib import metrics
from cxrlib.augment import expand
from cxrlib.cohort import Cohort
from cxrlib.machine import one_thread
from cxrlib.shortcuts import views

CONDITIONS = ("paper's protocol", "clean protocol", "lungs covered", "another hospital")


class HeadlineError(ValueError):
    """Cohorts that cannot be compared."""


def classifier():
    """Build the model's head: features standardised, then logistic regression, classes weighed.

    A network's head without a hidden layer, fitted to the end.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    head = LogisticRegression(class_weight="balanced", max_iter=2000)
    return make_pipeline(StandardScaler(), head)


def predictions(
    cohort, outside, classes, extract=None, copies: int = 3, folds: int = 5, seed: int = 0
) -> pd.DataFrame:
    """Predict every image under each of the four conditions, always by a model fitted without it.

    Parameters
    ----------
    cohort, outside : Cohort
        The images to learn from, and another hospital's, of other patients.
    classes : sequence of two str
        The second is the one to find.
    extract : callable, optional
        A frozen backbone, as in :func:`cxrlib.shortcuts.views.features`.
    copies : int
        Augmented copies of each image: of all images in the paper's protocol, of the training
        part only in the clean one.
    folds : int
        Each protocol is cross-validated, so that every patient is tested once.
    seed : int

    Returns
    -------
    DataFrame
        One row a tested image and condition: ``condition``, ``image``, ``patient``, ``label``,
        ``truth`` (0 or 1), ``probability`` (0 to 1).

    Raises
    ------
    HeadlineError
        If there are not two classes, or a patient stands in both cohorts.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if len(classes) != 2:
        raise HeadlineError(f"Two classes are compared, not {list(classes)}.")
    cohort, outside = (one.where(label=list(classes)) for one in (cohort, outside))
    both = set(cohort.table["patient"]) & set(outside.table["patient"])
    if both:
        raise HeadlineError(
            f"{len(both)} patient(s), {sorted(map(str, both))[0]!r} among them, are in both "
            "hospitals. Leave them out of one."
        )
    covered = Cohort(cohort.table, views.cover(cohort.images, "lungs covered"), cohort.name)
    original, whole = _augmented(cohort, copies, seed, extract)
    _, hidden = _augmented(covered, copies, seed, extract)
    targets, patients = original.targets(classes), original.table["patient"].to_numpy()
    by_image = StratifiedKFold(folds, shuffle=True, random_state=seed)
    by_patient = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    is_original = (original.table["image"] == original.table["origin"]).to_numpy()
    everyone = np.ones(len(original), dtype=bool)
    clean = list(by_patient.split(whole, targets, patients))
    runs = {
        CONDITIONS[0]: (whole, list(by_image.split(whole, targets)), everyone),
        CONDITIONS[1]: (whole, clean, is_original),
        CONDITIONS[2]: (hidden, clean, is_original),
    }
    tables = [
        _table(name, original.take(tested), classes, _held_out(features, targets, parts)[tested])
        for name, (features, parts, tested) in runs.items()
    ]
    with one_thread():
        model = classifier().fit(whole, targets)
    told = model.predict_proba(views.features(outside, extract=extract))[:, 1]
    return pd.concat([*tables, _table(CONDITIONS[3], outside, classes, told)], ignore_index=True)


def scores(found: pd.DataFrame, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Score each condition, with intervals by a bootstrap over patients.

    Also for accuracy: Wilson's interval would take the copies of one film for news.

    Parameters
    ----------
    found : DataFrame
        As :func:`predictions` makes it.

    Returns
    -------
    DataFrame
        Rows by condition and metric (``auc``; ``accuracy``, ``sensitivity`` and ``specificity``
        at 0.5): ``condition``, ``metric``, ``value``, ``low``, ``high``, ``images``,
        ``patients``, and ``baseline``, what a model scores that never looks (an accuracy: always
        the larger class; NaN for sensitivity and specificity).
    """
    rows = []
    for condition, part in found.groupby("condition", sort=False):
        truth, probability = metrics.check_binary(part["truth"], part["probability"])
        right = (probability >= 0.5) == truth
        groups, _ = metrics.patient_numbers(part["patient"], len(part))
        measures = {
            "auc": lambda w, t=truth, p=probability: metrics.weighted_auc(w, t, p),
            "accuracy": lambda w, r=right: _share(w, r, np.ones_like(r)),
            "sensitivity": lambda w, r=right, t=truth: _share(w, r, t),
            "specificity": lambda w, r=right, t=truth: _share(w, r, ~t),
        }
        intervals = metrics.bootstrap_rows(measures, groups, "patient", 0.95, resamples, seed)
        for metric, (value, low, high, *_) in intervals.items():
            sizes = (len(part), part["patient"].nunique())
            blind = {"auc": 0.5, "accuracy": max(truth.mean(), 1 - truth.mean())}
            rows.append((condition, metric, value, low, high, *sizes, blind.get(metric, np.nan)))
    names = ["condition", "metric", "value", "low", "high", "images", "patients", "baseline"]
    return pd.DataFrame(rows, columns=names)


def _augmented(cohort, copies, seed, extract):
    everything = expand(cohort, copies, seed)
    return everything, views.features(everything, extract=extract)


def _held_out(features, targets, parts) -> np.ndarray:
    """Probability of class 1 for each image, by the model of the fold that left it out."""
    found = np.empty(len(targets))
    with one_thread():
        for train, test in parts:
            model = classifier().fit(features[train], targets[train])
            found[test] = model.predict_proba(features[test])[:, 1]
    return found


def _table(condition, tested, classes, probability) -> pd.DataFrame:
    table = tested.table[["image", "patient", "label"]].reset_index(drop=True)
    table.insert(0, "condition", condition)
    return table.assign(truth=tested.targets(classes), probability=probability)


def _share(weights, right, among) -> np.ndarray:
    """Weighted share of `right` among some images; NaN where none of them was drawn."""
    drawn = weights @ among.astype(float)
    hits = weights @ (right & among).astype(float)
    return np.divide(hits, drawn, out=np.full(len(drawn), np.nan), where=drawn > 0)
