"""Leaks are found where they were planted, and nothing is found where there is none."""

import cv2
import numpy as np
import pandas as pd
import pytest

from cxrlib import duplicates, leaks, split
from cxrlib.cohort import Cohort
from cxrlib.phantom import make_cohort
from helpers import tiny_cohort

LABELS = ("healthy", "covid")


@pytest.fixture(scope="module")
def phantoms():
    return make_cohort(60, (4, 5), LABELS, scanners=["digital", "computed"], size=96, seed=1)


@pytest.fixture(scope="module")
def table(phantoms):
    return leaks.leakage(phantoms, repeats=10, most=None)


@pytest.fixture(scope="module")
def summary(table):
    return leaks.leakage_summary(table).set_index(["labels", "protocol"])


def planted(phantoms, change):
    """Phantoms of 30 patients, one image each, and a changed copy of the fourth one."""
    first = ~phantoms.table["patient"].duplicated().to_numpy()
    cohort = phantoms.take(np.flatnonzero(first)[:30])
    copy = change(cohort.images[3])
    row = cohort.table.iloc[[3]].assign(image="copy", patient="somebody else", label="other")
    table = pd.concat([cohort.table, row]).drop(columns="origin")
    return Cohort(table, np.concatenate([cohort.images[:], copy[None]]), "planted")


def recompress(image):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 0)


def shrink(image):
    small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, image.shape[::-1], interpolation=cv2.INTER_CUBIC)


def crop(image):
    return cv2.resize(image[2:-1, 1:-2], image.shape[::-1])


def brighten(image):
    return np.clip(image * 1.15 + 12, 0, 255).astype(np.uint8)


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
    row = summary.loc[("true", "augment, then split images")]
    assert row["excess low"] > 0
    patients = summary.loc[("true", "augment, then split patients")]
    assert patients["excess low"] < 0 < patients["excess high"]


def test_no_neighbour_shows_the_own_patient_after_a_split_by_patient(table):
    own = table.groupby("protocol")["own neighbour"]
    assert own.max()["split patients, then augment"] == 0
    assert own.max()["augment, then split patients"] == 0
    assert own.min()["augment, then split images"] > 0.5


def test_the_rows_are_complete_and_the_sizes_right(table, phantoms):
    assert len(table) == 4 * 2 * 10
    assert set(table["chance"]) == {0.5}
    sizes = table.groupby("protocol")["test images"].first()
    assert sizes["augment, then split images"] == np.ceil(0.2 * 4 * len(phantoms))
    assert sizes["split images, then augment"] == np.ceil(0.2 * len(phantoms))
    clean = table[table["protocol"] == leaks.CLEAN]
    assert set(clean["test patients"]) == {12}


def test_neither_copies_nor_films_of_test_patients_are_trained_on(phantoms):
    whole = split.expand(phantoms, 2)
    whole = Cohort(whole.table.assign(row=np.arange(len(whole))), whole.images, "x")
    patient, origin = whole.table["patient"].to_numpy(), whole.table["origin"].to_numpy()
    for protocol, shared in (
        (leaks.CLEAN, (False, False)),
        ("augment, then split patients", (False, False)),
        ("split images, then augment", (True, False)),
        ("augment, then split images", (True, True)),
    ):
        train, test = leaks._divide(whole, protocol, 0)
        assert not set(train) & set(test)
        found = tuple(bool(set(of[train]) & set(of[test])) for of in (patient, origin))
        assert found == shared


def test_permuting_keeps_patients_whole_and_the_numbers_of_patients(phantoms):
    permuted = leaks._permute(phantoms, 3).table
    assert (permuted.groupby("patient")["label"].nunique() == 1).all()
    first = permuted.drop_duplicates("patient")["label"].value_counts().to_dict()
    assert first == {"healthy": 30, "covid": 30}
    assert (permuted["label"].to_numpy() != phantoms.table["label"].to_numpy()).any()


def test_a_limit_keeps_whole_patients_of_every_label(phantoms):
    some = leaks._some(phantoms, 40, 0)
    assert 35 <= len(some) <= 40
    sizes = phantoms.table["patient"].value_counts().to_dict()
    for patient, images in some.table["patient"].value_counts().items():
        assert images == sizes[patient]
    patients = some.table.groupby("label")["patient"].nunique()
    assert set(patients.index) == set(LABELS)
    assert abs(patients["covid"] - patients["healthy"]) <= 1


def test_a_backbone_can_take_the_place_of_the_squares(phantoms):
    seen = []

    def extract(images):
        seen.append(len(images))
        return np.array([[images[n].mean(), images[n].std()] for n in range(len(images))])

    leaks.leakage(phantoms, repeats=1, copies=1, extract=extract, most=None)
    assert seen == [2 * len(phantoms)]


def test_leakage_refuses_one_class_and_no_repeat(phantoms):
    with pytest.raises(leaks.LeakError, match="two classes"):
        leaks.leakage(phantoms, ["covid"])
    with pytest.raises(leaks.LeakError, match="one repeat"):
        leaks.leakage(phantoms, repeats=0)


def test_the_summary_is_the_corrected_t_interval_by_hand():
    rows = []
    for repeat, (leaky, clean) in enumerate([(0.9, 0.5), (0.8, 0.6), (0.7, 0.4)]):
        for name in leaks.PROTOCOLS:
            score = clean if name == leaks.CLEAN else leaky
            rows.append({"protocol": name, "labels": "true", "repeat": repeat, "accuracy": score})
    found = leaks.leakage_summary(pd.DataFrame(rows), "accuracy").set_index("protocol")
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


@pytest.mark.parametrize("change", [recompress, shrink, crop, brighten])
def test_a_changed_copy_is_found_and_nothing_else(phantoms, change):
    found = duplicates.near_duplicates(planted(phantoms, change))
    assert len(found) == 1
    pair = found.iloc[0]
    assert pair["other"] == "copy"
    assert pair["image"] == phantoms.table.drop_duplicates("patient")["image"].iloc[3]
    assert not pair["exact"]
    assert not pair["same patient"]
    assert not pair["same label"]
    assert duplicates.ALIKE <= pair["similarity"] < 1


def test_an_identical_copy_is_exact(phantoms):
    found = duplicates.near_duplicates(planted(phantoms, np.copy))
    assert found["exact"].tolist() == [True]
    assert found["similarity"].tolist() == [1.0]


def test_films_of_other_patients_are_no_duplicates():
    cohort = make_cohort(150, (1, 1), size=96, seed=11)
    assert duplicates.near_duplicates(cohort).empty


def test_blank_images_and_many_copies_are_no_trouble():
    cohort = tiny_cohort(6, 1)
    images = np.stack([np.zeros((64, 64), np.uint8)] * 3 + [cohort.images[5]] * 3)
    table = cohort.table.assign(label=[None, "a", "a", "a", None, "b"])
    found = duplicates.near_duplicates(Cohort(table, images, "x"))
    assert found["exact"].all()
    pairs = list(zip(found["image"].str[:3], found["other"].str[:3], strict=True))
    assert pairs == [("p00", "p01"), ("p00", "p02"), ("p03", "p04"), ("p03", "p05")]
    assert found["same label"].isna().tolist() == [True, True, True, False]
    assert duplicates.near_duplicates(Cohort(table[:1], images[:1], "one")).empty


def test_blocks_change_nothing(phantoms, monkeypatch):
    whole = duplicates.near_duplicates(phantoms, 0.8)
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    assert len(whole) > 0
    pd.testing.assert_frame_equal(duplicates.near_duplicates(phantoms, 0.8), whole)


def test_patients_in_two_classes_by_hand():
    cohort = tiny_cohort(4, 2)
    table = cohort.table.assign(label=["a", "b", "a", "a", "b", None, "b", "b"])
    found = duplicates.patients_in_two_classes(Cohort(table, cohort.images, "x"))
    assert found.to_dict("list") == {"patient": ["p00"], "labels": ["a, b"], "images": [2]}
    assert duplicates.patients_in_two_classes(cohort).empty


def test_a_split_of_the_table_is_checked_for_patients_origins_and_duplicates():
    cohort = tiny_cohort(4, 2)
    images = cohort.images[:].copy()
    images[6] = images[0]  # of patients p03 and p00
    images[7] = images[5]  # both for testing
    sides = ["train", "test", "train", "train", "test", "test", "test", "test"]
    origin = cohort.table["image"].to_list()
    origin[5] = origin[2]
    table = cohort.table.assign(split=sides, origin=origin)
    found = duplicates.split_overlap(Cohort(table, images, "x"))
    assert found.to_numpy().tolist() == [
        ["patient", "p00", "test, train", 2],
        ["origin", "p01-0", "test, train", 2],
        ["near-duplicate", "p00-0 ~ p03-0", "test, train", 2],
    ]


def test_a_split_column_that_is_missing_is_named():
    with pytest.raises(leaks.LeakError, match="'fold'"):
        duplicates.split_overlap(tiny_cohort(4), "fold")
