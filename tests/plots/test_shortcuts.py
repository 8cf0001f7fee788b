"""Figures of the audit draw the numbers they are given, and say what their reader must know."""

import io

import matplotlib
import numpy as np
import pandas as pd
import pytest

from cxrlib import NOT_CLINICAL, shortcuts
from cxrlib.phantom import make_cohort
from cxrlib.plots import shortcuts as auditplots
from cxrlib.plots import style
from cxrlib.shortcuts import hospitals as transfer
from cxrlib.shortcuts import leaks, remedies, views
from helpers import contrast_on_white

NOTE = "synthetic data, said the test"
LABELS = ("healthy", "covid")
PICTURES = ("pairs", "odd", "views", "loudest")
NAMES = ("leakage", "shortcut", "drop", "calibration", "remedy", "headline", *PICTURES)


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(40, (1, 2), LABELS, 0.5, ["digital", "film"], size=64, seed=3)


@pytest.fixture(scope="module")
def outside():
    return make_cohort(20, (1, 1), LABELS, scanners=["portable"], size=64, seed=4)


@pytest.fixture(scope="module")
def tables(cohort, outside):
    return {
        "leakage": leaks.leakage(cohort, repeats=3),
        "shortcuts": shortcuts.shortcuts(cohort, permutations=9),
        "external": transfer.external_validation(cohort, outside, LABELS),
        "remedies": remedies.remedies(cohort, outside, LABELS),
    }


@pytest.fixture(scope="module")
def pairs(cohort):
    names = cohort.table["image"].to_numpy()
    similarity = [1, 0.95, 0.94]
    facts = {"image": names[:3], "other": names[3:6], "similarity": similarity}
    return pd.DataFrame(facts).assign(exact=[True, False, False])


@pytest.fixture(scope="module")
def figures(cohort, tables, pairs):
    return {
        "leakage": auditplots.leakage_plot(tables["leakage"], title="t", note=NOTE),
        "shortcut": auditplots.shortcut_plot(tables["shortcuts"], note=NOTE),
        "drop": auditplots.drop_plot(tables["external"], note=NOTE),
        "calibration": auditplots.calibration_plot(tables["external"], note=NOTE),
        "remedy": auditplots.remedy_plot(tables["remedies"], note=NOTE),
        "pairs": auditplots.pairs_plot(cohort, pairs, most=2, note=NOTE),
        "odd": auditplots.odd_plot(cohort, odd_ones(cohort), most=4, note=NOTE),
        "views": auditplots.views_plot(cohort, note=NOTE),
        "loudest": auditplots.loudest_plot(cohort, shortcuts.loudest(cohort, "border"), note=NOTE),
        "headline": auditplots.headline_plot(headline_scores(), note=NOTE),
    }


def odd_ones(cohort):
    """Five films of each label, inverted, it is said."""
    found = cohort.table.groupby("label").head(5)[["image", "label", "source"]]
    found = found.assign(reason="inverted", score=9.0).sort_values("label")
    return found.reset_index(drop=True)


def headline_scores():
    rows = [
        (condition, metric, value, value - 0.1, value + 0.05, 20, 10, 0.55)
        for condition, value in {"paper's protocol": 0.93, "another hospital": 0.64}.items()
        for metric in ("auc", "accuracy", "sensitivity")
    ]
    names = ["condition", "metric", "value", "low", "high", "images", "patients", "baseline"]
    return pd.DataFrame(rows, columns=names)


def texts(figure):
    found = figure.findobj(matplotlib.text.Text)
    return " ".join(" ".join(text.get_text().split()) for text in found)


def dots(axis, marker):
    """Places of the data drawn with a marker, in the order drawn, without those of the legend."""
    lines = [line for line in axis.lines if line.get_marker() == marker and len(line.get_xdata())]
    return np.concatenate([np.ravel(line.get_xdata()) for line in lines])


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_says_what_its_reader_must_know(figures, name):
    figure = figures[name]
    figure.savefig(io.BytesIO(), format="png")
    assert NOTE in texts(figure)
    assert (NOT_CLINICAL in texts(figure)) == (name not in ("pairs", "odd", "views"))
    written = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text().strip()]
    assert min(contrast_on_white(text.get_color()) for text in written) >= 4.5
    if name not in PICTURES:
        assert figure.axes[0].get_ylabel() and figure.axes[-1].get_xlabel()


def test_the_loudest_films_stand_beside_the_place(cohort):
    found = shortcuts.loudest(cohort, "border")
    figure = auditplots.loudest_plot(cohort, found)
    shown = {axis.get_title().split("\n")[0].lstrip("…") for axis in figure.axes}
    assert all(any(name.endswith(end) for end in shown if end) for name in found.films["image"])
    assert "where it lies" in shown and found.said.rstrip(".") in texts(figure)
    assert "AUC of one square" in texts(figure)
    files = auditplots.loudest_plot(cohort, shortcuts.loudest(cohort, "file"))
    assert "PNG" in texts(files) and "where it lies" not in texts(files)


def test_each_repeat_is_a_dot(figures, tables):
    table, axis = tables["leakage"], figures["leakage"].axes[0]
    for labels, marker in (("true", "o"), ("permuted", "s")):
        wanted = table.loc[table["labels"] == labels, "balanced accuracy"]
        np.testing.assert_allclose(np.sort(dots(axis, marker)), np.sort(wanted))
    ticks = [tick.get_text() for tick in axis.get_yticklabels()]
    assert ticks == list(leaks.PROTOCOLS)


def test_chance_is_where_the_table_says(tables):
    table = tables["leakage"].assign(chance=1 / 3)
    lines = auditplots.leakage_plot(table).axes[0].lines
    chance = [line for line in lines if line.get_label() == "chance"]
    np.testing.assert_allclose(chance[0].get_xdata(), 1 / 3)


def test_each_view_has_its_dot_and_interval(figures, tables):
    table, axis = tables["shortcuts"], figures["shortcut"].axes[0]
    ends = np.array([each.get_segments()[0][:, 0] for each in axis.collections])
    np.testing.assert_allclose(ends, table[["low", "high"]])
    whole = table.set_index("view").loc["whole image", "auc"]
    assert dots(axis, "D").tolist() == [whole]


def test_both_sides_of_the_drop_are_drawn(figures, tables):
    external, axis = tables["external"], figures["drop"].axes[0]
    at = external.at_threshold.set_index(["part", "metric"])["value"]
    for part, marker in (("inside", "o"), ("outside", "s")):
        scores = getattr(external, part)["value"]
        wanted = [scores["auc"], scores["accuracy"], at[part, "sensitivity"]]
        wanted.append(at[part, "specificity"])
        np.testing.assert_allclose(dots(axis, marker), wanted)
    assert f"{external.drop.loc['auc', 'drop']:+.3f}" in texts(figures["drop"])


def test_a_remedy_that_cannot_be_tried_says_so(figures, tables):
    source = tables["remedies"].set_index("remedy")
    said = texts(figures["remedy"])
    assert "the same model" in said
    axis = figures["remedy"].axes[0]
    np.testing.assert_allclose(dots(axis, "s"), source["outside auc"])
    table = tables["remedies"].copy()
    table.loc[4, table.columns[1:-1]] = np.nan
    assert "cannot be tried" in texts(auditplots.remedy_plot(table))


def test_pairs_stand_side_by_side(figures, cohort, pairs):
    shown = [axis.images[0].get_array() for axis in figures["pairs"].axes if axis.images]
    np.testing.assert_array_equal(shown[0], cohort.images[0])
    np.testing.assert_array_equal(shown[1], cohort.images[3])
    assert len(shown) == 4
    said = texts(figures["pairs"])
    assert "identical" in said
    assert "similarity 0.95" in said
    assert "Not shown: 1 more." in said


def long_names(cohort):
    """Name films as archives do, with capitals, and their patients as the audit of a folder."""
    stems = [f"covid/SIRM_CASE-{n}_CHEST_RADIOGRAPH_ANTEROPOSTERIOR_day{n}" for n in range(9)]
    facts = {"image": [f"{stem}.png" for stem in stems], "patient": stems}
    chosen = cohort.take(range(9))
    table = chosen.table.assign(**facts, label="pneumonia of unknown origin, not COVID-19")
    return type(chosen)(table, chosen.images)


@pytest.mark.parametrize("count", [1, 3])
def test_long_names_do_not_run_into_the_next_picture(cohort, pairs, count):
    named = long_names(cohort)
    names = named.table["image"].to_numpy()
    pairs = pairs.assign(image=names[:3], other=names[3:6]).head(count)
    figure = auditplots.pairs_plot(named, pairs, note=NOTE)
    figure.savefig(io.BytesIO(), format="png")
    boxes = [*figure.texts, *(part for axis in figure.axes for part in axis.get_children())]
    boxes = [one for one in boxes if isinstance(one, matplotlib.text.Text) and one.get_text()]
    boxes = [text.get_window_extent() for text in boxes]
    assert len(boxes) == 2 * count + 2, "a name over each picture, the title and the note"
    for number, box in enumerate(boxes):
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])
    said = texts(figure).replace(" ", "")
    assert "day0.png" in said and "day3.png" in said  # what differs is not cut out
    assert said.count("covid/SIRM_CASE-0") == 1  # the patient is the film's name: told once


def test_a_patient_with_a_name_of_its_own_is_told(cohort, pairs):
    table = cohort.table.assign(patient=[f"patient of {n}" for n in range(len(cohort))])
    said = texts(auditplots.pairs_plot(type(cohort)(table, cohort.images), pairs))
    assert "patient of 0" in said and "patient of 3" in said


def test_views_show_what_is_left(figures):
    axes = figures["views"].axes
    assert [axis.get_title() for axis in axes[:7]] == list(views.VIEWS)
    corners = axes[3].images[0].get_array()
    assert corners[32, 32] == 0
    assert axes[4].images[0].get_array().shape == (8, 8)
    assert axes[0].get_ylabel() == "healthy"


def test_no_pairs_are_no_figure(cohort, pairs):
    with pytest.raises(ValueError, match="pairs is empty"):
        auditplots.pairs_plot(cohort, pairs.head(0))


def test_the_headline_draws_values_and_what_a_blind_model_scores(figures):
    accuracy, auc = figures["headline"].axes
    for axis in (accuracy, auc):
        np.testing.assert_allclose(dots(axis, "o"), [0.93, 0.64])
        np.testing.assert_allclose(dots(axis, "|"), [0.55, 0.55])
    assert "never looks" in texts(figures["headline"])
    assert "accuracy" in accuracy.get_xlabel() and "AUC" in auc.get_xlabel()


def test_odd_films_of_every_label_are_shown_with_their_reason(figures, cohort):
    shown = [axis for axis in figures["odd"].axes if axis.images]
    titles = [" ".join(axis.get_title().split()) for axis in shown]
    assert titles == [f"{label}, phantom: inverted" for label in ("covid",) * 2 + ("healthy",) * 2]
    first = odd_ones(cohort)["image"][0]
    row = int(cohort.table.index[cohort.table["image"] == first][0])
    np.testing.assert_array_equal(shown[0].images[0].get_array(), cohort.images[row])
    assert "Not shown: 6 more." in texts(figures["odd"])
    assert titles[0] in style.describe(figures["odd"])
    with pytest.raises(ValueError, match="nothing to draw"):
        auditplots.odd_plot(cohort, odd_ones(cohort).head(0))
