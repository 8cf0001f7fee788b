"""A class's guesses: each is drawn once, where it belongs, beside what was found."""

import numpy as np
import pandas as pd
import pytest

from cxrlib import plots
from cxrlib.plots import style


def table(question, guesses, found):
    rows = [[question, guess, found] for guess in guesses]
    return pd.DataFrame(rows, columns=["question", "guess", "found"], dtype=object)


def dots(axis):
    (line,) = (line for line in axis.lines if line.get_marker() == "o")
    return sorted(zip(*line.get_data(), strict=True))


def test_equal_numbers_stand_on_each_other_and_the_truth_is_a_line():
    figure = plots.class_guesses(table("share", [0.5, 0.9, 0.5, None], 0.75), "t", "synthetic")
    (axis,) = figure.axes
    assert dots(axis) == [(0.5, 1), (0.5, 2), (0.9, 1)]
    (found,) = (line for line in axis.lines if line.get_color() == style.ORANGE)
    assert list(found.get_xdata()) == [0.75, 0.75]
    assert axis.get_title(loc="left") == "share (3 answers, 1 did not know)"
    assert axis.get_xlabel() and axis.get_ylabel()
    assert "synthetic" in figure.get_supxlabel()


def test_choices_are_bars_with_the_found_one_in_orange_though_nobody_chose_it():
    (axis,) = plots.class_guesses(table("who", ["a", "b", "b"], "c")).axes
    names = [text.get_text() for text in axis.get_yticklabels()]
    shown = dict(zip(names, [bar.get_width() for bar in axis.patches], strict=True))
    assert shown == {"a": 1, "b": 2, "c": 0}
    (hue,) = {
        bar.get_facecolor() for bar, name in zip(axis.patches, names, strict=True) if name == "c"
    }
    assert not {hue} & {bar.get_facecolor() for bar in axis.patches[:2]}


def test_of_a_list_the_right_ones_are_counted():
    found = "healthy, covid, covid"
    guesses = [["healthy", "covid", "covid"], ["covid", "covid", "healthy"], None]
    (axis,) = plots.class_guesses(table("labels", guesses, found)).axes
    assert dots(axis) == [(1, 1), (3, 1)]
    assert "how many are right (2 answers, 1 did not know)" in axis.get_title(loc="left")


def test_guesses_of_very_different_size_share_a_logarithmic_axis_and_each_question_a_panel():
    many = pd.concat([table("patients", [10, 5000], 134), table("share", [0.0, 1.0], np.nan)])
    first, second = plots.class_guesses(many).axes
    assert (first.get_xscale(), second.get_xscale()) == ("log", "linear")
    assert len(second.lines) == 1, "nothing was found"


def test_a_question_that_nobody_could_answer_is_still_a_panel():
    (axis,) = plots.class_guesses(table("share", [None, None], None)).axes
    assert "0 answers, 2 did not know" in axis.get_title(loc="left")


def test_an_empty_table_is_named():
    with pytest.raises(ValueError, match="table is empty"):
        plots.class_guesses(table("x", [], None))
