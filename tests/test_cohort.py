import sys

import numpy as np
import psutil
import pytest

from cxrlib.cohort import Cohort, CohortError, Rows
from helpers import tiny_cohort


def test_rows_read_only_what_is_asked_for():
    class Counting:
        shape, dtype, read = (1000, 2, 2), np.dtype(np.uint8), 0

        def __len__(self):
            return 1000

        def __getitem__(self, key):
            self.read += np.size(key)
            return np.zeros((*np.shape(key), 2, 2), np.uint8)

    array = Counting()
    chosen = Rows(Rows(array, np.arange(0, 1000, 2)), [3, 1])
    assert chosen.shape == (2, 2, 2) and array.read == 0
    assert list(chosen.rows) == [6, 2]
    assert chosen[0].shape == (2, 2) and array.read == 1
    assert np.asarray(chosen).shape == (2, 2, 2) and array.read == 3


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which pages of files are held")
def test_films_read_from_a_large_file_do_not_stay_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("cxrlib.cohort.LARGE", 2**20)
    films = np.random.default_rng(0).integers(0, 256, (400, 300, 300), dtype=np.uint8)  # 36 MB
    np.save(tmp_path / "films.npy", films)
    rows = Rows(np.load(tmp_path / "films.npy", mmap_mode="r"))
    before = psutil.Process().memory_info().shared
    assert all(np.array_equal(rows[number], film) for number, film in enumerate(films))
    assert psutil.Process().memory_info().shared - before < 5e6


def test_a_map_that_may_be_written_keeps_what_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr("cxrlib.cohort.LARGE", 0)
    np.save(tmp_path / "films.npy", np.zeros((3, 8, 8), np.uint8))
    films = np.load(tmp_path / "films.npy", mmap_mode="c")  # written to memory only
    films[1] = 7
    assert Rows(films)[1].min() == Rows(films)[[0, 1]].max() == 7


def test_selections_keep_table_and_images_aligned():
    cohort = tiny_cohort()
    order = np.random.default_rng(1).permutation(len(cohort))
    shuffled = cohort.take(order).where(label="covid")
    for row, name in enumerate(shuffled.table["image"]):
        original = cohort.table.index[cohort.table["image"] == name][0]
        assert np.array_equal(shuffled.images[row], cohort.images[original])


def test_repr_shows_the_counts():
    text = repr(tiny_cohort(patients=6, per_patient=3))
    assert "18 images (64 x 64) of 6 patients" in text
    assert "healthy" in text and "covid" in text


def test_targets_follow_the_order_of_the_classes():
    cohort = tiny_cohort(patients=4, per_patient=1)
    assert list(cohort.targets(["healthy", "covid"])) == [0, 1, 0, 1]
    assert list(cohort.targets(["covid", "healthy"])) == [1, 0, 1, 0]


def test_unknown_labels_are_never_a_class():
    cohort = tiny_cohort(patients=4, per_patient=1)
    cohort.table.loc[2, "label"] = None
    assert cohort.labels == ["healthy", "covid"]
    with pytest.raises(CohortError, match="p02-0"):
        cohort.targets(["healthy", "covid"])


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda c: c.targets(["healthy", "covid", "pneumonia"]), "'pneumonia' has no image"),
        (lambda c: c.targets(["healthy"]), "none of"),
        (lambda c: c.where(label="flu"), "no image with label 'flu'"),
        (lambda c: c.where(hospital="A"), "no column 'hospital'"),
        (lambda c: Cohort(c.table, np.zeros((3, 2, 2), np.uint8)), "40 table rows for 3 images"),
        (lambda c: Cohort(c.table.drop(columns="patient"), c.images), "lacks the column"),
        (lambda c: c.take([0, 0]), "more than once"),
    ],
)
def test_contradictions_are_named(action, message):
    with pytest.raises(CohortError, match=message):
        action(tiny_cohort())
