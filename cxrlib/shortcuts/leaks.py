"""Leaks: what a test set shares with the training set, and what that does to a score.

A classifier that only remembers, one nearest neighbour, is the best witness: with labels shuffled
among the patients there is nothing to learn, so whatever it still knows, it has seen before.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from cxrlib import split
from cxrlib.augment import expand
from cxrlib.cohort import Cohort
from cxrlib.compute import cluster
from cxrlib.machine import one_thread
from cxrlib.metrics import t_interval
from cxrlib.shortcuts import views

CLEAN = "split patients, then augment"
PROTOCOLS = {  # name: (how to divide, whether the copies are made before)
    "augment, then split images": (split.by_image, True),
    "split images, then augment": (split.by_image, False),
    "augment, then split patients": (split.by_patient, True),
    CLEAN: (split.by_patient, False),
}
TEST = 0.2  # share for testing, as in the paper


class LeakError(ValueError):
    """An image set in which leaks cannot be looked for."""


def leakage(
    cohort,
    classes=None,
    repeats: int = 20,
    copies: int = 3,
    seed: int = 0,
    extract=None,
    most: int | None = 150,
    progress: bool = False,
    view: str | None = None,
) -> pd.DataFrame:
    """Test one nearest neighbour by four protocols, with true and with permuted labels.

    Permuted labels are shuffled among the patients; all images and copies of a patient keep one.
    A leaky protocol still scores well on them, which no knowledge of a disease can explain.

    Parameters
    ----------
    cohort : Cohort
        Originals, without augmented copies.
    classes : sequence of str, optional
        Labels to tell apart; all that occur by default.
    repeats : int
        Divisions, each with a seed of its own that all protocols share.
    copies : int
        Augmented copies of each image, made once for all repeats.
    seed : int
    extract : callable, optional
        A frozen backbone, as in :func:`cxrlib.shortcuts.views.features`.
    most : int, optional
        Images to use at most, whole patients, drawn at random and from each label in turn:
        150 images of 300 pixels take seconds, a thousand take minutes. None uses all.
    progress : bool
        Show a progress bar.
    view : str, optional
        What the classifier sees, a key of :data:`cxrlib.shortcuts.views.VIEWS`. By default the
        whole image where there is a backbone, and the grey histogram where there is none: a flip
        does not change it and a crop hardly does, so it recognises copies best.

    Returns
    -------
    DataFrame
        A row a protocol, kind of labels and repeat: ``protocol``, ``labels`` ('true' or
        'permuted'), ``repeat``, ``accuracy``, ``balanced accuracy`` (mean recall of the
        classes), ``own neighbour`` (share of the test images whose
        nearest training image shows the same patient), ``test images``, ``test patients``, and
        ``chance`` for the balanced accuracy.

    Raises
    ------
    LeakError
        If there are fewer than two classes, or no repeat.
    cxrlib.split.SplitError
        If a class has too few images or patients to be divided.
    """
    classes = list(classes or cohort.labels)
    if len(set(classes)) < 2 or repeats < 1:
        raise LeakError(f"Give two classes and one repeat or more, not {classes} and {repeats}.")
    part = some_patients(cohort.where(label=classes), most, seed)
    whole = expand(part, copies, seed)
    view = view or ("whole image" if extract else "histogram")
    described = views.features(whole, view, extract)
    table = whole.table.assign(row=np.arange(len(whole)))
    tasks = [(described, table, repeat, seed) for repeat in range(repeats)]
    rows = itertools.chain(*cluster.collect(_repeat, tasks, "leakage", progress))
    return pd.DataFrame(rows).assign(chance=1 / len(set(classes)))


def leakage_summary(
    table: pd.DataFrame, metric: str = "balanced accuracy", confidence: float = 0.95
) -> pd.DataFrame:
    """Average the repeats, and compare each protocol with the clean one.

    With true labels the repeats share images and what they say, so a plain t interval is too
    narrow; these have the correction of Nadeau and Bengio (2003, doi:10.1023/A:1024068626366).
    Permuted labels are drawn anew for each repeat, which makes repeats independent: a plain t
    interval. Excesses are paired by repeat.

    Parameters
    ----------
    table : DataFrame
        As :func:`leakage` gives it.
    metric : str
        One of its columns.
    confidence : float in (0, 1)

    Returns
    -------
    DataFrame
        A row a protocol and kind of labels: ``protocol``, ``labels``, ``mean``, ``sd`` (over
        the repeats), ``low``, ``high``, and ``excess`` over the clean protocol with ``excess
        low`` and ``excess high`` (NaN for the clean one itself). With one repeat there is no
        interval.
    """
    wide = table.pivot(index="repeat", columns=["labels", "protocol"], values=metric)
    rows = []
    for labels, protocol in itertools.product(table["labels"].unique(), PROTOCOLS):
        found, clean = wide[labels, protocol], wide[labels, CLEAN]
        shared = 0.0 if labels == "permuted" else TEST / (1 - TEST)
        mean, low, high = t_interval(found, confidence, shared)
        row = {"protocol": protocol, "labels": labels, "mean": mean, "sd": found.std()}
        excess = (np.nan,) * 3
        if protocol != CLEAN:
            excess = t_interval(found - clean, confidence, shared)
        low, high = np.clip((low, high), 0, 1)  # a share, though t knows nothing of that
        names = ("low", "high", "excess", "excess low", "excess high")
        rows.append(row | dict(zip(names, (low, high, *excess), strict=True)))
    return pd.DataFrame(rows)


def _repeat(described, table, repeat, seed) -> list[dict]:
    """Test every protocol once, with true and with permuted labels: rows of the table."""
    rows, no_pixels = [], np.empty((len(table), 0, 0), np.uint8)
    whole = Cohort(table, no_pixels)
    for labels, labelled in (("true", whole), ("permuted", permute(whole, [seed, repeat]))):
        for protocol in PROTOCOLS:
            train, test = divide(labelled, protocol, seed + repeat)
            first = {"protocol": protocol, "labels": labels, "repeat": repeat}
            rows.append(first | _remember(described, labelled.table, train, test))
    return rows


def some_patients(cohort, most, seed):
    """Draw whole patients, from each label in turn, until there are `most` images."""
    if most is None or len(cohort) <= most:
        return cohort
    first = cohort.table.drop_duplicates("patient").sample(frac=1, random_state=seed)
    order = first.groupby("label").cumcount().sort_values(kind="stable").index
    patients = first.loc[order, "patient"]
    sizes = cohort.table["patient"].value_counts()
    kept = patients[sizes.loc[patients].cumsum().to_numpy() <= most]
    return cohort.take(cohort.table["patient"].isin(kept).to_numpy())


def permute(cohort, seed):
    """Shuffle the labels among the patients; one with several labels counts with the first."""
    first = cohort.table.drop_duplicates("patient").set_index("patient")["label"]
    if first.nunique() < len(cohort.labels):  # where all have several, deal the labels out evenly
        first[:] = np.resize(cohort.labels, len(first))
    shuffled = np.random.default_rng(seed).permutation(first.to_numpy())
    label = cohort.table["patient"].map(dict(zip(first.index, shuffled, strict=True)))
    return Cohort(cohort.table.assign(label=label), cohort.images, cohort.name)


def divide(whole, protocol, seed):
    """Divide originals and copies as a protocol says.

    Parameters
    ----------
    whole : Cohort
        As ``augment.expand`` gives it, with a column ``row`` that numbers the images.
    protocol : str
        One of :data:`PROTOCOLS`.
    seed : int

    Returns
    -------
    train, test : ndarray of int
        Rows for training (copies and all) and for testing.
    """
    by, before = PROTOCOLS[protocol]
    source = whole if before else whole.take(whole.table["copy"].to_numpy() == 0)
    test = by(source, test=TEST, seed=seed).test.table["row"].to_numpy()
    if before:
        return np.setdiff1d(np.arange(len(whole)), test), test
    tested = whole.table["origin"].isin(whole.table["origin"].iloc[test])
    return np.flatnonzero(~tested), test


def _remember(described, table, train, test) -> dict:
    """Train one nearest neighbour and test it."""
    from sklearn.metrics import accuracy_score, balanced_accuracy_score
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler

    with one_thread():
        scale = StandardScaler().fit(described[train])
        memory = NearestNeighbors(n_neighbors=1, algorithm="brute")
        memory.fit(scale.transform(described[train]))
        found = memory.kneighbors(scale.transform(described[test]), return_distance=False)[:, 0]
    label, patient = table["label"].to_numpy(), table["patient"].to_numpy()
    answer = label[train][found]
    return {
        "accuracy": accuracy_score(label[test], answer),
        "balanced accuracy": balanced_accuracy_score(label[test], answer),
        "own neighbour": float(np.mean(patient[train][found] == patient[test])),
        "test images": len(test),
        "test patients": len(set(patient[test])),
    }
