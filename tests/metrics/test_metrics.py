"""Scores and intervals against scikit-learn, statsmodels, published examples and hand counts."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from statsmodels.stats import contingency_tables
from statsmodels.stats.power import NormalIndPower

from cxrlib import metrics
from cxrlib.metrics import MetricsError

# Table II of the paper as counts: rows actual, columns predicted.
TABLE_2 = np.array([[5, 4, 3], [8, 11, 5], [4, 3, 5]])
CLASSES = ["healthy", "pneumonia", "covid"]


def from_counts(matrix):
    """Answers that give this confusion matrix."""
    actual, predicted = np.indices(matrix.shape)
    return np.repeat(actual.ravel(), matrix.ravel()), np.repeat(predicted.ravel(), matrix.ravel())


@pytest.fixture
def noisy():
    """200 images of 50 patients, with ties among the probabilities."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 200)
    probability = np.clip(np.round(0.5 + 0.2 * (truth - 0.5) + rng.normal(0, 0.2, 200), 2), 0, 1)
    return truth, probability, np.repeat(np.arange(50), 4)


# Newcombe 1998 (doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), Table I,
# method 3
NEWCOMBE = {
    (81, 263): (0.2553, 0.3662),
    (15, 148): (0.0624, 0.1605),
    (0, 20): (0.0, 0.1611),
    (1, 29): (0.0061, 0.1718),
}


def test_wilson_is_as_published_and_as_in_statsmodels():
    from statsmodels.stats.proportion import proportion_confint

    for pair, ends in NEWCOMBE.items():
        assert metrics.wilson(*pair) == pytest.approx(ends, abs=5e-5)
    for count, n, confidence in [(0, 12, 0.95), (12, 12, 0.95), (87, 96, 0.99), (7, 30, 0.5)]:
        truth = proportion_confint(count, n, alpha=1 - confidence, method="wilson")
        assert metrics.wilson(count, n, confidence) == pytest.approx(truth, abs=1e-12)
    assert np.isnan(metrics.wilson(0, 0)).all()
    with pytest.raises(MetricsError, match="count=5 of n=4"):
        metrics.wilson(5, 4)
    with pytest.raises(MetricsError, match="confidence=95"):
        metrics.wilson(1, 4, 95)


def test_the_t_interval_by_hand_and_by_scipy():
    # Mean 0.8; s^2 = (0.01 + 0 + 0 + 0 + 0.01) / 4 = 0.005; t(4, 97.5 %) = 2.776 (any table).
    # (1/5 + 1/4) * 0.005 = 0.00225, its root 0.047434; 2.776 * 0.047434 = 0.1317.
    found = metrics.t_interval([0.7, 0.8, 0.8, 0.8, 0.9], 0.95, shared=1 / 4)
    assert found == pytest.approx((0.8, 0.8 - 0.1317, 0.8 + 0.1317), abs=5e-5)
    values = [0.71, 0.64, 0.9, 0.83, 0.77, 0.8]
    usual = stats.t.interval(0.9, 5, np.mean(values), stats.sem(values))
    assert metrics.t_interval(values, 0.9)[1:] == pytest.approx(usual)
    mean, *ends = metrics.t_interval([0.8])
    assert mean == 0.8 and np.isnan(ends).all()


def test_the_t_interval_covers_what_overlapping_splits_of_new_data_give():
    """The corrected interval covers; the usual one is far too short."""
    rng = np.random.default_rng(0)
    covered = {0.0: 0, 0.3125: 0}
    for _ in range(300):
        people = rng.normal(size=60)  # the truth is 0; a seed's result: its test mean
        values = [rng.choice(people, 12, replace=False).mean() for _ in range(10)]
        for shared in covered:
            _, low, high = metrics.t_interval(values, 0.95, shared)
            covered[shared] += low <= 0 <= high
    assert covered[0.3125] / 300 > 0.92 and covered[0.0] / 300 < 0.88


def test_binary_values_equal_scikit_learn(noisy):
    truth, probability, _ = noisy
    called = probability >= 0.4
    value = metrics.binary_scores(truth, probability, threshold=0.4)["value"]
    assert value["accuracy"] == pytest.approx(sk.accuracy_score(truth, called))
    assert value["precision"] == pytest.approx(sk.precision_score(truth, called))
    assert value["recall"] == pytest.approx(sk.recall_score(truth, called))
    assert value["specificity"] == pytest.approx(sk.recall_score(truth, called, pos_label=0))
    assert value["f1"] == pytest.approx(sk.f1_score(truth, called))
    assert value["auc"] == pytest.approx(sk.roc_auc_score(truth, probability))


def test_model_2_of_table_1_from_its_counts():
    truth = np.repeat([1, 0, 1, 0], [44, 5, 4, 43])  # TP, FP, FN, TN
    scores = metrics.binary_scores(truth, np.repeat([0.5, 0.5, 0.4999, 0.1], [44, 5, 4, 43]))
    assert scores.loc["accuracy", ["count", "n"]].tolist() == [87, 96]
    assert scores.loc["recall", ["count", "n"]].tolist() == [44, 48]
    assert scores.loc["precision", ["count", "n"]].tolist() == [44, 49]
    assert scores.loc["f1", "value"] == pytest.approx(0.9072, abs=5e-5)
    assert scores.loc["accuracy", "low"] == metrics.wilson(87, 96)[0]


def test_the_area_within_folds_counts_weighted_pairs_of_one_model_only(noisy):
    truth, probability, patients = noisy
    fold, weights = np.arange(200) % 3, np.random.default_rng(3).integers(0, 3, 200)
    right = pairs = 0
    for number in range(3):
        ill, other = ((fold == number) & (truth == kind) for kind in (1, 0))
        gap = probability[ill][:, None] - probability[other]
        often = np.outer(weights[ill], weights[other])
        right, pairs = right + (often * (np.sign(gap) + 1) / 2).sum(), pairs + often.sum()
    found = metrics.area(truth == 1, probability, patients, fold=fold, weights=weights)
    assert found.value == pytest.approx(right / pairs)
    assert metrics.auc(truth, probability) == pytest.approx(sk.roc_auc_score(truth, probability))
    assert np.isnan(metrics.auc([1, 1], [0.2, 0.3]))


def test_images_of_one_patient_each_get_wilsons_and_delongs_interval():
    rng = np.random.default_rng(1)
    truth = np.repeat([True, False], [40, 60])
    score = rng.normal(size=100) + truth
    found = metrics.area(truth, score, np.arange(100))
    # DeLong, DeLong and Clarke-Pearson 1988, as written there
    wins = (np.sign(score[truth][:, None] - score[~truth]) + 1) / 2
    variance = wins.mean(axis=1).var(ddof=1) / 40 + wins.mean(axis=0).var(ddof=1) / 60
    off = [wins.mean(axis=axis) - wins.mean() for axis in (1, 0)]
    degrees = min(39, *(3 * (each**2).sum() ** 2 / (each**4).sum() for each in off))
    lower = stats.t.ppf(0.025, degrees) * np.sqrt(variance) / (found.value * (1 - found.value))
    assert logit(found.low) - logit(found.value) == pytest.approx(lower)
    ones = np.ones(100, dtype=bool)
    assert metrics.share(score > 0.2, ones, np.arange(100))[1:3] == pytest.approx(
        metrics.wilson(int((score > 0.2).sum()), 100)
    )


def test_the_variance_by_patient_is_obuchowskis_written_out(noisy):
    truth, probability, patients = noisy
    found = metrics.area(truth == 1, probability, patients)
    wins = np.sign(probability[truth == 1][:, None] - probability[truth == 0])
    wins, sums = (wins + 1) / 2, {}
    for kind, each in ((1, wins.mean(axis=1)), (0, wins.mean(axis=0))):
        off = pd.Series(each - found.value, patients[truth == kind]).groupby(level=0).sum()
        sums[kind] = off.reindex(range(50), fill_value=0)
    held = [patients[truth == kind] for kind in (1, 0)]
    m, n = map(len, held)
    i10, i01 = (len(np.unique(each)) for each in held)
    s10 = i10 / ((i10 - 1) * m) * (sums[1] ** 2).sum()
    s01 = i01 / ((i01 - 1) * n) * (sums[0] ** 2).sum()
    s11 = 50 / 49 * (sums[1] * sums[0]).sum()
    variance = s10 / m + s01 / n + 2 * s11 / (m * n)
    kurtosis = [(each**2).sum() ** 2 / (each**4).sum() for each in sums.values()]
    degrees = min(i10 - 1, i01 - 1, *(3 * each for each in kurtosis))
    reach = stats.t.ppf(0.975, degrees) * np.sqrt(variance) / (found.value * (1 - found.value))
    ends = expit(logit(found.value) + np.array([-reach, reach]))
    assert found[1:3] == pytest.approx(ends)


def test_images_that_all_agree_with_their_patients_count_as_patients():
    groups, ones = np.repeat(np.arange(12), 4), np.ones(48, dtype=bool)
    agreeing = np.repeat(np.arange(12) < 9, 4)
    assert metrics.independent_images(agreeing, groups) == (pytest.approx(12), 11)
    # 12 of 12 patients, t of 11 degrees 2.201: 12 / (12 + 2.201^2) = 0.7124
    assert metrics.share(ones, ones, groups)[:3] == pytest.approx((1, 0.7124, 1), abs=5e-5)
    # Analysis of variance by hand: 2 patients of 2 images, (1, 1) and (1, 0), and one of (0, 0).
    # Means 1, 1/2, 0, in all 1/2; between (2/4 + 0 + 2/4) / 2 = 1/2, within (1/2) / 3 = 1/6;
    # r = (1/2 - 1/6) / (1/2 + 1/6) = 1/2, and 4 / (1 + 1/2) = 8/3.
    few = np.array([True, True, True, False])
    assert metrics.independent_images(few, np.array([0, 0, 1, 1])) == (pytest.approx(8 / 3), 1)


def test_few_misses_reach_as_far_as_poissons():
    # 1 miss of 20: P(miss at least once) = 5 % at 0.0513 misses, so up to 1 - 0.0513 / 20
    hits, ones = np.arange(20) > 0, np.ones(20, dtype=bool)
    found = metrics.share(hits, ones, np.arange(20))
    assert found[1:3] == pytest.approx((metrics.wilson(19, 20)[0], 1 + np.log(0.95) / 20))
    three = metrics.share(np.arange(100) > 2, np.ones(100, dtype=bool), np.arange(100))
    assert three.high == pytest.approx(1 - 0.8177 / 100, abs=1e-5)  # chi-squared(6) of 5 %: 1.635
    # F1 from J = 19 / 20
    assert metrics.f1(hits, ones, np.arange(20)).value == pytest.approx(38 / 39)
    assert metrics.f1(hits, ones, np.arange(20)).low == pytest.approx(
        2 * found.low / (1 + found.low)
    )


@pytest.mark.parametrize("films", [1, 4])
def test_intervals_hold_the_truth_as_often_as_they_say(films):
    """Twelve patients a class, high scores: where a bootstrap holds it six times of ten."""
    rng, held = np.random.default_rng(0), {"auc": 0, "f1": 0, "recall": 0}
    patients = np.repeat(np.arange(24), films)
    truth, gap = patients < 12, stats.norm.ppf(0.99) * np.sqrt(2)
    share = stats.norm.cdf(gap / 2)
    for _ in range(150):
        own = rng.normal(size=24)[patients] * np.sqrt(0.9) if films > 1 else 0
        alone = np.sqrt(0.1 if films > 1 else 1) * rng.normal(size=len(truth))
        said = stats.norm.cdf(own + alone + gap * (truth - 0.5))
        scores = metrics.binary_scores(truth, said, patients=patients)
        for name in held:
            wanted = 0.99 if name == "auc" else share
            held[name] += scores.loc[name, "low"] <= wanted <= scores.loc[name, "high"]
    assert min(held.values()) >= 0.9 * 150


def test_differences_are_paired_by_patient(noisy):
    truth, probability, patients = noisy
    other = np.clip(probability + 0.02 * np.random.default_rng(0).normal(size=200), 0, 1)
    found = metrics.binary_differences(truth, probability, other, patients=patients)
    apart = [metrics.binary_scores(truth, one, patients=patients) for one in (probability, other)]
    assert found["value"].to_numpy() == pytest.approx(
        (apart[0]["value"] - apart[1]["value"]).to_numpy()
    )
    wide = [one.loc["auc", "high"] - one.loc["auc", "low"] for one in apart]
    assert found.loc["auc", "high"] - found.loc["auc", "low"] < 0.5 * min(wide)
    # Independent scores: method 10 of Newcombe 1998, its example 56 / 70 and 48 / 80
    ones = [np.arange(size) < count for count, size in ((56, 70), (48, 80))]
    shares = [metrics.share(one, one | True, np.arange(len(one))) for one in ones]
    gap = metrics.combine(shares, [1, -1], paired=False)
    assert gap[:3] == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    mean = metrics.combine(shares, [0.5, 0.5])
    assert mean.value == pytest.approx(0.7) and 0.6 < mean.low < 0.7 < mean.high < 0.8


def test_what_cannot_be_computed_is_nan_and_says_why():
    scores = metrics.binary_scores([1, 1, 1], [0.9, 0.8, 0.2])
    assert np.isnan(scores.loc["auc", "value"])
    assert scores.loc["auc", "method"] == "undefined: a class is missing from y_true"
    assert scores.loc["specificity", "method"] == "undefined: no negative image"
    none_called = metrics.binary_scores([1, 0], [0.1, 0.1])
    assert np.isnan(none_called.loc["precision", ["value", "low", "high"]].astype(float)).all()
    assert none_called.loc["recall", "value"] == 0
    nothing = metrics.binary_scores([0, 0], [0.1, 0.1])
    assert nothing.loc["f1", "method"] == "undefined: no positive image or call"
    one_patient = metrics.binary_scores([1, 0, 1], [0.9, 0.2, 0.4], patients=["a", "a", "a"])
    assert one_patient.loc["f1", "value"] == pytest.approx(2 / 3)
    assert one_patient.loc["f1", "low"] < 0.01 and one_patient.loc["f1", "high"] > 0.99
    assert one_patient.loc["auc", ["low", "high"]].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("truth", "probability", "options", "message"),
    [
        ([1, 0], [0.5], {}, "y_true has 2, probability has 1"),
        ([1, 0], [0.5, 1.5], {}, "runs from 0.5 to 1.5"),
        ([1, 0], [0.5, np.nan], {}, "NaN for image number 1"),
        ([1, 2], [0.5, 0.5], {}, "y_true holds"),
        ([], [], {}, "empty"),
        ([1, 0], [[0.5, 0.5], [0.5, 0.5]], {}, r"shape \(2, 2\)"),
        ([1, 0], ["a", "b"], {}, "probability: not"),
        ([1, 0], [0.5, 0.5], {"patients": ["a"]}, "patients has 1"),
        ([1, 0], [0.5, 0.5], {"patients": ["a", None]}, "image number 1"),
        ([1, 0], [0.5, 0.5], {"confidence": 95}, "confidence=95"),
    ],
)
def test_bad_predictions_are_named(truth, probability, options, message):
    with pytest.raises(MetricsError, match=message):
        metrics.binary_scores(truth, probability, **options)


def test_class_scores_of_table_2():
    truth, predicted = from_counts(TABLE_2)
    scores = metrics.class_scores(truth, np.eye(3)[predicted], CLASSES)
    assert scores.loc["accuracy", "value"] == 21 / 48
    assert scores.loc["precision covid", "value"] == pytest.approx(0.385, abs=5e-4)
    assert scores.loc["recall covid", ["count", "n"]].tolist() == [5, 12]
    assert scores.loc["f1 covid", "value"] == pytest.approx(0.400)
    assert scores.loc["macro f1", "value"] == pytest.approx(
        sk.f1_score(truth, predicted, average="macro")
    )


def test_macro_auc_equals_scikit_learn():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 120)
    probabilities = rng.dirichlet(np.ones(3), 120)
    scores = metrics.class_scores(truth, probabilities, CLASSES)
    expected = sk.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    assert scores.loc["macro auc", "value"] == pytest.approx(expected)
    assert scores.loc["macro auc", "low"] < expected < scores.loc["macro auc", "high"]
    assert list(scores.columns) == ["value", "low", "high", "count", "n", "method"]
    with pytest.raises(MetricsError, match=r"shape \(2, 2\)"):
        metrics.class_scores([0, 1], [[0.5, 0.5]] * 2, CLASSES)
    with pytest.raises(MetricsError, match="y_true holds"):
        metrics.class_scores([0, 3], [[0.2, 0.3, 0.5]] * 2, CLASSES)


def test_confusion_takes_numbers_and_names_and_lays_out_table_2():
    truth, predicted = from_counts(TABLE_2)
    matrix = metrics.confusion(truth, predicted, CLASSES)
    assert matrix.to_numpy().tolist() == TABLE_2.tolist()
    names = np.array(CLASSES)
    assert metrics.confusion(names[truth], names[predicted], CLASSES).equals(matrix)
    table = metrics.row_percent(matrix).round(1)
    assert table.loc["healthy"].tolist() == [12, 41.7, 33.3, 25.0]  # as printed
    assert table.loc["pneumonia"].tolist() == [24, 33.3, 45.8, 20.8]
    assert table.loc["covid"].tolist() == [12, 33.3, 25.0, 41.7]
    empty = metrics.confusion([0, 0], [0, 1], ["a", "b"])
    assert metrics.row_percent(empty).loc["b", ["a", "b"]].isna().all()
    with pytest.raises(MetricsError, match="y_pred holds 'flu'"):
        metrics.confusion(["covid"], ["flu"], CLASSES)


def test_calibration_equals_scikit_learn(noisy):
    truth, probability, _ = noisy
    # off the edges of the bins, which scikit-learn gives to the bin below
    shifted = np.clip(probability + 0.001, 0, 1)
    fraction, mean = calibration_curve(truth, shifted, n_bins=5)
    table = metrics.calibration(truth, shifted, bins=5)
    np.testing.assert_allclose(table["fraction_positive"], fraction)
    np.testing.assert_allclose(table["mean_probability"], mean)
    assert table["n"].sum() == 200


def test_brier_and_calibration_error_by_hand():
    assert metrics.brier([1, 0], [np.float32(1.0000001), -1e-9]) == 0  # as a softmax may round
    truth, probability = [1, 0, 1, 0], [0.9, 0.1, 0.6, 0.6]
    assert metrics.brier(truth, probability) == pytest.approx((0.01 + 0.01 + 0.16 + 0.36) / 4)
    # bins: {0.9} off by .1, {0.1} off by .1, {0.6, 0.6} half positive, off by .1
    assert metrics.expected_calibration_error(truth, probability) == pytest.approx(0.1)
    assert metrics.calibration([1], [1.0])["n"].tolist() == [1]


def test_threshold_is_the_largest_that_reaches_the_sensitivity(noisy):
    truth, probability, _ = noisy
    positives = probability[truth == 1]
    for wanted in (0.5, 0.55, 0.8, 0.95, 1.0):
        found = metrics.threshold_for(truth, probability, wanted)
        assert (positives >= found).mean() >= wanted
        higher = [t for t in probability if t > found]
        assert all((positives >= t).mean() < wanted for t in higher)
    with pytest.raises(MetricsError, match="no positive"):
        metrics.threshold_for([0, 0], [0.1, 0.2])
    with pytest.raises(MetricsError, match="sensitivity=0"):
        metrics.threshold_for([0, 1], [0.1, 0.2], 0)


def simulated(patients, slope=1.0, shift=0.0, seed=0, films=1):
    """Probabilities, and outcomes that occur with logit shift + slope * logit(probability)."""
    rng = np.random.default_rng(seed)
    logit = np.repeat(rng.normal(0, 1.5, patients), films)
    chance = 1 / (1 + np.exp(-(shift + slope * logit)))
    ill = np.repeat(rng.random(patients) < chance[::films], films)
    return ill.astype(int), 1 / (1 + np.exp(-logit))


@pytest.mark.parametrize(("slope", "shift"), [(1, 0), (0.6, 0), (1, 0.5)])
def test_calibration_fit_finds_slope_and_intercept_of_ten_thousand(slope, shift):
    found = metrics.calibration_fit(*simulated(10_000, slope, shift))
    assert abs(found.loc["slope", "value"] - slope) < 0.05
    assert found.loc["slope", "low"] < slope < found.loc["slope", "high"]
    if slope == 1:
        assert found.loc["intercept", "low"] < shift < found.loc["intercept", "high"]


def test_calibration_in_the_large_makes_promise_and_outcome_agree():
    truth, p = simulated(400, shift=0.7, seed=3)
    value = metrics.calibration_fit(truth, p).loc["intercept", "value"]
    moved = 1 / (1 + np.exp(-(np.log(p / (1 - p)) + value)))
    assert moved.mean() == pytest.approx(truth.mean(), abs=1e-6)  # the likelihood's equation


def test_calibration_fit_counts_patients_and_not_their_films():
    """Four copies of each film change nothing, unless they pass for four patients."""
    truth, p = simulated(60, seed=5)
    one = metrics.calibration_fit(truth, p)
    copied = [np.repeat(each, 4) for each in (truth, p, np.arange(60))]
    four, careless = metrics.calibration_fit(*copied), metrics.calibration_fit(*copied[:2])
    ends = ["value", "low", "high"]
    np.testing.assert_allclose(four[ends], one[ends], atol=0.02)  # but for small-sample factors
    width = {name: (each["high"] - each["low"])["slope"] for name, each in
             {"four": four, "careless": careless}.items()}  # fmt: skip
    assert width["careless"] < 0.6 * width["four"]


def test_calibration_fit_says_why_it_has_no_slope():
    found = metrics.calibration_fit([0, 0, 1, 1], [0.1, 0.2, 0.8, 1.0])
    assert "separate" in found.loc["slope", "method"] and np.isnan(found.loc["slope", "value"])
    assert found.loc["intercept", "high"] > found.loc["intercept", "low"]
    flat = metrics.calibration_fit([0, 0, 1, 1, 1], [0.5] * 5)
    assert "alike" in flat.loc["slope", "method"]
    assert flat.loc["intercept", "value"] == pytest.approx(np.log(3 / 2))
    alone = metrics.calibration_fit([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], patients=list("aabb"))
    assert alone["value"].isna().all() and alone["method"].str.contains("two patients").all()


def test_net_benefit_is_a_count_by_hand():
    truth, p = [1, 1, 1, 0, 0, 0, 0, 0, 0, 0], [0.9, 0.6, 0.2, 0.7, 0.5, 0.3, 0.1, 0.1, 0.1, 0.1]
    found = metrics.net_benefit(truth, p, [0.2, 0.5])
    by_hand = {0.2: 3 / 10 - 3 / 10 / 4, 0.5: 2 / 10 - 2 / 10}  # true alarms, false ones
    assert found["model"].to_dict() == pytest.approx(by_hand)
    assert found["everybody"].to_dict() == pytest.approx({0.2: 0.3 - 0.7 / 4, 0.5: 0.3 - 0.7})
    assert (found["nobody"] == 0).all()
    rare = metrics.net_benefit(truth, p, 0.2, prevalence=0.01)["model"].item()
    assert rare == pytest.approx(0.01 * 3 / 3 - 0.99 * 3 / 7 * 0.25)
    with pytest.raises(MetricsError, match="one class only"):
        metrics.net_benefit([1, 1], [0.2, 0.3], 0.5)
    with pytest.raises(MetricsError, match="thresholds"):
        metrics.net_benefit(truth, p, [0.5, 1.0])


def test_decision_scores_are_bayes_and_scikit_learn(noisy):
    truth, p, _ = noisy
    found = metrics.decision_scores(truth, p, prevalence=0.05, threshold=0.4, miss=20, alarm=1)
    called = p >= 0.4
    assert found["balanced accuracy"] == sk.balanced_accuracy_score(truth, called)
    assert found["mcc"] == sk.matthews_corrcoef(truth, called)
    missed = ((truth == 1) & ~called).sum() / (truth == 1).sum()
    alarms = ((truth == 0) & called).sum() / (truth == 0).sum()
    # of 1000 people 50 are ill: so many are missed at 20 each, so many of 950 alarmed at 1
    by_hand = (20 * 50 * missed + 950 * alarms) / 1000
    assert found["expected cost"] == pytest.approx(by_hand)
    with pytest.raises(MetricsError, match="prevalence=5"):
        metrics.decision_scores(truth, p, prevalence=5)


def test_mcnemars_test_equals_a_published_example_and_statsmodels():
    # Fagerland, Lydersen and Laake 2013, doi:10.1186/1471-2288-13-91, table 1: hyper-responsive
    # airways before and after a transplantation, 21 children, 1 and 7 discordant; exact p .0703
    before, after = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [1, 1, 7, 12], axis=0).T
    found = metrics.mcnemar(before, after)
    assert found == {"first alone": 1, "second alone": 7, "p": pytest.approx(0.0703, abs=5e-5)}
    counts = [[1, 1], [7, 12]]
    assert found["p"] == pytest.approx(contingency_tables.mcnemar(counts, exact=True).pvalue)


@pytest.mark.parametrize("counts", [[[3, 1], [0, 4]], [[2, 0, 1], [0, 2, 1], [1, 0, 1]]])
def test_independence_counts_all_ways_to_deal_the_answers(counts):
    actual, said = from_counts(np.array(counts))

    def strays(answers):
        table = sk.confusion_matrix(actual, answers)
        return stats.chi2_contingency(table, correction=False)[0]

    far = np.array([strays(way) for way in set(permutations(said))])
    found = metrics.independence(counts)
    assert found["chi-squared"] == pytest.approx(strays(said))
    assert found["p"] == pytest.approx(np.mean(far >= strays(said) - 1e-9), abs=0.02)


def test_independence_of_table_2_and_of_odd_tables():
    found = metrics.independence(TABLE_2)
    assert 0.3 < found["p"] < 1 and found == metrics.independence(pd.DataFrame(TABLE_2))
    never = np.insert(TABLE_2, 1, 0, axis=1)  # a class that nobody was called, or is
    assert metrics.independence(np.insert(never, 1, 0, axis=0)) == pytest.approx(found, abs=0.02)
    assert metrics.independence(np.diag([9, 9, 9]))["p"] < 0.001
    with pytest.raises(MetricsError, match="no image"):
        metrics.independence(np.zeros((2, 2), int))


def test_mcnemars_test_lets_a_patient_speak_once():
    once = metrics.mcnemar([1, 1, 1, 0, 1], [0, 0, 0, 1, 1])
    patients = np.repeat(range(5), 7)
    seven_times = metrics.mcnemar(*np.repeat([[1, 1, 1, 0, 1], [0, 0, 0, 1, 1]], 7, 1), patients)
    assert once == seven_times == {"first alone": 3, "second alone": 1, "p": 0.625}
    assert metrics.mcnemar([1, 0], [0, 1], ["a", "a"])["p"] == 1  # one voice, and it is torn


def test_power_is_that_of_statsmodels():
    value, error, patients = 0.05, 0.04, 50  # one value a patient, of deviation error * sqrt(50)
    ends = value, value - norm.ppf(0.975) * error, value + norm.ppf(0.975) * error
    one_sample = NormalIndPower()
    for power in (0.5, 0.8, 0.9):
        needed = one_sample.solve_power(value / (error * np.sqrt(patients)), None, 0.05, power, 0)
        found = metrics.patients_to_decide(*ends, patients, power)
        assert found == pytest.approx(needed, rel=2e-3)  # which counts the other tail, too


def test_as_many_patients_as_said_would_decide():
    """The same study over and over, on ever more patients: its interval leaves 0 where said."""
    truth, first = np.tile([0, 1], 20), np.tile([0, 1], 20).astype(float)
    second = first.copy()
    first[:20:2], second[16:40:2] = 0.5, 0.5  # 10 and 12 of the healthy called ill

    def study(times):
        repeated = (np.tile(each, times) for each in (truth, first, second))
        return metrics.binary_differences(*repeated).loc["accuracy", ["value", "low", "high"]]

    value, low, high = study(1)
    assert value == pytest.approx(0.05) and low < 0
    needed = metrics.patients_to_decide(value, low, high, len(truth), power=0.5)
    times = needed / len(truth)
    assert study(round(1.25 * times))["low"] > 0 > study(round(0.8 * times))["low"]
    for one in ((0.1, -0.1, 0.3), (-0.1, -0.3, 0.1)):
        assert metrics.patients_to_decide(*one, 50, 0.5) == pytest.approx(200)
    assert metrics.patients_to_decide(0, -0.1, 0.1, 50) == np.inf


def test_models_of_several_folds_are_compared_within_theirs():
    # each model orders its own films perfectly, on a scale of its own
    truth, score = np.tile([0, 0, 1, 1], 2), np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
    fold = np.repeat([0, 1], 4)
    assert metrics.binary_scores(truth, score).loc["auc", "value"] == 0.75
    assert metrics.binary_scores(truth, score, fold=fold).loc["auc", "value"] == 1
    pooled = metrics.binary_differences(truth, score, score, folds=(fold, None))
    assert pooled.loc["auc", "value"] == 0.25
    both = np.stack([1 - score, score], 1)
    named = metrics.class_scores(truth, both, ["no", "yes"], fold=fold)
    assert named.loc["macro auc", "value"] == 1
    three = metrics.class_differences(truth, both, both, ["no", "yes"], folds=(fold, None))
    assert three.loc["macro auc", "value"] == 0.25
    assert three.loc["accuracy", "value"] == 0 and three.loc["accuracy", "low"] <= 0
