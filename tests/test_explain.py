import keras
import numpy as np
import pytest

from cxrlib import explain

layers = keras.layers


def score(tail, maps, class_number):
    """The class's score before the last activation, by Keras itself."""
    value = keras.ops.convert_to_tensor(maps)
    for layer in tail[:-1]:
        value = layer(value)
    kernel, bias = tail[-1].get_weights()
    scores = np.asarray(keras.ops.convert_to_numpy(value)) @ kernel + bias
    if kernel.shape[1] == 1:
        return scores[:, 0] * (1 if class_number == 1 else -1)
    return scores[:, class_number]


def make_tail(outputs):
    keras.utils.set_random_seed(1)
    activation = "sigmoid" if outputs == 1 else "softmax"
    tail = [
        layers.GlobalAveragePooling2D(),
        layers.Dense(7, "tanh"),
        layers.Dropout(0.5),
        layers.Dense(outputs, activation),
    ]
    keras.Sequential([keras.Input((4, 5, 3)), *tail])
    return tail


@pytest.mark.parametrize(("outputs", "class_number"), [(1, 0), (1, 1), (3, 2)])
def test_gradients_equal_finite_differences(outputs, class_number):
    tail = make_tail(outputs)
    maps = np.random.default_rng(0).standard_normal((2, 4, 5, 3)).astype(np.float32)
    found = explain.gradients(tail, maps, class_number)
    step = 1e-1
    for place in [(0, 0, 0, 0), (1, 2, 3, 1), (0, 3, 4, 2)]:
        up, down = maps.copy(), maps.copy()
        up[place] += step
        down[place] -= step
        slope = score(tail, up, class_number) - score(tail, down, class_number)
        assert found[place] == pytest.approx(slope[place[0]] / (2 * step), rel=2e-2, abs=1e-5)


def test_layers_are_left_as_they_were():
    tail = make_tail(1)
    before = [w for layer in tail for w in layer.get_weights()]
    explain.gradients(tail, np.ones((1, 4, 5, 3), np.float32), 1)
    after = [w for layer in tail for w in layer.get_weights()]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert tail[2].rate == 0.5 and tail[1].trainable
    assert tail[3].activation is keras.activations.sigmoid


def test_grad_cam_of_a_linear_reader_is_the_map_it_reads():
    """With average pooling and one dense layer, Grad-CAM is CAM: known by hand."""
    pool, dense = layers.GlobalAveragePooling2D(), layers.Dense(1, "sigmoid")
    keras.Sequential([keras.Input((6, 6, 2)), pool, dense])
    dense.set_weights([np.array([[2.0], [-1.0]]), np.array([0.0])])
    maps = np.zeros((3, 6, 6, 2), np.float32)
    maps[0, 1, 4, 0] = 3
    maps[1, 2, 2, 1] = 3
    maps[2, 0, 0, 0] = 1.5
    heat = explain.weigh(maps, explain.gradients([pool, dense], maps, 1))
    expected = np.zeros((6, 6))
    expected[1, 4] = 1
    np.testing.assert_allclose(heat[0], expected, atol=1e-6)
    assert not heat[1].any()
    assert heat[2, 0, 0] == pytest.approx(0.5), "half the evidence, on the scale of all"
    heat = explain.weigh(maps, explain.gradients([pool, dense], maps, 0))
    assert heat[1].argmax() == 2 * 6 + 2


def test_a_cnn_is_divided_where_its_maps_end():
    model = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(1, "sigmoid"),
        ]
    )
    base, tail = explain.split_at_last_convolution(model)
    images = np.random.default_rng(0).random((2, 16, 16, 1)).astype(np.float32)
    value = base(images)
    for layer in tail:
        value = layer(value)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(value), model.predict(images, verbose=0), rtol=1e-5
    )


def test_mass_inside():
    heat = np.zeros((2, 4, 4))
    heat[0, 0, 0], heat[0, 3, 3] = 1, 3
    masks = np.zeros((2, 4, 4), bool)
    masks[0, 3, 3] = True
    inside = explain.mass_inside(heat, masks)
    assert inside[0] == 0.75 and np.isnan(inside[1])


def test_what_cannot_be_explained_says_why():
    with pytest.raises(explain.ExplainError, match="classes 0 to 2"):
        explain.gradients(make_tail(3), np.zeros((1, 4, 5, 3), np.float32), 3)
    flat = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    with pytest.raises(explain.ExplainError, match="no convolution"):
        explain.split_at_last_convolution(flat)
