"""Train, validation and test parts: the paper's way, and by patient.

The paper divides images 80/20, with 20 % of the training part for validation (section IV.A),
and does not say whether it divides before or after augmenting. Both readings are here.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxrlib.augment import expand
from cxrlib.cohort import Cohort


class SplitError(ValueError):
    """A split that cannot be made, or that lets the test set leak into training."""


class Fold(NamedTuple):
    """Rows of a cohort with its copies, int arrays, for one of several models: see `folds`."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Parts(NamedTuple):
    """The three parts of a split."""

    train: Cohort
    validation: Cohort
    test: Cohort


def _divide(items, labels, share: float, seed: int):
    """Divide items at random in two, each label in proportion."""
    from sklearn.model_selection import train_test_split

    if not 0 < share < 1:
        raise SplitError(f"A part takes a share between 0 and 1, not {share}.")
    try:
        return train_test_split(items, test_size=share, random_state=seed, stratify=labels)
    except ValueError as error:
        counts = pd.Series(labels).value_counts().to_dict()
        raise SplitError(
            f"{len(items)} items cannot be divided with {share:.0%} on one side and every label "
            f"on both ({counts}): {error} Take more images or patients."
        ) from error


def _labels(cohort: Cohort) -> pd.Series:
    unknown = cohort.table["label"].isna()
    if unknown.any():
        name = cohort.table.loc[unknown, "image"].iloc[0]
        raise SplitError(f"{cohort.name}: image {name!r} has no label; select with where(label=).")
    return cohort.table["label"]


def balance(cohort: Cohort, seed: int = 0) -> Cohort:
    """Keep equally many images of every label, as many as the rarest label has.

    Whole patients are drawn at random, so few of them are torn apart. The paper's binary test
    set fits 48 positives and 48 negatives, while controls are plentiful everywhere.
    """
    labels = _labels(cohort)
    order = np.random.default_rng(seed).permutation(cohort.table["patient"].unique())
    rank = cohort.table["patient"].map({patient: place for place, patient in enumerate(order)})
    by_rank = labels.loc[rank.sort_values(kind="stable").index]
    kept = by_rank.groupby(by_rank).head(labels.value_counts().min()).index
    return cohort.take(np.sort(kept.to_numpy()))


def by_image(cohort: Cohort, test: float = 0.2, validation: float = 0.2, seed: int = 0) -> Parts:
    """Divide images at random, whoever they show: the usual way, and the leaky one.

    `test` is a share of all images, `validation` one of the remaining ones. SplitError if a label
    has too few images, or an image has no label.
    """
    labels = _labels(cohort).to_numpy()
    rest, rows_test = _divide(np.arange(len(cohort)), labels, test, seed)
    rows_train, rows_validation = _divide(rest, labels[rest], validation, seed)
    return Parts(*(cohort.take(np.sort(r)) for r in (rows_train, rows_validation, rows_test)))


def by_patient(cohort: Cohort, test: float = 0.2, validation: float = 0.2, seed: int = 0) -> Parts:
    """Divide patients at random; all images of a patient go the same way.

    As :func:`by_image`, the shares being shares of patients. A patient with images of several
    labels counts with the first of them.
    """
    _labels(cohort)
    if cohort.table["patient"].isna().any():
        raise SplitError(f"{cohort.name}: some images name no patient; give each an id first.")
    first = cohort.table.drop_duplicates("patient").set_index("patient")["label"]
    rest, test_patients = _divide(first.index.to_numpy(), first.to_numpy(), test, seed)
    train, held = _divide(rest, first.loc[rest].to_numpy(), validation, seed)
    patient = cohort.table["patient"]
    parts = Parts(*(cohort.take(patient.isin(p).to_numpy()) for p in (train, held, test_patients)))
    check_patients(parts)
    return parts


def paper_protocol(cohort: Cohort, copies: int = 3, seed: int = 0) -> Parts:
    """Augment everything, then divide images: copies of one film land on both sides."""
    return by_image(expand(cohort, copies, seed), seed=seed)


def clean_protocol(cohort: Cohort, copies: int = 3, seed: int = 0) -> Parts:
    """Divide patients, then augment the training part only."""
    parts = by_patient(cohort, seed=seed)
    return parts._replace(train=expand(parts.train, copies, seed))


PROTOCOLS = {"paper": paper_protocol, "clean": clean_protocol}


def folds(whole: Cohort, protocol: str = "clean", number: int = 5, seed: int = 0) -> list[Fold]:
    """Divide into folds, so that every film is tested once, by a model that did not learn from it.

    Parameters
    ----------
    whole : Cohort
        What ``augment.expand`` gives: every film, followed by its copies.
    protocol : str
        'clean': a fold holds whole patients, and only training sees copies. 'paper': copies are
        dealt like films, at random, so a model learns from copies of the films that test it.
        Either way the originals alone are tested, so that both are compared on the same films.
    number : int
        Folds; 2 or more. Each has about as many films of every label. Four fifths of what is not
        tested train a model, the rest are for validation (paper, section IV.A).
    seed : int

    Returns
    -------
    list of Fold

    Raises
    ------
    SplitError
        If a label has fewer patients (or films) than there are folds, a film names no patient,
        or there is no such protocol.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if protocol not in PROTOCOLS:
        raise SplitError(f"There is no protocol {protocol!r}; there are {', '.join(PROTOCOLS)}.")
    clean, table = protocol == "clean", whole.table
    labels, original = _labels(whole).to_numpy(), (table["copy"] == 0).to_numpy()
    if clean and table["patient"].isna().any():
        raise SplitError(f"{whole.name}: some images name no patient; give each an id first.")
    # what is dealt as one: a patient, or a film or copy
    unit = pd.factorize(table["patient"])[0] if clean else np.arange(len(whole))
    fewest = pd.Series(unit[original]).groupby(labels[original]).nunique().min()
    if not 2 <= number <= fewest:
        raise SplitError(
            f"{number} folds cannot be made: give 2 or more, and at most as many as the rarest "
            f"label has {'patients' if clean else 'films'} ({fewest})."
        )
    dealt = np.flatnonzero(original) if clean else unit
    kind = StratifiedGroupKFold if clean else StratifiedKFold
    alike = pd.factorize(pd.Series(labels).astype(str) + original.astype(str))[0][dealt]
    deal = kind(number, shuffle=True, random_state=seed)
    first = np.unique(unit, return_index=True)[1]  # a patient counts with the first label
    found = []
    for _, held in deal.split(dealt, alike, unit[dealt] if clean else None):
        test = dealt[held]
        rest = np.setdiff1d(unit, unit[test])
        train, validation = _divide(rest, labels[first[rest]], 0.2, seed)
        rows = [np.flatnonzero(np.isin(unit, part)) for part in (train, validation)]
        if clean:
            rows[1] = rows[1][original[rows[1]]]
        found.append(Fold(*rows, test[original[test]]))
    return found


def overlap(parts: Parts) -> pd.DataFrame:
    """Count what stands in the test part and also in training or validation.

    Rows ``patient`` and ``origin`` (the film a copy was made from); columns ``in test``,
    ``also in training or validation`` and ``share``.
    """
    seen = pd.concat([parts.train.table, parts.validation.table])
    rows = {}
    for column in ("patient", "origin"):
        in_test = parts.test.table[column].unique()
        shared = int(np.isin(in_test, seen[column].unique()).sum())
        rows[column] = {
            "in test": len(in_test),
            "also in training or validation": shared,
            "share": shared / len(in_test),
        }
    return pd.DataFrame(rows).T.astype({"in test": int, "also in training or validation": int})


def check_patients(parts: Parts) -> None:
    """Raise :class:`SplitError` if a patient stands in two of the parts."""
    for (name, part), (other, later) in combinations(parts._asdict().items(), 2):
        both = set(part.table["patient"]) & set(later.table["patient"])
        if both:
            raise SplitError(
                f"{len(both)} patient(s), {sorted(map(str, both))[0]!r} among them, stand in "
                f"both {name} and {other}. Divide with split.by_patient."
            )
