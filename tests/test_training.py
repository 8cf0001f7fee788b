import platform
import resource

import cv2
import keras
import numpy as np
import pytest

from cxrlib import machine, training
from cxrlib.compute import TrainingError
from helpers import tiny_cohort

RNG = np.random.default_rng(0)
X = RNG.standard_normal((120, 10)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(int)
TRAIN, HELD = (X[:80], Y[:80]), (X[80:], Y[80:])


def test_fit_learns_a_linear_rule_and_reports_every_epoch():
    history = training.fit(training.dense_head(X[:80], neurons=16), TRAIN, HELD, 40, 1e-2)
    assert list(history) == ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"]
    assert list(history["epoch"]) == list(range(1, 41))
    assert history["val_accuracy"].iloc[-1] > 0.8


def test_reported_validation_loss_is_scikit_learns():
    from sklearn.metrics import log_loss

    model = training.dense_head(X[:80])
    history = training.fit(model, TRAIN, HELD, 2)
    expected = log_loss(HELD[1], training.predict(model, HELD[0]))
    assert history["val_loss"].iloc[-1] == pytest.approx(expected, rel=1e-4)


def test_the_rate_falls_to_0_with_the_last_step():
    model, x, y = small_network(), *films()[0]
    training.fit(model, (x, y), (x, y), 3, 0.1, -(-len(y) // 3), decay=True)
    optimizer = model.optimizer
    assert int(optimizer.iterations) == 9 and float(optimizer.learning_rate) == 0
    rates = [float(optimizer._learning_rate(step)) for step in (0, 3, 6)]
    assert rates == pytest.approx([0.1, 0.075, 0.025])  # half a cosine, by hand


def test_same_seed_same_history():
    runs = [training.fit(training.dense_head(X[:80], dropout=0.3), TRAIN, HELD, 3) for _ in "ab"]
    assert runs[0].equals(runs[1])


def test_head_standardises_by_the_training_part():
    shifted = X * 50 + 1000
    head = training.dense_head(shifted)
    scaled = np.asarray(head.get_layer("standardise")(shifted))
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-2)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-2)


def test_a_channel_that_was_silent_in_training_does_not_blow_up():
    silent = X.copy()
    silent[:, 3] = 0
    scale = training.standardiser(silent)
    assert np.abs(np.asarray(scale(X))).max() < 100


def test_head_has_the_layers_that_were_asked_for():
    head = training.dense_head(X, classes=3, hidden_layers=2, neurons=8, dropout=0.5)
    kinds = [type(layer).__name__ for layer in head.layers]
    assert kinds == ["Normalization", "Dense", "Dropout", "Dense", "Dropout", "Dense"]
    # 10 x 8 + 8, 8 x 8 + 8, 8 x 3 + 3 by hand
    assert sum(int(np.prod(w.shape)) for w in head.trainable_weights) == 88 + 72 + 27
    probabilities = training.predict(head, X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_images_are_read_in_batches_and_resized():
    cohort = tiny_cohort(patients=5)
    data = training.batches(cohort.images, 32, np.arange(10)[:, None], batch_size=4)
    assert len(data) == 3
    batch, targets = data[2]
    assert batch.shape == (2, 32, 32, 1) and list(targets[:, 0]) == [8, 9]
    # area interpolation by exactly two is the mean of 2 x 2 pixels, rounded
    means = cohort.images[8].reshape(32, 2, 32, 2).mean(axis=(1, 3))
    assert np.abs(batch[0, ..., 0] - means).max() <= 0.5


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_are_the_same_for_a_seed_however_many_threads(monkeypatch, threads):
    from cxrlib import augment

    monkeypatch.setattr("cxrlib.parallel.threads.cores", lambda: threads)
    cohort = augment.expand(tiny_cohort(patients=5), copies=2)
    targets = np.arange(30)[:, None]
    data = training.batches(cohort.images, 24, targets, batch_size=8, shuffle=True, seed=3)
    rng, order = np.random.default_rng(3), np.arange(30)
    for _ in range(3):
        rng.shuffle(order)
        assert len(data) == 4
        rows = np.concatenate([data[number][1][:, 0] for number in range(4)])
        np.testing.assert_array_equal(rows, order)
        batch, named = data[1]
        assert batch.dtype == np.float32
        for image, row in zip(batch, named[:, 0], strict=True):
            film = cv2.resize(cohort.images[int(row)], (24, 24), interpolation=cv2.INTER_AREA)
            np.testing.assert_array_equal(image[..., 0], film)
        data.on_epoch_begin()


def test_a_cnn_trains_on_cohort_images():
    training.set_seed(0)
    cohort = tiny_cohort(patients=16)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((32, 32, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(1, "sigmoid"),
        ]
    )
    data = (cohort.images, cohort.targets(["healthy", "covid"]))
    history = training.fit(model, data, data, 15, 0.05, 8)
    assert history["val_accuracy"].iloc[-1] > 0.9
    assert training.predict(model, cohort.images).shape == (32, 2)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or keras.backend.backend() != "tensorflow",
    reason="only TensorFlow on glibc gives memory back after each step",
)
def test_a_step_of_training_uses_the_memory_of_the_last_one():
    """It counts pages of 4 KB that the system hands over anew."""
    layers = [keras.layers.Conv2D(16, 3, activation="relu"), keras.layers.GlobalMaxPooling2D()]
    model = keras.Sequential([keras.Input((96, 96, 1)), *layers, keras.layers.Dense(1, "sigmoid")])
    films = np.zeros((160, 96, 96), np.uint8), np.arange(160) % 2
    counts = []
    for _ in range(2):  # the first one builds
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        training.fit(model, films, films, 4)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    steps, activations = 4 * 5, 32 * 94 * 94 * 16 * 4 / 4096
    assert counts[1] / steps < activations / 2, counts


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ((X[:5], Y[:4]), "5 inputs for 4 targets"),
        ((X[:0], Y[:0]), "0 inputs"),
        ((X[:4], np.array([0, 1, 2, 0])), "knows 2"),
    ],
)
def test_data_that_do_not_fit_are_refused(train, message):
    with pytest.raises(TrainingError, match=message):
        training.fit(training.dense_head(X), train, HELD, 1)


@pytest.mark.parametrize("wrong", [{"neurons": 0}, {"dropout": 1.0}, {"classes": 1}])
def test_impossible_heads_are_refused(wrong):
    with pytest.raises(TrainingError, match="A head has at least"):
        training.dense_head(X, **wrong)


# --- precision ---------------------------------------------------------------------------------
# There is no GPU where these tests run: the processor computes in these types too, slowly.


def small_network():
    """Build a convolutional network with everything that the course's has."""
    training.set_seed(0)
    return keras.Sequential(
        [
            keras.Input((24, 24, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(1, "sigmoid", name="output"),
        ]
    )


def films():
    cohort = tiny_cohort(patients=32)
    y = cohort.targets(["healthy", "covid"])
    return (cohort.images[:48], y[:48]), (cohort.images[48:], y[48:])


@pytest.mark.parametrize(
    ("kind", "capability", "asked", "expected"),
    [
        ("", "", None, "float32"),  # never on a processor
        ("", "", "bfloat16", "float32"),
        ("gpu", "8.0", None, "mixed_bfloat16"),
        ("gpu", "9.0\n7.5", None, "mixed_float16"),  # the oldest decides
        ("gpu", "10.0", None, "mixed_bfloat16"),
        ("gpu", "[N/A]", None, "mixed_float16"),
        ("gpu", "", None, "mixed_float16"),  # another maker's
        ("tpu", "", None, "mixed_bfloat16"),
        ("mps", "", None, "float32"),
        ("gpu", "8.0", "float32", "float32"),
        ("gpu", "8.0", "bfloat16", "mixed_bfloat16"),
    ],
)
def test_the_precision_fits_the_device_and_can_be_forbidden(
    kind, capability, asked, expected, monkeypatch
):
    monkeypatch.setattr(machine, "accelerator", lambda: kind)
    monkeypatch.setattr(machine, "ask_system", lambda *command: capability)
    monkeypatch.delenv("CXR_PRECISION", raising=False)
    if asked:
        monkeypatch.setenv("CXR_PRECISION", asked)
    assert machine.training_precision() == expected
    assert machine.environment()["training_precision"] == expected


@pytest.fixture
def compiled(monkeypatch):
    """The networks that are compiled from now on, in their order."""
    found, compile_model = [], training.compile_model

    def watched(model, rate):
        found.append(compile_model(model, rate))
        return model

    monkeypatch.setattr(training, "compile_model", watched)
    return found


# float16's first steps are left out, until Keras has found by how much to scale the loss
@pytest.mark.parametrize(("policy", "bound"), [("mixed_bfloat16", 0.05), ("mixed_float16", 0.2)])
def test_in_mixed_precision_a_copy_is_trained_and_the_network_stays_float32(
    policy, bound, monkeypatch, compiled
):
    (train, held), exact, mixed = films(), small_network(), small_network()
    plain = training.fit(exact, train, held, 2, 1e-3, 16)
    assert compiled == [exact]  # in float32 the network itself is trained
    monkeypatch.setattr(training, "training_precision", lambda: policy)
    start = [np.array(weight) for weight in mixed.get_weights()]
    history = training.fit(mixed, train, held, 2, 1e-3, 16)

    _, first, copy = compiled
    assert first is mixed
    short = policy.removeprefix("mixed_")
    assert [layer.compute_dtype for layer in copy.layers] == [short] * 6 + ["float32"]
    assert {str(weight.dtype) for weight in copy.weights} == {"float32"}
    scaled = isinstance(copy.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    assert keras.config.dtype_policy().name == "float32"  # whatever is built next
    assert {layer.compute_dtype for layer in mixed.layers} == {"float32"}
    for before, after, other in zip(start, mixed.get_weights(), copy.get_weights(), strict=True):
        assert not np.array_equal(before, after) and np.array_equal(after, other)
    assert 0 < np.abs(history["loss"] - plain["loss"]).max() < bound
    apart = training.predict(mixed, held[0]) - training.predict(exact, held[0])
    assert np.abs(apart).max() < bound


def test_an_interrupted_training_keeps_what_was_learned(monkeypatch):
    def interrupted(copy, *_, **__):
        copy.set_weights([weight + 1 for weight in copy.get_weights()])
        raise KeyboardInterrupt

    model = small_network()
    start = [np.array(weight) for weight in model.get_weights()]
    monkeypatch.setattr(training, "training_precision", lambda: "mixed_bfloat16")
    monkeypatch.setenv("CXR_STEPS", "keras")
    monkeypatch.setattr(keras.Sequential, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.fit(model, *films(), epochs=2)
    for before, after in zip(start, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before + 1, after)
    assert keras.config.dtype_policy().name == "float32"
