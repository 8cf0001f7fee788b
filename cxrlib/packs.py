"""The arithmetic of heads that are trained side by side: layers, losses and Adam in NumPy.

A :class:`Pack` is one network in which no weight leads from one head to another. Adam treats
every weight by itself, so each head learns what it would have learned alone; but the features
pass through one large matrix product and not through many small ones. The rules are those of
Keras: rectified linear units, inverted dropout, sigmoid with binary cross-entropy or softmax
with categorical, and ``keras.optimizers.Adam`` (Kingma and Ba 2015, arXiv:1412.6980).
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7  # Keras's defaults
ROOT = (1 - BETA_2) ** 0.5
BLOCK = 32_768  # weights that Adam changes at once: what it reads and writes fits into 1 MB
ROWS = 1024  # images that are scored at once


class Head(NamedTuple):
    """What one head looks like, and how it is trained.

    Attributes
    ----------
    layers, neurons : int
        Hidden layers, and rectified linear units in each.
    dropout : float in [0, 1)
        Share of the units that each step silences, after each hidden layer.
    learning_rate : float
        Adam's.
    batch_size : int
    """

    layers: int = 1
    neurons: int = 64
    dropout: float = 0.0
    learning_rate: float = 5e-4
    batch_size: int = 32


class Pack:
    """Heads of the same depth as one network whose weights between two heads stay 0.

    Each layer is one array: its kernel, and its biases as the last row. So whatever enters a
    layer has a last column of ones.

    Parameters
    ----------
    heads : list of Head
    weights : list of list of ndarray
        Of each head, kernels and biases in Keras's order; see :func:`glorot`. Their type,
        float32 as a rule, is that of all arithmetic.
    seed : int
        For the dropout.
    """

    def __init__(self, heads: list[Head], weights: list, seed: int = 0):
        self.heads, self.depth, self.steps = heads, heads[0].layers, 0
        self.dtype = weights[0][0].dtype
        self.hidden = _spans([head.neurons for head in heads])
        self.final = _spans([len(each[-1]) for each in weights])
        ones = [[np.ones_like(array) for array in each] for each in weights]
        numbers = range(self.depth + 1)
        self.layers = [self._join(weights, number) for number in numbers]
        self.masks = [self._join(ones, number) if number else None for number in numbers]
        self.moments = [(np.zeros_like(layer), np.zeros_like(layer)) for layer in self.layers]
        self.rates = [self._each([h.learning_rate for h in heads], n) for n in numbers]
        self.scale = 1 / (1 - self._each([head.dropout for head in heads], 0))
        self.random = [np.random.default_rng([seed, 2]) for _ in heads]

    def _columns(self, number: int) -> list[slice]:
        return self.hidden if number < self.depth else self.final

    def _each(self, values: list[float], number: int) -> np.ndarray:
        """Repeat a value of each head for all units that it has in a layer."""
        return np.repeat(
            np.asarray(values, self.dtype), [s.stop - s.start for s in self._columns(number)]
        )

    def _join(self, weights: list, number: int) -> np.ndarray:
        """Lay one layer of all heads side by side."""
        columns, inputs = self._columns(number), len(weights[0][0])
        rows = self.hidden if number else [slice(0, inputs)] * len(columns)
        layer = np.zeros((rows[-1].stop + 1, columns[-1].stop), self.dtype)
        for row, column, each in zip(rows, columns, weights, strict=True):
            layer[row, column], layer[-1, column] = each[2 * number : 2 * number + 2]
        return layer

    def weights(self, place: int) -> list[np.ndarray]:
        """Give the kernels and biases of one head, in Keras's order."""
        found = []
        for number, layer in enumerate(self.layers):
            row = self.hidden[place] if number else slice(0, -1)
            column = self._columns(number)[place]
            found += [layer[row, column].copy(), layer[-1, column].copy()]
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
        for head, columns, random in zip(self.heads, self.hidden, self.random, strict=True):
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


def shapes(head: Head, inputs: int, outputs: int) -> list[tuple[int, ...]]:
    """Shapes of a head's kernels and biases, in Keras's order."""
    sizes = [inputs, *[head.neurons] * head.layers, outputs]
    return [shape for pair in pairwise(sizes) for shape in (pair, pair[1:])]


def glorot(head: Head, inputs: int, outputs: int, seed: int = 0) -> list[np.ndarray]:
    """Draw the weights of one head: Glorot's uniform kernels as in Keras, biases of 0."""
    random, weights = np.random.default_rng([seed, 0]), []
    for shape in shapes(head, inputs, outputs):
        limit = np.float32(np.sqrt(6 / sum(shape))) if len(shape) == 2 else np.float32(0)
        weights.append(random.random(shape, np.float32) * (2 * limit) - limit)
    return weights


def adam(weights, first, second, gradient, scratch, pace) -> None:
    """Take one step of Adam in place, as Keras does; `gradient` and `scratch` are used up.

    The moments are kept divided by 1 - beta, which spares two passes over memory. All arrays
    are (rows, columns); `pace` is (columns,), see :func:`paces`.
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
    """Learning rates as :func:`adam` wants them in this step (from 1): biases corrected.

    Keras rounds both betas to float32, which changes the first steps by 7 millionths; deep
    heads make much of it in the end.
    """
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
