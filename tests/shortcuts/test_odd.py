"""Films made odd on purpose are found and named, and the good ones are left alone."""

from math import comb

import cv2
import numpy as np
import pandas as pd
import pytest

from cxrlib.cohort import Cohort
from cxrlib.phantom import make_cohort
from cxrlib.shortcuts import odd_by_label, odd_films
from helpers import tiny_cohort


@pytest.fixture(scope="module")
def phantoms():
    """Sixty patients with a film each, from five machines."""
    return make_cohort(60, (1, 1), ("healthy", "covid", "pneumonia"), size=96, seed=2)


def changed(cohort, change, rows, **columns):
    images = np.array(cohort.images[:])
    for row in rows:
        images[row] = change(images[row])
    return Cohort(cohort.table.assign(**columns), images, "changed")


def reasons(cohort) -> dict[str, str]:
    found = odd_films(cohort)
    return dict(zip(found["image"], found["reason"], strict=True))


def slice_like(film):
    """An oval body with two dark lungs, in the dark."""
    image = np.zeros_like(film)
    cv2.ellipse(image, (48, 48), (42, 32), 0, 0, 360, 170, -1)
    for across in (29, 67):
        cv2.ellipse(image, (across, 46), (14, 20), 0, 0, 360, 20, -1)
    return image


def frame(film):
    image = np.full_like(film, 255)
    image[20:80, 10:80] = cv2.resize(film, (70, 60))
    return image


WAYS = {
    "inverted": (lambda film: 255 - film, "inverted"),
    "left": (np.rot90, "turned by 90°"),
    "right": (lambda film: np.rot90(film, 3), "turned by 90°"),
    "upside down": (lambda film: np.rot90(film, 2), "upside down"),
    "slice": (slice_like, "dark around the body, as a slice or a photo"),
    "blank": (frame, "blank border"),
    "black": (lambda film: film // 8, "nearly black"),
    "empty": (np.zeros_like, "nearly black"),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_was_made_odd_is_named_and_nothing_else(phantoms, way):
    change, reason = WAYS[way]
    rows = [4, 23, 50]
    found = reasons(changed(phantoms, change, rows))
    assert found == {phantoms.table["image"][row]: reason for row in rows}


def test_a_film_unlike_any_other_is_found(phantoms):
    """A grey square with a bright ring: it looks the same however it is turned."""
    board = np.random.default_rng(0).integers(110, 130, (96, 96))  # no border is uniform
    board[12:84, 12:84] = 230
    board[30:66, 30:66] = 120
    found = reasons(changed(phantoms, lambda film: board.astype(np.uint8), [9]))
    assert found == {phantoms.table["image"][9]: "unlike the rest"}


def test_a_whole_label_that_is_odd_is_found(phantoms):
    """A third of the set: the others still say what is usual."""
    rows = np.flatnonzero(phantoms.table["label"] == "covid")
    inverted = changed(phantoms, lambda film: 255 - film, rows)
    found = odd_films(inverted)
    assert set(found["image"]) == set(phantoms.table["image"][rows])
    assert set(found["reason"]) == {"inverted"}
    table = odd_by_label(inverted, found).set_index("label")
    assert table.loc["covid", "odd"] == table.loc["covid", "patients"] == 20
    assert table.loc["covid", "p"] < 1e-9 and table.loc["healthy", "p"] == 1


def test_a_mirrored_copy_is_named_with_its_original(phantoms):
    images = np.array(phantoms.images[:])
    images[7] = images[30][:, ::-1]
    found = reasons(Cohort(phantoms.table, images, "mirrored"))
    names = phantoms.table["image"]
    told = {names[7]: f"mirrored copy of {names[30]}", names[30]: f"mirrored copy of {names[7]}"}
    assert len(found) == 1 and found.items() <= told.items()


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("view", "L", "lateral view"),
        ("view", " Lateral", "lateral view"),
        ("modality", "ct", "modality CT"),
    ],
)
def test_what_the_table_says_counts(phantoms, column, value, reason):
    usual = {"view": "PA", "modality": "DX"}[column]
    said = [usual] * 20 + [value] * 2 + [None] * 38
    found = reasons(changed(phantoms, None, [], **{column: said}))
    assert found == {phantoms.table["image"][row]: reason for row in (20, 21)}


def test_what_most_films_have_in_common_is_not_odd(phantoms):
    assert not reasons(changed(phantoms, None, [], view="LATERAL"))
    assert not reasons(changed(phantoms, lambda film: film // 8, range(60)))
    assert not reasons(changed(phantoms, lambda film: 255 - film, range(60)))


def test_of_few_films_none_is_odd(phantoms):
    few = changed(phantoms.take(range(29)), lambda film: 255 - film, [3])
    found = odd_films(few)
    assert found.empty
    assert list(found) == ["image", "label", "source", "reason", "score"]


@pytest.mark.parametrize("patient", ["all one", None])
def test_unknown_patients_are_no_obstacle(phantoms, patient):
    found = reasons(changed(phantoms, np.rot90, [3], patient=patient))
    assert found == {phantoms.table["image"][3]: "turned by 90°"}


def test_films_are_sorted_by_label_and_source(phantoms):
    sources = np.where(np.arange(60) % 2, "a", "b")
    found = odd_films(changed(phantoms, np.rot90, range(0, 60, 7), source=sources))
    by = ["label", "source", "score"]
    assert found.equals(found.sort_values(by, ascending=[True, True, False]))
    facts = phantoms.table.set_index("image")["label"]
    assert (found["label"] == facts[found["image"]].to_numpy()).all()


def test_labels_are_compared_by_patient():
    """5 of 10 patients against none of 10: by counting the ways, doubled for two labels."""
    cohort = tiny_cohort(20, per_patient=2, side=32)
    patients = cohort.table.loc[cohort.table["label"] == "covid", "patient"].unique()[:5]
    found = cohort.table[cohort.table["patient"].isin(patients)]
    table = odd_by_label(cohort, found).set_index("label")
    assert table.loc["covid", ["patients", "odd", "share", "share of others"]].tolist() == [
        10, 5, 0.5, 0.0,
    ]  # fmt: skip
    assert table.loc["covid", "p"] == pytest.approx(2 * comb(10, 5) / comb(20, 5))
    assert table.loc["healthy", "p"] == 1


def test_films_without_a_label_are_looked_at_too(phantoms):
    labels = phantoms.table["label"].where(np.arange(60) != 11)
    cohort = changed(phantoms, lambda film: 255 - film, [11], label=labels)
    found = odd_films(cohort)
    assert found["image"].tolist() == [phantoms.table["image"][11]]
    assert odd_by_label(cohort, found)["odd"].sum() == 0
    assert pd.isna(found["label"]).all()
