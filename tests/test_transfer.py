"""What a model loses elsewhere is measured rightly, and remedies do what they say."""

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from cxrlib import duplicates, remedies, transfer, views
from cxrlib.cohort import Cohort
from cxrlib.phantom import make_cohort
from helpers import tiny_cohort

LABELS = ("healthy", "covid")


@pytest.fixture(scope="module")
def inside():
    scanners = ["digital", "computed", "film"]
    return make_cohort(80, (1, 2), LABELS, confounding=0.9, scanners=scanners, size=96, seed=0)


@pytest.fixture(scope="module")
def outside():
    scanners = ["portable", "enhanced"]
    return make_cohort(80, (1, 2), LABELS, scanners=scanners, size=96, seed=7)


@pytest.fixture(scope="module")
def external(inside, outside):
    return transfer.external_validation(inside, outside, LABELS, resamples=300)


@pytest.fixture(scope="module")
def tried(inside, outside):
    table = remedies.remedies(inside, outside, LABELS, by="scanner", resamples=300)
    return table.set_index("remedy")


def predictions(truth, probability, prefix="a", each=1):
    numbers = np.arange(len(truth))
    return pd.DataFrame(
        {
            "image": [f"{prefix}{n}" for n in numbers],
            "patient": [f"{prefix}{n // each}" for n in numbers],
            "truth": truth,
            "probability": probability,
        }
    )


def test_a_confounded_model_collapses_at_another_hospital(external):
    auc = external.drop.loc["auc"]
    assert auc["inside"] > 0.95
    assert auc["low"] > 0.1
    assert external.quality.loc["outside", "ece"] > external.quality.loc["inside", "ece"]


def test_the_scores_are_those_of_the_predictions(external):
    for part in ("inside", "outside"):
        chosen = external.predictions[external.predictions["part"] == part]
        auc = roc_auc_score(chosen["truth"], chosen["probability"])
        assert external.drop.loc["auc", part] == pytest.approx(auc)
        assert getattr(external, part).loc["auc", "value"] == pytest.approx(auc)
        brier = brier_score_loss(chosen["truth"], chosen["probability"])
        assert external.quality.loc[part, "brier"] == pytest.approx(brier)
        right = (chosen["probability"] >= 0.5) == chosen["truth"]
        assert external.drop.loc["accuracy", part] == pytest.approx(right.mean())


def test_the_threshold_is_chosen_inside_and_used_outside(external):
    at = external.at_threshold.set_index(["part", "metric"])["value"]
    assert at["inside", "sensitivity"] >= 0.95
    chosen = external.predictions[external.predictions["part"] == "outside"]
    ill = chosen[chosen["truth"] == 1]
    found = (ill["probability"] >= external.threshold).mean()
    assert at["outside", "sensitivity"] == pytest.approx(found)
    assert at["outside", "sensitivity"] < 0.95


def test_nobody_is_predicted_by_a_model_that_knows_them(inside, outside, monkeypatch):
    trained = []
    fitted = transfer._fitted
    described = views.features(inside)

    def spy(rows, truth, weights):
        trained.append({row.tobytes() for row in rows})
        model = fitted(rows, truth, weights)
        trained[-1] = (trained[-1], model)
        return model

    monkeypatch.setattr(transfer, "_fitted", spy)
    found, _ = transfer.predict(inside, outside, LABELS, described, views.features(outside), 0)
    patients = inside.table["patient"].to_numpy()
    for number, row in enumerate(described):
        own = {each.tobytes() for each in described[patients == patients[number]]}
        unknowing = [model for known, model in trained if not known & own]
        assert len(unknowing) == 1  # one of five folds; the model of all knows everybody
        wanted = unknowing[0].predict_proba(row[None])[0, 1]
        assert found["probability"][number] == pytest.approx(wanted, abs=1e-5)  # float32


def test_a_drop_by_hand():
    # Inside 1.0: all in order. Outside 12 of 16 pairs are in order: 0.75
    good = predictions([0, 0, 0, 0, 1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
    poor = predictions([0, 0, 0, 0, 1, 1, 1, 1], [0.1, 0.2, 0.3, 0.9, 0.2, 0.35, 0.8, 0.95], "b")
    found = transfer.compare(good, poor, resamples=200, sensitivity=1)
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
    found = transfer.compare(here, there, resamples=1000)
    auc = found.drop.loc["auc"]
    # The same predictions on both sides: no drop, and variances add up, though the data agree
    low, high = found.inside.loc["auc", ["low", "high"]]
    assert auc["drop"] == 0
    assert auc["high"] - auc["low"] == pytest.approx(np.sqrt(2) * (high - low), rel=0.15)


def test_the_bootstrap_draws_patients():
    rng = np.random.default_rng(1)
    truth = np.repeat(np.tile([0, 1], 30), 8)
    chance = np.repeat(rng.normal(0, 0.2, 60), 8)
    score = np.clip(0.4 + 0.2 * truth + chance, 0, 1)
    one = transfer.compare(predictions(truth, score), predictions(truth, score, "b"))
    eight = transfer.compare(
        predictions(truth, score, each=8), predictions(truth, score, "b", each=8)
    )
    for name in ("auc", "accuracy"):
        width = [each.drop.loc[name, "high"] - each.drop.loc[name, "low"] for each in (one, eight)]
        assert width[1] / width[0] == pytest.approx(np.sqrt(8), rel=0.25)


def test_recalibration_mends_probabilities_that_are_too_sure():
    rng = np.random.default_rng(2)
    honest = rng.uniform(0.05, 0.95, 2000)
    truth = (rng.random(2000) < honest).astype(int)
    odds = (honest / (1 - honest)) ** 4 * 6  # too sure, and shifted
    wrong = odds / (1 + odds)
    found = transfer.compare(predictions(truth, honest), predictions(truth, wrong, "b"))
    ece = found.quality["ece"]
    assert ece["outside"] > 0.2
    assert ece["outside, recalibrated"] < 0.05
    assert found.quality.loc["outside, recalibrated", "brier"] < found.quality["brier"]["outside"]
    mended = found.predictions.query("part == 'outside'")["recalibrated"]
    assert np.abs(mended.to_numpy() - honest).mean() < 0.05


def test_recalibration_never_learns_from_the_patient_it_mends():
    rng = np.random.default_rng(3)
    patients = np.arange(80) // 2
    truth, score = patients % 2, rng.random(80)
    before = transfer.recalibrate(truth, score, patients)
    for patient in (1, 3, 17):
        # One film of two is called healthy: the patient stays in the same half
        changed = truth.copy()
        changed[2 * patient] = 0
        moved = ~np.isclose(transfer.recalibrate(changed, score, patients), before, atol=1e-9)
        assert not moved[patients == patient].any()
        assert moved.sum() == 40  # the other half learnt from the change


def test_a_class_that_is_missing_outside_is_named(inside, outside):
    healthy = outside.where(label="healthy")
    with pytest.raises(transfer.TransferError, match="'covid' has 0 patient"):
        transfer.external_validation(inside, healthy, LABELS)
    one = predictions([0, 0, 0], [0.1, 0.2, 0.3])
    with pytest.raises(transfer.TransferError, match="outside have 0 patient"):
        transfer.compare(predictions([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]), one)
    with pytest.raises(transfer.TransferError, match="two classes"):
        transfer.external_validation(inside, outside, ["covid"])


def test_shared_patients_and_files_are_refused(inside, outside):
    with pytest.raises(transfer.TransferError, match="80 patient"):
        transfer.external_validation(inside, inside, LABELS)
    renamed = outside.table.copy()
    renamed["image"] = [f"there/Patient-Film-{n:04}.PNG" for n in range(len(renamed))]
    other = inside.table.copy()
    other["image"] = [f"here/patient-film-{n + len(renamed) - 1:04}.jpg" for n in range(len(other))]
    with pytest.raises(transfer.TransferError, match="1 file"):
        transfer.external_validation(
            Cohort(other, inside.images, "in"), Cohort(renamed, outside.images, "out"), LABELS
        )


def test_patient_division_changes_the_estimate_and_not_the_model(tried):
    images, patients = (
        tried.loc[name] for name in ("as it is: images divided", "patients divided")
    )
    assert images["outside auc"] == patients["outside auc"]
    assert images["inside auc"] >= patients["inside auc"]
    assert patients["gain"] == patients["gain low"] == patients["gain high"] == 0


def test_the_dummy_is_at_chance_on_both_sides(tried):
    row = tried.loc["always the most frequent class"]
    assert row[["inside auc", "outside auc"]].tolist() == [0.5, 0.5]
    assert row["gap low"] == row["gap high"] == 0


def test_cropping_to_the_lungs_helps_where_the_border_gave_the_label_away(tried):
    row = tried.loc[remedies.TO_LUNGS]
    assert row["gain low"] > 0.1
    assert row["note"].startswith("helps outside")
    assert "true masks" in row["note"]


def test_gaps_and_gains_are_differences_of_the_areas(tried):
    base = tried.loc[remedies.AS_IT_IS, "outside auc"]
    np.testing.assert_allclose(tried["gap"], tried["inside auc"] - tried["outside auc"])
    np.testing.assert_allclose(tried["gain"], tried["outside auc"] - base)
    helped = tried["note"].str.startswith("helps outside")
    assert (tried.loc[helped, "gain low"] > 0).all()
    unhelped = tried["note"].str.startswith("no help shown")
    assert (tried.loc[unhelped, "gain low"] <= 0).all()
    assert helped.any()


def test_where_source_and_label_coincide_balancing_cannot_be_done():
    cohort = tiny_cohort(12)
    table = cohort.table.assign(source=cohort.table["label"].map({"healthy": "a", "covid": "b"}))
    there = tiny_cohort(12, seed=1)
    moved = there.table.assign(patient="x" + there.table["patient"])
    found = remedies.remedies(
        Cohort(table, cohort.images, "in"), Cohort(moved, there.images, "out"), LABELS, resamples=20
    ).set_index("remedy")
    row = found.loc["balanced over source"]
    assert np.isnan(row["outside auc"])
    assert "cannot be done" in row["note"]
    assert "one view only" in remedies._balanced(cohort, LABELS, "view")[1]
    assert remedies.TO_LUNGS not in found.index  # no masks here
    assert any("central 76 %" in name for name in found.index)


def test_balanced_weights_draw_equally_by_hand():
    cohort = tiny_cohort(8, 1)
    table = cohort.table.assign(
        label=["healthy"] * 3 + ["covid"] + ["healthy"] + ["covid"] * 2 + ["healthy"],
        source=["a"] * 4 + ["b"] * 3 + ["c"],
    )
    weights, said = remedies._balanced(Cohort(table, cohort.images, "x"), LABELS, "source")
    np.testing.assert_allclose(weights / weights[3], [1 / 3] * 3 + [1, 1, 0.5, 0.5, 0])
    assert weights.sum() == pytest.approx(8)
    assert "left out: c" in said


def test_weights_count_in_the_area_inside():
    table = predictions([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9]).assign(weight=[1.0, 3.0, 2.0, 1.0])
    wanted = roc_auc_score(table["truth"], table["probability"], sample_weight=table["weight"])
    assert transfer.areas(table, 5, 0)[0] == pytest.approx(wanted)


def test_changes_of_images_are_those_of_opencv(inside):
    cohort = inside.take([0, 1])
    equal = remedies._changed(cohort, remedies._equalised)
    np.testing.assert_array_equal(equal.images[1], cv2.equalizeHist(cohort.images[1]))
    mask = cohort.masks["lungs"][0]
    lungs = remedies._changed(cohort, remedies._to_lungs).images[0]
    down, across = np.nonzero(mask)
    box = cohort.images[0][down.min() : down.max() + 1, across.min() : across.max() + 1]
    np.testing.assert_array_equal(lungs, cv2.resize(box, (96, 96)))


def test_the_cohorts_of_these_tests_share_no_film(inside, outside):
    both = Cohort(
        pd.concat([inside.table, outside.table]),
        np.concatenate([inside.images[:], outside.images[:]]),
        "both",
    )
    pairs = duplicates.near_duplicates(both)
    assert pairs["same patient"].all()


def test_an_unknown_column_and_view_are_named(inside, outside):
    with pytest.raises(transfer.TransferError, match="'hospital'"):
        remedies.remedies(inside, outside, LABELS, by="hospital")
    with pytest.raises(transfer.TransferError, match="another view"):
        transfer.external_validation(inside, outside, LABELS, by_view="file")
    with pytest.raises(transfer.TransferError, match="lack patient"):
        transfer.compare(pd.DataFrame({"image": [], "truth": [], "probability": []}), inside.table)
