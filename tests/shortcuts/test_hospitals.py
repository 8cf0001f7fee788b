"""What a model loses elsewhere is measured rightly, and remedies do what they say."""

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, recall_score, roc_auc_score
from statsmodels.stats.proportion import confint_proportions_2indep

from cxrlib.cohort import Cohort
from cxrlib.phantom import make_cohort
from cxrlib.shortcuts import hospitals, remedies
from cxrlib.shortcuts.views import ShortcutError
from helpers import tiny_cohort

LABELS = ("healthy", "covid")


@pytest.fixture(scope="module")
def inside():
    scanners = ["digital", "computed", "film"]
    return make_cohort(80, (1, 2), LABELS, confounding=0.9, scanners=scanners, size=64, seed=0)


@pytest.fixture(scope="module")
def outside():
    return make_cohort(80, (1, 2), LABELS, scanners=["portable", "enhanced"], size=64, seed=7)


@pytest.fixture(scope="module")
def external(inside, outside):
    return hospitals.external_validation(inside, outside, LABELS)


@pytest.fixture(scope="module")
def tried(inside, outside):
    table = remedies.remedies(inside, outside, LABELS, by="scanner")
    return table.set_index("remedy")


def predictions(truth, probability, prefix="a", each=1):
    images = [f"{prefix}{number}" for number in range(len(truth))]
    patients = [f"{prefix}{number // each}" for number in range(len(truth))]
    given = {"image": images, "patient": patients, "truth": truth, "probability": probability}
    return pd.DataFrame(given)


def test_a_confounded_model_collapses_at_another_hospital(external):
    auc = external.drop.loc["auc"]
    assert auc["inside"] > 0.95
    assert auc["low"] > 0.1
    assert external.quality.loc["outside", "ece"] > external.quality.loc["inside", "ece"]
    at = external.at_threshold.set_index(["part", "metric"])["value"]
    assert at["inside", "sensitivity"] >= 0.95 > at["outside", "sensitivity"]


@pytest.mark.parametrize("part", ["inside", "outside"])
def test_the_scores_are_those_of_the_predictions(external, part):
    chosen = external.predictions.query("part == @part")
    truth, probability = chosen["truth"], chosen["probability"]
    within = [roc_auc_score(one["truth"], one["probability"]) for _, one in chosen.groupby("fold")]
    pairs = [one["truth"].sum() * (1 - one["truth"]).sum() for _, one in chosen.groupby("fold")]
    auc = np.average(within, weights=pairs)
    assert len(pairs) == {"inside": 5, "outside": 1}[part]
    assert external.drop.loc["auc", part] == pytest.approx(auc)
    assert getattr(external, part).loc["auc", "value"] == pytest.approx(auc)
    brier = brier_score_loss(truth, probability)
    assert external.quality.loc[part, "brier"] == pytest.approx(brier)
    right = (probability >= 0.5) == truth
    assert external.drop.loc["accuracy", part] == pytest.approx(right.mean())
    at = external.at_threshold.set_index(["part", "metric"])["value"]
    found = recall_score(truth, probability >= external.threshold)
    assert at[part, "sensitivity"] == pytest.approx(found)


def test_nobody_is_predicted_by_a_model_that_knows_them():
    """Features name the patient alone: who is known is recognised, who is new is not."""
    cohort, patient = tiny_cohort(40, 3), np.arange(120) // 3
    named = np.random.default_rng(5).normal(size=(40, 300))[patient]
    for by_image, least, most in ((False, 0.25, 0.75), (True, 0.95, 1)):
        found, _ = hospitals.predict(cohort, cohort, LABELS, named, named, 0, by_image=by_image)
        assert least < roc_auc_score(found["truth"], found["probability"]) <= most


def test_a_drop_by_hand():
    # Inside 1.0: all in order. Outside 12 of 16 pairs are in order: 0.75
    good = predictions([0, 0, 0, 0, 1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
    poor = predictions([0, 0, 0, 0, 1, 1, 1, 1], [0.1, 0.2, 0.3, 0.9, 0.2, 0.35, 0.8, 0.95], "b")
    found = hospitals.compare(good, poor, sensitivity=1)
    pairs = [(a > b) + (a == b) / 2 for a in (0.2, 0.35, 0.8, 0.95) for b in (0.1, 0.2, 0.3, 0.9)]
    auc = found.drop.loc["auc"]
    assert auc["inside"] == 1
    assert auc["outside"] == pytest.approx(np.mean(pairs))
    assert auc["drop"] == pytest.approx(1 - np.mean(pairs))
    assert auc["low"] <= auc["drop"] <= auc["high"]
    assert found.drop.loc["accuracy", "drop"] == pytest.approx(1 - 5 / 8)
    assert found.threshold == 0.6
    at = found.at_threshold.set_index(["part", "metric"])
    assert at.loc[("outside", "sensitivity"), "value"] == 0.5
    # All of four are right: Wilson's interval of 4 of 4 (Wilson 1927)
    assert at.loc[("inside", "specificity"), "low"] == pytest.approx(1 / (1 + 3.8415 / 4), rel=1e-4)


def test_the_interval_of_the_drop_is_that_of_independent_samples():
    rng = np.random.default_rng(0)
    truth = np.tile([0, 1], 200)
    here = predictions(truth, np.clip(0.5 + 0.25 * (truth - 0.5) + rng.normal(0, 0.2, 400), 0, 1))
    there = here.assign(patient="b" + here["patient"], image="b" + here["image"])
    found = hospitals.compare(here, there)
    auc = found.drop.loc["auc"]
    # The same predictions on both sides: no drop, and variances add up, though the data agree
    low, high = found.inside.loc["auc", ["low", "high"]]
    assert auc["drop"] == 0
    assert auc["high"] - auc["low"] == pytest.approx(np.sqrt(2) * (high - low), rel=0.15)


def test_what_the_threshold_loses_has_newcombe_s_interval():
    rng = np.random.default_rng(3)
    truth = np.tile([0, 1], 100)
    here, there = (
        predictions(truth, np.clip(0.5 + 0.2 * (truth - 0.5) + rng.normal(0, 0.2, 200), 0, 1), one)
        for one in "ab"
    )
    found = hospitals.compare(here, there.assign(probability=there["probability"] * 0.8))
    at = found.at_threshold.set_index(["metric", "part"])["value"]
    for metric in ("sensitivity", "specificity"):
        counts = [round(at[metric, part] * 100) for part in ("inside", "outside")]
        interval = confint_proportions_2indep(counts[0], 100, counts[1], 100, method="newcomb")
        drop = found.drop.loc[metric]
        assert drop["drop"] == pytest.approx((counts[0] - counts[1]) / 100)
        assert drop[["low", "high"]].tolist() == pytest.approx(interval, abs=1e-9)


def test_intervals_count_patients():
    rng = np.random.default_rng(1)
    truth = np.repeat(np.tile([0, 1], 30), 8)
    chance = np.repeat(rng.normal(0, 0.2, 60), 8)
    score = np.clip(0.4 + 0.2 * truth + chance, 0, 1)
    widths = []
    for each in (1, 8):
        told = [predictions(truth, score, prefix, each) for prefix in "ab"]
        drop = hospitals.compare(*told).drop.loc[["auc", "accuracy"]]
        widths.append(drop["high"] - drop["low"])
    assert (widths[1] / widths[0]).tolist() == pytest.approx([np.sqrt(8)] * 2, rel=0.25)


def test_recalibration_mends_probabilities_that_are_too_sure():
    rng = np.random.default_rng(2)
    honest = rng.uniform(0.05, 0.95, 2000)
    truth = (rng.random(2000) < honest).astype(int)
    odds = (honest / (1 - honest)) ** 4 * 6  # too sure, and shifted
    wrong = odds / (1 + odds)
    told = predictions(truth, honest), predictions(truth, wrong, "b")
    found = hospitals.compare(*told)
    ece = found.quality["ece"]
    assert ece["outside"] > 0.2
    assert ece["outside, recalibrated"] < 0.05
    assert found.quality.loc["outside, recalibrated", "brier"] < found.quality["brier"]["outside"]
    mended = found.predictions.query("part == 'outside'")["recalibrated"]
    assert np.abs(mended.to_numpy() - honest).mean() < 0.05


def test_recalibration_never_learns_from_the_patient_it_mends():
    rng = np.random.default_rng(3)
    patients = np.arange(80) // 2
    table = predictions(patients % 2, rng.random(80), each=2)

    def mended(truth):
        told = hospitals.compare(table, table.assign(truth=truth)).predictions
        return told.loc[told["part"] == "outside", "recalibrated"].to_numpy()

    before = mended(table["truth"])
    for patient in (1, 3, 17):
        # One film of two is called healthy: the patient stays in the same half
        changed = table["truth"].where(np.arange(80) != 2 * patient, 0)
        moved = ~np.isclose(mended(changed), before, atol=1e-9)
        assert not moved[patients == patient].any()
        assert moved.sum() == 40  # the other half learnt from the change


def test_a_class_that_is_missing_outside_is_named(inside, outside):
    healthy = outside.where(label="healthy")
    with pytest.raises(ShortcutError, match="'covid' has 0 patient"):
        hospitals.external_validation(inside, healthy, LABELS)
    one = predictions([0, 0, 0], [0.1, 0.2, 0.3])
    with pytest.raises(ShortcutError, match=r"3 patient.* of 0 with it"):
        hospitals.compare(predictions([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]), one)
    with pytest.raises(ShortcutError, match="two classes"):
        hospitals.external_validation(inside, outside, ["covid"])


def test_shared_patients_and_files_are_refused(inside, outside):
    with pytest.raises(ShortcutError, match="80 patient"):
        hospitals.external_validation(inside, inside, LABELS)

    def named(cohort, names, first):
        names = [names.format(first + number) for number in range(len(cohort))]
        return Cohort(cohort.table.assign(image=names), cohort.images)

    here = named(inside, "here/patient-film-{:04}.jpg", len(outside) - 1)
    there = named(outside, "there/Patient-Film-{:04}.PNG", 0)
    with pytest.raises(ShortcutError, match="1 file"):
        hospitals.external_validation(here, there, LABELS)


def test_patient_division_changes_the_estimate_and_not_the_model(tried):
    images, patients = tried.loc[remedies.AS_IT_IS], tried.loc["patients divided"]
    assert images["outside auc"] == patients["outside auc"]
    assert images["inside auc"] >= patients["inside auc"]
    assert patients["gain"] == patients["gain low"] == patients["gain high"] == 0


def test_cropping_to_the_lungs_helps_where_the_border_gave_the_label_away(tried):
    row = tried.loc[remedies.TO_LUNGS]
    assert row["gain low"] > 0.1
    assert row["note"].startswith("helps outside; true masks")


def test_gaps_and_gains_are_differences_of_the_areas(tried):
    row = tried.loc["always the most frequent class"]
    assert row[["inside auc", "outside auc"]].tolist() == [0.5, 0.5]
    assert row["gap low"] < row["gap"] == 0 < row["gap high"]
    base = tried.loc[remedies.AS_IT_IS, "outside auc"]
    np.testing.assert_allclose(tried["gap"], tried["inside auc"] - tried["outside auc"])
    np.testing.assert_allclose(tried["gain"], tried["outside auc"] - base)
    for note, helped in {"helps outside": True, "no help shown": False}.items():
        low = tried.loc[tried["note"].str.startswith(note), "gain low"]
        assert len(low) and ((low > 0) == helped).all()


def test_where_source_and_label_coincide_balancing_cannot_be_done():
    cohort, there = tiny_cohort(12), tiny_cohort(12, seed=1)
    here = Cohort(cohort.table.assign(source=cohort.table["label"]), cohort.images)
    there = Cohort(there.table.assign(patient="x" + there.table["patient"]), there.images)
    found = remedies.remedies(here, there, LABELS).set_index("remedy")
    assert np.isnan(found.loc["balanced over source", "outside auc"])
    assert "cannot be done" in found.loc["balanced over source", "note"]
    assert "one view only" in remedies.balanced_weights(cohort, LABELS, "view")[1]
    assert remedies.TO_LUNGS not in found.index  # no masks here
    assert any("central 76 %" in name for name in found.index)


def test_balanced_weights_draw_equally_by_hand():
    cohort = tiny_cohort(8, 1)
    table = cohort.table.assign(
        label=["healthy"] * 3 + ["covid"] + ["healthy"] + ["covid"] * 2 + ["healthy"],
        source=["a"] * 4 + ["b"] * 3 + ["c"],
    )
    weights, said = remedies.balanced_weights(Cohort(table, cohort.images, "x"), LABELS, "source")
    np.testing.assert_allclose(weights / weights[3], [1 / 3] * 3 + [1, 1, 0.5, 0.5, 0])
    assert weights.sum() == pytest.approx(8)
    assert "left out: c" in said


def test_weights_count_in_the_area_inside():
    table = predictions([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9]).assign(weight=[1.0, 3.0, 2.0, 1.0])
    wanted = roc_auc_score(table["truth"], table["probability"], sample_weight=table["weight"])
    assert hospitals.area(table).value == pytest.approx(wanted)


def test_changes_of_images_are_those_of_opencv(inside):
    image, mask = inside.images[1], inside.masks["lungs"][1]
    equal = remedies.CHANGES["histogram equalised"](inside, 1)
    np.testing.assert_array_equal(equal, cv2.equalizeHist(image))
    down, across = np.nonzero(mask)
    box = image[down.min() : down.max() + 1, across.min() : across.max() + 1]
    np.testing.assert_array_equal(remedies.to_lungs(inside, 1), cv2.resize(box, image.shape))


def test_unknown_columns_are_named(inside, outside):
    with pytest.raises(ShortcutError, match="'hospital'"):
        remedies.remedies(inside, outside, LABELS, by="hospital")
    with pytest.raises(ShortcutError, match="lack patient"):
        hospitals.compare(pd.DataFrame({"image": [], "truth": [], "probability": []}), inside.table)
