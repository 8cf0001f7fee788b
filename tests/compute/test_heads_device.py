"""Heads on Keras's device, here its processor: Keras's losses, one compilation, few copies.

The whole file runs on the backend of the tests, TensorFlow; and weekly again on JAX and PyTorch,
each in a process of its own, where they are installed.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest

from cxrlib import training
from cxrlib.compute import heads, heads_device
from cxrlib.compute.heads import Head, fit_folds, fit_heads
from cxrlib.split import Fold

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
X = (RNG.standard_normal((97, 12)) * 3 + 7).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 14).astype(int)
KINDS = Y + (X[:, 2] > 8)
# 50 and 67 films to learn from: of 32 each the last batch is short, and one fold has a step more
FOLDS = [
    Fold(np.arange(50), np.arange(50, 60), np.arange(60, 97)),
    Fold(np.arange(30, 97), np.arange(20, 30), np.arange(20)),
]
GRID = [Head(1, 8), Head(3, 20, 0, 2e-3), Head(2, 5, 0, 1e-2)]


@pytest.fixture(autouse=True)
def on_device(monkeypatch):
    monkeypatch.setenv("CXR_HEADS", "device")


@pytest.mark.sweep
@pytest.mark.slow
@pytest.mark.parametrize("other", ["jax", "torch"])
def test_the_same_holds_on_another_backend(other):
    if other == BACKEND or find_spec(other) is None:
        pytest.skip(f"there is no other backend {other}")
    command = [sys.executable, "-m", "pytest", "-q", "-x", __file__, "-k", "not another_backend"]
    env = os.environ | {"KERAS_BACKEND": other}
    env.pop("PYTEST_XDIST_WORKER", None)
    root = Path(__file__).resolve().parents[2]
    found = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "targets", "grid"), [(2, Y, GRID[:2]), (3, KINDS, [GRID[2], Head(1, 9)])]
)
def test_losses_and_weights_equal_keras(classes, targets, grid):
    """Heads of several depths and widths; the last batch of 53 films is short."""
    train, held = (X[:53], targets[:53]), (X[53:], targets[53:])
    models = [training.dense_head(train[0], classes, *head[:2], seed=5) for head in grid]
    start = [[array.copy() for array in model.get_weights()] for model in models]
    found = fit_heads(train, held, grid, 4, classes=classes, start=start, shuffle=False)
    outputs = models[0].output_shape[-1]
    y = [heads.check_targets(*part, outputs, "") for part in (train, held)]
    for place, (head, model) in enumerate(zip(grid, models, strict=True)):
        training.compile_model(model, head.learning_rate)
        how = {"shuffle": False, "verbose": 0, "validation_data": (held[0], y[1])}
        theirs = model.fit(train[0], y[0], 32, 4, **how).history
        ours = found.history[found.history["head"] == place]
        np.testing.assert_allclose(ours["val_loss"], theirs["val_loss"], atol=1e-5)
        np.testing.assert_allclose(ours["val_accuracy"], theirs["val_accuracy"], atol=1e-6)
        last = model.evaluate(train[0], y[0], verbose=0)  # Keras's own is a mean over the epoch
        np.testing.assert_allclose(ours[["loss", "accuracy"]].iloc[-1], last, atol=1e-5)
        for mine, weights in zip(found.weights[0, place], model.get_weights(), strict=True):
            np.testing.assert_allclose(mine, weights, atol=1e-4)


@pytest.mark.parametrize(("classes", "targets"), [(2, Y), (3, KINDS)])
def test_folds_of_unequal_size_and_seeds_equal_numpy(classes, targets, monkeypatch):
    several = [*GRID, Head(0, 5), Head(1, 7, 0, 1e-3, 25)]
    found = fit_folds(X, targets, FOLDS, several, 5, (4, 1), classes)
    monkeypatch.setenv("CXR_HEADS", "numpy")
    expected = fit_folds(X, targets, FOLDS, several, 5, (4, 1), classes)
    known = [*expected.history.columns[:-4]]
    assert found.history[known].equals(expected.history[known])
    scores = [one.history[heads.SCORES].to_numpy() for one in (found, expected)]
    np.testing.assert_allclose(*scores, atol=1e-5)
    accuracies = [one.history[["accuracy", "val_accuracy"]] for one in (found, expected)]
    assert accuracies[0].equals(accuracies[1])  # to the last bit: they break ties
    np.testing.assert_allclose(found.probability, expected.probability, atol=1e-5)
    assert (found.fold == expected.fold).all()


@pytest.mark.skipif(BACKEND == "jax", reason="JAX computes in float32")
def test_in_float64_no_rule_differs_from_numpys(monkeypatch):
    x = X.astype(np.float64)
    found = fit_folds(x, Y, FOLDS, GRID, 8)
    monkeypatch.setenv("CXR_HEADS", "numpy")
    expected = fit_folds(x, Y, FOLDS, GRID, 8)
    np.testing.assert_allclose(
        found.history[heads.SCORES], expected.history[heads.SCORES], atol=1e-9
    )


def count(monkeypatch, name, counted):
    """Count the calls of a function of the module."""
    function = getattr(heads_device, name)

    def call(*args, **more):
        counted.append(name)
        return function(*args, **more)

    monkeypatch.setattr(heads_device, name, call)


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch compiles nothing on a processor")
def test_an_epoch_is_compiled_once_for_all_epochs_folds_and_seeds(monkeypatch):
    traced = []
    count(monkeypatch, "epoch", traced)  # Python sees it only while it is traced
    fit_folds(X, Y, FOLDS, [*GRID, Head(4, 8)], 6, (0, 1))
    assert len(traced) == 1


@pytest.mark.skipif(BACKEND != "tensorflow", reason="JAX always compiles so, PyTorch never")
def test_xla_compiles_it_as_for_a_gpu(monkeypatch):
    plain = fit_folds(X, KINDS, FOLDS, [Head(2, 9, 0.3)], 3, classes=3)
    monkeypatch.setattr(heads_device, "accelerator", lambda: "gpu")
    found = fit_folds(X, KINDS, FOLDS, [Head(2, 9, 0.3)], 3, classes=3)
    scores = [one.history[heads.SCORES] for one in (found, plain)]
    np.testing.assert_allclose(*scores, atol=1e-5)


def test_copies_to_the_device_grow_with_epochs_alone(monkeypatch):
    copies = []
    real = keras.ops.convert_to_tensor

    def copy(array, *more, **options):
        if isinstance(array, np.ndarray):
            copies.append(array.size)
        return real(array, *more, **options)

    monkeypatch.setattr(keras.ops, "convert_to_tensor", copy)

    def sizes(grid, epochs, seeds=(0,)):
        copies.clear()
        fit_folds(X, Y, FOLDS, grid, epochs, seeds)
        return list(copies)

    few, many = sizes([Head(1, 8)] * 2, 3), sizes([Head(1, 8)] * 6, 3, (0, 1, 2))
    assert len(few) == len(many)  # neither with heads nor with seeds
    longer = sizes([Head(1, 8)] * 2, 5)
    new = longer[len(few) :]
    assert len(new) == 2 * 4  # of the rows, their shares, what Adam needs, and step numbers
    assert max(new) <= 2 * 96 * 3  # numbers of rows and shares of two folds, no features
    assert sum(size == X.size for size in longer) == 1  # the features lie there once


def test_heads_that_do_not_fit_take_turns(monkeypatch):
    together = fit_folds(X, Y, FOLDS, GRID, 2)
    made = []
    count(monkeypatch, "_compiled", made)
    monkeypatch.setattr(heads_device, "LIMIT", 1)
    apart = fit_folds(X, Y, FOLDS, GRID, 2)
    assert len(made) == len(GRID)
    scores = [one.history[heads.SCORES] for one in (together, apart)]
    np.testing.assert_allclose(*scores, atol=1e-6)


def silent(head, others=(), seed=0, turns=(1, 2)):
    """Which units of a head are dropped, (turns, batch, units), where each would answer 1."""
    from types import SimpleNamespace

    everyone = [*others, head]
    rules = heads_device._rules(everyone, [SimpleNamespace(seed=seed)], head.layers)
    rules = heads_device.put(rules, np.float32)
    wide = max(one.neurons for one in everyone)
    x = keras.ops.ones((1, len(everyone), head.batch_size, wide))
    turns = [keras.ops.convert_to_tensor(np.int32(turn)) for turn in turns]
    drawn = [heads_device._silence(x, rules, 0, turn) for turn in turns]
    found = [keras.ops.convert_to_numpy(one)[0, -1, :, : head.neurons] for one in drawn]
    return np.stack(found)


def test_dropout_silences_its_share_anew_and_keeps_the_mean():
    head = Head(1, 200, 0.3)
    drawn = silent(head, turns=range(20))
    np.testing.assert_allclose(drawn[drawn > 0], 1 / 0.7, rtol=1e-6)
    share = 20 * 32 * 200
    assert (drawn == 0).mean() == pytest.approx(0.3, abs=5 * (0.21 / share) ** 0.5)
    off = drawn == 0
    others = silent(head, seed=1), silent(head._replace(learning_rate=1e-3))
    for one, other in [(off[0], off[1]), (off[1], others[0][0] == 0), (off[1], others[1][0] == 0),
                       (off[:, 0], off[:, 1]), (off[..., 0], off[..., 1])]:  # fmt: skip
        # steps, seeds, heads, films and units draw independently: both silent in 9 %
        assert (one & other).mean() == pytest.approx(0.09, abs=5 * (0.09 / one.size) ** 0.5)
    again = silent(head, others=[Head(1, 300, 0.5)], turns=(0, 1))
    np.testing.assert_array_equal(again, drawn[:2])  # in any company


def test_the_hash_is_the_published_one():
    def lowbias32(x):  # Wellons, https://nullprogram.com/blog/2018/07/31/, in Python's integers
        x = (x ^ (x >> 16)) * 0x7FEB352D % 2**32
        x = (x ^ (x >> 15)) * 0x846CA68B % 2**32
        return x ^ (x >> 16)

    given = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, *map(int, RNG.integers(0, 2**32, 50))]
    ours = heads_device._mixed(keras.ops.convert_to_tensor(np.array(given, np.uint32).view("i4")))
    ours = keras.ops.convert_to_numpy(ours).view(np.uint32)
    assert ours.tolist() == [lowbias32(one) for one in given]


def test_with_dropout_a_head_learns_the_same_again_and_in_any_company():
    head = Head(2, 16, 0.4, 5e-3)
    found = [
        fit_folds(X, Y, FOLDS, grid, 4, (3,)).history for grid in ([head], [Head(3, 24), head])
    ]
    again = fit_folds(X, Y, FOLDS, [head], 4, (3,)).history
    assert again.equals(found[0])
    mine = found[1][found[1]["head"] == 1]
    np.testing.assert_allclose(mine["val_loss"], found[0]["val_loss"], atol=1e-5)
    without = fit_folds(X, Y, FOLDS, [head._replace(dropout=0.0)], 4, (3,)).history
    assert np.abs(without["loss"] - found[0]["loss"]).max() > 1e-3


def test_slopes_under_dropout_are_those_of_the_loss():
    """Against differences of the loss in float64, with the same units silenced."""
    from types import SimpleNamespace

    head = Head(2, 6, 0.4, batch_size=20)
    rules = heads_device.put(heads_device._rules([head], [SimpleNamespace(seed=3)], 2), np.float32)
    given = [w + np.float32(0.01) for w in heads_device.glorot(head, 12, 1)]
    x = ((X - X.mean(axis=0)) / X.std(axis=0))[:20]
    turn, ones = keras.ops.convert_to_tensor(np.int32(7)), keras.ops.ones((1, 1, 20, 6))
    kept = [heads_device._silence(ones, rules, number, turn) for number in (0, 1)]
    kept = [keras.ops.convert_to_numpy(one)[0, 0].astype(float) for one in kept]

    def loss(w):
        units = x.astype(float)
        for number in (0, 1):
            units = np.maximum(units @ w[2 * number] + w[2 * number + 1], 0) * kept[number]
        logits = (units @ w[4] + w[5])[:, 0]
        return (np.logaddexp(0, logits) - Y[:20] * logits).mean()

    state = [np.atleast_2d(array)[None, None] for array in given]
    state = heads_device.put([*state, *(2 * [0 * array for array in state])], np.float32)
    films = [x, Y[:20, None].astype(float), np.zeros((1, 1, 12)), np.ones((1, 1, 12))]
    batch = [np.arange(20)[None], np.full((1, 20), 1 / 20), np.array([[0.01, 0.9, 0.999]])]
    films, batch = heads_device.put(films, np.float32), heads_device.put(batch, np.float32)
    found = heads_device.step(state, films, rules, [*batch, turn])
    for number, place in [(0, (3, 2)), (1, (5,)), (2, (1, 4)), (3, (0,)), (4, (2, 0)), (5, (0,))]:
        ends = []
        for sign in (-1, 1):
            moved = [w.astype(float) for w in given]
            moved[number][place] += sign * 1e-5
            ends.append(loss(moved))
        slope = keras.ops.convert_to_numpy(found[6 + number])[0, 0].reshape(given[number].shape)
        assert slope[place] == pytest.approx((ends[1] - ends[0]) / 2e-5, abs=1e-6)


@pytest.mark.skipif(BACKEND != "torch", reason="a CUDA graph is PyTorch's")
def test_a_step_can_be_recorded_for_cuda():
    """It copies nothing to the device and asks nothing of it; else a recording would stop."""
    from torch.utils._python_dispatch import TorchDispatchMode

    called = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            called.append(str(function))
            return function(*args, **(kwargs or {}))

    runs, head = [heads.Run(*FOLDS[0][:2], 0, *heads.moments(X))], Head(2, 6, 0.4)
    for classes, targets in ((1, Y), (3, KINDS)):
        sizes = [12, 6, 6, classes]
        state = heads_device.put(heads_device._lay_out([head], [0], runs, sizes), np.float32)
        state = [*state, *(2 * [0 * array for array in state])]
        rules = heads_device.put(heads_device._rules([head], runs, 2), np.float32)
        y = heads.check_targets(X, targets, classes, "")
        centre = [np.zeros((1, 1, 12)), np.ones((1, 1, 12))]
        films = heads_device.put([X, y, *centre], np.float32)
        rows = heads_device.put(next(heads_device._epochs(runs, 32, 1, True, "f4")), np.float32)
        batch = [array[0] for array in rows]
        with Watch():
            heads_device.step(state, films, rules, batch)
    assert "aten.bmm.default" in called
    banned = ("lift_fresh", "_local_scalar_dense", "_to_copy.default.cpu", "nonzero", "item")
    assert [name for name in called if any(word in name for word in banned)] == []


def test_what_is_misspelt_is_named(monkeypatch):
    monkeypatch.setenv("CXR_HEADS", "gpu")
    with pytest.raises(heads.TrainingError, match="CXR_HEADS is 'gpu': set it to numpy or device"):
        fit_folds(X, Y, FOLDS, GRID, 1)


@pytest.mark.parametrize(
    ("kind", "precision", "expected"),
    [("gpu", "f4", True), ("tpu", "f4", True), ("mps", "f4", False), ("", "f4", False),
     ("gpu", "f8", False)],
)  # fmt: skip
def test_an_accelerator_decides_where_nobody_does(kind, precision, expected, monkeypatch):
    monkeypatch.delenv("CXR_HEADS")
    monkeypatch.setattr(heads, "accelerator", lambda: kind)
    assert heads.on_device(X.astype(precision)) == expected
    if expected:  # with a cluster, its workers do it
        monkeypatch.setattr(heads.cluster, "client", lambda: object())
        assert not heads.on_device(X)
