"""Train many small heads at once, in plain NumPy: what grids, searches, seeds and folds need.

Heads of equal depth lie side by side in a :class:`cxrlib.packs.Pack`, and packs are trained in
threads of their own, or on a cluster where one is named. How heads are packed depends on nothing
but the heads, so the same seed gives the same numbers, bit for bit, on any number of threads.

A head learns what Keras would teach it from the same start and batches, and its weights fit into
:func:`cxrlib.training.dense_head`. The random numbers are NumPy's: the same on every Keras
backend, but not those that Keras itself would draw.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxrlib import cluster
from cxrlib.machine import one_thread
from cxrlib.packs import Head, Pack, glorot, shapes

UNITS = 256  # of a pack's hidden layer: with their moments, 6 MB of weights for 2048 features
SCORES = ["loss", "accuracy", "val_loss", "val_accuracy"]


class TrainingError(ValueError):
    """Something that cannot be trained on."""


class Fitted(NamedTuple):
    """What :func:`fit_heads` found.

    Attributes
    ----------
    history : DataFrame
        One row a seed, fold, head and epoch: ``seed``, ``fold``, ``head`` (place in the list),
        ``layers``, ``neurons``, ``dropout``, ``learning_rate``, ``batch_size``, ``epoch``
        (from 1), ``loss``, ``accuracy``, ``val_loss``, ``val_accuracy``. All four scores are
        taken after the epoch, without dropout.
    weights : dict of (seed, fold, head) to list of ndarray, float32
        Kernels and biases in Keras's order, as ``dense_head(...).set_weights`` takes them.
    """

    history: pd.DataFrame
    weights: dict


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each feature, by which heads standardise.

    A channel that is silent in the training part would blow up the first film in which it
    speaks; so no variance counts as less than a hundredth of the average one.
    """
    variance = features.var(axis=0, dtype=np.float64)
    floor = max(variance.mean() / 100, 1e-12)
    return features.mean(axis=0), np.maximum(variance, floor)


def check_targets(x, y, outputs: int, part: str) -> np.ndarray:
    """Targets in the shape that the loss wants, (n, outputs) float32, or a clear complaint."""
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


def check_head(classes, layers, neurons, dropout) -> None:
    """Refuse a head that cannot be."""
    if classes < 2 or layers < 0 or neurons < 1 or not 0 <= dropout < 1:
        raise TrainingError(
            "A head has at least 2 classes, 0 hidden layers, 1 neuron and a dropout in [0, 1); "
            f"got classes={classes}, hidden_layers={layers}, neurons={neurons}, "
            f"dropout={dropout}."
        )


def fit_heads(
    train: tuple,
    validation: tuple | None,
    heads,
    epochs: int,
    seeds=(0,),
    folds=None,
    classes: int = 2,
    start=None,
    shuffle: bool = True,
    threads: int | None = None,
    progress: bool = True,
) -> Fitted:
    """Train every head, from every seed and on every fold, together.

    Parameters
    ----------
    train, validation : (x, y)
        Features, ndarray (n, d) float32, and class numbers, ndarray (n,) int. With features of
        float64 all is computed so: half as fast, and for comparisons that rounding would spoil.
    heads : sequence of Head
    epochs : int
    seeds : sequence of int
        Each decides initial weights, the order of the batches and the dropout.
    folds : sequence of (train_rows, held_rows), optional
        Rows of `train` to learn from and to score on, in place of `validation` (then None).
    classes : int
        2 gives one sigmoid output and binary cross-entropy, more give softmax and categorical.
    start : sequence of list of ndarray, optional
        Initial weights of each head, as ``model.get_weights()`` of a Keras head gives them.
        Otherwise Glorot's uniform ones, as Keras has, and biases of 0.
    shuffle : bool
        False takes the batches in the order of the rows.
    threads : int, optional
        All cores if None. Makes no difference to the results.
    progress : bool
        False shows no bar.

    Returns
    -------
    Fitted
        The history of all heads, and their weights.

    Raises
    ------
    TrainingError
        If a head cannot be, inputs and targets differ in number, a target is no class, features
        are not finite, `start` has other shapes, or both `validation` and `folds` are given.
    """
    from tqdm import tqdm

    heads, outputs = [Head(*head) for head in heads], 1 if classes == 2 else classes
    for head in heads:
        check_head(classes, *head[:3])
    if (validation is None) == (folds is None) or not heads or epochs < 1:
        raise TrainingError("Give heads, an epoch or more, and either validation data or folds.")
    _check_start(start, heads, train[0].shape[1], outputs)
    seeds, folds, fitted = list(seeds), [None] if folds is None else list(folds), {}
    count, quiet = len(folds) * len(seeds) * len(heads) * epochs, None if progress else True
    with tqdm(total=count, desc="heads", unit="epoch", disable=quiet) as bar, one_thread():
        for fold, rows in enumerate(folds):
            part = (train, validation) if rows is None else _part(*train, rows)
            data = _prepare(*part, outputs)
            keys = [(seed, places) for seed in seeds for places in _pack(heads)]
            tasks = []
            for seed, places in keys:
                given = None if start is None else [start[place] for place in places]
                ours = [heads[place] for place in places]
                tasks.append((ours, *data, epochs, seed, given, shuffle))
            for number, found in _spread(tasks, threads, bar.update):
                seed, places = keys[number]
                fitted |= {(seed, fold, p): one for p, one in zip(places, found, strict=True)}
    keys = [(s, f, h) for s in seeds for f in range(len(folds)) for h in range(len(heads))]
    history = [
        (*key, *heads[key[2]], epoch, *scores)
        for key in keys
        for epoch, scores in enumerate(fitted[key][0], 1)
    ]
    columns = ["seed", "fold", "head", *Head._fields, "epoch", *SCORES]
    return Fitted(pd.DataFrame(history, columns=columns), {key: fitted[key][1] for key in keys})


def _check_start(start, heads: list[Head], inputs: int, outputs: int) -> None:
    """Refuse initial weights that do not fit their heads."""
    for place, head in enumerate(heads if start is not None else []):
        expected = shapes(head, inputs, outputs)
        found = [np.shape(array) for array in start[place]] if place < len(start) else []
        if found != expected:
            raise TrainingError(f"start of head {place}: shapes {found}, expected {expected}.")


def _pack(heads: list[Head]) -> list[list[int]]:
    """Divide heads into packs of equal depth and batch size; gives places in the list."""
    packs, open_packs = [], {}
    for place, head in enumerate(heads):
        kind = head.layers, head.batch_size
        pack = open_packs.get(kind)
        if pack is None or sum(heads[p].neurons for p in pack) + head.neurons > UNITS:
            open_packs[kind] = pack = []
            packs.append(pack)
        pack.append(place)
    return packs


def _part(x, y, rows) -> list[tuple]:
    """Give the data of a fold: to learn from, and to score on."""
    return [(np.asarray(x)[these], np.asarray(y)[these]) for these in rows]


def _prepare(train, held, outputs: int) -> list[np.ndarray]:
    """Features standardised by the training part, each with a last column of ones; targets."""
    y = check_targets(*train, outputs, "training")
    y_held = check_targets(*held, outputs, "validation")
    (mean, variance), ready = moments(train[0]), []
    for part, x in {"training": train[0], "validation": held[0]}.items():
        if x.shape[1:] != mean.shape:
            raise TrainingError(f"{part}: {x.shape[1]} features for the {len(mean)} trained on.")
        kind = np.float64 if x.dtype == np.float64 else np.float32
        ready.append(np.ones((len(x), x.shape[1] + 1), kind))
        np.subtract(x, mean, out=ready[-1][:, :-1])
        ready[-1][:, :-1] /= np.sqrt(variance)
        if not np.isfinite(ready[-1]).all():
            raise TrainingError(f"{part}: some features are not finite numbers.")
    return [ready[0], y, ready[1], y_held]


def _fit_pack(heads, x, y, x_held, y_held, epochs, seed, start, shuffle, tell=None) -> list:
    """Train one pack; of each head, the scores of each epoch and the weights."""
    if start is None:
        start = [glorot(head, x.shape[1] - 1, y.shape[1], seed) for head in heads]
    start = [[np.asarray(array, x.dtype) for array in weights] for weights in start]
    pack, size = Pack(heads, start, seed), heads[0].batch_size
    random, order, scores = np.random.default_rng([seed, 1]), np.arange(len(x)), []
    for _ in range(epochs):
        if shuffle:
            random.shuffle(order)
        for first in range(0, len(x), size):
            rows = order[first : first + size]
            pack.step(x[rows], y[rows])
        scores.append(np.hstack([pack.score(x, y), pack.score(x_held, y_held)]))
        if tell:
            tell(len(heads))
    return [([s[place] for s in scores], pack.weights(place)) for place in range(len(heads))]


def _spread(tasks: list[tuple], threads: int | None, tell):
    """Fit packs on the cluster, if there is one, or in threads; yields (number, result)."""
    if cluster.client():
        for number, found in cluster.spread(_fit_there, tasks, "heads"):
            tell(len(found) * len(found[0][0]))
            yield number, found
        return
    stopped, pool = threading.Event(), ThreadPoolExecutor(threads or cluster.threads())

    def note(count):
        if stopped.is_set():
            raise TrainingError("Stopped.")
        tell(count)

    try:
        running = {pool.submit(_fit_pack, *task, note): n for n, task in enumerate(tasks)}
        for future in as_completed(running):
            yield running[future], future.result()
    finally:  # also when somebody interrupts it: no epoch is begun after this one
        stopped.set()
        pool.shutdown(cancel_futures=True)


def _fit_there(*task) -> list:
    """Fit a pack on a worker, which has other threads that do the same."""
    one_thread()  # from now on: if each of them gave it back, the others would lose it
    return _fit_pack(*task)
