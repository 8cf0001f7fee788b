"""Verdicts: intervals against the literature and statsmodels, and a case for each verdict."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cxrlib.metrics import wilson
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
    z, p, n = stats.norm.ppf(0.975), 0.9063, 24
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert claim_interval(MODEL2) == pytest.approx((centre - half, centre + half))
    assert claim_interval(RECALL2) == pytest.approx(wilson(11, 12), abs=1e-4)
    # Model 2: TP 44, FP 5, FN 4, so J = 44/53 and F1 = 88/97, of at least 14 patients.
    low, high = (2 * end / (1 + end) for end in wilson(14 * 44 / 53, 14))
    assert claim_interval("table1.model2.f1") == pytest.approx((low, high), abs=1e-4)
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


def test_our_interval_adds_patients_and_seeds():
    flat = Measurement((0.8,) * 5, 50)
    assert verdicts.measured_interval(flat, 0.95) == pytest.approx(wilson(40, 50))
    wild = Measurement((0.6, 0.7, 0.8, 0.9, 1.0), 50)
    reach = stats.t.ppf(0.95, 4) * math.sqrt(0.025 / 5)  # variance of the five, by hand
    low, high = wilson(40, 50, 0.9)
    expected = 0.8 - math.hypot(0.8 - low, reach), 0.8 + math.hypot(high - 0.8, reach)
    assert verdicts.measured_interval(wild, 0.9) == pytest.approx(expected)
    perfect = Measurement((1.0,) * 5, 10)
    low, _ = wilson(10, 10)
    ends = verdicts.measured_interval(perfect, 0.95, is_f1=True)
    assert ends == pytest.approx((2 * low / (1 + low), 1))


@pytest.mark.parametrize("same_patients", [True, False])
def test_our_interval_covers_the_score_of_other_seeds_and_patients(same_patients):
    """400 results of five seeds, 80 patients each: the same, or a fifth of 400 drawn anew."""
    rng, truth, held = np.random.default_rng(3), 0.85, 0
    for _ in range(400):
        scores = rng.beta(truth * 140, (1 - truth) * 140, 5)  # standard deviation 0.03
        everybody = 80 if same_patients else 400
        hard, own = rng.standard_normal(everybody), rng.standard_normal((5, everybody))
        right = (hard + own) / math.sqrt(2) < stats.norm.ppf(scores)[:, None]
        drawn = [rng.permutation(everybody)[:80] for _ in range(5)]
        shares = tuple(float(row[who].mean()) for row, who in zip(right, drawn, strict=True))
        n = verdicts.effective_n([pd.Series(who) for who in drawn])
        low, high = verdicts.measured_interval(Measurement(shares, n), 0.95)
        held += low <= truth <= high
    assert held / 400 > 0.93


@pytest.mark.parametrize(
    ("name", "values", "n", "expected", "reason"),
    [
        ("table1.model3.accuracy", (0.99, 0.985, 0.99, 0.995, 0.99), 600, "exceeded", "better"),
        (MODEL2, (0.90, 0.91, 0.90, 0.905, 0.90), 600, verdicts.REPRODUCED, "within 0.10 of"),
        (MODEL2, (0.55, 0.6, 0.5, 0.57, 0.58), 60, verdicts.FAILED, "worse"),
        (MODEL2, (0.9, 0.8, 0.95, 0.85, 0.9), 12, verdicts.UNDECIDABLE, "compatible"),
        # Ours lies beside what is printed, but so wide an interval as theirs allows it.
        ("table1.model3.f1", (0.935,) * 5, 400, verdicts.UNDECIDABLE, "the paper's patients allow"),
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


@pytest.mark.parametrize("n", [150, 200, 400])
def test_reproduced_is_two_one_sided_tests_at_5_percent(n):
    """The seeds agree, so that the tests are score tests of a share, by hand."""
    printed, shown = 0.8541, []
    low, high = (printed + side * (0.10 - 0.5 / n) for side in (-1, 1))  # half a patient
    for right in range(round(0.7 * n), n + 1):
        share = right / n
        z_low = (share - low) / math.sqrt(low * (1 - low) / n)  # under the null hypothesis
        z_high = (share - high) / math.sqrt(high * (1 - high) / n)
        shown.append(stats.norm.sf(z_low) < 0.05 and stats.norm.cdf(z_high) < 0.05)
        said = verdict(RECALL3, Measurement((share,) * 5, n))
        assert (said.verdict == verdicts.REPRODUCED) == shown[-1], right
    assert 5 < sum(shown) < len(shown) - 5
    # Half a patient keeps the exact probability of error below 5 %.
    first = round(0.7 * n) + shown.index(True)
    assert stats.binom.sf(first - 1, n, printed - 0.10) < 0.05


def test_two_one_sided_tests_by_scipy_where_only_seeds_vary():
    printed = claims.value(RECALL3)
    rng, shown = np.random.default_rng(8), 0
    for off in np.linspace(-0.12, 0.12, 25):
        values = np.clip(rng.normal(printed + off, 0.03, 6), 0, 1)
        p_low = stats.ttest_1samp(values, printed - 0.10, alternative="greater").pvalue
        p_high = stats.ttest_1samp(values, printed + 0.10, alternative="less").pvalue
        said = verdict(RECALL3, Measurement(tuple(values), 1e9))
        assert (said.verdict == verdicts.REPRODUCED) == (max(p_low, p_high) < 0.05)
        shown += said.verdict == verdicts.REPRODUCED
    assert 5 < shown < 20


def test_the_margin_is_what_counts_as_the_same():
    found = Measurement((0.85,) * 5, 2000)
    assert verdict(MODEL2, found).verdict == verdicts.REPRODUCED
    said = verdict(MODEL2, found, margin=0.05)
    assert said.verdict == verdicts.UNDECIDABLE and said.margin == 0.05
    for margin in (0, 1, -0.1, float("nan")):
        with pytest.raises(claims.PaperError, match=r"such as 0\.1"):
            verdict(MODEL2, found, margin=margin)


def test_better_by_less_than_the_margin_is_reproduced_and_never_exceeded():
    # In the thousands, .87 is surely better than .8229; such sizes fit Model 3 too.
    said = verdict("table1.model3.accuracy", Measurement((0.87,) * 5, 9000))
    assert set(said.verdicts.values()) == {verdicts.REPRODUCED}
    assert said.hangs_on[-1] == (6000, verdicts.REPRODUCED)
    # Nearer the margin only the laxest tests show it; no level says more than they do.
    said = verdict("table1.model3.accuracy", Measurement((0.914,) * 5, 2000))
    assert list(said.verdicts.values()) == ["reproduced", *["undecidable at this n"] * 2]
    assert said.hangs_on[-1] == (6000, verdicts.UNDECIDABLE)  # and surely better than of 6000


def test_undecidable_says_how_many_patients_would_decide():
    few = Measurement((0.88, 0.9, 0.9, 0.9, 0.92), 20)
    said = verdict(MODEL2, few)
    assert said.verdict == verdicts.UNDECIDABLE
    for n, expected in ((said.needed, "reproduced"), (0.98 * said.needed, "undecidable at this n")):
        assert verdict(MODEL2, Measurement(few.values, n)).verdict == expected
    assert f"{said.needed} patients of ours would have decided" in said.second
    wild = verdict(MODEL2, Measurement((0.7, 1.0, 0.8, 1.0, 0.95), 20))
    assert wild.needed == 0 and "our seeds spread too much" in wild.second
    beside = verdict(MODEL2, Measurement((0.8,) * 5, 300))  # off by .106
    assert beside.needed == 0 and "No number of patients of ours" in beside.second
    assert verdict(MODEL2, Measurement((0.9,) * 5, 600)).needed == 0


def test_what_a_verdict_hangs_on():
    said = verdict(RECALL2, Measurement((0.78,) * 5, 300))
    # 1/4, 1/2 and all of 48, 96 and 3000 images: the paper's people, from few to many.
    assert [n for n, _ in said.hangs_on] == [12, 24, 48, 96, 750, 1500, 3000]
    assert (said.verdict, said.patients) == (verdicts.UNDECIDABLE, 12)
    for n, word in said.hangs_on:  # by the difference's interval, by hand
        theirs, ours = wilson(n * 0.9167, n), wilson(300 * 0.78, 300)
        high = 0.78 - 0.9167 + math.hypot(ours[1] - 0.78, 0.9167 - theirs[0])
        assert (word == verdicts.FAILED) == (high < 0), n
    assert "The paper's own 12 patients allow 0.646 to 0.985." in said.second
    assert "Of 12 to 3,000 patients of theirs: from 12 on undecidable" in said.second
    assert "on not reproduced." in said.second
    same = verdict(RECALL2, Measurement((0.91,) * 5, 600))
    assert same.second.endswith("Unchanged at 12 to 3,000 patients of theirs.")
    unknown = verdict("table1.model4.recall", Measurement((0.9,) * 5, 600))
    assert unknown.verdict == verdicts.UNDECIDABLE and "does not tell" in unknown.second
    assert unknown.hangs_on[0] == (15, verdicts.EXCEEDED)
    assert verdict(FOUND, Measurement((0.4,) * 5, 300)).patients == 3  # four copies of each
    for few in (
        verdict(RECALL2, Measurement((0.9,), 30)),
        verdicts.exact("fig2.edema.positive", 1),
    ):
        assert few.second == ""


def test_a_figure_without_a_test_size_can_be_reproduced():
    said = verdict("table1.model4.accuracy", Measurement((0.83,) * 5, 900))
    assert said.verdict == verdicts.REPRODUCED and "does not tell" in said.second


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
