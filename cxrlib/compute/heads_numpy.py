"""Train heads in plain NumPy: what a processor does, and the rules to read.

They are Keras's: rectified linear units, inverted dropout, cross-entropy, and Adam (Kingma and Ba
2015, arXiv:1412.6980). The random numbers are NumPy's, and the same on any number of threads.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import pairwise

import numpy as np

from cxrlib.machine import one_thread
from cxrlib.parallel import cluster

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7  # Keras's defaults
ROOT = (1 - BETA_2) ** 0.5
BLOCK = 32_768  # weights that Adam changes at once: what it reads and writes fits into 1 MB


def fit(features, targets, runs, heads, epochs: int, shuffle: bool, tell) -> list[list]:
    """Train every head in every run: the scores (epochs, 4) and the weights of each, by run."""
    groups, tasks, found = {}, [], [[None] * len(heads) for _ in runs]
    for place, head in enumerate(heads):
        groups.setdefault((head.layers, head.batch_size), []).append(place)
    for run in runs:
        for places in groups.values():
            start = run.start and [run.start[place] for place in places]
            some = [heads[place] for place in places]
            tasks.append((features, targets, run._replace(start=start), some, epochs, shuffle))
    with one_thread():
        for number, fitted in _spread(_fit_group, tasks, tell):
            run, group = divmod(number, len(groups))
            for place, one in zip([*groups.values()][group], fitted, strict=True):
                found[run][place] = one
    return found


def _spread(function, tasks: list[tuple], tell):
    """Fit groups on the cluster, if there is one, or in threads; yields (number, result)."""
    if cluster.client():
        for number, found in cluster.spread(function, tasks, "heads"):
            tell(len(found) * len(found[0][0]))
            yield number, found
        return
    stopped, pool = threading.Event(), ThreadPoolExecutor(cluster.threads())

    def note(count):
        if stopped.is_set():
            raise InterruptedError
        tell(count)

    try:
        running = {pool.submit(function, *task, note): n for n, task in enumerate(tasks)}
        for future in as_completed(running):
            yield running[future], future.result()
    finally:  # also when somebody interrupts it: no epoch is begun after this one
        stopped.set()
        pool.shutdown(cancel_futures=True)


def _fit_group(features, targets, run, heads, epochs, shuffle, tell=None) -> list:
    """Train some heads, each batch in turn; of each, the scores of each epoch and the weights."""
    if tell is None:  # on a worker, whose threads do the same: never given back
        one_thread()
    (x, y), held = ((run.standard(features, rows), targets[rows]) for rows in run[:2])
    start = run.start or [glorot(head, x.shape[1], y.shape[1], run.seed) for head in heads]
    networks = [Network(*each, run.seed, x.dtype) for each in zip(heads, start, strict=True)]
    size, scores, order = heads[0].batch_size, [], orders(len(x), run.seed, shuffle)
    for _ in range(epochs):
        rows = next(order)
        for first in range(0, len(x), size):
            some = rows[first : first + size]
            batch = x[some], y[some]
            for network in networks:
                network.step(*batch)
        parts = (x, y), held
        scores.append([[mean_scores(n.forward(x)[-1], y) for x, y in parts] for n in networks])
        if tell:
            tell(len(heads))
    scores = np.array(scores).reshape(epochs, len(heads), 4)
    return [(scores[:, n], one.weights) for n, one in enumerate(networks)]


def orders(count: int, seed: int, shuffle: bool):
    """Yield in which order an epoch learns from its rows; the same array each time."""
    random, order = np.random.default_rng([seed, 1]), np.arange(count)
    while True:
        if shuffle:
            random.shuffle(order)
        yield order


def glorot(head, inputs: int, outputs: int, seed: int = 0) -> list[np.ndarray]:
    """Draw the weights of one head: Glorot's uniform kernels as in Keras, biases of 0."""
    random, weights = np.random.default_rng([seed, 0]), []
    for pair in pairwise([inputs, *[head.neurons] * head.layers, outputs]):
        limit = np.float32(np.sqrt(6 / sum(pair)))
        kernel = random.random(pair, np.float32) * (2 * limit) - limit
        random.random(pair[1], np.float32)  # biases have always taken their draws: keep the seeds
        weights += [kernel, np.zeros(pair[1], np.float32)]
    return weights


class Network:
    """One head that learns. Its kernels and biases are views of one vector, which Adam changes."""

    def __init__(self, head, weights: list, seed: int = 0, dtype=np.float32):
        self.head, self.steps, self.random = head, 0, np.random.default_rng([seed, 2])
        self.vector = np.concatenate([np.ravel(array) for array in weights]).astype(dtype)
        self.slopes, self.first, self.second = np.zeros((3, *self.vector.shape), self.vector.dtype)
        self.weights, self.parts, end = [], [], 0
        for array in weights:
            start, end = end, end + array.size
            for whole, views in ((self.vector, self.weights), (self.slopes, self.parts)):
                views.append(whole[start:end].reshape(array.shape))

    def forward(self, x: np.ndarray, learning: bool = False) -> list[np.ndarray]:
        """Answer: what enters each layer, (n, ...), and at last the logits (n, outputs)."""
        entering = [x]
        for kernel, bias in zip(self.weights[::2], self.weights[1::2], strict=True):
            if len(entering) > 1:
                np.maximum(x, 0, out=x)
                if learning and self.head.dropout:  # the others are raised: the mean stays
                    kept = self.random.random(x.shape, np.float32) >= self.head.dropout
                    x *= kept * x.dtype.type(1 / (1 - self.head.dropout))
            x = x @ kernel
            x += bias
            entering.append(x)
        return entering

    def step(self, x: np.ndarray, target: np.ndarray) -> None:
        """Learn from one batch: x (b, d), target (b, outputs)."""
        *entering, logits = self.forward(x, learning=True)
        delta = (probabilities(logits) - target) / len(target)  # slope of the mean loss
        for number in range(len(entering) - 1, -1, -1):
            np.matmul(entering[number].T, delta, out=self.parts[2 * number])
            np.sum(delta, axis=0, out=self.parts[2 * number + 1])
            if number:
                delta = delta @ self.weights[2 * number].T
                delta *= entering[number] > 0
                delta *= delta.dtype.type(1 / (1 - self.head.dropout))
        self.steps += 1
        at = pace(self.head.learning_rate, self.steps, self.vector.dtype)
        for first in range(0, len(self.vector), BLOCK):
            some = slice(first, first + BLOCK)
            adam(self.vector[some], self.first[some], self.second[some], self.slopes[some], at)


def adam(weights, first, second, slopes, pace) -> None:
    """Take one step of Adam in place, as Keras does; `slopes`, those of the loss, are used up.

    The moments are kept divided by 1 - beta, which spares two passes over memory.
    """
    first *= BETA_1
    first += slopes
    np.multiply(slopes, slopes, out=slopes)
    second *= BETA_2
    second += slopes
    np.sqrt(second, out=slopes)
    slopes += EPSILON / ROOT
    np.divide(first, slopes, out=slopes)
    slopes *= pace
    weights -= slopes


def pace(rate: float, step: int, dtype=np.float32):
    """Give the learning rate as :func:`adam` wants it in this step (from 1): biases corrected."""
    # Keras rounds both betas to float32, and deep heads make much of it in the end
    power, one = np.asarray(step, dtype), np.ones((), dtype)
    first, second = (np.asarray(np.float32(beta), dtype) for beta in (BETA_1, BETA_2))
    corrected = np.sqrt(one - second**power) / (one - first**power)
    return np.asarray(rate, dtype) * (corrected * (1 - BETA_1) / ROOT)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Sigmoid of one logit (n, 1), softmax of several (n, outputs), without overflow."""
    if logits.shape[1] == 1:
        return (1 + np.tanh(logits / 2)) / 2
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def mean_scores(logits: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Loss and accuracy in float64, of logits and targets (n, outputs)."""
    logits = logits.astype(np.float64)
    if target.shape[1] == 1:
        loss = np.logaddexp(0, logits) - target * logits
        right = (logits > 0) == (target > 0.5)
    else:
        top = logits.max(axis=1)
        loss = top + np.log(np.exp(logits.T - top).sum(axis=0)) - (target * logits).sum(axis=1)
        right = logits.argmax(axis=1) == target.argmax(axis=1)
    return loss.mean(), right.mean()
