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
from cxrlib.machine import one_thread
from cxrlib.metrics import t_interval
from cxrlib.parallel import cluster
from cxrlib.shortcuts import views

CLEAN = "split patients, then augment"
PROTOCOLS = {  # name: (how to divide, whether the copies are made before)
    "augment, then split images": (split.by_image, True),
    "split images, then augment": (split.by_image, False),
    "augment, then split patients": (split.by_patient, True),
    CLEAN: (split.by_patient, False),
}
TEST = 0.2  # share for testing, as in the paper


def leakage(
    cohort, classes=None, repeats: int = 20, seed: int = 0, extract=None, most: int | None = 150
) -> pd.DataFrame:
    """Test one nearest neighbour by four protocols, with true and with permuted labels.

    Permuted labels are shuffled among the patients; all images and copies of a patient keep one.
    A leaky protocol still scores well on them, which no knowledge of a disease can explain.
    Without a backbone it sees the grey histogram, which a flip or crop hardly changes.

    Parameters
    ----------
    cohort : Cohort
        Originals, without augmented copies; three of each are made, once for all repeats.
    classes : sequence of str, optional
        Labels to tell apart; all that occur by default.
    repeats : int
        Divisions, each with a seed of its own that all protocols share.
    seed : int
    extract : callable, optional
        A frozen backbone, as in :func:`cxrlib.shortcuts.views.features`.
    most : int, optional
        Images to use at most, whole patients, drawn at random and from each label in turn:
        150 images of 300 pixels take seconds, a thousand take minutes. None uses all.

    Returns
    -------
    DataFrame
        A row a protocol, kind of labels ('true' or 'permuted') and repeat: ``protocol``,
        ``labels``, ``repeat``, ``accuracy``, ``balanced accuracy`` (mean recall of the classes)
        and its ``chance``, ``own neighbour`` (share of the test images whose nearest training
        image shows the same patient), ``test images``, ``test patients``.

    Raises
    ------
    ShortcutError, cxrlib.split.SplitError
        If there are fewer than two classes, too few patients in one, or no repeat.
    """
    classes = list(classes or cohort.labels)
    if len(set(classes)) < 2 or repeats < 1:
        raise views.ShortcutError(
            f"Give two classes and one repeat or more, not {classes} and {repeats}."
        )
    part = some_patients(cohort.where(label=classes), most, seed)
    whole = expand(part, seed=seed)
    described = views.features(whole, "whole image" if extract else "histogram", extract)
    table = whole.table.assign(row=np.arange(len(whole)))
    tasks = [(described, table, repeat, seed) for repeat in range(repeats)]
    rows = itertools.chain(*cluster.collect(_repeat, tasks, "leakage", progress=False))
    return pd.DataFrame(rows).assign(chance=1 / len(set(classes)))


def leakage_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Average :func:`leakage`'s balanced accuracy, and compare each protocol with the clean one.

    With true labels the repeats share images and what they say, so a plain t interval is too
    narrow; these have the correction of Nadeau and Bengio (2003, doi:10.1023/A:1024068626366).
    Permuted labels are drawn anew for each repeat: a plain t interval. Excesses are paired by
    repeat.

    Returns
    -------
    DataFrame
        A row a protocol and kind of labels: ``protocol``, ``labels``, ``mean``, ``sd`` (over
        the repeats), ``low``, ``high`` (95 %), and ``excess`` over the clean protocol with
        ``excess low`` and ``excess high`` (NaN for the clean one itself). With one repeat there
        is no interval.
    """
    wide = table.pivot(index="repeat", columns=["labels", "protocol"], values="balanced accuracy")
    rows = []
    for labels, protocol in itertools.product(table["labels"].unique(), PROTOCOLS):
        found, clean = wide[labels, protocol], wide[labels, CLEAN]
        shared = 0.0 if labels == "permuted" else TEST / (1 - TEST)
        mean, *ends = t_interval(found, shared=shared)
        low, high = np.clip(ends, 0, 1)  # a share, though t knows nothing of that
        excess = (np.nan,) * 3 if protocol == CLEAN else t_interval(found - clean, shared=shared)
        rows.append((protocol, labels, mean, found.std(), low, high, *excess))
    names = ["protocol", "labels", "mean", "sd", "low", "high"]
    return pd.DataFrame(rows, columns=[*names, "excess", "excess low", "excess high"])


def _repeat(described, table, repeat, seed) -> list[dict]:
    rows, whole = [], Cohort(table, np.empty((len(table), 0, 0), np.uint8))
    for labels, labelled in (("true", whole), ("permuted", _permute(whole, [seed, repeat]))):
        for protocol in PROTOCOLS:
            train, test = divide(labelled, protocol, seed + repeat)
            first = {"protocol": protocol, "labels": labels, "repeat": repeat}
            rows.append(first | _remember(described, labelled.table, train, test))
    return rows


def some_patients(cohort, most: int | None, seed: int = 0):
    """Draw whole patients, from each label in turn, as long as they have `most` images at most."""
    if most is None or len(cohort) <= most:
        return cohort
    first = cohort.table.drop_duplicates("patient").sample(frac=1, random_state=seed)
    order = first.groupby("label").cumcount().sort_values(kind="stable").index
    patients = first.loc[order, "patient"]
    sizes = cohort.table["patient"].value_counts()
    kept = patients[sizes.loc[patients].cumsum().to_numpy() <= most]
    return cohort.take(cohort.table["patient"].isin(kept).to_numpy())


def _permute(cohort, seed):
    """Shuffle the labels among the patients; one with several labels counts with the first."""
    first = cohort.table.drop_duplicates("patient").set_index("patient")["label"]
    if first.nunique() < len(cohort.labels):  # where all have several, deal the labels out evenly
        first[:] = np.resize(cohort.labels, len(first))
    shuffled = np.random.default_rng(seed).permutation(first.to_numpy())
    label = cohort.table["patient"].map(dict(zip(first.index, shuffled, strict=True)))
    return Cohort(cohort.table.assign(label=label), cohort.images, cohort.name)


def divide(whole, protocol, seed):
    """Divide originals and copies as one of :data:`PROTOCOLS` says: rows to train on, to test on.

    `whole` is what ``augment.expand`` gives, with a column ``row`` that numbers the images.
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
