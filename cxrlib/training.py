"""Training: seeds, batches read from disk, one head, and the paper's grid of heads."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxrlib.machine import accelerator, start_keras


class TrainingError(ValueError):
    """Something that cannot be trained on."""


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and the Keras backend."""
    start_keras().utils.set_random_seed(seed)


def compile_model(model, learning_rate: float):
    """Adam with binary cross-entropy for one output, categorical for several (paper, IV and V).

    XLA is left off where it only costs time: TensorFlow and PyTorch on a CPU.
    """
    import keras

    binary = model.output_shape[-1] == 1
    model.compile(
        keras.optimizers.Adam(learning_rate),
        loss="binary_crossentropy" if binary else "categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile="auto" if accelerator() or keras.backend.backend() == "jax" else False,
    )
    return model


def _check(x, y, outputs: int, part: str) -> np.ndarray:
    """Targets in the shape that the loss wants, or a clear complaint."""
    import keras

    y = np.asarray(y)
    if len(x) != len(y) or len(y) == 0:
        raise TrainingError(f"{part}: {len(x)} inputs for {len(y)} targets.")
    classes = max(outputs, 2)
    if y.min() < 0 or y.max() >= classes:
        raise TrainingError(
            f"{part}: class numbers run from {y.min()} to {y.max()}, the model knows {classes}."
        )
    return y.astype(np.float32)[:, None] if outputs == 1 else keras.utils.to_categorical(y, classes)


def fit(
    model,
    train: tuple,
    validation: tuple,
    epochs: int,
    learning_rate: float = 5e-4,
    batch_size: int = 32,
    seed: int = 0,
) -> pd.DataFrame:
    """Train a Keras model and return what happened, epoch by epoch.

    Parameters
    ----------
    model : keras.Model
        One sigmoid output (binary) or one softmax output a class.
    train, validation : (x, y)
        x: features, ndarray (n, d) float32; or images, ``cohort.images`` (n, height, width)
        uint8, which are read from disk batch by batch and resized to the model's input.
        y: class numbers, ndarray (n,) int, as ``cohort.targets(classes)`` gives them.
    epochs, batch_size : int
    learning_rate : float
        Adam's.
    seed : int
        Decides the order of the batches and the dropout.

    Returns
    -------
    DataFrame
        Columns ``epoch`` (from 1), ``loss``, ``accuracy``, ``val_loss``, ``val_accuracy``.

    Raises
    ------
    TrainingError
        If inputs and targets differ in number, or a target is no class of the model.
    """
    set_seed(seed)
    outputs = model.output_shape[-1]
    (x, y), (x_held, y_held) = train, validation
    y, y_held = _check(x, y, outputs, "training"), _check(x_held, y_held, outputs, "validation")
    compile_model(model, learning_rate)
    if len(model.input_shape) == 4:
        data = batches(x, model.input_shape[1], y, batch_size, shuffle=True, seed=seed)
        held = batches(x_held, model.input_shape[1], y_held, batch_size)
        history = model.fit(data, validation_data=held, epochs=epochs, verbose=0)
    else:
        history = model.fit(
            x, y, validation_data=(x_held, y_held), epochs=epochs, batch_size=batch_size, verbose=0
        )
    table = pd.DataFrame(history.history)
    table.insert(0, "epoch", np.arange(1, len(table) + 1))
    return table


def predict(model, x, batch_size: int = 32) -> np.ndarray:
    """Probabilities of all classes, also for a model with one sigmoid output.

    Returns
    -------
    ndarray, shape (n, classes), float64
        Rows sum to 1.
    """
    if len(model.input_shape) == 4:
        x = batches(x, model.input_shape[1], None, batch_size)
    found = ask(model, x, batch_size)
    found = np.asarray(found, dtype=np.float64)
    return np.hstack([1 - found, found]) if found.shape[1] == 1 else found


def ask(model, x, batch_size: int = 32) -> np.ndarray:
    """Ask a model for its outputs, given an array or :func:`batches`.

    A single batch is asked directly: `predict` sets up a pipeline of data first, which takes
    longer than one image does, and somebody is waiting for it.
    """
    many = len(x) > (batch_size if isinstance(x, np.ndarray) else 1)
    if many:
        return np.asarray(model.predict(x, batch_size=batch_size, verbose=0))
    return np.asarray(model.predict_on_batch(x if isinstance(x, np.ndarray) else x[0][0]))


def batches(images, side: int, targets=None, batch_size: int = 32, shuffle=False, seed: int = 0):
    """Read, resize and batch images while Keras trains; memory holds a batch, not the set.

    Parameters
    ----------
    images : array_like, shape (n, height, width), uint8
        Such as ``cohort.images``, which may lie on disk.
    side : int
        Side of the model's input in pixels (area interpolation).
    targets : ndarray, shape (n, outputs), optional

    Returns
    -------
    keras.utils.PyDataset
        Batches (b, side, side, 1) float32, grey levels 0 to 255, with targets where given.
    """
    import cv2
    import keras

    class ImageBatches(keras.utils.PyDataset):
        def __init__(self):
            super().__init__()
            self.rng = np.random.default_rng(seed)
            self.order = np.arange(len(images))
            self.on_epoch_begin()

        def __len__(self):
            return -(-len(images) // batch_size)

        def on_epoch_begin(self):
            if shuffle:
                self.rng.shuffle(self.order)

        def __getitem__(self, number):
            rows = self.order[number * batch_size : (number + 1) * batch_size]
            stack = [
                cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
                for image in images[rows]
            ]
            batch = np.stack(stack)[..., None].astype(np.float32)
            return (batch,) if targets is None else (batch, targets[rows])

    return ImageBatches()


def standardiser(features: np.ndarray):
    """Build the layer that brings each feature to mean 0 and variance 1 in the training part.

    A channel that is silent in the training part would blow up the first film in which it
    speaks; so no variance counts as less than a hundredth of the average one.

    Parameters
    ----------
    features : ndarray, shape (n, d), float32
    """
    import keras

    variance = features.var(axis=0, dtype=np.float64)
    floor = max(variance.mean() / 100, 1e-12)
    return keras.layers.Normalization(
        mean=features.mean(axis=0), variance=np.maximum(variance, floor), name="standardise"
    )


def dense_head(
    features: np.ndarray,
    classes: int = 2,
    hidden_layers: int = 1,
    neurons: int = 64,
    dropout: float = 0.0,
    seed: int = 0,
):
    """Build the trainable end of Models 2 to 4: hidden dense layers and an output layer.

    The first layer standardises each feature by its mean and variance in the training part;
    the paper does not mention one, but random backbones need it and ImageNet's do not mind.

    Parameters
    ----------
    features : ndarray, shape (n, d), float32
        Features of the training part.
    classes : int
        2 gives one sigmoid output, more give softmax.
    hidden_layers, neurons : int
        As in the paper's grid: 1 to 4 layers of 8 to 128 rectified linear units.
    dropout : float in [0, 1)
        After each hidden layer.
    seed : int
        For the initial weights.
    """
    import keras

    if classes < 2 or hidden_layers < 0 or neurons < 1 or not 0 <= dropout < 1:
        raise TrainingError(
            "A head has at least 2 classes, 0 hidden layers, 1 neuron and a dropout in [0, 1); "
            f"got classes={classes}, hidden_layers={hidden_layers}, neurons={neurons}, "
            f"dropout={dropout}."
        )
    set_seed(seed)
    layers = [keras.Input(features.shape[1:]), standardiser(features)]
    for number in range(hidden_layers):
        layers.append(keras.layers.Dense(neurons, "relu", name=f"hidden_{number + 1}"))
        if dropout:
            layers.append(keras.layers.Dropout(dropout, name=f"dropout_{number + 1}"))
    if classes == 2:
        layers.append(keras.layers.Dense(1, "sigmoid", name="output"))
    else:
        layers.append(keras.layers.Dense(classes, "softmax", name="output"))
    return keras.Sequential(layers)


def fit_grid(
    train: tuple,
    validation: tuple,
    hidden_layers=(1, 2, 3, 4),
    neurons=(8, 16, 32, 64, 128),
    epochs: int = 20,
    learning_rate: float = 5e-4,
    batch_size: int = 32,
    dropout: float = 0.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Train every head of the paper's grid (section IV.B.1, Fig. 5) at once.

    All heads sit side by side in one Keras model whose loss is the sum of theirs. No weight is
    shared and Adam treats every weight by itself, so each head learns exactly what it would
    have learned alone, in a fraction of the time.

    Parameters
    ----------
    train, validation : (x, y)
        Features (n, d) and class numbers 0 or 1 (n,).
    hidden_layers, neurons : sequence of int
        The two axes of the grid.
    epochs, learning_rate, batch_size, dropout, seed
        As in :func:`fit` and :func:`dense_head`.

    Returns
    -------
    DataFrame
        One row a head and epoch: ``layers``, ``neurons``, ``epoch``, ``loss``, ``accuracy``,
        ``val_loss``, ``val_accuracy``.
    """
    import keras

    (x, y), (x_held, y_held) = train, validation
    y, y_held = _check(x, y, 1, "training"), _check(x_held, y_held, 1, "validation")
    grid = [(depth, width) for depth in hidden_layers for width in neurons]
    entry = keras.Input(x.shape[1:])
    heads = [dense_head(x, 2, depth, width, dropout, seed) for depth, width in grid]
    joined = keras.Model(entry, keras.ops.concatenate([h(entry) for h in heads], axis=1))
    compile_model(joined, learning_rate)

    def summed_loss(target, probability):
        losses = keras.ops.binary_crossentropy(
            keras.ops.broadcast_to(target, keras.ops.shape(probability)), probability
        )
        return keras.ops.sum(losses, axis=1)

    joined.compile(joined.optimizer, loss=summed_loss, jit_compile=joined.jit_compile)
    rows = []

    def note(epoch, logs=None):
        both = joined.predict(np.vstack([x, x_held]), batch_size=4096, verbose=0)
        scores = [_binary_scores(y, both[: len(x)]), _binary_scores(y_held, both[len(x) :])]
        for place, (depth, width) in enumerate(grid):
            (loss, accuracy), (held_loss, held_accuracy) = (score[:, place] for score in scores)
            numbers = (epoch + 1, loss, accuracy, held_loss, held_accuracy)
            rows.append((depth, width, *numbers))

    set_seed(seed)
    callback = keras.callbacks.LambdaCallback(on_epoch_end=note)
    joined.fit(x, y, epochs=epochs, batch_size=batch_size, verbose=0, callbacks=[callback])
    names = ["layers", "neurons", "epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    return pd.DataFrame(rows, columns=names)


def _binary_scores(target: np.ndarray, probability) -> np.ndarray:
    """Cross-entropy and accuracy of each column, shape (2, heads)."""
    probability = np.clip(np.asarray(probability, dtype=np.float64), 1e-7, 1 - 1e-7)
    loss = -np.where(target == 1, np.log(probability), np.log1p(-probability)).mean(axis=0)
    return np.stack([loss, ((probability > 0.5) == (target == 1)).mean(axis=0)])
