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
from cxrlib.shortcuts import hospitals, views

METRICS = {
    "auc": "auc",
    "accuracy": "accuracy",
    "sensitivity": "recall",
    "specificity": "specificity",
}
CONDITIONS = ("paper's protocol", "clean protocol", "lungs covered", "another hospital")


def predictions(cohort, outside, classes, extract=None, seed: int = 0) -> pd.DataFrame:
    """Predict every image under each of the four conditions, always by a model fitted without it.

    Both protocols are cross-validated in five folds, so that every patient is tested once. In the
    paper's all images have three augmented copies, in the clean one those for training only.

    Parameters
    ----------
    cohort, outside, classes, extract
        As `inside` and the rest in :func:`cxrlib.shortcuts.hospitals.external_validation`, whose
        errors these are too.
    seed : int

    Returns
    -------
    DataFrame
        One row a tested image and condition: ``condition``, ``image``, ``patient``, ``label``,
        ``truth`` (0 or 1), ``probability`` (0 to 1), ``fold``, which of five models answered (from
        0; at another hospital there is one).
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    cohort, outside = hospitals.choose(cohort, outside, classes)
    covered = Cohort(cohort.table, views.cover(cohort.images, "lungs covered"), cohort.name)
    original, hidden = (expand(each, seed=seed) for each in (cohort, covered))
    whole, hidden = (views.features(each, extract=extract) for each in (original, hidden))
    targets, patients = original.targets(classes), original.table["patient"].to_numpy()
    by_image = StratifiedKFold(5, shuffle=True, random_state=seed)
    by_patient = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    is_original = (original.table["image"] == original.table["origin"]).to_numpy()
    everyone = np.ones(len(original), dtype=bool)
    clean = list(by_patient.split(whole, targets, patients))
    runs = {
        CONDITIONS[0]: (whole, list(by_image.split(whole, targets)), everyone),
        CONDITIONS[1]: (whole, clean, is_original),
        CONDITIONS[2]: (hidden, clean, is_original),
    }
    model, tables = hospitals.classifier(class_weight="balanced"), []
    for name, (features, parts, tested) in runs.items():
        told, fold = hospitals.held_out(model, features, targets, parts)
        tables.append(_table(name, original.take(tested), classes, told[tested], fold[tested]))
    with one_thread():
        model.fit(whole, targets)
    told = model.predict_proba(views.features(outside, extract=extract))[:, 1]
    return pd.concat([*tables, _table(CONDITIONS[3], outside, classes, told)], ignore_index=True)


def scores(found: pd.DataFrame) -> pd.DataFrame:
    """Score each condition of :func:`predictions`, with 95 % intervals that count patients.

    Returns
    -------
    DataFrame
        Rows by condition and metric (``auc``, over pairs that the same model saw; ``accuracy``,
        ``sensitivity`` and ``specificity`` at 0.5): ``condition``, ``metric``, ``value``, ``low``,
        ``high``, ``images``, ``patients``, and ``baseline``, what a model scores that never looks
        (an accuracy: always the larger class; NaN for sensitivity and specificity).
    """
    rows = []
    for condition, part in found.groupby("condition", sort=False):
        how = {"patients": part["patient"], "fold": part["fold"]}
        table = metrics.binary_scores(part["truth"], part["probability"], **how)
        share, sizes = part["truth"].mean(), (len(part), part["patient"].nunique())
        blind = {"auc": 0.5, "accuracy": max(share, 1 - share)}
        for name, metric in METRICS.items():
            ends = table.loc[metric, ["value", "low", "high"]]
            rows.append((condition, name, *ends, *sizes, blind.get(name, np.nan)))
    names = ["condition", "metric", "value", "low", "high", "images", "patients", "baseline"]
    return pd.DataFrame(rows, columns=names)


def _table(condition, tested, classes, probability, fold=0) -> pd.DataFrame:
    table = tested.table[["image", "patient", "label"]].reset_index(drop=True)
    table.insert(0, "condition", condition)
    return table.assign(truth=tested.targets(classes), probability=probability, fold=fold)
