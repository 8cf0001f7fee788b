"""Verdicts: intervals against the literature and statsmodels, and a case for each verdict."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cxrlib.metrics import t_interval, wilson
from cxrlib.paper import check, claims, verdicts
from cxrlib.paper.verdicts import LEVELS, Measurement, difference, verdict

MODEL2 = "table1.model2.accuracy"  # 87 of 96 images, of at least 24 patients
RECALL2 = "table1.model2.recall"  # 44 of 48 images, of at least 12 patients
RECALL3 = "table1.model3.recall"  # 41 of 48
FOUND = "table2.covid.covid"  # 5 of 12


@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"),
    [  # Newcombe 1998, Stat Med 17:873-890, Table II, method 10
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((0, 10), (0, 10), -0.2775, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_difference_as_published(ours, theirs, low, high):
    ends = difference(ours[0] / ours[1], wilson(*ours), theirs[0] / theirs[1], wilson(*theirs))
    assert ends == pytest.approx((low, high), abs=5e-5)


def claim_interval(name):
    return verdict(name, Measurement((0.5,), 0)).claim_intervals[0.95]


def test_the_claims_interval_counts_patients():
    # 87 of 96 images, of at least 24 patients: 21.75 of 24.
    z, p, n = stats.norm.ppf(0.975), 87 / 96, 24
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert claim_interval(MODEL2) == pytest.approx((centre - half, centre + half))
    assert claim_interval(RECALL2) == pytest.approx(wilson(11, 12))
    # Model 2: TP 44, FP 5, FN 4, so J = 44/53 and F1 = 88/97, of at least 14 patients.
    low, high = (2 * end / (1 + end) for end in wilson(14 * 44 / 53, 14))
    assert claim_interval("table1.model2.f1") == pytest.approx((low, high))
    assert low < 88 / 97 < high


def test_claims_of_tables_1_and_2_can_be_judged_where_the_test_set_is_known():
    table = claims.load().set_index("id")
    shares = table[table["place"].isin(["Table I", "Table II"]) & ~table.index.str.endswith("es")]
    assert len(shares) == 16 + 9
    for name, row in shares.iterrows():
        low, high = claim_interval(name)
        if "table1.model1" in name or "table1.model4" in name:
            assert np.isnan([low, high]).all()
            said = verdict(name, Measurement((0.01,) * 5, 5000))
            assert set(said.verdicts.values()) == {verdicts.UNDECIDABLE}
            assert said.reason == "the paper does not tell on how many images"
        else:
            assert low < row["value"] < high


def test_patients_are_the_trials():
    for seeds, n in (
        (["abcd"], 4),
        (["aabb"], 2),  # two images each
        (["ab", "ab", "ab"], 2),  # the same people
        (["ab", "cd"], 4),  # others
        (["aaab"], 1.6),  # one with most images weighs most: 1 / (0.75^2 + 0.25^2)
        ([""], 0),
    ):
        found = verdicts.effective_n([pd.Series(list(one)) for one in seeds])
        assert found == pytest.approx(n), seeds


def test_our_interval_holds_sampling_spread_and_bootstrap():
    flat = Measurement((0.8,) * 5, 50)
    assert verdicts.measured_interval(flat, 0.95) == pytest.approx(wilson(40, 50))
    wild = Measurement((0.6, 0.7, 0.8, 0.9, 1.0), 1000)
    _, low, high = t_interval(wild.values, shared=0.2 / 0.64)
    assert verdicts.measured_interval(wild, 0.95) == pytest.approx((low, min(1, high)))
    drawn = Measurement((0.8,) * 5, 1000, {0.95: (0.2, 0.81)})
    assert verdicts.measured_interval(drawn, 0.95)[0] == 0.2
    # A bootstrap of a perfect F1 has no width; the share J = 10/10 has.
    perfect = Measurement((1.0,) * 5, 10, {0.95: (1.0, 1.0)})
    low, _ = wilson(10, 10)
    ends = verdicts.measured_interval(perfect, 0.95, is_f1=True)
    assert ends == pytest.approx((2 * low / (1 + low), 1))


@pytest.mark.parametrize(
    ("name", "values", "n", "expected", "reason"),
    [
        (MODEL2, (0.99, 0.985, 0.99, 0.995, 0.99), 600, verdicts.EXCEEDED, "better"),
        (MODEL2, (0.90, 0.91, 0.90, 0.905, 0.90), 600, verdicts.REPRODUCED, "allow the printed"),
        (MODEL2, (0.55, 0.6, 0.5, 0.57, 0.58), 60, verdicts.FAILED, "worse"),
        (MODEL2, (0.9, 0.8, 0.95, 0.85, 0.9), 12, verdicts.UNDECIDABLE, "our test sets"),
        # Ours lies beside what is printed, but so wide an interval as theirs allows it.
        ("table1.model3.f1", (0.9,) * 5, 400, verdicts.UNDECIDABLE, "the paper's test set"),
        (MODEL2, (0.2,) * 4, 600, verdicts.UNDECIDABLE, "four seeds; the spread needs five"),
        (MODEL2, (0.2,), 600, verdicts.UNDECIDABLE, "one seed; the spread needs five"),
        (MODEL2, (0.2, 0.2, float("nan"), 0.2, 0.2), 9, verdicts.UNDECIDABLE, "undefined"),
        ("model1.train_accuracy", (0.99,) * 5, 900, verdicts.UNDECIDABLE, "does not tell"),
    ],
)
def test_each_verdict(name, values, n, expected, reason):
    said = verdict(name, Measurement(values, n))
    assert said.verdict == expected and reason in said.reason
    assert said.seeds == len(values) and said.printed == claims.printed(name)


@pytest.mark.parametrize(
    ("name", "ours", "n"),
    [(RECALL2, 0.75, 1000), (FOUND, 1 / 3, 400), (FOUND, 0.60, 1000), (RECALL3, 0.70, 500)],
)
def test_a_paper_that_knows_little_is_not_reproduced_the_more_easily(name, ours, n):
    """Ours lies within the claim's wide interval, and clearly beside the printed figure."""
    said = verdict(name, Measurement((ours,) * 5, n))
    assert set(said.verdicts.values()) == {verdicts.UNDECIDABLE}
    assert "the paper's test set is too small to tell" in said.reason
    for level in LEVELS:
        low, high = said.intervals[level]
        assert said.claim_intervals[0.9][0] < low and high < said.claim_intervals[0.9][1]
        assert not low <= said.claimed <= high


@pytest.mark.parametrize(
    ("n", "expected", "reason"),
    [
        (1000, verdicts.REPRODUCED, "allow the printed"),
        # So few of ours that values are possible which the paper's data rule out.
        (10, verdicts.UNDECIDABLE, "our test sets or seeds are too few to tell"),
    ],
)
def test_the_printed_figure_is_reproduced_by_precise_results(n, expected, reason):
    said = verdict(RECALL2, Measurement((0.91,) * 5, n))
    assert set(said.verdicts.values()) == {expected} and reason in said.reason


def test_a_wider_interval_at_a_stricter_level_does_not_come_to_hold_the_printed_figure():
    # .90 of 1000 against .9167: outside our 90 % interval, inside those at 95 and 99 %.
    said = verdict(RECALL2, Measurement((0.90,) * 5, 1000))
    held = {level: low <= 11 / 12 <= high for level, (low, high) in said.intervals.items()}
    assert held == {0.90: False, 0.95: True, 0.99: True}
    assert set(said.verdicts.values()) == {verdicts.UNDECIDABLE}


def test_what_cannot_be_compared_is_not_however_good():
    said = verdict(MODEL2, Measurement((0.9,) * 5, 600), "the images are synthetic (phantoms)")
    assert set(said.verdicts.values()) == {verdicts.INCOMPARABLE}
    assert said.reason == "the images are synthetic (phantoms)"


def test_fewer_errors_exceed():
    name = "table2.pneumonia.covid"  # 5 of 24 were wrong
    few, many = Measurement((0.001,) * 5, 2000), Measurement((0.9,) * 5, 2000)
    assert verdict(name, few, lower_is_better=True).verdict == verdicts.EXCEEDED
    assert verdict(name, many, lower_is_better=True).verdict == verdicts.FAILED
    assert verdict(name, many).verdict == verdicts.EXCEEDED
    same, unsure = Measurement((5 / 24,) * 5, 2000), Measurement((0.2,) * 5, 10)
    assert verdict(name, same, lower_is_better=True).verdict == verdicts.REPRODUCED
    assert verdict(name, unsure, lower_is_better=True).verdict == verdicts.UNDECIDABLE


def test_a_stricter_level_only_ever_undecides():
    rng = np.random.default_rng(5)
    names = [MODEL2, "table1.model3.f1", RECALL2, FOUND]
    seen, changed = set(), 0
    for _ in range(300):
        centre, noise = rng.uniform(0.2, 1), rng.choice([0.002, 0.02, 0.1])
        values = tuple(np.clip(rng.normal(centre, noise, 6), 0, 1))
        said = verdict(
            rng.choice(names), Measurement(values, float(rng.choice([8, 60, 400, 5000])))
        )
        for looser, stricter in pairwise(LEVELS):
            before, after = said.verdicts[looser], said.verdicts[stricter]
            assert after in (before, verdicts.UNDECIDABLE)
            changed += after != before
        seen.add(said.verdicts[0.9])
    assert seen == {*verdicts.VERDICTS} - {verdicts.INCOMPARABLE} and changed > 5


def test_counts_are_equal_or_not():
    assert verdicts.exact("fig2.edema.positive", 48905).verdict == verdicts.REPRODUCED
    said = verdicts.exact("fig2.edema.positive", 48906)
    assert said.verdict == verdicts.FAILED and said.measured == 48906


@pytest.mark.parametrize(
    ("name", "found", "message"),
    [
        (MODEL2, Measurement((), 5), "give a share"),
        (MODEL2, Measurement((0.5, 90.6), 5), "90.6"),
        ("model2.optimizer", Measurement((0.5,), 5), "'Adam', which is no share"),
        ("data.cases", Measurement((0.5,), 5), "'70', which is no share"),
        ("table9", Measurement((0.5,), 5), "No claim is called 'table9'"),
    ],
)
def test_nonsense_is_refused(name, found, message):
    with pytest.raises(claims.PaperError, match=message):
        verdict(name, found)


def predictions(labels, predicted, patients):
    table = pd.DataFrame({"label": labels, "predicted": predicted, "patient": patients})
    return table.assign(image=[f"i{number}" for number in range(len(table))])


def test_measures_by_hand():
    #           right    missed     false     right      wrong class     unknown
    labels = ["covid", "covid", "healthy", "healthy", "pneumonia", None]
    called = ["covid", "healthy", "covid", "healthy", "healthy", "covid"]
    table = predictions(labels, called, ["a", "a", "b", None, None, "d"])
    expected = {
        "accuracy": (2 / 5, 1 / (0.4**2 + 3 * 0.2**2)),
        "precision": (1 / 2, 2),
        "recall": (1 / 2, 1),
        "f1": (1 / 2, 1 / ((2 / 3) ** 2 + (1 / 3) ** 2)),
    }
    for metric, (value, n) in expected.items():
        found = check.measure([table], metric)
        assert found.values == pytest.approx((value,)) and found.n == pytest.approx(n), metric
    cell = check.measure([table], "pneumonia", "healthy")
    assert cell.values == (1.0,) and cell.n == 1
    none = check.measure([table.assign(predicted="healthy")], "precision")
    assert np.isnan(none.mean) and none.n == 0


def test_the_bootstrap_of_several_seeds_draws_a_patient_for_all_at_once():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(2)
    patients = np.repeat([f"p{number}" for number in range(30)], 2)
    labels = np.where(np.arange(60) % 4 < 2, "covid", "healthy")
    seeds = []
    for _ in range(3):
        called = np.where(rng.random(60) < 0.75, labels, "covid")
        rows = rng.permutation(60)[:40]
        seeds.append(predictions(labels[rows], called[rows], patients[rows]))
    found = check.measure(seeds, "f1")
    by_sklearn = [f1_score(one["label"], one["predicted"], pos_label="covid") for one in seeds]
    assert found.values == pytest.approx(by_sklearn)
    # The same, a resample at a time.
    means = []
    for _ in range(600):
        times = dict(zip(*np.unique(rng.integers(0, 30, 30), return_counts=True), strict=True))
        scores = []
        for one in seeds:
            weight = [times.get(int(name[1:]), 0) for name in one["patient"]]
            pairs = zip(one["label"] == "covid", one["predicted"] == "covid", weight, strict=True)
            kinds = {True: 0, False: 0}  # positives in both, positives in one
            for ill, called, often in pairs:
                if ill or called:
                    kinds[bool(ill and called)] += often
            scores.append(2 * kinds[True] / (2 * kinds[True] + kinds[False]))
        means.append(np.mean(scores))
    assert found.drawn[0.95] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)
    assert set(found.drawn) == set(LEVELS)
