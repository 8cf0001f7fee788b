"""Who the patients are: what age, sex, view and date say of the label, without a film.

A network can see them in a film. So as much as they say, a network may know of the label without
knowing the disease: with children as controls it told children from adults (Roberts et al. 2021,
doi:10.1038/s42256-021-00307-0).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxrlib.shortcuts.giveaways import FEWEST, probed

FACTS = ("age", "sex", "view", "date")  # columns of a cohort's table


def who_they_are(table: pd.DataFrame, classes=None, **options) -> pd.DataFrame:
    """Probe what a table says of its patients for the classes, one row a patient; no film is read.

    A patient whose fact is not known takes no part in its row: that a table is silent says
    something of the table, and no film shows it. So 'unknown' is no value here. A fact is probed
    among the classes in which it is known of :data:`FEWEST` patients.

    Parameters
    ----------
    table : DataFrame
        A row a film: ``label``, ``patient``, and what there is of :data:`FACTS`: ``age`` (years),
        ``sex``, ``view``, ``date`` (as pandas reads dates).
    classes : sequence of str, optional
        The labels to tell apart, by default all. The second of two is the one to find.
    **options
        Of :func:`cxrlib.shortcuts.probes.probe`: folds, permutations, seed.

    Returns
    -------
    DataFrame
        A row a fact, and one for all of them together: ``fact``, ``classes``, and the columns of
        :func:`cxrlib.shortcuts.giveaways.shortcuts` but view and images. Empty if nothing can be
        probed.
    """
    classes = list(classes or table["label"].dropna().unique())
    people = _people(table, classes)
    facts = list(dict.fromkeys(people.columns.get_level_values(0)))
    rows = [row for fact in facts if (row := _row(people, [fact], classes, options))]
    told = [row["fact"] for row in rows]
    if len(told) > 1 and (row := _row(people, told, classes, options)):
        rows.append(row)
    columns = ["fact", "classes", "auc", "low", "high", "p", "patients", "told"]
    return pd.DataFrame(rows, columns=columns)


def _row(people, facts, classes, options) -> dict | None:
    """Probe some facts among the patients who state them all; None where it cannot be done."""
    known = people[facts].notna().all(axis=1).to_numpy()
    part = people.loc[known, facts]
    counts = part.groupby("label").size()
    enough = [label for label in classes if counts.get(label, 0) >= FEWEST]
    part = part[part.index.get_level_values("label").isin(enough)]
    if len(enough) < 2 or not (part.nunique() > 1).any():
        return None
    targets = part.index.get_level_values("label").map(enough.index).to_numpy()
    patients = part.index.get_level_values("patient")
    first = {"fact": ", ".join(facts), "classes": ", ".join(map(str, enough))}
    return probed(part.to_numpy(), targets, patients, options, enough, first)


def people_by_label(table: pd.DataFrame) -> pd.DataFrame:
    """Count the patients of each label, and say what is known of them, as far as the table does.

    Columns: patients; mean age, youngest, oldest (years), age unknown (patients); men (share of
    those whose sex is known), sex unknown (patients); views (shares of the films).
    """
    rows = {}
    for label, films in table.groupby("label", observed=True):
        people, row = films.groupby("patient"), {"patients": films["patient"].nunique()}
        if "age" in table:
            age = pd.to_numeric(films["age"], errors="coerce").groupby(films["patient"]).mean()
            row |= {"mean age": age.mean(), "youngest": age.min(), "oldest": age.max()}
            row["age unknown"] = int(age.isna().sum())
        if "sex" in table:
            sex = people["sex"].first().dropna()
            row |= {"men": (sex == "M").mean(), "sex unknown": row["patients"] - len(sex)}
        if "view" in table:
            shares = films["view"].fillna("unknown").value_counts(normalize=True).head(4)
            row["views"] = ", ".join(f"{view} {share:.0%}" for view, share in shares.items())
        rows[label] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("label")


def _people(table: pd.DataFrame, classes) -> pd.DataFrame:
    """Turn facts into numbers, the mean of each patient's films: columns (fact, value).

    A patient in two classes has a row in each. What is not known is NaN.
    """
    films = table[table["label"].isin(classes)].reset_index(drop=True)
    found = {}
    for fact in (fact for fact in FACTS if fact in films):
        values = films[fact]
        if fact == "age":
            found[fact] = pd.to_numeric(values, errors="coerce").astype(float).to_frame()
        elif fact == "date":
            known = values.dropna().astype(str)
            when = pd.to_datetime(known, errors="coerce", format="mixed", utc=True)
            days = (when - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)
            found[fact] = days.reindex(films.index).to_frame()
        else:
            words = pd.get_dummies(values, dtype=float).iloc[:, 1:]  # of two, one says it all
            words[values.isna()] = np.nan
            found[fact] = words
    if not found:
        return pd.DataFrame(columns=pd.MultiIndex.from_arrays([[], []]))
    keys = [films["patient"].astype(object), films["label"].astype(object)]
    return pd.concat(found, axis=1).groupby(keys).mean()
