import threading
import warnings

import keras
import numpy as np
import pytest
from sklearn.metrics import log_loss

from cxrlib import training
from cxrlib.compute import heads, heads_numpy
from cxrlib.compute.heads import Head, fit_folds, fit_heads
from cxrlib.compute.heads_numpy import Network, glorot
from cxrlib.split import Fold

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((90, 12)) * 3 + 7).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 14).astype(int)
KINDS = Y + (X[:, 2] > 8)  # three of them


def parts(targets=Y):
    return (X[:60], targets[:60]), (X[60:], targets[60:])


def keras_history(model, train, held, head, epochs):
    """What Keras's own `fit` finds, batches in the order of the rows."""
    training.compile_model(model, head.learning_rate)
    y = [heads.check_targets(*part, model.output_shape[-1], "") for part in (train, held)]
    found = model.fit(
        train[0],
        y[0],
        head.batch_size,
        epochs,
        verbose=0,
        shuffle=False,
        validation_data=(held[0], y[1]),
    )
    return found.history


def test_one_step_of_adam_by_hand():
    # films at -1 and 1, weight 0: both probabilities are 1/2, and the slopes of the loss
    # (1/2 x -1 + -1/2 x 1) / 2 = -1/2 for the weight, 0 for the bias.
    # Adam: m = -0.05, v = 0.00025, step = 0.01 x sqrt(0.001) / 0.1 x 0.05 / (sqrt(v) + 1e-7),
    # with 0.99900001 and 0.89999998 for 0.999 and 0.9 in the step's first factor, as Keras has it
    data = (np.array([[-1], [1]], np.float32), np.array([0, 1]))
    start = [[np.zeros((1, 1), np.float32), np.zeros(1, np.float32)]]
    head = Head(0, 1, learning_rate=0.01)
    found = fit_heads(data, data, [head], 1, start=start)
    weight, bias = found.weights[0, 0]
    assert weight[0, 0] == pytest.approx(0.00999987, abs=2e-8)
    assert bias[0] == 0
    assert found.history["loss"][0] == pytest.approx(0.68816, abs=1e-5)  # ln(1 + exp(-0.01))
    assert found.history["val_accuracy"][0] == 1


def test_adam_is_the_published_formula_with_keras_epsilon():
    steps = RNG.standard_normal((5, 3, 4)) * [1, 1e-3, 1e-7, 0]
    weights = RNG.standard_normal((3, 4)).astype(np.float32)
    expected, m, v = weights.astype(float), 0.0, 0.0
    first, second = np.zeros((2, 3, 4), np.float32)
    for number, gradient in enumerate(steps, 1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        alpha = 0.02 * np.sqrt(1 - 0.999**number) / (1 - 0.9**number)
        expected = expected - alpha * m / (np.sqrt(v) + 1e-7)
        pace = heads_numpy.pace(0.02, number)
        heads_numpy.adam(weights, first, second, gradient.astype(np.float32), pace)
    np.testing.assert_allclose(weights, expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "targets"), [(2, Y), (3, KINDS)])
def test_losses_and_weights_equal_keras(classes, targets):
    """Heads of several depths, widths, rates and batch sizes, in one call."""
    train, held = parts(targets)
    grid = [Head(1, 8), Head(2, 4, learning_rate=0.01), Head(4, 16, 0, 2e-3, 25)]
    grid = grid if classes == 2 else grid[1:2]
    models = [training.dense_head(train[0], classes, *head[:2], seed=5) for head in grid]
    start = [model.get_weights() for model in models]
    found = fit_heads(train, held, grid, 3, classes=classes, start=start, shuffle=False)
    for place, (head, model) in enumerate(zip(grid, models, strict=True)):
        expected = keras_history(model, train, held, head, 3)
        mine = found.history[found.history["head"] == place]
        np.testing.assert_allclose(mine["val_loss"], expected["val_loss"], atol=1e-5)
        np.testing.assert_allclose(mine["val_accuracy"], expected["val_accuracy"], atol=1e-6)
        for ours, theirs in zip(found.weights[0, place], model.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX computes in float32")
def test_twenty_epochs_in_float64_equal_keras():
    """Whatever parts the two in float32 is rounding, then, and no rule that differs."""
    head, (train, held) = Head(4, 16, learning_rate=2e-3), parts()
    train, held = ((x.astype(np.float64), y) for x, y in (train, held))
    before = keras.config.dtype_policy(), keras.config.floatx()
    try:
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
        model = training.dense_head(train[0], 2, *head[:2], seed=5)
        start = [[array.copy() for array in model.get_weights()]]
        expected = keras_history(model, train, held, head, 20)
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])
    found = fit_heads(train, held, [head], 20, start=start, shuffle=False).history
    assert expected["val_loss"][-1] < 0.9 * expected["val_loss"][0]
    np.testing.assert_allclose(found["val_loss"], expected["val_loss"], atol=1e-9)


@pytest.mark.parametrize(("classes", "targets"), [(2, Y), (3, KINDS)])
def test_weights_load_into_a_keras_head_and_scores_are_scikit_learns(classes, targets):
    train, held = parts(targets)
    found = fit_heads(train, held, [Head(2, 8, learning_rate=0.01)], 5, classes=classes)
    model = training.dense_head(train[0], classes, 2, 8)
    model.set_weights(found.weights[0, 0])
    last = found.history.iloc[-1]
    for part, prefix in ((train, ""), (held, "val_")):
        probabilities = training.predict(model, part[0])
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        expected = log_loss(part[1], probabilities, labels=range(classes))
        assert last[f"{prefix}loss"] == pytest.approx(expected, abs=1e-5)
        right = (probabilities.argmax(axis=1) == part[1]).mean()
        assert last[f"{prefix}accuracy"] == pytest.approx(right)


def test_confident_logits_neither_overflow_nor_round_the_loss_away():
    one, several = np.ones((1, 1), np.float32), np.array([[1, 0, 0]], np.float32)
    logits = np.array([[-2000.0, 2000, 30]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        binary = [heads_numpy.mean_scores(logits[:, [n]], one)[0] for n in range(3)]
        assert heads_numpy.mean_scores(logits, several) == (4000, 0)
        chances = heads_numpy.probabilities(logits)
        sigmoids = [heads_numpy.probabilities(logits[:, [n]])[0, 0] for n in range(3)]
    np.testing.assert_allclose(binary, [2000, 0, np.exp(-30)], atol=1e-12)
    np.testing.assert_allclose(chances, [[0, 1, 0]], atol=1e-12)
    np.testing.assert_allclose(sigmoids, [0, 1, 1], atol=1e-12)


def test_dropout_silences_its_share_and_keeps_the_mean():
    head = Head(1, 100, dropout=0.3)
    network = Network(head, glorot(head, 12, 1))
    answers = [network.forward(X, learning) for learning in (False, True)]
    calm, noisy = (np.maximum(entering[1], 0) for entering in answers)
    active = calm > 0
    ratio = noisy[active] / calm[active]
    np.testing.assert_allclose(ratio[ratio > 0], 1 / 0.7, rtol=1e-5)
    assert (ratio == 0).mean() == pytest.approx(0.3, abs=0.03)


def test_slopes_under_dropout_are_those_of_the_loss():
    """Against differences of the loss, in double precision, with the same units silenced."""
    head = Head(2, 6, dropout=0.4)
    weights = [w + np.float32(0.01) for w in glorot(head, 12, 1)]
    x = ((X - X.mean(axis=0)) / X.std(axis=0))[:20]
    network, draws = Network(head, weights, seed=3), np.random.default_rng([3, 2])
    kept = [(draws.random((20, 6), np.float32) >= 0.4) / 0.6 for _ in "ab"]

    def loss(w):
        units = x.astype(float)
        for number in (0, 1):
            units = np.maximum(units @ w[2 * number] + w[2 * number + 1], 0) * kept[number]
        logits = (units @ w[4] + w[5])[:, 0]
        return (np.logaddexp(0, logits) - Y[:20] * logits).mean()

    network.step(x, Y[:20, None].astype(np.float32))
    starts = np.cumsum([0, *(array.size for array in weights)])
    for number, place in [(0, (3, 2)), (1, (5,)), (2, (1, 4)), (3, (0,)), (4, (2, 0)), (5, (0,))]:
        ends = []
        for sign in (-1, 1):
            moved = [w.astype(float) for w in weights]
            moved[number][place] += sign * 1e-5
            ends.append(loss(moved))
        expected = (ends[1] - ends[0]) / 2e-5
        at = starts[number] + np.ravel_multi_index(place, weights[number].shape)
        assert network.first[at] == pytest.approx(expected, abs=1e-6)


MIXED = [Head(1, 8), Head(2, 200, 0.3), Head(2, 100), Head(1, 4, 0.5, 1e-2), Head(3, 8, 0.1)]


def test_same_numbers_on_any_number_of_threads(monkeypatch):
    runs = []
    for count in (1, 2, 5):
        monkeypatch.setattr(heads_numpy.cluster, "threads", lambda count=count: count)
        runs.append(fit_heads(*parts(), MIXED, 3, (0, 7)))
    for run in runs[1:]:
        assert run.history.equals(runs[0].history)
        for key, weights in runs[0].weights.items():
            for ours, theirs in zip(run.weights[key], weights, strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_seeds_together_equal_one_after_another():
    found = fit_heads(*parts(), MIXED, 2, seeds=(4, 1)).history
    assert len(found) == 2 * len(MIXED) * 2
    assert list(found["seed"].unique()) == [4, 1]
    columns, scores = ["head", "epoch", *heads.SCORES], []
    for seed in (4, 1):
        alone = fit_heads(*parts(), MIXED, 2, [seed]).history
        mine = found[found["seed"] == seed][columns].reset_index(drop=True)
        assert mine.equals(alone[columns])
        scores.append(list(mine["val_loss"]))
    assert scores[0] != scores[1]


def test_a_head_learns_the_same_in_any_company():
    train, held = parts()
    together = fit_heads(train, held, MIXED, 3)
    for place in (1, 3):
        alone = fit_heads(train, held, [MIXED[place]], 3).history["val_loss"]
        mine = together.history[together.history["head"] == place]["val_loss"]
        np.testing.assert_allclose(mine, alone, atol=1e-5)


def test_training_does_not_look_at_the_films_that_it_is_scored_on():
    train, held = parts()
    other = (held[0] * 5 - 3, 1 - held[1])
    runs = [fit_heads(train, part, MIXED, 2).history for part in (held, other)]
    assert runs[0]["loss"].equals(runs[1]["loss"])
    assert not runs[0]["val_loss"].equals(runs[1]["val_loss"])


def test_the_start_is_drawn_as_keras_draws_it():
    kernel, bias = glorot(Head(1, 300), 500, 1)[:2]
    theirs = np.asarray(keras.initializers.GlorotUniform(0)((500, 300)))
    assert kernel.std() == pytest.approx(theirs.std(), rel=0.01)
    assert np.abs(kernel).max() == pytest.approx(np.sqrt(6 / 800), rel=1e-3)
    assert not bias.any()


def test_an_interruption_stops_the_threads(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    train, held = parts()
    before = threading.active_count()
    monkeypatch.setattr(heads_numpy, "as_completed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit_heads(train, held, MIXED, 100_000)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": [Head(1, 0)]}, "A head has at least"),
        ({"heads": []}, "Give a head or more"),
        ({"epochs": 0}, "an epoch or more"),
        ({"validation": (X[:3], np.array([0, 1, 2]))}, "validation: class numbers"),
        ({"train": (X[:5], Y[:4])}, "training: 5 inputs for 4 targets"),
        ({"train": (X * np.nan, Y)}, "training: some features are not finite"),
        ({"validation": (X[:, :5], Y)}, "validation: 5 features for the 12"),
    ],
)
def test_what_cannot_be_trained_is_refused(change, message):
    train, held = parts()
    given = {"train": train, "validation": held, "heads": [Head(1, 8)], "epochs": 1} | change
    with pytest.raises(heads.TrainingError, match=message):
        fit_heads(**given)


FOLDS = [
    Fold(np.arange(0, 50), np.arange(50, 60), np.arange(60, 90)),
    Fold(np.arange(40, 90), np.arange(30, 40), np.arange(0, 25)),
]


@pytest.mark.parametrize(("targets", "classes"), [(Y, 2), (KINDS, 3)])
def test_folds_together_equal_one_after_another_and_keras(targets, classes):
    found = fit_folds(X, targets, FOLDS, MIXED, 3, (4, 1), classes)
    assert found.probability.shape == (2, len(MIXED), 90, classes)
    assert (found.fold == np.repeat([1, -1, 0], [25, 35, 30])).all()
    assert np.isnan(found.probability[:, :, 25:60]).all()
    for number, fold in enumerate(FOLDS):
        train, held = ((X[rows], targets[rows]) for rows in fold[:2])
        alone = fit_heads(train, held, MIXED, 3, (4, 1), classes)
        here = found.history[found.history["fold"] == number].drop(columns="fold")
        assert here.reset_index(drop=True).equals(alone.history)
        for place, head in enumerate(MIXED):
            keras_head = training.dense_head(train[0], classes, *head[:2])
            keras_head.set_weights(alone.weights[1, place])
            expected = training.predict(keras_head, X[fold.test])
            answered = found.probability[1, place, fold.test]
            np.testing.assert_allclose(answered, expected, atol=2e-6)


def test_a_tested_row_has_no_part_in_what_a_fold_learns():
    changed = X.copy()
    changed[FOLDS[0].test] = 1e3
    runs = [fit_folds(x, Y, FOLDS[:1], MIXED, 2).history for x in (X, changed)]
    assert runs[0].equals(runs[1])


def test_heads_are_chosen_inside_each_fold_and_their_answers_joined():
    found = fit_folds(X, Y, FOLDS, MIXED, 3, (4, 1))
    chosen, probability = training.choose(found)
    assert chosen[["fold", "seed"]].to_numpy().tolist() == [[0, 4], [0, 1], [1, 4], [1, 1]]
    for one in chosen.itertuples():
        last = found.history.query("fold == @one.fold and seed == @one.seed and epoch == 3")
        best = last[last["val_accuracy"] == last["val_accuracy"].max()]
        assert one.head == best.loc[best["val_loss"].idxmin(), "head"]
        rows, place = FOLDS[one.fold].test, (4, 1).index(one.seed)
        expected = found.probability[place, one.head, rows]
        np.testing.assert_array_equal(probability[place, rows], expected)
    assert np.isnan(probability[:, found.fold < 0]).all()
    # what the tested films say has no part in the choice
    other = found._replace(probability=1 - found.probability)
    assert training.choose(other)[0].equals(chosen)
