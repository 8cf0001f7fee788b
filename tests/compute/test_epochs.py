"""Steps that are compiled together learn what Keras learns step by step."""

import keras
import numpy as np
import pytest

from cxrlib import machine, training
from cxrlib.compute import engine, epochs
from helpers import tiny_cohort

BATCH = 16


def network(dropout=0.0):
    training.set_seed(0)
    layers = [
        keras.Input((24, 24, 1)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(4, 3, use_bias=False),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.ReLU(),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        *([keras.layers.Dropout(dropout)] if dropout else []),
        keras.layers.Dense(1, "sigmoid", name="output"),
    ]
    return keras.Sequential(layers)


def films(train=43):  # two whole batches and one of 11; 21 to validate on, one and 5
    cohort = tiny_cohort(patients=32)
    y = cohort.targets(["healthy", "covid"])
    return (cohort.images[:train], y[:train]), (cohort.images[43:], y[43:])


def trained(monkeypatch, way, data=None, **how):
    monkeypatch.setenv("CXR_STEPS", way)
    monkeypatch.setattr("random.shuffle", list)  # Keras shuffles the order of batches once more
    model = how.pop("model", None) or network()
    history = training.fit(model, *(data or films()), **{"epochs": 2, "batch_size": BATCH} | how)
    return history, [np.array(weight) for weight in model.get_weights()]


def test_histories_and_weights_are_those_of_keras(monkeypatch):
    (ours, found), (theirs, expected) = (
        trained(monkeypatch, way, learning_rate=1e-2) for way in ("compiled", "keras")
    )
    assert list(ours) == list(theirs) and len(ours) == 2
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert np.ptp(theirs["loss"]) > 0.01  # it learned, so an order of its own would show
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_dropout_is_drawn_anew_in_every_step(monkeypatch):
    still, lively = (
        trained(monkeypatch, "compiled", model=network(rate), epochs=3)[0] for rate in (0, 0.5)
    )
    assert np.abs(still["loss"] - lively["loss"]).min() > 1e-4
    again = trained(monkeypatch, "compiled", model=network(0.5), epochs=3)[0]
    np.testing.assert_allclose(lively, again, atol=1e-6)


def test_an_epoch_is_few_calls_and_images_are_read_and_copied_once(monkeypatch):
    calls, read, copied = [], [], []
    make, share, convert = epochs._loop, training.share, keras.ops.convert_to_tensor

    def loop(*given):
        run = make(*given)
        return lambda x, y, rows: calls.append(tuple(rows.shape)) or run(x, y, rows)

    def copy(x, *rest, **more):
        if isinstance(x, np.ndarray) and x.ndim > 2:
            copied.append((x.dtype, x.shape))
        return convert(x, *rest, **more)

    monkeypatch.setattr(epochs, "_loop", loop)
    monkeypatch.setattr(training, "share", lambda one, n: read.append(n) or share(one, n))
    monkeypatch.setattr(keras.ops, "convert_to_tensor", copy)
    trained(monkeypatch, "compiled", epochs=5)
    assert calls == [(2, 16), (1, 11), (1, 21)] * 5  # held images go by 32 or more
    assert read == [16, 43, 21]  # the first names shapes and types to Keras
    assert copied == [(np.uint8, (43, 24, 24)), (np.uint8, (21, 24, 24))]


def test_fewer_films_than_a_batch(monkeypatch):
    ours, theirs = (trained(monkeypatch, way, films(7))[0] for way in ("compiled", "keras"))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_in_mixed_precision_too(policy, monkeypatch):
    monkeypatch.setattr(training, "training_precision", lambda: policy)
    ours, theirs = (trained(monkeypatch, way)[0] for way in ("compiled", "keras"))
    assert np.abs(ours["loss"] - theirs["loss"]).max() < 0.05


def test_features_too(monkeypatch):
    def head():
        training.set_seed(0)
        return keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, "softmax")])

    random = np.random.default_rng(0)
    y = random.integers(0, 3, 43)
    data = [(random.normal(size=(n, 5)) + y[:n, None], y[:n]) for n in (43, 21)]
    ours, theirs = (
        trained(monkeypatch, way, data, model=head(), epochs=5, learning_rate=1e-2)
        for way in ("compiled", "keras")
    )
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5)
    for one, other in zip(ours[1], theirs[1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert theirs[0]["loss"].iloc[-1] < theirs[0]["loss"].iloc[0] - 0.01


def test_what_is_made_once_trains_again(monkeypatch):
    made, make = [], epochs._loop
    monkeypatch.setattr(epochs, "_loop", lambda *given: made.append(1) or make(*given))
    (x, y), _ = films()
    model = training.compile_model(network(), 1e-2)
    model.optimizer.build(model.trainable_variables)
    variables = [*model.weights, *model.optimizer.variables]
    start = [np.array(variable) for variable in variables]
    steps, found = epochs.Steps(model), []
    for _ in range(2):
        for variable, first in zip(variables, start, strict=True):
            variable.assign(first)
        data = training.batches(x, 24, y[:, None].astype(np.float32), BATCH, shuffle=True)
        found.append(steps.fit(data, epochs=2).history)
    assert list(found[0]) == ["accuracy", "loss"] and len(made) == 2  # to train and to validate
    np.testing.assert_allclose(found[0]["loss"], found[1]["loss"], rtol=1e-5)


def test_frozen_layers_stay(monkeypatch):
    model = network()
    model.layers[1].trainable = False
    kernel = np.array(model.layers[1].kernel)
    trained(monkeypatch, "compiled", model=model)
    np.testing.assert_array_equal(model.layers[1].kernel, kernel)


def test_an_interruption_leaves_the_weights_of_the_last_call(monkeypatch):
    make, calls = epochs._loop, []

    def loop(*given):
        run = make(*given)

        def once(*rows):
            calls.append(1)
            if len(calls) == 6:  # the second epoch's short batch
                raise KeyboardInterrupt
            run(*rows)

        return once

    monkeypatch.setattr(epochs, "_loop", loop)
    model = network()
    start = [np.array(weight) for weight in model.get_weights()]
    with pytest.raises(KeyboardInterrupt):
        trained(monkeypatch, "compiled", model=model)
    for before, after in zip(start, model.get_weights(), strict=True):
        assert np.isfinite(after).all() and not np.array_equal(before, after)


def test_where_it_is_used(monkeypatch):
    monkeypatch.delenv("CXR_STEPS", raising=False)
    train = training.batches(np.zeros((40, 9, 9), np.uint8), 24, np.zeros((40, 1)))
    for backend, here in (("tensorflow", True), ("jax", False), ("torch", False)):
        monkeypatch.setattr(keras.backend, "backend", lambda backend=backend: backend)
        assert epochs.fit_here(train) == here
    for kind in ("gpu", "tpu", "mps"):
        monkeypatch.setattr(epochs, "accelerator", lambda kind=kind: kind)
        assert epochs.fit_here(train)
    monkeypatch.setattr(epochs, "MOST", 2 * 40 * 24 * 24 - 1)  # as bytes, at the network's size
    assert epochs.fit_here(train) and not epochs.fit_here(train, train)
    monkeypatch.setenv("CXR_STEPS", "keras")
    assert not epochs.fit_here(train)
    monkeypatch.setenv("CXR_STEPS", "fast")
    with pytest.raises(engine.EngineError, match="CXR_STEPS is 'fast': set it to compiled or"):
        epochs.fit_here(train)


def test_the_switch_is_recorded(monkeypatch):
    monkeypatch.setenv("CXR_STEPS", "compiled")
    assert engine.settings()["CXR_STEPS"] == "compiled" and machine.accelerator() == ""


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="PyTorch's own")
@pytest.mark.parametrize("training_step", [True, False])
def test_a_step_could_be_a_cuda_graph(training_step, monkeypatch):
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = training.compile_model(network(0.5), 1e-3)
    x, y = np.zeros((16, 24, 24, 1), np.float32), np.zeros((16, 1), np.float32)
    model._symbolic_build(data_batch=(x, y))
    step = model.train_step if training_step else model.test_step
    constants = epochs._constants()
    with torch.set_grad_enabled(training_step), constants:
        step((torch.as_tensor(x), torch.as_tensor(y)))
        copied = constants.known.cache_info().misses
        step((torch.as_tensor(x), torch.as_tensor(y)))
        again = constants.known.cache_info()
        assert 0 < copied == again.misses < again.hits  # nothing comes from Python any more
    with FakeTensorMode(allow_non_fake_inputs=True), torch.set_grad_enabled(training_step):
        step((torch.zeros(x.shape), torch.zeros(y.shape)))  # refuses to read from a device


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="PyTorch's own")
def test_without_a_graph_it_warns_and_goes_on(monkeypatch):
    import torch

    theirs = trained(monkeypatch, "keras")[0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # it is not
    with pytest.warns(UserWarning, match="cannot make a CUDA graph of a training step"):
        ours = trained(monkeypatch, "compiled")[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
