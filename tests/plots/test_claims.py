"""Figures of what printed scores can carry draw the numbers they are given."""

import numpy as np
import pandas as pd
import pytest

from cxrlib import metrics
from cxrlib.paper import reconstruct
from cxrlib.plots import claims as claimplots

NOTE = "printed, not measured"
MODEL2 = {"accuracy": "0.9063", "precision": "0.90", "recall": "0.9167", "f1": "0.9072"}
CURVES = {"a": [0.1, 0.5], "b": [0.2, 0.9]}
SIMULATED = pd.DataFrame(
    {"likeness": [0, 0.5, 1], "effective": [48.0, 19.2, 12.0], "coverage": [0.95, 0.8, 0.4]}
)


@pytest.fixture(scope="module")
def figures():
    counts = reconstruct.fits(MODEL2, 400)
    return {
        "fits": claimplots.fits_by_size({"Model 2": counts, "none": counts * 0}, "t", NOTE),
        "widths": claimplots.interval_widths({"s": 0.9}, [12, 48], {"patients": 12}, "t", NOTE),
        "copies": claimplots.copies_and_evidence(SIMULATED, 48, 12, "t", NOTE),
        "power": claimplots.power_curves(CURVES, [10, 90], 96, "t", NOTE),
    }


def test_fits_marks_the_smallest_size_and_says_where_nothing_fits(figures):
    above, below = figures["fits"].axes
    assert "first at n = 96; 4 sizes fit" in above.get_title(loc="left")
    assert "nothing fits" in below.get_title(loc="left")
    dots, first = above.lines
    assert list(dots.get_xdata()) == [96, 192, 288, 384]
    assert list(first.get_xdata()) == [96]


def test_widths_are_wilsons(figures):
    line = figures["widths"].axes[0].lines[0]
    for size, width in zip(*line.get_data(), strict=True):
        low, high = metrics.wilson(0.9 * size, size)
        assert width == pytest.approx(high - low)
    assert "12 patients" in [text.get_text() for text in figures["widths"].axes[0].texts]


def test_theory_goes_from_all_images_to_the_originals(figures):
    left, right = figures["copies"].axes
    theory, dots = left.lines[:2]
    assert theory.get_ydata()[[0, -1]] == pytest.approx([48, 12])
    assert np.interp(0.5, *theory.get_data()) == pytest.approx(19.2)
    assert list(dots.get_ydata()) == [48.0, 19.2, 12.0]
    assert list(right.lines[0].get_ydata()) == [0.95, 0.8, 0.4]


def test_power_curves_are_drawn_apart(figures):
    first, second = figures["power"].axes[0].lines[:2]
    assert list(second.get_ydata()) == [0.2, 0.9]
    assert first.get_linestyle() != second.get_linestyle()
    assert first.get_color() != second.get_color()
