import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score

from cxrlib import phantom
from cxrlib.shortcuts import headline
from cxrlib.shortcuts.views import ShortcutError
from helpers import tiny_cohort

CLASSES = ["healthy", "covid"]


def elsewhere(cohort):
    """The same images of other patients, under other names."""
    table = cohort.table[["image", "patient"]].radd("other-")
    return type(cohort)(cohort.table.assign(**table), cohort.images, "elsewhere")


def areas(cohort, outside):
    found = headline.scores(headline.predictions(cohort, outside, CLASSES))
    return found.query("metric == 'auc'").set_index("condition")


def test_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth, probability = rng.integers(0, 2, 60), rng.random(60)
    table = pd.DataFrame({"condition": "a", "truth": truth, "probability": probability})
    table = table.assign(patient=np.arange(60) // 2, fold=0)
    found = headline.scores(table).set_index("metric")
    called = probability >= 0.5
    expected = {
        "auc": roc_auc_score(truth, probability),
        "accuracy": accuracy_score(truth, called),
        "sensitivity": recall_score(truth, called),
        "specificity": recall_score(truth, called, pos_label=0),
    }
    for metric, value in expected.items():
        assert found.loc[metric, "value"] == pytest.approx(value)
        assert found.loc[metric, "low"] < value < found.loc[metric, "high"]
    assert set(found["patients"]) == {30}
    assert found.loc["auc", "baseline"] == 0.5
    always = max(np.mean(truth), 1 - np.mean(truth))
    assert found.loc["accuracy", "baseline"] == pytest.approx(always)


def test_areas_compare_images_of_one_model_only():
    """The second model answers ten times lower: each ranks its own images without a mistake."""
    truth, probability = [0, 0, 1, 1, 0, 0, 1, 1], [0.5, 0.6, 0.8, 0.9, 0.05, 0.06, 0.08, 0.09]
    table = pd.DataFrame({"condition": "a", "truth": truth, "probability": probability})
    table = table.assign(patient=np.arange(8), fold=np.arange(8) // 4)
    assert headline.scores(table).set_index("metric").loc["auc", "value"] == 1
    assert roc_auc_score(truth, probability) < 1


def test_labels_that_mean_nothing_are_known_under_the_papers_protocol_only():
    """Patients differ, diseases don't: what is above chance is memory of copies."""
    cohort = phantom.make_cohort(40, labels=("healthy",), size=64, images_per_patient=(2, 2))
    patient = pd.factorize(cohort.table["patient"])[0]
    label = np.random.default_rng(1).permutation(CLASSES * 20)[patient]
    mixed = type(cohort)(cohort.table.assign(label=label), cohort.images)
    auc = areas(mixed, elsewhere(mixed.take(np.arange(20))))
    assert auc.loc["paper's protocol", "low"] > max(0.7, auc.loc["clean protocol", "high"])
    assert abs(auc.loc["clean protocol", "value"] - 0.5) < 0.2


def test_covered_lungs_are_not_seen():
    """The disease of the tiny cohort is a square in the centre, and nowhere else."""
    auc = areas(tiny_cohort(40, 2), elsewhere(tiny_cohort(20, 1, seed=1)))["value"]
    assert auc["clean protocol"] > 0.95 and auc["another hospital"] > 0.95
    assert 0.2 < auc["lungs covered"] < 0.8


def test_every_image_is_tested_once():
    cohort, outside = tiny_cohort(20, 2), elsewhere(tiny_cohort(10, 1))
    found = headline.predictions(cohort, outside, CLASSES)
    images = found.groupby("condition")["image"]
    assert images.size().to_dict() == {
        "paper's protocol": 160,
        "clean protocol": 40,
        "lungs covered": 40,
        "another hospital": 10,
    }
    assert (images.nunique() == images.size()).all()
    clean = found[found["condition"] == "clean protocol"]
    assert (clean.groupby("patient")["fold"].nunique() == 1).all() and set(clean["fold"]) == {
        *range(5)
    }


def test_a_patient_of_both_hospitals_is_refused():
    with pytest.raises(ShortcutError, match="stand in both"):
        headline.predictions(tiny_cohort(), tiny_cohort(seed=1), CLASSES)
    with pytest.raises(ShortcutError, match="two classes"):
        headline.predictions(tiny_cohort(), tiny_cohort(), [*CLASSES, "pneumonia"])
