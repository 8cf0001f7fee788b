"""Grad-CAM: which places of an image raise the score of a class.

Selvaraju et al. 2017, doi:10.1109/ICCV.2017.74. A heat map shows where a model looked, not
that it was right to look there.
"""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np


class ExplainError(ValueError):
    """A model or class for which no heat map can be made."""


def split_at_last_convolution(model):
    """Divide a sequential CNN into what makes the last feature maps and what reads them.

    The first is a keras.Model: images to feature maps (height, width, channels), after the
    activation and pooling that follow the last convolution directly; then a list of the layers
    from there to the output.
    """
    import keras

    layers = model.layers
    if not any(isinstance(layer, keras.layers.Conv2D) for layer in layers):
        raise ExplainError("The model has no convolution among its layers, so no feature maps.")
    end = 1 + max(n for n, layer in enumerate(layers) if len(layer.output.shape) == 4)
    # Built anew: a layer that another model shares has several outputs, and only one is ours.
    return keras.Sequential([keras.Input(model.input_shape[1:]), *layers[:end]]), layers[end:]


@contextmanager
def _ready_for_gradients(layers):
    """Freeze layers, silence dropout and take the output before its sigmoid or softmax."""
    import keras

    kept = [(la, la.trainable, getattr(la, "rate", None)) for la in layers]
    activation = layers[-1].activation
    try:
        for layer in layers:
            layer.trainable = False
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
        layers[-1].activation = keras.activations.linear
        yield
    finally:
        layers[-1].activation = activation
        for layer, trainable, rate in kept:
            layer.trainable = trainable
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = rate


class Derivative:
    """Derives a class's score by feature maps of one shape: made once, asked often.

    Keras has no gradient function of its own. It has gradient descent: a layer that adds a
    variable of zeros to the maps is trained for one step of size 1, with everything else
    frozen. What the step subtracted is the gradient.

    The layers of `tail` lead from feature maps of `shape`, (n, height, width, channels), to the
    output (sigmoid for two classes, or softmax). An ExplainError says if it has no such class.
    """

    def __init__(self, tail, shape, class_number: int):
        import keras

        outputs = tail[-1].units
        if not 0 <= class_number < max(outputs, 2):
            known = f"classes 0 to {max(outputs, 2) - 1}"
            raise ExplainError(f"The model has {known}, not {class_number}.")
        sign = -1.0 if outputs == 1 and class_number == 0 else 1.0
        column = 0 if outputs == 1 else class_number

        class Probe(keras.layers.Layer):
            def build(self, input_shape):
                self.added = self.add_weight(shape=shape, initializer="zeros", name="added")

            def call(self, inputs):
                return inputs + self.added

        self.tail, self.shape, self.probe = tail, shape, Probe()
        with _ready_for_gradients(tail):
            entry = keras.Input(batch_shape=shape)
            value = self.probe(entry)
            for layer in tail:
                value = layer(value)
            self.model = keras.Model(entry, value)
            self.model.compile(
                keras.optimizers.SGD(1.0),
                loss=lambda _, score: -sign * shape[0] * score[:, column],
                jit_compile=False if keras.backend.backend() != "jax" else "auto",
            )

    def __call__(self, maps: np.ndarray) -> np.ndarray:
        """Gradients of maps of that shape, float32."""
        import keras

        with _ready_for_gradients(self.tail):
            self.probe.added.assign(np.zeros(self.shape, dtype=np.float32))
            self.model.train_on_batch(maps, np.zeros((self.shape[0], 1), dtype=np.float32))
            return np.array(keras.ops.convert_to_numpy(self.probe.added))


def gradients(tail, maps: np.ndarray, class_number: int) -> np.ndarray:
    """Derive a class's score by the feature maps, on any Keras backend.

    Maps and gradients are (n, height, width, channels), float32. :class:`Derivative`, which tells
    of the others, is quicker where many maps are asked one by one.
    """
    return Derivative(tail, maps.shape, class_number)(maps)


def weigh(maps: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Grad-CAM: channels weighted by their mean gradient, negative parts cut off.

    Parameters
    ----------
    maps, slopes : ndarray, shape (n, height, width, channels), float32
        Feature maps and their gradients.

    Returns
    -------
    ndarray, shape (n, height, width), float32
        0 to 1 on one scale for all of them; all 0 where nothing speaks for the class.
    """
    weights = slopes.mean(axis=(1, 2), keepdims=True)
    heat = np.maximum((weights * maps).sum(axis=-1), 0)
    peak = heat.max(initial=0)
    return (heat / peak if peak > 0 else heat).astype(np.float32)


def enlarge(heat: np.ndarray, side: int) -> np.ndarray:
    """Heat maps (n, h, w) at the size of the image, (n, side, side), by linear interpolation."""
    import cv2

    return np.stack([cv2.resize(h, (side, side), interpolation=cv2.INTER_LINEAR) for h in heat])


def mass_inside(heat: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Share of each heat map that lies inside its mask, shape (n,); NaN where the map is all 0.

    Heat maps, 0 or more, and masks, bool, are (n, height, width).
    """
    total = heat.sum(axis=(1, 2))
    inside = (heat * masks).sum(axis=(1, 2))
    return np.divide(inside, total, out=np.full(len(heat), np.nan), where=total > 0)
