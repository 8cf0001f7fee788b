"""Train many small heads at once: what grids, folds, searches and seeds need.

One door, two ways behind it: plain NumPy (:mod:`cxrlib.compute.heads_numpy`) on processors, one
compiled computation (:mod:`cxrlib.compute.heads_device`) on the GPU or TPU that Keras uses. Start,
batches and rules are the same, so the losses are; only dropout draws other random numbers.
``CXR_HEADS`` (``numpy`` or ``device``) overrules the choice.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxrlib.compute import heads_numpy
from cxrlib.machine import accelerator, start_keras
from cxrlib.parallel import cluster

SCORES = ["loss", "accuracy", "val_loss", "val_accuracy"]


class TrainingError(ValueError):
    """Something that cannot be trained on."""


class Head(NamedTuple):
    """What one head looks like, and how it is trained."""

    layers: int = 1  # hidden ones
    neurons: int = 64  # rectified linear units in each
    dropout: float = 0.0  # share of the units of each layer that a step silences
    learning_rate: float = 5e-4  # Adam's
    batch_size: int = 32

    def check(self, classes: int) -> None:
        """Raise a TrainingError about a head that cannot be."""
        layers, neurons, dropout = self[:3]
        if classes < 2 or layers < 0 or neurons < 1 or not 0 <= dropout < 1:
            raise TrainingError(
                "A head has at least 2 classes, 0 hidden layers, 1 neuron and a dropout in "
                f"[0, 1); got classes={classes}, hidden_layers={layers}, neurons={neurons}, "
                f"dropout={dropout}."
            )


class Fitted(NamedTuple):
    """What :func:`fit_heads` found."""

    history: pd.DataFrame  # a row a seed, head and epoch, with SCORES after it, without dropout
    weights: dict  # of (seed, head): kernels and biases, as dense_head(...).set_weights takes them


class Folded(NamedTuple):
    """What :func:`fit_folds` found."""

    history: pd.DataFrame  # as Fitted's, with a column ``fold`` (from 0) before them
    probability: np.ndarray  # (seeds, heads, rows, classes); NaN where no fold tests a row
    fold: np.ndarray  # (rows,): the fold that tests a row, -1 where none does


class Run(NamedTuple):
    """What all heads learn from once: a fold and a seed."""

    train: np.ndarray  # rows
    validation: np.ndarray
    seed: int
    mean: np.ndarray  # of each feature in the training part
    variance: np.ndarray
    start: list | None = None  # weights of each head to begin with; else the seed draws them

    def standard(self, features, rows) -> np.ndarray:
        """Standardise rows of features."""
        ready = features[rows] - self.mean
        ready /= np.sqrt(self.variance)
        return ready


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each feature, by which heads standardise.

    A channel that is silent in the training part would blow up the first film in which it
    speaks; so no variance counts as less than a hundredth of the average one.
    """
    variance = features.var(axis=0, dtype=np.float64)
    return features.mean(axis=0), np.maximum(variance, max(variance.mean() / 100, 1e-12))


def check_targets(x, y, outputs: int, part: str) -> np.ndarray:
    """Targets in the shape that the loss wants, (n, outputs) float32, or a TrainingError."""
    y = np.asarray(y)
    if len(x) != len(y) or len(y) == 0:
        raise TrainingError(f"{part}: {len(x)} inputs for {len(y)} targets.")
    classes = max(outputs, 2)
    if y.min() < 0 or y.max() >= classes:
        raise TrainingError(
            f"{part}: class numbers run from {y.min()} to {y.max()}, the model knows {classes}."
        )
    if outputs == 1:
        return y.astype(np.float32)[:, None]
    return np.eye(classes, dtype=np.float32)[y.astype(int)]


def fit_heads(
    train: tuple,
    validation: tuple,
    heads,
    epochs: int,
    seeds=(0,),
    classes: int = 2,
    start=None,
    shuffle: bool = True,
) -> Fitted:
    """Train every head, from every seed, together.

    Features are ndarrays (n, d) float32, class numbers (n,) int. With features of float64 all is
    computed so: half as fast, and for comparisons that rounding would spoil. A seed decides the
    initial weights, the order of the batches and the dropout; `start` gives other weights of each
    head, as Keras has them, and without `shuffle` the batches come in the order of the rows. Two
    classes mean one sigmoid output and binary cross-entropy, more softmax and categorical. A
    TrainingError says which head cannot be, or what is wrong with features or targets.
    """
    for part, (x, y) in {"training": train, "validation": validation}.items():
        check_targets(x, y, 1 if classes == 2 else classes, part)
        if x.shape[1:] != train[0].shape[1:]:
            known = train[0].shape[1]
            raise TrainingError(f"{part}: {x.shape[1]} features for the {known} trained on.")
    features, y = (np.concatenate(both) for both in zip(train, validation, strict=True))
    fold = *np.split(np.arange(len(y)), [len(train[1])]), np.arange(0)
    fitted = _fit(features, y, [fold], list(heads), epochs, seeds, classes, start, shuffle)
    history = _history(fitted, heads).drop(columns="fold")
    return Fitted(history, {key[1:]: weights for key, (_, weights, _) in fitted.items()})


def fit_folds(features, y, folds, heads, epochs: int, seeds=(0,), classes: int = 2) -> Folded:
    """Train every head, from every seed, in every fold, together; each answers its test rows.

    `features`, (n, d), and class numbers, (n,), are those of films and copies; the folds, from
    :func:`cxrlib.split.folds`, name rows of them. What is tested has no part in the training, nor
    in the moments by which a fold's features are standardised. The rest is as in
    :func:`fit_heads`.
    """
    heads, seeds = list(heads), list(seeds)
    fitted = _fit(features, y, folds, heads, epochs, seeds, classes)
    tested = np.full(len(features), -1)
    found = np.full((len(seeds), len(heads), len(features), classes), np.nan)
    for number, fold in enumerate(folds):
        tested[fold.test] = number
    for (number, seed, place), (_, _, answers) in fitted.items():
        found[seeds.index(seed), place, folds[number].test] = answers
    return Folded(_history(fitted, heads), found, tested)


def _fit(features, y, folds, heads, epochs, seeds, classes, start=None, shuffle=True) -> dict:
    """Train; of each (fold, seed, head) the scores of each epoch, the weights, the test answers."""
    from tqdm import tqdm

    for head in heads:
        head.check(classes)
    if not heads or epochs < 1:
        raise TrainingError("Give a head or more, and an epoch or more.")
    targets = check_targets(features, y, 1 if classes == 2 else classes, "folds")
    features = np.asarray(features, np.float64 if features.dtype == np.float64 else np.float32)
    finite, runs = np.isfinite(features).all(axis=1), {}
    for number, fold in enumerate(folds):
        for part, rows in zip(("training", "validation", "test"), fold, strict=True):
            if not finite[rows].all():
                raise TrainingError(f"{part}: some features are not finite numbers.")
        known = moments(features[fold[0]])
        runs |= {(number, seed): Run(*fold[:2], seed, *known, start) for seed in seeds}
    way = heads_numpy
    if on_device(features):
        start_keras()
        from cxrlib.compute import heads_device as way
    count = len(runs) * len(heads) * epochs
    with tqdm(total=count, desc="heads", unit="epoch", disable=None) as bar:
        given = features, targets, list(runs.values()), heads, epochs, shuffle
        found, fitted = way.fit(*given, bar.update), {}
    for (key, run), each in zip(runs.items(), found, strict=True):
        test = run.standard(features, folds[key[0]][2])
        for place, (scores, weights) in enumerate(each):
            fitted[*key, place] = scores, weights, answer(weights, test)
    return fitted


def on_device(features: np.ndarray) -> bool:
    """Tell whether these features are learned from on Keras's device, or else in NumPy."""
    wanted = os.environ.get("CXR_HEADS") or None
    if wanted not in (None, "numpy", "device"):
        raise TrainingError(f"CXR_HEADS is {wanted!r}: set it to numpy or device, or unset it.")
    if wanted:
        return wanted == "device"
    # Keras takes seconds to load: without a GPU's driver nobody waits for it
    may = "keras" in sys.modules or shutil.which("nvidia-smi")
    # In float64, Apple's GPUs and JAX as it is set up do not compute
    plain = features.dtype == np.float32 and not cluster.client()
    return bool(may and plain) and accelerator() in ("gpu", "tpu")


def _history(fitted: dict, heads) -> pd.DataFrame:
    """Tell what happened to each head: a row an epoch."""
    rows = [
        (*key, *heads[key[-1]], epoch, *scores)
        for key, (history, *_) in fitted.items()
        for epoch, scores in enumerate(history, 1)
    ]
    return pd.DataFrame(rows, columns=["fold", "seed", "head", *Head._fields, "epoch", *SCORES])


def answer(weights: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    """Give a head's probabilities, float64 (n, classes), for standardised features (n, d)."""
    *hidden, last = zip(weights[::2], weights[1::2], strict=True)
    for kernel, bias in hidden:
        x = np.maximum(x @ kernel + bias, 0)
    found = heads_numpy.probabilities((x @ last[0] + last[1]).astype(np.float64))
    return np.hstack([1 - found, found]) if found.shape[1] == 1 else found
