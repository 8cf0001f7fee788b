"""Figures of training draw the numbers they are given."""

import numpy as np
import pandas as pd
import pytest

from cxrlib import NOT_CLINICAL
from cxrlib.plots import patient_curves

COLUMNS = ["backbone", "patients", "metric", "value", "low", "high", "n"]
SCORES = pd.DataFrame(
    [
        ("learned", 10, "auc", 0.8, 0.7, 0.85, 90),
        ("learned", 100, "auc", 0.9, 0.8, 0.95, 90),
        ("random", 10, "auc", 0.6, 0.5, 0.7, 90),
        ("random", 100, "auc", 0.7, 0.6, 0.8, 90),
        ("random", 100, "accuracy", 0.1, 0.0, 0.2, 90),
    ],
    columns=COLUMNS,
)
GAINS = pd.DataFrame(
    [("learned", 10, "auc", 0.2, 0.1, 0.3, 90), ("learned", 100, "auc", 0.2, -0.1, 0.4, 90)],
    columns=COLUMNS,
)


def test_curves_over_patients_show_each_score_its_interval_and_the_gain():
    figure = patient_curves(SCORES, GAINS, "auc", "t", "synthetic, said the test")
    above, below = figure.axes
    drawn = {one.get_label(): one for one in above.containers}
    assert [*drawn] == ["learned", "random"] and len(below.containers) == 1
    line, _, (bars,) = drawn["learned"].lines
    np.testing.assert_allclose(line.get_ydata(orig=False), [0.8, 0.9])
    ends = [segment[:, 1] for segment in bars.get_segments()]
    np.testing.assert_allclose(ends, [[0.7, 0.85], [0.8, 0.95]])
    np.testing.assert_allclose(below.containers[0].lines[0].get_ydata(orig=False), [0.2, 0.2])
    assert below.get_xscale() == "log" and below.get_xticks().tolist() == [10, 100]
    assert "patients" in below.get_xlabel() and "random" in below.get_ylabel()
    foot = figure.get_supxlabel()
    assert "synthetic, said the test" in foot and NOT_CLINICAL in foot.replace("\n", " ")


def test_curves_refuse_a_table_without_intervals():
    with pytest.raises(ValueError, match="gains lacks low"):
        patient_curves(SCORES, GAINS.drop(columns="low"))
