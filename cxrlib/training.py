"""Training: seeds, batches read from disk, one head, and the choice among many."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pandas as pd

from cxrlib.compute import Head, check_targets, moments
from cxrlib.compute import epochs as compiled
from cxrlib.machine import (
    accelerator,
    dtype_policy,
    keep_freed_memory,
    start_keras,
    training_precision,
)
from cxrlib.parallel import share


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and the Keras backend."""
    start_keras().utils.set_random_seed(seed)


def compile_model(model, learning_rate):
    """Adam with binary cross-entropy for one output, categorical for several (paper, IV and V).

    The learning rate is a number or a schedule of Keras's. XLA is left off where it only costs
    time: TensorFlow and PyTorch on a CPU.
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


def fit(
    model,
    train: tuple,
    validation: tuple,
    epochs: int,
    learning_rate: float = 5e-4,
    batch_size: int = 32,
    seed: int = 0,
    decay: bool = False,
) -> pd.DataFrame:
    """Train a Keras model by Adam; a row an epoch tells what happened.

    The columns are ``epoch`` (from 1), ``loss``, ``accuracy``, ``val_loss``, ``val_accuracy``.
    Networks on images are trained in mixed precision on a GPU, see
    :func:`cxrlib.machine.training_precision`; the model itself stays in float32. There, and by
    TensorFlow anywhere, the steps of an epoch are compiled together
    (:mod:`cxrlib.compute.epochs`); else Keras takes one by one.

    Parameters
    ----------
    model : keras.Model, of one sigmoid output (binary) or one softmax output a class
    train, validation : (x, y)
        x: features, ndarray (n, d) float32; or images, ``cohort.images`` (n, height, width)
        uint8, which are read from disk batch by batch and resized to the model's input.
        y: class numbers, ndarray (n,) int, as ``cohort.targets(classes)`` gives them.
        A TrainingError says that they differ in number, or are no classes of the model.
    seed : int
        Decides the order of the batches and the dropout.
    decay : bool
        Let the learning rate fall to 0 along half a cosine (Loshchilov and Hutter 2017,
        arXiv:1608.03983), so that the last epoch is no matter of luck.
    """
    set_seed(seed)
    import keras

    outputs = model.output_shape[-1]
    (x, y), (x_held, y_held) = train, validation
    y = check_targets(x, y, outputs, "training")
    y_held = check_targets(x_held, y_held, outputs, "validation")
    if decay:
        steps = epochs * -(-len(y) // batch_size)
        learning_rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    compile_model(model, learning_rate)
    images, side = len(model.input_shape) == 4, model.input_shape[1]
    data = batches(x, side, y, batch_size, shuffle=True, seed=seed)
    held = batches(x_held, side, y_held, max(batch_size, 32 if images else 1024))
    policy = training_precision() if images else "float32"
    with _in_precision(model, policy, learning_rate, seed) as trained:
        way = compiled.Steps(trained) if compiled.fit_here(data, held) else trained
        found = way.fit(data, validation_data=held, epochs=epochs, verbose=0).history
    table = pd.DataFrame(found)
    table.insert(0, "epoch", np.arange(1, len(table) + 1))
    return table


@contextmanager
def _in_precision(model, policy: str, learning_rate, seed: int):
    """Give what to train: the model, or a copy that computes in another precision.

    Keras takes the precision when a network is built: the layers of the copy, but for the last,
    get the policy, and at the end, also an interrupted one, the model gets the copy's weights.
    """
    if policy == "float32":
        yield model
        return
    import keras

    def layer(old):
        settings = old.get_config()
        if old is not model.layers[-1]:
            settings["dtype"] = policy
        return old.__class__.from_config(settings)

    with dtype_policy(policy):
        copy = keras.models.clone_model(model, clone_function=layer, recursive=True)
        copy.set_weights(model.get_weights())
        compile_model(copy, learning_rate)
        set_seed(seed)  # building the copy drew random numbers
        try:
            yield copy
        finally:
            model.set_weights(copy.get_weights())


def predict(model, x, batch_size: int = 32) -> np.ndarray:
    """Probabilities of all classes, float64 (n, classes), also of a model with one output."""
    if len(model.input_shape) == 4:
        x = batches(x, model.input_shape[1], None, batch_size)
    found = np.asarray(ask(model, x, batch_size), dtype=np.float64)
    return np.hstack([1 - found, found]) if found.shape[1] == 1 else found


def ask(model, x, batch_size: int = 32) -> np.ndarray:
    """Ask a model for its outputs, given an array or :func:`batches`.

    A single batch is asked directly: Keras's `predict` takes longer to begin than one image
    does, and somebody is waiting for it.
    """
    many = len(x) > (batch_size if isinstance(x, np.ndarray) else 1)
    if many:
        return np.asarray(model.predict(x, batch_size=batch_size, verbose=0))
    return np.asarray(model.predict_on_batch(x if isinstance(x, np.ndarray) else x[0][0]))


def batches(x, side: int, targets=None, batch_size: int = 32, shuffle=False, seed: int = 0):
    """Read, resize and batch images while Keras trains; memory holds a batch, not the set.

    The images of a batch are read in threads, one a core. Keras's own workers are left off:
    they start on an epoch before its order is drawn, and wait a tenth of a second at its end.
    From images, uint8 (n, height, width), such as ``cohort.images``, it makes a
    keras.utils.PyDataset of batches (b, side, side, 1) float32, grey levels 0 to 255, with
    `targets` (n, outputs) where given; from features, float32 (n, side), of batches (b, side).
    """
    import cv2
    import keras

    images = not (isinstance(x, np.ndarray) and x.ndim == 2)

    class Batches(keras.utils.PyDataset):
        def __init__(self):
            super().__init__()
            self.targets, self.batch_size = targets, batch_size
            self.nbytes = len(x) * side**2 if images else x.nbytes
            self.rng = np.random.default_rng(seed)
            self.order = np.arange(len(x))
            self.on_epoch_begin()

        def __len__(self):
            return -(-len(x) // batch_size)

        def on_epoch_begin(self):
            if shuffle:
                self.rng.shuffle(self.order)

        def __getitem__(self, number):
            if number == 0 and keras.backend.backend() == "tensorflow":
                keep_freed_memory()  # by now it has set what it sets
            rows = self.order[number * batch_size : (number + 1) * batch_size]
            batch = self.read(rows).astype(np.float32)
            batch = batch[..., None] if images else batch
            return (batch,) if targets is None else (batch, targets[rows])

        def read(self, rows=None):
            """Read and resize some, or all in their own order: uint8 (n, side, side), or as is."""
            rows = np.arange(len(x)) if rows is None else rows
            if not images:
                return x[rows]
            found = np.empty((len(rows), side, side), np.uint8)

            def one(place):
                image, small = x[int(rows[place])], found[place]
                cv2.resize(image, (side, side), dst=small, interpolation=cv2.INTER_AREA)

            share(one, len(rows))
            return found

    return Batches()


def standardiser(features: np.ndarray):
    """Build the layer that brings each feature to mean 0 and variance 1 in these, (n, d)."""
    import keras

    mean, variance = moments(features)
    return keras.layers.Normalization(mean=mean, variance=variance, name="standardise")


def dense_head(
    features: np.ndarray,
    classes: int = 2,
    hidden_layers: int = 1,
    neurons: int = 64,
    dropout: float = 0.0,
    seed: int = 0,
):
    """Build the trainable end of Models 2 to 4: hidden dense layers and an output layer.

    The first layer standardises each feature, float32 (n, d), by its mean and variance in the
    training part; the paper does not mention one, but random backbones need it and ImageNet's do
    not mind. Two classes give one sigmoid output, more give softmax. The hidden layers have
    rectified linear units, and dropout, in [0, 1), after each; in the paper's grid there are 1 to
    4 layers of 8 to 128. The seed draws the initial weights.
    """
    import keras

    Head(hidden_layers, neurons, dropout).check(classes)
    set_seed(seed)
    layers = [keras.Input(features.shape[1:]), standardiser(features)]
    for number in range(hidden_layers):
        layers.append(keras.layers.Dense(neurons, "relu", name=f"hidden_{number + 1}"))
        if dropout:
            layers.append(keras.layers.Dropout(dropout, name=f"dropout_{number + 1}"))
    outputs, activation = (1, "sigmoid") if classes == 2 else (classes, "softmax")
    return keras.Sequential([*layers, keras.layers.Dense(outputs, activation, name="output")])


def choose(folded) -> tuple[pd.DataFrame, np.ndarray]:
    """Choose a head in every fold by its own validation films, and give the chosen ones' answers.

    So the choice is nested: no tested film had a part in it (Cawley and Talbot 2010,
    https://jmlr.org/papers/v11/cawley10a.html). The best after the last epoch is taken; of those
    that tie, the one with the lowest validation loss.

    `folded` is what :func:`cxrlib.compute.heads.fit_folds` found.

    Returns
    -------
    (DataFrame, ndarray)
        Rows of the history, one a seed and fold; probabilities (seeds, rows, classes), NaN where no
        fold tests a row.
    """
    last = folded.history[folded.history["epoch"] == folded.history["epoch"].max()]
    ranked = last.sort_values(["val_accuracy", "val_loss"], ascending=[False, True], kind="stable")
    chosen = ranked.drop_duplicates(["seed", "fold"]).sort_index()
    found = np.full_like(folded.probability[:, 0], np.nan)
    seeds = list(dict.fromkeys(folded.history["seed"]))
    for seed, number, head in chosen[["seed", "fold", "head"]].itertuples(index=False):
        rows, place = folded.fold == number, seeds.index(seed)
        found[place, rows] = folded.probability[place, head, rows]
    return chosen.reset_index(drop=True), found
