"""What pretraining is worth: who is tested, who trains, and that the curves see what is there."""

import numpy as np
import pytest

from cxrlib import metrics
from cxrlib.cohort import Cohort
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


def weights(model) -> dict:
    """All weights of each layer that has some, one after the other."""
    found = {layer.name: layer.get_weights() for layer in model.layers}
    return {name: np.concatenate([w.ravel() for w in some]) for name, some in found.items() if some}


@pytest.fixture(scope="module")
def tuned(cohort):
    """Fine-tuning in few steps: its tables, every training and every answer."""
    trained, answers = [], []
    fit, predict = pretraining.training.fit, pretraining.training.predict

    def spy_fit(model, data, held, *how, **more):
        before = weights(model)
        fit(model, data, held, *how, **more)
        after = weights(model)
        changed = {name for name in after if (before[name] != after[name]).any()}
        trained.append((data, changed, before, after, how))

    def spy_predict(model, images):
        answers.append((images, predict(model, images)))
        return answers[-1][1]

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"SIDE": 32, "NEW_HEAD": (10, 0.01), "GOING_ON": (6, 0.01)}.items():
            patch.setattr(pretraining, name, value)
        patch.setattr(pretraining.training, "fit", spy_fit)
        patch.setattr(pretraining.training, "predict", spy_predict)
        network = pretraining.build_network(3)
        layer = network.get_layer("normalisation_4")  # averages as of much training
        layer.set_weights([np.full(w.shape, 0.5, np.float32) for w in layer.get_weights()])
        kept = network.get_weights()
        dark = Cohort(cohort.table, 255 - np.asarray(cohort.images), "inverted")
        tables = pretraining.fine_tuning(network, {"as is": cohort, "dark": dark}, CLASSES, 1)
        for before, after in zip(kept, network.get_weights(), strict=True):
            np.testing.assert_array_equal(before, after)
    return *tables, trained, answers


def rows_of(images, cohort):
    return [
        int(np.flatnonzero((np.asarray(cohort.images) == one).all((1, 2)))[0]) for one in images
    ]


def test_only_what_a_way_releases_learns(tuned):
    *_, trained, _ = tuned
    assert [changed for _, changed, *_ in trained] == [
        {"output"},  # the new head, on features: no other layer is there
        {"output"},
        {"output", "convolution_4"},
    ] * 2
    for new, *ways in (trained[:3], trained[3:]):
        for _, _, before, _, how in ways:  # both go on from the new head, alike
            np.testing.assert_array_equal(before["output"], new[3]["output"])
            np.testing.assert_array_equal(before["convolution_4"], ways[0][2]["convolution_4"])
            assert (before["normalisation_4"] == 0.5).all()
            assert how == (3, 0.01)  # 6 steps: some 46 films are two batches


def test_nobody_who_is_tested_was_trained_on_and_everybody_is_tested(tuned, cohort):
    *_, trained, answers = tuned
    owner, seen = cohort.table["patient"].to_numpy(), []
    for number in (0, 1):
        data = trained[3 * number + 1][0]
        learned = rows_of(data[0], cohort)
        np.testing.assert_array_equal(data[1], cohort.targets(CLASSES)[learned])
        tested = rows_of(answers[4 * number][0], cohort)
        assert not set(owner[learned]) & set(owner[tested])
        assert sorted([*learned, *tested]) == list(range(len(cohort)))
        np.testing.assert_array_equal(answers[4 * number + 1][0], 255 - cohort.images[tested])
        seen += tested
    assert sorted(seen) == list(range(len(cohort)))


def test_the_gain_is_the_last_block_less_the_head_alone(tuned, cohort):
    from sklearn.metrics import accuracy_score

    gains, _, _, answers = tuned
    y = cohort.targets(CLASSES)
    for place, name in enumerate(("as is", "dark")):
        right = {}
        for way, start in {"head alone": 0, "last block": 2}.items():
            probability = np.zeros(len(y))
            for half in (0, 4):
                images, answer = answers[half + start + place]
                films = images if name == "as is" else 255 - images
                probability[rows_of(films, cohort)] = answer[:, 1]
            right[way] = accuracy_score(y, probability >= 0.5)
        row = gains.loc[(name, "accuracy")]
        assert row["value"] == pytest.approx(right["last block"] - right["head alone"])
        assert row["low"] < row["value"] < row["high"] and row["n"] == len(y)


def test_probes_read_the_scanner_and_the_margin_of_each_half(tuned, cohort):
    _, read, *_ = tuned
    assert set(read.index.get_level_values("read")) == {"class, lungs covered", "scanner"}
    assert read.groupby(["read", "way"])["n"].sum().eq(len(cohort)).all()
    assert (read.loc["scanner", "value"] > 0.8).all()  # phantoms' scanners look distinct
    assert ((read["low"] < read["value"]) & (read["value"] <= read["high"])).all()


def test_fine_tuning_refuses_other_patients(cohort):
    other = cohort.take(np.arange(len(cohort))[::-1])
    with pytest.raises(ShortcutError, match="same patients"):
        pretraining.fine_tuning(None, {"one": cohort, "other": other}, CLASSES)


def test_a_half_with_too_few_patients_gets_no_probe(cohort, monkeypatch):
    monkeypatch.setattr(pretraining, "features", lambda _, images: np.ones((len(images), 2)))
    found = pretraining._read(None, cohort.take(np.arange(3)), CLASSES)
    assert set(found) == {"class, lungs covered", "scanner"}
    for *area, images in found.values():
        assert np.isnan(area).all() and images == 3


def test_a_damaged_file_of_the_course_is_not_passed_over(tmp_path, monkeypatch):
    (tmp_path / "pretrained.npz").write_bytes(b"damaged")
    monkeypatch.setattr(pretraining, "shipped", lambda _: tmp_path)
    with pytest.raises(ValueError, match=r"pickle|zip|file"):
        pretraining.pretrained_network()


def test_pretraining_on_pneumonia_helps_to_find_covid(own_cache):
    new = make_cohort(200, (1, 1), CLASSES, size=pretraining.SIDE, seed=9)
    networks = {"told": pretraining.pretrained_network(), "random": pretraining.build_network()}
    x = {name: pretraining.features(one, new.images) for name, one in networks.items()}
    _, gains = pretraining.learning_curves(x, new, CLASSES, [20, 100], [0])
    assert (gains["low"] > 0).all()
    assert not list(own_cache.rglob("*pretrained*"))  # the weights came with the course
