"""Train many small heads at once, in plain NumPy: what grids, searches and seeds need.

Heads of equal depth lie side by side in a :class:`Pack`: one network in which no weight leads
from one head to another. Adam treats every weight by itself, so each head learns what it would
have learned alone, from one large matrix product. The rules are Keras's (rectified linear units,
inverted dropout, cross-entropy, Adam: Kingma and Ba 2015, arXiv:1412.6980); the random numbers
are NumPy's, and the same on any number of threads.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxrlib.compute import cluster
from cxrlib.machine import one_thread

UNITS = 256  # of a pack's hidden layer: with their moments, 6 MB of weights for 2048 features
SCORES = ["loss", "accuracy", "val_loss", "val_accuracy"]
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7  # Keras's defaults
ROOT = (1 - BETA_2) ** 0.5
BLOCK = 32_768  # weights that Adam changes at once: what it reads and writes fits into 1 MB
ROWS = 1024  # images that are scored at once


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
    heads, outputs = list(heads), 1 if classes == 2 else classes
    _check(heads, classes, epochs)
    data, tasks = _prepare(train, validation, outputs), {}
    for seed in seeds:
        for places in _pack(heads):
            given = None if start is None else [start[place] for place in places]
            pack = [heads[place] for place in places]
            tasks[seed, places] = (pack, *data, epochs, seed, given, shuffle)
    fitted = _fit_all(_fit_pack, tasks, len(seeds) * len(heads) * epochs)
    history = _history(fitted, heads, ["seed"])
    return Fitted(history, {key: weights for key, (_, weights) in fitted.items()})


def fit_folds(features, y, folds, heads, epochs: int, seeds=(0,), classes: int = 2) -> Folded:
    """Train every head, from every seed, in every fold, together; each answers its test rows.

    `features`, (n, d), and class numbers, (n,), are those of films and copies; the folds, from
    :func:`cxrlib.split.folds`, name rows of them. What is tested has no part in the training, nor
    in the moments by which a fold's features are standardised. The rest is as in
    :func:`fit_heads`.
    """
    heads, outputs = list(heads), 1 if classes == 2 else classes
    _check(heads, classes, epochs)
    check_targets(features, y, outputs, "folds")
    tasks = {}
    for number, fold in enumerate(folds):
        for seed in seeds:
            for places in _pack(heads):
                pack = [heads[place] for place in places]
                tasks[number, seed, places] = (features, y, fold, pack, outputs, epochs, seed)
    fitted = _fit_all(_fit_fold, tasks, len(folds) * len(seeds) * len(heads) * epochs)
    tested = np.full(len(features), -1)
    found = np.full((len(seeds), len(heads), len(features), classes), np.nan)
    for number, fold in enumerate(folds):
        tested[fold.test] = number
    for (number, seed, place), (_, answers) in fitted.items():
        found[list(seeds).index(seed), place, folds[number].test] = answers
    return Folded(_history(fitted, heads, ["fold", "seed"]), found, tested)


def _check(heads, classes, epochs) -> None:
    for head in heads:
        head.check(classes)
    if not heads or epochs < 1:
        raise TrainingError("Give a head or more, and an epoch or more.")


def _fit_all(function, tasks: dict, epochs: int) -> dict:
    """Fit packs, under (..., places of the pack's heads): what was found of each (..., head)."""
    from tqdm import tqdm

    keys, fitted = list(tasks), {}
    with tqdm(total=epochs, desc="heads", unit="epoch", disable=None) as bar, one_thread():
        for number, found in _spread(function, list(tasks.values()), bar.update):
            *first, places = keys[number]
            fitted |= {(*first, place): one for place, one in zip(places, found, strict=True)}
    order = {key[:-1]: number for number, key in enumerate(keys)}
    return {key: fitted[key] for key in sorted(fitted, key=lambda k: (order[k[:-1]], k[-1]))}


def _history(fitted: dict, heads, keys: list[str]) -> pd.DataFrame:
    """Tell what happened to each head: a row an epoch."""
    rows = [
        (*key, *heads[key[-1]], epoch, *scores)
        for key, (history, _) in fitted.items()
        for epoch, scores in enumerate(history, 1)
    ]
    return pd.DataFrame(rows, columns=[*keys, "head", *Head._fields, "epoch", *SCORES])


def _pack(heads: list[Head]) -> list[tuple[int, ...]]:
    """Divide heads into packs of equal depth and batch size; gives places in the list."""
    packs, open_packs = [], {}
    for place, head in enumerate(heads):
        kind = head.layers, head.batch_size
        pack = open_packs.get(kind)
        if pack is None or sum(heads[p].neurons for p in pack) + head.neurons > UNITS:
            open_packs[kind] = pack = []
            packs.append(pack)
        pack.append(place)
    return [tuple(pack) for pack in packs]


def _prepare(train, held, outputs: int) -> list[np.ndarray]:
    """Features standardised by the training part, each with a last column of ones; targets."""
    found, known = [], moments(train[0])
    for part, (x, y) in {"training": train, "validation": held}.items():
        targets = check_targets(x, y, outputs, part)
        found += [_standard(x, *known, part), targets]
    return found


def _standard(x, mean, variance, part: str) -> np.ndarray:
    """Standardise features, and put a column of ones behind them."""
    if x.shape[1:] != mean.shape:
        raise TrainingError(f"{part}: {x.shape[1]} features for the {len(mean)} trained on.")
    kind = np.float64 if x.dtype == np.float64 else np.float32
    ready = np.ones((len(x), x.shape[1] + 1), kind)
    np.subtract(x, mean, out=ready[:, :-1])
    ready[:, :-1] /= np.sqrt(variance)
    if not np.isfinite(ready).all():
        raise TrainingError(f"{part}: some features are not finite numbers.")
    return ready


def _fit_pack(heads, x, y, x_held, y_held, epochs, seed, start, shuffle, tell=None) -> list:
    """Train one pack; of each head, the scores of each epoch and the weights."""
    if tell is None:  # on a worker, whose threads do the same: never given back
        one_thread()
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


def _fit_fold(features, y, fold, heads, outputs, epochs, seed, tell=None) -> list:
    """Train one pack in one fold; of each head, the scores of each epoch and its test answers."""
    train, held = ((features[rows], y[rows]) for rows in (fold.train, fold.validation))
    fitted = _fit_pack(heads, *_prepare(train, held, outputs), epochs, seed, None, True, tell)
    test = _standard(features[fold.test], *moments(train[0]), "test")[:, :-1]
    return [(scores, answer(weights, test)) for scores, weights in fitted]


def answer(weights: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    """Give a head's probabilities, float64 (n, classes), for standardised features (n, d)."""
    *hidden, last = zip(weights[::2], weights[1::2], strict=True)
    for kernel, bias in hidden:
        x = np.maximum(x @ kernel + bias, 0)
    logits = (x @ last[0] + last[1]).astype(np.float64)
    if logits.shape[1] == 1:
        positive = (1 + np.tanh(logits / 2)) / 2
        return np.hstack([1 - positive, positive])
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _spread(function, tasks: list[tuple], tell):
    """Fit packs on the cluster, if there is one, or in threads; yields (number, result)."""
    if cluster.client():
        for number, found in cluster.spread(function, tasks, "heads"):
            tell(len(found) * len(found[0][0]))
            yield number, found
        return
    stopped, pool = threading.Event(), ThreadPoolExecutor(cluster.threads())

    def note(count):
        if stopped.is_set():
            raise TrainingError("Stopped.")
        tell(count)

    try:
        running = {pool.submit(function, *task, note): n for n, task in enumerate(tasks)}
        for future in as_completed(running):
            yield running[future], future.result()
    finally:  # also when somebody interrupts it: no epoch is begun after this one
        stopped.set()
        pool.shutdown(cancel_futures=True)


class Pack:
    """Heads of the same depth as one network whose weights between two heads stay 0.

    Each layer is one array: its kernel, and its biases as the last row. So whatever enters a
    layer has a last column of ones. `weights` are those of each head, as :func:`glorot` draws
    them; their type, float32 as a rule, is that of all arithmetic. The seed is the dropout's.
    """

    def __init__(self, heads: list[Head], weights: list, seed: int = 0):
        self.heads, self.steps, self.dtype = heads, 0, weights[0][0].dtype
        inputs = [slice(0, len(weights[0][0]))] * len(heads)
        hidden = _spans([head.neurons for head in heads])
        final = _spans([len(each[-1]) for each in weights])
        # Of each layer, where each head has its rows and columns
        self.rows = [inputs, *[hidden] * heads[0].layers]
        self.columns = [*[hidden] * heads[0].layers, final]
        ones = [[np.ones_like(array) for array in each] for each in weights]
        numbers = range(len(self.rows))
        self.layers = [self._join(weights, number) for number in numbers]
        self.masks = [self._join(ones, number) if number else None for number in numbers]
        self.moments = [(np.zeros_like(layer), np.zeros_like(layer)) for layer in self.layers]
        self.rates = [self._each([h.learning_rate for h in heads], n) for n in numbers]
        self.scale = 1 / (1 - self._each([head.dropout for head in heads], 0))
        self.random = [np.random.default_rng([seed, 2]) for _ in heads]

    def _each(self, values: list[float], number: int) -> np.ndarray:
        """Repeat a value of each head for all units that it has in a layer."""
        sizes = [span.stop - span.start for span in self.columns[number]]
        return np.repeat(np.asarray(values, self.dtype), sizes)

    def _join(self, weights: list, number: int) -> np.ndarray:
        """Lay one layer of all heads side by side."""
        rows, columns = self.rows[number], self.columns[number]
        layer = np.zeros((rows[-1].stop + 1, columns[-1].stop), self.dtype)
        for row, column, each in zip(rows, columns, weights, strict=True):
            layer[row, column], layer[-1, column] = each[2 * number : 2 * number + 2]
        return layer

    def weights(self, place: int) -> list[np.ndarray]:
        """Give the kernels and biases of one head, in Keras's order."""
        found = []
        for layer, rows, columns in zip(self.layers, self.rows, self.columns, strict=True):
            column = columns[place]
            found += [layer[rows[place], column].copy(), layer[-1, column].copy()]
        return found

    def forward(self, x: np.ndarray, learning: bool = False) -> list[np.ndarray]:
        """Answer: what enters each layer, and at last the logits (n, outputs of all heads)."""
        entering = [x]
        for layer in self.layers[:-1]:
            carried = np.empty((len(x), layer.shape[1] + 1), self.dtype)
            units, carried[:, -1] = carried[:, :-1], 1
            np.maximum(np.matmul(entering[-1], layer, out=units), 0, out=units)
            if learning:
                self._silence(units)
            entering.append(carried)
        return [*entering, entering[-1] @ self.layers[-1]]

    def _silence(self, units: np.ndarray) -> None:
        """Drop units at random and raise the others, so that the mean stays (dropout)."""
        for head, columns, random in zip(self.heads, self.columns[0], self.random, strict=True):
            if head.dropout:
                kept = random.random((len(units), head.neurons), np.float32) >= head.dropout
                units[:, columns] *= kept * self.scale[columns]

    def step(self, x: np.ndarray, target: np.ndarray) -> None:
        """Learn from one batch: x (b, d + 1) with a column of ones, target (b, outputs)."""
        *entering, logits = self.forward(x, learning=True)
        self.steps += 1
        delta = slopes(logits, target)
        for number in reversed(range(len(self.layers))):
            above = delta
            if number:  # before this layer's weights change
                delta = above @ self.layers[number][:-1].T
                delta *= entering[number][:, :-1] > 0
                delta *= self.scale
            self._descend(number, entering[number], above)

    def _descend(self, number: int, entering: np.ndarray, delta: np.ndarray) -> None:
        """Change one layer, some rows at a time, so that they stay in the processor's cache."""
        layer, mask = self.layers[number], self.masks[number]
        pace = paces(self.rates[number], self.steps)
        rows = min(max(1, BLOCK // layer.shape[1]), len(layer))
        gradient, scratch = np.empty((2, rows, layer.shape[1]), self.dtype)
        for start in range(0, len(layer), rows):
            part = slice(start, start + rows)
            size = len(layer[part])
            np.matmul(entering[:, part].T, delta, out=gradient[:size])
            if mask is not None:
                gradient[:size] *= mask[part]
            first, second = (moment[part] for moment in self.moments[number])
            adam(layer[part], first, second, gradient[:size], scratch[:size], pace)

    def score(self, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Mean loss and accuracy of each head, shape (heads, 2), dropout off."""
        total = np.zeros((len(self.heads), 2))
        for start in range(0, len(x), ROWS):
            part = slice(start, start + ROWS)
            total += summed_scores(self.forward(x[part])[-1], target[part])
        return total / len(x)


def glorot(head: Head, inputs: int, outputs: int, seed: int = 0) -> list[np.ndarray]:
    """Draw the weights of one head: Glorot's uniform kernels as in Keras, biases of 0."""
    random, weights = np.random.default_rng([seed, 0]), []
    for pair in pairwise([inputs, *[head.neurons] * head.layers, outputs]):
        limit = np.float32(np.sqrt(6 / sum(pair)))
        kernel = random.random(pair, np.float32) * (2 * limit) - limit
        random.random(pair[1], np.float32)  # biases have always taken their draws: keep the seeds
        weights += [kernel, np.zeros(pair[1], np.float32)]
    return weights


def adam(weights, first, second, gradient, scratch, pace) -> None:
    """Take one step of Adam in place, as Keras does; `gradient` and `scratch` are used up.

    The moments are kept divided by 1 - beta, which spares two passes over memory. `pace` is one
    of :func:`paces` a column.
    """
    first *= BETA_1
    first += gradient
    np.multiply(gradient, gradient, out=gradient)
    second *= BETA_2
    second += gradient
    np.sqrt(second, out=scratch)
    scratch += EPSILON / ROOT
    np.divide(first, scratch, out=scratch)
    scratch *= pace
    weights -= scratch


def paces(rates: np.ndarray, step: int) -> np.ndarray:
    """Learning rates as :func:`adam` wants them in this step (from 1): biases corrected."""
    # Keras rounds both betas to float32, and deep heads make much of it in the end
    power, one = np.asarray(step, rates.dtype), np.ones((), rates.dtype)
    first, second = (np.asarray(np.float32(beta), rates.dtype) for beta in (BETA_1, BETA_2))
    corrected = np.sqrt(one - second**power) / (one - first**power)
    return rates * float(corrected * (1 - BETA_1) / ROOT)


def slopes(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Give the derivative of the batch's mean loss by each logit, same shape as `logits`."""
    every = logits.reshape(len(logits), -1, target.shape[1])
    if target.shape[1] == 1:
        probability = (1 + np.tanh(every / 2)) / 2  # the sigmoid, without overflow
    else:
        probability = np.exp(every - every.max(axis=2, keepdims=True))
        probability /= probability.sum(axis=2, keepdims=True)
    return ((probability - target[:, None]) / len(target)).reshape(logits.shape)


def summed_scores(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Sum losses and right answers of each head, shape (heads, 2), float64."""
    every = logits.reshape(len(logits), -1, target.shape[1]).astype(np.float64)
    wanted = target[:, None].astype(np.float64)
    if target.shape[1] == 1:
        loss = np.logaddexp(0, every) - wanted * every
        right = (every > 0) == (wanted > 0.5)
    else:
        top = every.max(axis=2, keepdims=True)
        loss = top + np.log(np.exp(every - top).sum(axis=2, keepdims=True))
        loss = loss - (wanted * every).sum(axis=2, keepdims=True)
        right = (every.argmax(axis=2) == wanted.argmax(axis=2))[..., None]
    return np.stack([loss[..., 0].sum(axis=0), right[..., 0].sum(axis=0)], axis=1)


def _spans(sizes: list[int]) -> list[slice]:
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
