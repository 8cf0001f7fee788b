"""Winograd's convolution gives what Keras gives, and leaves alone what it cannot do."""

import keras
import numpy as np
import pytest
from keras import layers

from cxrlib import engine, winograd

pytestmark = pytest.mark.skipif(bool(engine.obstacle()), reason="OpenVINO cannot be used here")


def convolution(channels=5, size=3, **options):
    options = {"padding": "same", "bias_initializer": "normal"} | options
    return layers.Conv2D(channels, size, **options)


def pooling():
    return layers.MaxPooling2D()


def block():
    """As in VGG16: convolutions with ReLU, one without bias, then a pooling of 2 x 2."""
    chain = [convolution(8, activation="relu"), convolution(6, use_bias=False), pooling()]
    return [*chain, convolution(7, activation="relu"), pooling()]


def both(chain, tmp_path, size=(8, 12)):
    """Give what Keras and the rewritten network make of images, and its convolutions' kernels."""
    keras.utils.set_random_seed(0)
    start = keras.Input((*size, 3))
    end = chain(start) if callable(chain) else keras.Sequential(chain)(start)
    model = keras.Model(start, end)
    engine._convert(model, tmp_path / "network.zip")
    network = engine._read(tmp_path / "network.zip")
    network.reshape([4, *size, 3])
    network = winograd.rewrite(network)
    images = np.random.default_rng(0).normal(size=(4, *size, 3)).astype(np.float32)
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    found = engine._core().compile_model(network, "CPU", exact)(images)[0]
    nodes = [n for n in network.get_ordered_ops() if n.get_type_name() == "Convolution"]
    kernels = [tuple(node.input_value(1).get_shape()[2:]) for node in nodes]
    return found, np.asarray(model.predict(images, verbose=0)), kernels


@pytest.mark.parametrize("size", [(8, 12), (4, 9)], ids=str)
def test_a_block_of_vgg_computes_the_same_by_winograd(monkeypatch, tmp_path, size):
    monkeypatch.setattr(winograd, "LEAST", 1)
    found, truth, kernels = both(block(), tmp_path, size)
    np.testing.assert_allclose(found, truth, atol=1e-5 * np.abs(truth).max())
    assert truth.std() > 0.01
    assert kernels == [(1, 3)] * 12  # four products for each of three convolutions


def residual(images):
    made = convolution(3)(images)
    return pooling()(layers.Add()([made, images]))


LEFT_ALONE = {
    "of 5 x 5": [convolution(size=5), pooling()],
    "without zeros around": [convolution(padding="valid"), pooling()],
    "that halves": [convolution(strides=2), pooling()],
    "that skips pixels": [convolution(dilation_rate=2), pooling()],
    "without pooling": [convolution(activation="relu")],
    "pooled over 3 x 3": [convolution(), layers.MaxPooling2D(3)],
    "pooled with overlap": [convolution(), layers.MaxPooling2D(2, strides=1)],
    "averaged": [convolution(), layers.AveragePooling2D(2)],
    "with what came before added": residual,
}


@pytest.mark.parametrize("what", LEFT_ALONE)
def test_other_layers_are_left_alone(monkeypatch, tmp_path, what):
    monkeypatch.setattr(winograd, "LEAST", 1)
    found, truth, kernels = both(LEFT_ALONE[what], tmp_path)
    np.testing.assert_allclose(found, truth, atol=1e-5 * np.abs(truth).max())
    assert len(kernels) == 1
    assert kernels[0] in [(3, 3), (5, 5)]


@pytest.mark.parametrize(("size", "left"), [((7, 8), 2), ((6, 8), 1)], ids=str)
def test_an_odd_number_of_rows_is_left_alone(monkeypatch, tmp_path, size, left):
    monkeypatch.setattr(winograd, "LEAST", 1)
    found, truth, kernels = both(
        [convolution(), pooling(), convolution(), pooling()], tmp_path, size
    )
    np.testing.assert_allclose(found, truth, atol=1e-5 * np.abs(truth).max())
    assert kernels.count((3, 3)) == left


def test_few_channels_are_left_alone(tmp_path):
    *_, kernels = both(block(), tmp_path)
    assert kernels == [(3, 3)] * 3
