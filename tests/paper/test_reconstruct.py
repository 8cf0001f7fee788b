"""Whole numbers behind printed scores, against brute force with exact fractions."""

import decimal
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from cxrlib.paper import claims, reconstruct
from cxrlib.paper.claims import PaperError
from cxrlib.paper.reconstruct import CELLS, FIGURES, RULES

ROWS = {
    1: ("0.68", "0.67", "0.63", "0.65"),
    2: ("0.9063", "0.90", "0.9167", "0.9072"),
    3: ("0.8229", "0.8039", "0.8541", "0.8282"),
    4: ("0.834", "0.89", "0.67", "0.7619"),
}
TABLE1 = {model: dict(zip(FIGURES, row, strict=True)) for model, row in ROWS.items()}
TABLE2 = pd.DataFrame([[5, 4, 3], [8, 11, 5], [4, 3, 5]], columns=["healthy", "pneumonia", "covid"])
DROPPED = {
    "half up": decimal.ROUND_HALF_UP,
    "half even": decimal.ROUND_HALF_EVEN,
    "cut off": decimal.ROUND_FLOOR,
    "up": decimal.ROUND_CEILING,
}


def printed(share: Fraction, digits: int, rule: str) -> str:
    """Print a share by Python's decimals: nothing of the module under test is used."""
    with decimal.localcontext(prec=60):  # short fractions of small n: ties are exact
        exact = Decimal(share.numerator) / Decimal(share.denominator)
        return f"{exact.quantize(Decimal(1).scaleb(-digits), DROPPED[rule]):.{digits}f}"


def scores(tp, fp, fn, tn):
    """Accuracy, precision, recall and F1 as fractions; None where one is undefined."""
    pairs = ((tp + tn, tp + fp + fn + tn), (tp, tp + fp), (tp, tp + fn), (2 * tp, 2 * tp + fp + fn))
    return [Fraction(a, b) for a, b in pairs] if all(b for _, b in pairs) else None


def all_of(n_max):
    """Every confusion matrix up to a size, with its scores."""
    for n in range(1, n_max + 1):
        for tp in range(n + 1):
            for fp in range(n - tp + 1):
                for fn in range(n - tp - fp + 1):
                    cells = (tp, fp, fn, n - tp - fp - fn)
                    if scores(*cells):
                        yield n, cells, scores(*cells)


SMALL = list(all_of(14))


def by_brute_force(row, rule):
    """Matrices of SMALL that print as a row."""
    rules = list(DROPPED) if rule == "any" else [rule]
    digits = [len(text.partition(".")[2]) for text in row]
    return sorted(
        (n, *cells)
        for n, cells, exact in SMALL
        if all(
            any(printed(share, places, one) == text for one in rules)
            for share, places, text in zip(exact, digits, row, strict=True)
        )
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("digits", [(2, 2, 2, 2), (1, 1, 1, 1), (3, 1, 2, 0)])
def test_every_matrix_is_found_and_no_other(rule, digits):
    rng = np.random.default_rng(sum(digits))
    how = "half up" if rule == "any" else rule
    rows = {("0.5", "0.5", "0.5", "0.5"), ("1.00", "1.0", "1.000", "1.0"), ("0.0",) * 4}
    for place in rng.integers(len(SMALL), size=6):
        exact = SMALL[place][2]
        rows.add(tuple(printed(s, d, how) for s, d in zip(exact, digits, strict=True)))
    for row in sorted(rows):
        expected = by_brute_force(row, rule)
        row = dict(zip(FIGURES, row, strict=True))
        balanced = [m for m in expected if m[1] + m[3] == m[2] + m[4]]
        for classes, wanted in ((None, expected), ("balanced", balanced)):
            listed = [reconstruct.matrices(row, n, rule, classes) for n in range(1, 15)]
            assert sorted(map(tuple, pd.concat(listed).to_numpy())) == wanted
            counts = reconstruct.fits(row, 14, rule, classes)
            assert list(counts) == [len(table) for table in listed]
        sized = [m for m in expected if (m[1] + m[3], m[2] + m[4]) == (4, 8)]
        assert sorted(map(tuple, reconstruct.matrices(row, 12, rule, (4, 8)).to_numpy())) == sized
        assert reconstruct.fits(row, 14, rule, (4, 8)).sum() == len(sized)


def test_a_tie_goes_up_or_to_the_even_digit():
    assert reconstruct.prints_as(1, 8, "0.13") and not reconstruct.prints_as(1, 8, "0.12")
    assert reconstruct.prints_as(1, 8, "0.12", "half even")
    assert not reconstruct.prints_as(1, 8, "0.13", "half even")
    assert reconstruct.prints_as(3, 8, ".38", "half even")
    for share, text, expected in (((2, 3), "66.6 %", "cut off"), ((1, 3), "0.34", "up")):
        rules = [rule for rule in RULES if reconstruct.prints_as(*share, text, rule)]
        assert rules == [expected, "any"]
    assert all(reconstruct.prints_as(1, 4, "25%", rule) for rule in RULES)


@pytest.mark.parametrize(
    ("model", "rule", "cells", "following"),
    [
        (1, "half up", [34, 10, 5, 6, 13], 40),
        (2, "half up", [96, 44, 5, 4, 43], 192),
        (2, "half even", [961, 440, 50, 40, 431], 1057),  # 87/96 is a tie: .9062 to the even digit
        (3, "cut off", [96, 41, 10, 7, 38], 192),
        (3, "half up", [3619, 1545, 377, 264, 1433], 3620),
        (4, "half up", [151, 40, 5, 20, 86], 181),
        (4, "any", [30, 8, 1, 4, 17], 60),
    ],
)
def test_table_1(model, rule, cells, following):
    row = reconstruct.explain(TABLE1[model]).loc[rule]
    assert list(row[["smallest n", *CELLS, "next n"]]) == [*cells, following]
    assert list(reconstruct.smallest(TABLE1[model], rule=rule).iloc[0]) == cells


def test_what_table_1_rules_out():
    assert (reconstruct.fits(TABLE1[1], 6000) > 0).sum() == 5906  # hardly a size
    assert reconstruct.fits(TABLE1[2], rule="cut off").sum() == 0
    assert reconstruct.fits(TABLE1[4], rule="cut off").sum() == 0
    for model in (1, 4):  # no balanced test whatsoever
        assert reconstruct.fits(TABLE1[model], rule="any", classes="balanced").sum() == 0
    for sizes in ((12, 36), (24, 24)):  # nor one class of 12, 24, 12 against the rest
        assert reconstruct.fits(TABLE1[4], 48, "any", sizes).sum() == 0
    empty = reconstruct.explain(TABLE1[4], 20)
    assert (empty["sizes"] == 0).all() and empty["smallest n"].isna().all()
    for sizes in (None, "balanced", (48, 48)):
        assert reconstruct.smallest(TABLE1[2], rule="cut off", classes=sizes).empty


def test_the_ratio_of_model_4():
    found = reconstruct.ratios(TABLE1[4], 100)
    assert list(found.iloc[0]) == [8, 1, 4]
    assert (np.gcd.reduce(found.to_numpy(), axis=1) == 1).all()
    low = [(8 * k, k, 4 * k) for k in range(1, 8)]
    exact = [tuple(map(int, cells)) for cells in found.to_numpy()]
    assert not set(low[1:]) & set(exact), "multiples are one ratio"
    for tp, fp, fn in exact:
        shares = (Fraction(tp, tp + fp), Fraction(tp, tp + fn), Fraction(2 * tp, 2 * tp + fp + fn))
        said = [printed(s, d, "half up") for s, d in zip(shares, (2, 2, 4), strict=True)]
        assert said == ["0.89", "0.67", "0.7619"]


def test_low_scores_of_many_images_do_not_need_much_memory():
    row = dict.fromkeys(FIGURES, "0.0")
    counts = reconstruct.fits(row, 3000, "cut off")
    listed = reconstruct.matrices(row, 40, "cut off")
    assert counts[40] == len(listed) > 0 and counts[3000] > 1e6
    assert (10 * (listed["tp"] + listed["tn"]) < 40).all()


def test_table_2_maps_onto_whole_numbers():
    percent = pd.DataFrame(
        [["41.7%", "33.3%", "25%"], ["33.3%", "45.8%", "20.8%"], ["33.3%", "25%", "41.7%"]],
        columns=TABLE2.columns,
    )
    for rule in ("any", "half up"):
        found = reconstruct.counts_table(percent, {0: 12, 1: 24, 2: 12}, rule)
        pd.testing.assert_frame_equal(found, TABLE2, check_dtype=False)
    assert reconstruct.row_counts(["50%", "50%"], 200) == [(99, 101), (100, 100), (101, 99)]
    with pytest.raises(PaperError, match="Row 0: 3 sets"):
        reconstruct.counts_table(pd.DataFrame([["50%", "50%"]]), [200])
    with pytest.raises(PaperError, match="Row 0: 0 sets"):
        reconstruct.counts_table(percent, [13, 24, 12])


def test_no_reading_of_table_2_gives_model_4():
    found = reconstruct.consistent(TABLE1[4], TABLE2)
    assert not found["consistent"].any() and len(found) == 8
    assert found.loc["macro mean", "accuracy"] == 21 / 48


def test_readings_are_scikit_learns():
    rng = np.random.default_rng(0)
    truth, called = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (truth, called), 1)
    found = reconstruct.consistent(TABLE1[1], pd.DataFrame(counts, columns=list("abc")))
    for mean in ("macro", "weighted"):
        for name, score in zip(FIGURES[1:], (precision_score, recall_score, f1_score), strict=True):
            expected = score(truth, called, average=mean)
            assert found.loc[f"{mean} mean", name] == pytest.approx(expected)
    own = accuracy_score(truth == 1, called == 1)
    assert found.loc["b against the rest", "accuracy"] == pytest.approx(own)


def test_a_matrix_agrees_with_its_own_scores_and_an_unpredicted_class_is_undefined():
    matrix = pd.DataFrame([[43, 5], [4, 44]], columns=["healthy", "covid"])
    found = reconstruct.consistent(TABLE1[2], matrix, "half up")
    assert found["consistent"].to_dict()["covid against the rest"]
    assert not found.loc["healthy against the rest", "consistent"]
    never = reconstruct.consistent(TABLE1[2], pd.DataFrame([[5, 0], [5, 0]], columns=list("ab")))
    assert np.isnan(never.loc["b against the rest", "precision"])
    assert np.isnan(never.loc["macro mean", "precision"]) and not never["consistent"].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"f1": "high"}, "f1: 'high' is no number"),
        ({"f1": "."}, "no number"),
        ({"f1": 0.9}, "must be text as printed"),
        ({"recall": "1.01"}, "recall: '1.01' is more than 1"),
        ({"recall": "90.6"}, "add a % sign"),
        ({"recall": "0.1234567890"}, "more than 9 decimal places"),
        ({"kappa": "0.5"}, "has \\['kappa'\\] besides"),
    ],
)
def test_figures_that_are_none(change, message):
    with pytest.raises(PaperError, match=message):
        reconstruct.fits(TABLE1[1] | change, 50)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"n_max": 0}, "n=0: give a whole number"),
        ({"n_max": True}, "whole number"),
        ({"n_max": 10**9}, "from 1 to 50000"),
        ({"rule": "down"}, "no rule 'down'; there are half up"),
        ({"classes": "equal"}, "give 'balanced' or"),
        ({"classes": (0, 5)}, "class size=0"),
        ({"classes": (48, 48), "n_max": 50}, "need an n of 96"),
    ],
)
def test_searches_that_make_no_sense(more, message):
    with pytest.raises(PaperError, match=message):
        reconstruct.fits(TABLE1[1], **more)


def test_other_input_that_makes_no_sense():
    with pytest.raises(PaperError, match=r"lacks \['accuracy'"):
        reconstruct.matrices({"f1": "0.5"}, 10)
    with pytest.raises(PaperError, match="is no share"):
        reconstruct.prints_as(5, 4, "1.25")
    for wrong in ([[1, 2]], [[1.5, 2], [3, 4]], [[-1, 2], [3, 4]], [[0, 0], [0, 0]]):
        with pytest.raises(PaperError, match="square table of whole numbers"):
            reconstruct.consistent(TABLE1[1], pd.DataFrame(wrong))


def test_the_claims_file_keeps_what_the_search_finds():
    table = claims.load()
    rows = table[table["place"] == "Table I"].set_index(["model", "metric"])
    for number, rule in ((2, "half up"), (3, "cut off")):
        model = claims.table1().index[number - 1]
        assert rows.loc[model, "printed"].to_dict() == TABLE1[number]
        n, tp, fp, fn, tn = reconstruct.smallest(TABLE1[number], rule=rule).iloc[0]
        expected = {"accuracy": (tp + tn, n), "precision": (tp, tp + fp), "recall": (tp, tp + fn)}
        for metric, pair in expected.items():
            assert tuple(rows.loc[(model, metric), ["count", "n"]]) == pair
    assert claims.table2(counts=True).to_numpy().tolist() == TABLE2.to_numpy().tolist()
