"""Scores and intervals against scikit-learn, statsmodels, published examples and hand counts."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

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


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [
        (87, 96, 0.831, 0.950),  # Model 2, accuracy
        (44, 48, 0.804, 0.967),  # Model 2, recall
        (79, 96, 0.735, 0.886),  # Model 3, accuracy
        (11, 12, 0.646, 0.985),  # one image a patient
        # Newcombe 1998 (doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E),
        # Table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(count, n, low, high):
    digits = 4 if (count, n) not in [(87, 96), (44, 48), (79, 96), (11, 12)] else 3
    assert metrics.wilson(count, n) == pytest.approx((low, high), abs=0.6 * 10**-digits)


def test_wilson_follows_its_formula():
    count, n, z = 7, 30, 1.6448536269514722  # 90 %
    middle = (count + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(count * (n - count) / n + z**2 / 4)
    assert metrics.wilson(count, n, 0.9) == pytest.approx((middle - half, middle + half))


def test_wilson_agrees_with_statsmodels():
    from statsmodels.stats.proportion import proportion_confint

    for count, n, confidence in [(0, 12, 0.95), (12, 12, 0.95), (87, 96, 0.99), (1, 3, 0.5)]:
        truth = proportion_confint(count, n, alpha=1 - confidence, method="wilson")
        assert metrics.wilson(count, n, confidence) == pytest.approx(truth, abs=1e-12)


def test_wilson_without_trials_is_undefined():
    assert np.isnan(metrics.wilson(0, 0)).all()
    with pytest.raises(MetricsError, match="count=5 of n=4"):
        metrics.wilson(5, 4)
    with pytest.raises(MetricsError, match="confidence=95"):
        metrics.wilson(1, 4, 95)


def test_binary_values_equal_scikit_learn(noisy):
    truth, probability, _ = noisy
    called = probability >= 0.4
    value = metrics.binary_scores(truth, probability, threshold=0.4, resamples=10)["value"]
    assert value["accuracy"] == pytest.approx(sk.accuracy_score(truth, called))
    assert value["precision"] == pytest.approx(sk.precision_score(truth, called))
    assert value["recall"] == pytest.approx(sk.recall_score(truth, called))
    assert value["specificity"] == pytest.approx(sk.recall_score(truth, called, pos_label=0))
    assert value["f1"] == pytest.approx(sk.f1_score(truth, called))
    assert value["auc"] == pytest.approx(sk.roc_auc_score(truth, probability))


def test_model_2_of_table_1_from_its_counts():
    truth = np.repeat([1, 0, 1, 0], [44, 5, 4, 43])  # TP, FP, FN, TN
    probability = np.repeat([0.9, 0.9, 0.1, 0.1], [44, 5, 4, 43])
    scores = metrics.binary_scores(truth, probability)
    assert scores.loc["accuracy", ["count", "n"]].tolist() == [87, 96]
    assert scores.loc["recall", ["count", "n"]].tolist() == [44, 48]
    assert scores.loc["precision", ["count", "n"]].tolist() == [44, 49]
    assert scores.loc["accuracy", "low"] == pytest.approx(0.831, abs=5e-4)
    printed = {"accuracy": 0.9063, "precision": 0.90, "recall": 0.9167, "f1": 0.9072}
    for name, value in printed.items():
        assert scores.loc[name, "value"] == pytest.approx(value, abs=5e-3 if value == 0.9 else 5e-5)


def test_an_image_at_the_threshold_is_positive():
    scores = metrics.binary_scores([1, 0], [0.5, 0.4999], resamples=10)
    assert scores.loc["accuracy", "value"] == 1


def test_bootstrap_equals_a_loop_that_draws_patients(noisy):
    truth, probability, patients = noisy
    scores = metrics.binary_scores(truth, probability, patients=patients, resamples=4000)
    rng = np.random.default_rng(7)
    rows = [np.flatnonzero(patients == patient) for patient in range(50)]
    f1s, aucs = [], []
    for _ in range(1000):
        drawn = np.concatenate([rows[patient] for patient in rng.integers(0, 50, 50)])
        f1s.append(sk.f1_score(truth[drawn], probability[drawn] >= 0.5))
        aucs.append(sk.roc_auc_score(truth[drawn], probability[drawn]))
    for name, found in (("f1", f1s), ("auc", aucs)):
        assert scores.loc[name, "low"] == pytest.approx(np.quantile(found, 0.025), abs=0.012)
        assert scores.loc[name, "high"] == pytest.approx(np.quantile(found, 0.975), abs=0.012)
        assert scores.loc[name, "method"] == "bootstrap by patient"


def test_copies_of_an_image_do_not_narrow_the_interval_by_patient(noisy):
    truth, probability, _ = noisy
    once = metrics.binary_scores(truth, probability, resamples=2000)
    copies = np.repeat(truth, 4), np.repeat(probability, 4)
    by_image = metrics.binary_scores(*copies, resamples=2000)
    by_patient = metrics.binary_scores(
        *copies, patients=np.repeat(np.arange(200), 4), resamples=2000
    )
    width = {
        name: table.loc["auc", "high"] - table.loc["auc", "low"]
        for name, table in (("once", once), ("image", by_image), ("patient", by_patient))
    }
    assert width["patient"] == pytest.approx(width["once"], rel=0.1)
    assert width["image"] == pytest.approx(width["once"] / 2, rel=0.1)


def test_resamples_taken_in_portions_keep_their_number_and_seed(noisy):
    truth, probability, _ = noisy
    many = np.tile(truth, 60), np.tile(probability, 60)  # 12,000 images: several portions
    first = metrics.binary_scores(*many, resamples=300, seed=3)
    again = metrics.binary_scores(*many, resamples=300, seed=3)
    pd.testing.assert_frame_equal(first, again)
    assert first.loc["auc", "low"] < first.loc["auc", "value"] < first.loc["auc", "high"]


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


def test_one_patient_has_no_interval_by_patient():
    scores = metrics.binary_scores([1, 0, 1], [0.9, 0.2, 0.4], patients=["a", "a", "a"])
    assert scores.loc["f1", "value"] == pytest.approx(2 / 3)
    assert np.isnan(scores.loc["f1", "low"])


@pytest.mark.parametrize(
    ("truth", "probability", "options", "message"),
    [
        ([1, 0], [0.5], {}, "y_true has 2, probability has 1"),
        ([1, 0], [0.5, 1.5], {}, "runs from 0.5 to 1.5"),
        ([1, 0], [0.5, np.nan], {}, "NaN for image number 1"),
        ([1, 2], [0.5, 0.5], {}, "y_true holds"),
        ([1, np.nan], [0.5, 0.5], {}, "y_true holds"),
        ([], [], {}, "empty"),
        ([1, 0], [[0.5, 0.5], [0.5, 0.5]], {}, r"shape \(2, 2\)"),
        ([1, 0], ["a", "b"], {}, "probability: not"),
        ([1, 0], [0.5, 0.5], {"patients": ["a"]}, "patients has 1"),
        ([1, 0], [0.5, 0.5], {"patients": ["a", None]}, "image number 1"),
        ([1, 0], [0.5, 0.5], {"confidence": 95}, "confidence=95"),
        ([1, 0], [0.5, 0.5], {"resamples": 0}, "resamples=0"),
    ],
)
def test_bad_predictions_are_named(truth, probability, options, message):
    with pytest.raises(MetricsError, match=message):
        metrics.binary_scores(truth, probability, **options)


def test_rounding_errors_of_a_softmax_are_forgiven():
    assert metrics.brier([1, 0], [np.float32(1.0000001), -1e-9]) == 0


def test_class_scores_of_table_2():
    truth, predicted = from_counts(TABLE_2)
    scores = metrics.class_scores(truth, np.eye(3)[predicted], CLASSES, resamples=50)
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
    scores = metrics.class_scores(truth, probabilities, CLASSES, resamples=50)
    expected = sk.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    assert scores.loc["macro auc", "value"] == pytest.approx(expected)
    assert scores.loc["macro auc", "low"] < expected < scores.loc["macro auc", "high"]
    assert list(scores.columns) == ["value", "low", "high", "count", "n", "method"]


def test_class_scores_name_what_is_wrong():
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
    with pytest.raises(MetricsError, match="y_pred holds 'flu'"):
        metrics.confusion(["covid"], ["flu"], CLASSES)


def test_row_percent_of_an_empty_class_is_nan():
    matrix = metrics.confusion([0, 0], [0, 1], ["a", "b"])
    assert metrics.row_percent(matrix).loc["b", ["a", "b"]].isna().all()


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
