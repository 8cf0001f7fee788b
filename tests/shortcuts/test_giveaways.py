import numpy as np
import pytest

from cxrlib import phantom
from cxrlib.shortcuts import giveaways as shortcuts
from cxrlib.shortcuts import views
from helpers import tiny_cohort

LABELS = ("healthy", "covid")
BLIND = list(views.WITHOUT_LUNGS)


@pytest.fixture(scope="module")
def cohorts():
    return {
        knob: phantom.make_cohort(80, labels=LABELS, confounding=knob, size=96, seed=7)
        for knob in (0, 1)
    }


def test_views_without_lungs_are_at_chance_until_the_scanner_tells(cohorts):
    honest = shortcuts.shortcuts(cohorts[0], permutations=199).set_index("view")
    assert (honest.loc[BLIND, "low"] < 0.5).all() and (honest.loc[BLIND, "p"] > 0.01).all()
    assert honest.loc["whole image", "p"] < 0.01
    told = shortcuts.shortcuts(cohorts[1], permutations=199).set_index("view")
    assert (told.loc[BLIND, "auc"] > 0.95).all() and (told.loc[BLIND, "p"] < 0.01).all()
    assert (told["told"] == "covid").all()


def test_a_view_that_the_table_knows_nothing_of_is_left_out(cohorts):
    table = cohorts[0].table.drop(columns=["format"])
    bare = type(cohorts[0])(table, cohorts[0].images)
    assert list(shortcuts.shortcuts(bare, seen=("border", "file"))["view"]) == ["border"]
    with pytest.raises(views.ShortcutError, match="no view"):
        shortcuts.shortcuts(bare, seen=("nose",))


def test_scanners_are_told_within_one_class(cohorts):
    found = shortcuts.sources_within_class(cohorts[1], by="scanner")
    assert found.empty  # one scanner a label: nothing to compare within a class
    two = phantom.make_cohort(80, (1, 1), LABELS, scanners=("digital", "film"), size=64, seed=1)
    found = shortcuts.sources_within_class(two, by="scanner")
    assert list(found["label"]) == ["healthy", "covid"]
    assert (found["auc"] > 0.95).all() and (found["sources"] == "digital, film").all()


def test_association_counts_patients(cohorts):
    table, strength = shortcuts.association(cohorts[1], by="scanner")
    assert table.to_numpy().sum() == 80 and strength == pytest.approx(1)
    assert shortcuts.association(cohorts[0], by="scanner")[1] < 0.4
    assert np.isnan(shortcuts.association(cohorts[0])[1])  # one source only


def test_cramers_v_of_a_worked_example():
    """Four patients of five stand on the diagonal: V is 0.6 for this 2 x 2 table."""
    base = tiny_cohort(20, 1)
    label = np.array(LABELS * 10)
    other = np.where(np.arange(20) < 4, label[::-1], label)  # 2 of each class swapped
    table = base.table.assign(label=label, source=np.where(other == "covid", "north", "south"))
    _, strength = shortcuts.association(type(base)(table, base.images))
    assert strength == pytest.approx(0.6)


def test_a_label_that_names_no_source_is_no_obstacle(cohorts):
    source = np.where(cohorts[0].table["label"] == "covid", None, "north")
    source[np.flatnonzero(cohorts[0].table["label"] == "healthy")[:20]] = "south"
    table = cohorts[0].table.assign(source=source)
    counts, strength = shortcuts.association(type(cohorts[0])(table, cohorts[0].images))
    assert counts["covid"].sum() == 0 and np.isnan(strength)
