"""Scores by group of patients: view, sex, age, whatever a table knows of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxrlib import metrics

FACTS = ("view", "sex", "age")
AGES, AGE_GROUPS = (0, 40, 60, np.inf), ("under 40", "40 to 59", "60 and over")  # years
FEWEST = 10  # patients of a class; of fewer, an interval spans about half of the scale
METRICS = {"recall": [1], "specificity": [0], "auc": [0, 1]}  # and the classes that they rest on


def subgroups(predictions, table, facts=FACTS, fewest: int = FEWEST) -> pd.DataFrame:
    """Score a binary detector in each group of patients, with 95 % intervals by patient.

    Parameters
    ----------
    predictions : DataFrame
        One row an image: ``image``, ``patient``, ``truth`` (0 or 1), ``probability`` (0 to 1),
        and ``fold`` where several models answered (:func:`cxrlib.metrics.intervals.area`).
    table : DataFrame
        A cohort's table: ``image``, and those of the `facts` that are known. A fact in numbers,
        such as an age in years, is cut into groups at `AGES`.
    fewest : int
        With fewer patients in a class that a score rests on, the row has no score.

    Returns
    -------
    DataFrame
        Rows by fact, group and metric (recall and specificity at 0.5, auc): ``fact``, ``group``,
        ``metric``, ``images``, ``patients`` (of the classes that the score rests on), ``value``,
        ``low``, ``high`` (0 to 1, or NaN) and ``note``: empty, or "too few". Films without the
        fact are a group of their own; a fact that no film has is left out.
    """
    known = [fact for fact in facts if fact in table and table[fact].notna().any()]
    rows = []
    for fact in known:
        told = predictions["image"].map(table.set_index("image")[fact])
        for group, part in predictions.groupby(_groups(told), observed=True):
            for metric, classes in METRICS.items():
                held = part[part["truth"].isin(classes)]
                counts = [held.loc[held["truth"] == one, "patient"].nunique() for one in classes]
                row = [fact, group, metric, len(held), held["patient"].nunique()]
                if min(counts) < fewest:
                    rows.append([*row, np.nan, np.nan, np.nan, "too few"])
                    continue
                whose = {"patients": held["patient"], "fold": held.get("fold")}
                scores = metrics.binary_scores(held["truth"], held["probability"], **whose)
                rows.append([*row, *scores.loc[metric, ["value", "low", "high"]], ""])
    names = ["fact", "group", "metric", "images", "patients", "value", "low", "high", "note"]
    return pd.DataFrame(rows, columns=names)


def _groups(told: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(told):
        told = pd.cut(told, AGES, right=False, labels=AGE_GROUPS).astype(object)
    return told.fillna("not recorded").astype(str)
