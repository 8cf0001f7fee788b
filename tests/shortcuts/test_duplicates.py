"""Films and patients that occur twice are found, and nothing else is."""

import cv2
import numpy as np
import pandas as pd
import pytest

from cxrlib.augment import augment
from cxrlib.cohort import Cohort
from cxrlib.phantom import make_cohort
from cxrlib.shortcuts import duplicates, likeness
from helpers import tiny_cohort

LABELS = ("healthy", "covid")


@pytest.fixture(scope="module")
def phantoms():
    """Thirty patients with two images each."""
    return make_cohort(30, (2, 2), LABELS, scanners=["digital", "computed"], size=96, seed=1)


def planted(phantoms, change):
    """Phantoms, one image of each patient, and a changed copy of the fourth one."""
    first = ~phantoms.table["patient"].duplicated().to_numpy()
    cohort = phantoms.take(first)
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


def frame(image):
    return cv2.resize(cv2.copyMakeBorder(image, *[8] * 4, cv2.BORDER_CONSTANT), image.shape[::-1])


def cover_edges(image):
    return cv2.copyMakeBorder(image[3:-3, 3:-3], *[3] * 4, cv2.BORDER_CONSTANT)


def stamp(image):
    stamped = image.copy()
    stamped[10:40, 50:80] = 255
    return cv2.putText(stamped, "COPY", (52, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.3, 0)


def equalise(image):
    return cv2.createCLAHE(4.0, (8, 8)).apply(image)


def invert(image):
    return 255 - image


def mirror(image):
    return image[:, ::-1]


def mirror_and_invert(image):
    return 255 - image[:, ::-1]


HOW = {mirror: "mirrored", invert: "inverted", mirror_and_invert: "mirrored, inverted"}


@pytest.mark.parametrize(
    "change",
    [recompress, shrink, crop, brighten, frame, cover_edges, stamp, equalise, *HOW, np.copy],
)
def test_a_copy_is_found_and_nothing_else(phantoms, change):
    found = duplicates.near_duplicates(planted(phantoms, change))
    assert len(found) == 1
    pair = found.iloc[0]
    assert pair["other"] == "copy"
    assert pair["image"] == phantoms.table.drop_duplicates("patient")["image"].iloc[3]
    assert not pair["same patient"] and not pair["same label"]
    assert pair["exact"] == (change is np.copy)
    assert likeness.ALIKE <= pair["similarity"] <= 1
    assert pair["how"] == HOW.get(change, "")


def test_most_augmented_copies_are_found():
    cohort = make_cohort(60, (1, 1), size=150, seed=3)
    rng = np.random.default_rng(0)
    copies = np.stack([augment(image, rng) for image in cohort.images[:20]])
    names = [f"copy of {name}" for name in cohort.table["image"][:20]]
    rows = cohort.table[:20].assign(image=names, patient=names, origin=pd.NA)
    both = np.concatenate([cohort.images[:], copies])
    found = duplicates.near_duplicates(Cohort(pd.concat([cohort.table, rows]), both, "augmented"))
    assert ("copy of " + found["image"] == found["other"]).all() and len(found) >= 10


@pytest.mark.parametrize(("grey", "inner"), [(0, 255), (255, 0)])
def test_a_frame_within_a_frame_is_told_from_the_film(grey, inner):
    film = np.random.default_rng(0).integers(60, 200, (80, 90), dtype=np.uint8)
    film[:] = cv2.GaussianBlur(film, (0, 0), 2) // 2 + np.linspace(20, 120, 90, dtype=np.uint8)
    framed = cv2.copyMakeBorder(film, 4, 4, 5, 3, cv2.BORDER_CONSTANT, value=inner)
    framed = cv2.copyMakeBorder(framed, 6, 2, 3, 9, cv2.BORDER_CONSTANT, value=grey)
    found, box = likeness.see(framed, 128)
    scale = 128 / np.array([framed.shape[1], framed.shape[0]] * 2)
    np.testing.assert_allclose(box, scale * [8, 10, 98, 90], atol=1.5)
    left, top, right, bottom = box
    wanted = cv2.resize(film, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    inside = found[top:bottom, left:right][3:-3, 3:-3], wanted[3:-3, 3:-3]
    assert np.corrcoef(*(each.ravel().astype(float) for each in inside))[0, 1] > 0.97
    assert abs(found.astype(float) - grey).min() > 10  # a reflection stands where the frames were


def test_what_a_frame_would_leave_as_no_film_is_not_cut_off():
    film = np.zeros((80, 90), np.uint8)
    film[30:50, 30:60] = 200
    found, box = likeness.see(film, 64)
    assert box.tolist() == [0, 0, 64, 64] and (found[:20] == 0).all()


def test_films_of_other_patients_are_no_duplicates():
    cohort = make_cohort(80, (1, 1), size=96, seed=11)
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
    monkeypatch.setattr(likeness, "BLOCK", 7)
    assert len(whole) > 1 and whole["similarity"].is_monotonic_decreasing
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
    copied = Cohort(table, images, "x")
    found = duplicates.split_overlap(copied, duplicates.near_duplicates(copied))
    assert found.to_numpy().tolist() == [
        ["patient", "p00", "test, train", 2],
        ["origin", "p01-0", "test, train", 2],
        ["near-duplicate", "p00-0 ~ p03-0", "test, train", 2],
    ]


def test_copies_of_one_film_share_a_patient_from_then_on():
    cohort = tiny_cohort(6, 2)
    names = cohort.table["image"]
    pairs = pd.DataFrame({"image": [names[0], names[2]], "other": [names[3], names[8]]})
    joined = duplicates.together(cohort, pairs).table
    assert (
        joined["patient"].tolist()
        == ["p00"] * 4 + ["p02"] * 2 + ["p03"] * 2 + ["p00"] * 2 + ["p05"] * 2
    )
    pd.testing.assert_frame_equal(
        joined.drop(columns="patient"), cohort.table.drop(columns="patient")
    )
    assert duplicates.together(cohort, pairs[:0]).table.equals(cohort.table)
