"""What pretraining is worth: who is tested, who trains, and that the curves see what is there."""

import numpy as np
import pytest

from cxrlib import metrics
from cxrlib.phantom import make_cohort
from cxrlib.shortcuts import pretraining
from cxrlib.shortcuts.views import ShortcutError

CLASSES = ["healthy", "covid"]


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(60, (1, 2), CLASSES, size=32, seed=5)


@pytest.fixture(scope="module")
def measured(cohort):
    """Curves of features that hold the answer, and of such that hold nothing; what was trained."""
    rng, seen, kept = np.random.default_rng(0), [], pretraining.fit_folds
    noise = rng.standard_normal((len(cohort), 8)).astype(np.float32)
    told = noise.copy()
    told[:, 0] += 6 * cohort.targets(CLASSES)
    given = {"told": told, "random": noise}

    def spy(x, y, folds, heads, epochs, seeds):
        seen.append((folds, epochs))
        return kept(x, y, folds, heads, epochs, seeds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "fit_folds", spy)
        found = pretraining.learning_curves(given, cohort, CLASSES, [8, 32], [0, 1], 4, 100)
    return *found, seen


def test_features_that_hold_the_answer_are_told_from_such_that_do_not(measured):
    scores, gains, _ = measured
    table = scores.set_index(["backbone", "patients", "metric"])
    assert table.loc[("told", 32, "auc"), "value"] > 0.97
    low, high = table.loc[("random", 32, "auc"), ["low", "high"]]
    assert low < 0.5 < high
    assert (gains["backbone"] == "told").all() and (gains["low"] > 0).all()


def test_a_gain_is_the_difference_of_the_scores_and_every_film_is_tested(measured, cohort):
    scores, gains, _ = measured
    wide = scores.pivot(index=["patients", "metric"], columns="backbone", values="value")
    expected = (wide["told"] - wide["random"]).sort_index()
    np.testing.assert_allclose(
        gains.set_index(["patients", "metric"])["value"].sort_index(), expected
    )
    assert (scores["n"] == len(cohort)).all()


def test_small_training_sets_are_whole_patients_of_large_ones_and_never_tested(measured, cohort):
    *_, seen = measured
    owner, y = cohort.table["patient"].to_numpy(), cohort.targets(CLASSES)
    for seed in (0, 1):
        small, large = (seen[4 * seed + place][0] for place in (0, 2))
        for few, many in zip(small, large, strict=True):
            assert set(few.train) <= set(many.train)
            for fold, size in ((few, 8), (many, 32)):
                people = set(owner[fold.train])
                assert len(people) == size and not people & set(owner[fold.test])
                assert set(np.flatnonzero(np.isin(owner, list(people)))) == set(fold.train)
                one_each = {person: y[owner == person][0] for person in people}
                assert sum(one_each.values()) == size / 2  # the classes take turns
            np.testing.assert_array_equal(few.test, many.test)


def test_every_size_takes_as_many_steps(measured):
    *_, seen = measured
    for folds, epochs in seen:
        steps = epochs * -(-min(len(fold.train) for fold in folds) // 32)
        assert 100 <= steps < 102


def test_more_patients_than_a_fold_leaves_are_refused(cohort):
    with pytest.raises(ShortcutError, match="leaves 45 patients"):
        x = {"random": np.zeros((len(cohort), 2), np.float32)}
        pretraining.learning_curves(x, cohort, CLASSES, [46], folds=4)


def test_a_mean_over_seeds_is_the_mean(cohort):
    groups, y = np.arange(40), np.arange(40) < 20
    hits = np.arange(40) % 4 > 0
    one, other = (metrics.share(each, np.ones(40, bool), groups) for each in (hits, y))
    assert pretraining._mean([one, other]).value == pytest.approx((0.75 + 0.5) / 2)
    assert pretraining._mean([one, one], [other, other]).value == pytest.approx(0.25)


def test_weights_are_learned_once_and_kept_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_CACHE", str(tmp_path))
    monkeypatch.setattr(pretraining, "EPOCHS", 1)
    network = pretraining.pretrained_network(60)
    (kept,) = (tmp_path / "pretrained").glob("*.npz")
    assert kept.stat().st_size < 1_000_000
    films = np.random.default_rng(0).integers(0, 256, (6, 40, 40), np.uint8)
    x = pretraining.features(network, films)
    assert x.shape == (6, 128) and x.dtype == np.float32
    assert not np.allclose(x, pretraining.features(pretraining.build_network(), films))

    monkeypatch.setattr(pretraining.training, "fit", lambda *_, **__: pytest.fail("trained again"))
    again = pretraining.pretrained_network(60)
    np.testing.assert_array_equal(x, pretraining.features(again, films))
    kept.write_bytes(b"damaged")
    with pytest.raises(pytest.fail.Exception):
        pretraining.pretrained_network(60)


@pytest.mark.sweep
def test_pretraining_on_pneumonia_helps_to_find_covid(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_CACHE", str(tmp_path))
    new = make_cohort(200, (1, 1), CLASSES, size=pretraining.SIDE, seed=9)
    networks = {"told": pretraining.pretrained_network(), "random": pretraining.build_network()}
    x = {name: pretraining.features(one, new.images) for name, one in networks.items()}
    _, gains = pretraining.learning_curves(x, new, CLASSES, [20, 100], [0])
    assert (gains["low"] > 0).all()
