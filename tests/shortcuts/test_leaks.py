"""Leaks are found where they were planted, and nothing is found where there is none."""

import numpy as np
import pandas as pd
import pytest

from cxrlib.augment import expand
from cxrlib.cohort import Cohort
from cxrlib.phantom import make_cohort
from cxrlib.shortcuts import leaks
from cxrlib.shortcuts.views import ShortcutError
from helpers import tiny_cohort

LABELS = ("healthy", "covid")


@pytest.fixture(scope="module")
def phantoms():
    return make_cohort(60, (4, 4), LABELS, scanners=["digital", "computed"], size=64, seed=1)


@pytest.fixture(scope="module")
def table(phantoms):
    return leaks.leakage(phantoms, repeats=10, most=None)


@pytest.fixture(scope="module")
def summary(table):
    return leaks.leakage_summary(table).set_index(["labels", "protocol"])


def test_permuted_labels_are_at_chance_under_the_clean_protocol_only(summary):
    clean = summary.loc[("permuted", leaks.CLEAN)]
    assert clean["low"] < 0.5 < clean["high"]
    assert clean["mean"] < 0.62
    for leaky in ("augment, then split images", "split images, then augment"):
        row = summary.loc[("permuted", leaky)]
        assert row["low"] > 0.5
        assert row["excess low"] > 0
    assert summary.loc[("permuted", "augment, then split images"), "mean"] > 0.8


def test_copies_on_both_sides_raise_the_score_with_true_labels_too(summary):
    assert summary.loc[("true", "augment, then split images"), "excess low"] > 0
    patients = summary.loc[("true", "augment, then split patients")]
    assert patients["excess low"] < 0 < patients["excess high"]


def test_the_rows_are_complete_and_no_neighbour_shows_a_patient_who_was_split_off(table, phantoms):
    assert len(table) == 4 * 2 * 10
    assert set(table["chance"]) == {0.5}
    own = table.groupby("protocol")["own neighbour"]
    assert own.max()[leaks.CLEAN] == own.max()["augment, then split patients"] == 0
    assert own.min()["augment, then split images"] > 0.5
    sizes = table.groupby("protocol")["test images"].first()
    assert sizes["augment, then split images"] == np.ceil(0.2 * 4 * len(phantoms))
    assert sizes["split images, then augment"] == np.ceil(0.2 * len(phantoms))
    assert set(table.loc[table["protocol"] == leaks.CLEAN, "test patients"]) == {12}


def test_neither_copies_nor_films_of_test_patients_are_trained_on(phantoms):
    whole = expand(phantoms, 2)
    whole = Cohort(whole.table.assign(row=np.arange(len(whole))), whole.images, "x")
    patient, origin = whole.table["patient"].to_numpy(), whole.table["origin"].to_numpy()
    for protocol, shared in (
        (leaks.CLEAN, (False, False)),
        ("augment, then split patients", (False, False)),
        ("split images, then augment", (True, False)),
        ("augment, then split images", (True, True)),
    ):
        train, test = leaks.divide(whole, protocol, 0)
        assert not set(train) & set(test)
        found = tuple(bool(set(of[train]) & set(of[test])) for of in (patient, origin))
        assert found == shared


def test_a_limit_keeps_whole_patients_of_every_label_and_a_backbone_sees_them_and_their_copies():
    cohort, seen = tiny_cohort(20, 3), []

    def extract(images):
        seen.extend(images[n] for n in range(len(images)))
        return np.array([[image.mean(), image.std()] for image in seen])

    found = leaks.leakage(cohort, repeats=1, extract=extract, most=31)
    assert len(seen) == 4 * 30  # ten patients of twenty, each image with three copies
    kept = [n for n, image in enumerate(cohort.images[:]) if any((image == s).all() for s in seen)]
    patients = cohort.take(np.array(kept)).table.groupby("label")["patient"]
    assert patients.size().to_dict() == {"healthy": 15, "covid": 15}
    assert patients.nunique().to_dict() == {"healthy": 5, "covid": 5}
    assert set(found["labels"]) == {"true", "permuted"}


def test_leakage_refuses_one_class_and_no_repeat(phantoms):
    for wrong in ({"classes": ["covid"]}, {"repeats": 0}):
        with pytest.raises(ShortcutError, match="two classes and one repeat"):
            leaks.leakage(phantoms, **wrong)


def test_the_summary_is_the_corrected_t_interval_by_hand():
    rows = []
    for repeat, (leaky, clean) in enumerate([(0.9, 0.5), (0.8, 0.6), (0.7, 0.4)]):
        for name in leaks.PROTOCOLS:
            rows.append((name, "true", repeat, clean if name == leaks.CLEAN else leaky))
    columns = ["protocol", "labels", "repeat", "balanced accuracy"]
    found = leaks.leakage_summary(pd.DataFrame(rows, columns=columns)).set_index("protocol")
    row = found.loc["augment, then split images"]
    # Excesses .4, .2, .3: mean .3, variance .01, times (1/3 + .2/.8); t of .975 with 2 is 4.3027
    half = 4.302652 * np.sqrt(0.01 * (1 / 3 + 0.25))
    assert row["mean"] == pytest.approx(0.8)
    assert row["sd"] == pytest.approx(0.1)
    assert row["excess"] == pytest.approx(0.3)
    assert row["excess high"] - 0.3 == pytest.approx(half, rel=1e-5)
    assert 0.3 - row["excess low"] == pytest.approx(half, rel=1e-5)
    assert row["high"] == 1  # a share stays a share
    assert np.isnan(found.loc[leaks.CLEAN, "excess"])
