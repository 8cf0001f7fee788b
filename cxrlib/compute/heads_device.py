"""Train heads on the device that Keras uses: all heads, folds and seeds as one computation.

Its arrays have the axes run r (a fold and a seed), head h, and what a layer has. All heads get one
shape: units that a head lacks are 0 and stay 0, for so are their slopes; layers that it lacks are
the identity, and take no step. An epoch is compiled once, and is sent the numbers of the rows that
it learns from, no more. Start, batches and rules are :mod:`cxrlib.compute.heads_numpy`'s.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import pairwise
from zlib import crc32

import numpy as np

from cxrlib.compute.heads_numpy import BETA_1, BETA_2, EPSILON, ROOT, glorot, orders, pace
from cxrlib.machine import accelerator

ROWS = 512  # films that are scored at once
# Bytes of weights, moments and slopes that learn together: a quarter of what Colab's smallest GPU
# has, for a step may hold the old and the new ones. Heads above that take turns.
LIMIT = 4e9


def fit(features, targets, runs, heads, epochs: int, shuffle: bool, tell) -> list[list]:
    """Train every head in every run: the scores (epochs, 4) and the weights of each, by run."""
    from keras import ops

    kind, found = features.dtype, [[None] * len(heads) for _ in runs]
    centre = np.stack([[run.mean, np.sqrt(run.variance)] for run in runs], axis=1)
    films = put([features, targets, *centre[:, :, None]], kind)
    looked = put([_blocks([run[part] for run in runs], ROWS) for part in (0, 1)], kind)
    counts = np.array([[len(rows) for rows in run[:2]] for run in runs])
    for places in _divide(heads, len(runs), features.shape[1]):
        some, sums = [heads[place] for place in places], []
        deep, wide = (max(head[field] for head in some) for field in (0, 1))
        sizes = [features.shape[1], *[wide] * deep, targets.shape[1]]  # of what enters the layers
        state = put(_lay_out(some, places, runs, sizes), kind)
        state += [ops.zeros_like(array) for array in 2 * state]
        rules = put(_rules(some, runs, deep), kind)
        with ExitStack() as held:
            learn = _compiled(held)
            for rows in _epochs(runs, some[0].batch_size, epochs, shuffle, kind):
                state, scores = learn(state, films, rules, put(rows, kind), looked)
                if sums:  # wait for the epoch before: the device has this one to do meanwhile
                    ops.convert_to_numpy(sums[-1])
                sums.append(scores)
                tell(len(some) * len(runs))
        scores = np.array([ops.convert_to_numpy(one) for one in sums]) / counts[:, None, :, None]
        weights = [ops.convert_to_numpy(array) for array in state[: len(state) // 3]]
        for r, h in np.ndindex(len(runs), len(some)):
            mine = _take_out(some[h], [array[r, h] for array in weights], sizes)
            found[r][places[h]] = scores[:, r, h].reshape(epochs, 4), mine
    return found


def _divide(heads, runs: int, inputs: int):
    """Yield the places of heads that learn together: of one batch size, and within LIMIT."""
    kinds = {}
    for place, head in enumerate(heads):
        kinds.setdefault((head.layers == 0, head.batch_size), []).append(place)
    for places in kinds.values():
        deep, wide = (max(heads[place][field] for place in places) for field in (0, 1))
        together = max(1, int(LIMIT / (16 * runs * wide * (inputs + deep * wide))))
        yield from (places[at : at + together] for at in range(0, len(places), together))


def put(arrays, kind):
    """Copy nested arrays to the device, those of floats in this kind."""
    from keras import ops, tree

    kinds = {"f": kind, "b": kind, "i": np.int32}
    return tree.map_structure(
        lambda array: ops.convert_to_tensor(array.astype(kinds[array.dtype.kind])), arrays
    )


def _lay_out(heads, places, runs, sizes) -> list[np.ndarray]:
    """Give what all begin with: of each layer the kernels (r, h, d, n), the biases (r, h, 1, n)."""
    arrays = []
    for pair in pairwise(sizes):
        arrays += [np.zeros((len(runs), len(heads), rows, pair[1])) for rows in (pair[0], 1)]
    for r, h in np.ndindex(len(runs), len(heads)):
        own = runs[r].start and runs[r].start[places[h]]
        own = own or glorot(heads[h], sizes[0], sizes[-1], runs[r].seed)
        lacking = [np.eye(sizes[1]), np.zeros(1)] * (len(sizes) - 2 - heads[h].layers)
        for array, values in zip(arrays, [*own[:-2], *lacking, *own[-2:]], strict=True):
            rows, columns = np.atleast_2d(values).shape
            array[r, h, :rows, :columns] = values
    return arrays


def _take_out(head, arrays: list[np.ndarray], sizes) -> list[np.ndarray]:
    """Give the kernels and biases that a head has itself, in Keras's order."""
    found, own = [], [*arrays[: 2 * head.layers], *arrays[-2:]]
    for number, pair in enumerate(pairwise([sizes[0], *[head.neurons] * head.layers, sizes[-1]])):
        kernel, bias = own[2 * number : 2 * number + 2]
        found += [kernel[: pair[0], : pair[1]].copy(), bias[0, : pair[1]].copy()]
    return found


def _rules(heads, runs, deep: int) -> dict:
    """Give each layer's learning rates, (h, 1, 1), and with dropout what its draws hang on."""

    def layers(field, count):  # 0 where a head has no such layer
        has = [[n < head.layers or n == deep for head in heads] for n in range(count)]
        return list((np.array(has) * [head[field] for head in heads])[..., None, None])

    rates, shares = layers(3, deep + 1), layers(2, deep)
    if not np.any(shares):
        return {"rates": rates}
    # By what a head is, not by where it stands: it learns the same in any company
    names = [[[repr((run.seed, head, n)) for head in heads] for run in runs] for n in range(deep)]
    keys = np.vectorize(lambda name: crc32(name.encode()) // 2)(names)
    units = np.arange(max(head.neurons for head in heads))
    places = (np.arange(heads[0].batch_size)[:, None] << 16) + units
    return {"rates": rates, "shares": shares, "keys": list(keys[..., None, None]), "places": places}


def _blocks(lists, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut each run's rows into blocks, (blocks, r, size); and tell which are there, for some end.

    Those that are not name row 0.
    """
    rows = np.full((len(lists), -(-max(map(len, lists)) // size) * size), -1)
    for row, some in zip(rows, lists, strict=True):
        row[: len(some)] = some
    rows = rows.reshape(len(lists), -1, size).swapaxes(0, 1)
    return np.maximum(rows, 0), rows >= 0


def _epochs(runs, size: int, epochs: int, shuffle: bool, kind):
    """Yield, of each step of an epoch, the rows (r, b), their shares, what Adam needs, a number.

    In a step that a run lacks, for it has fewer films than others, its weights and moments stay.
    """
    counts = np.array([len(run.train) for run in runs])
    ordered = [orders(count, run.seed, shuffle) for count, run in zip(counts, runs, strict=True)]
    lengths = -(-counts // size)
    turns = np.arange(lengths.max())[:, None]
    for epoch in range(epochs):
        lists = [run.train[next(order)] for run, order in zip(runs, ordered, strict=True)]
        rows, there = _blocks(lists, size)
        shares = there / np.maximum(there.sum(axis=2, keepdims=True), 1)
        paces = pace(1, epoch * lengths + turns + 1, kind)
        change = np.stack(np.broadcast_arrays(paces, BETA_1, BETA_2), axis=-1)
        change = np.where((turns < lengths)[..., None], change, [0, 1, 1])
        yield [rows, shares, change, epoch * len(turns) + turns[:, 0]]


def _compiled(held: ExitStack):
    """Give :func:`epoch` as the backend runs it best; products take all of float32 while `held`.

    NVIDIA's TF32, which JAX and TensorFlow use if nobody objects, keeps 10 of its 23 bits.
    """
    from keras import backend

    if backend.backend() == "jax":
        import jax

        held.enter_context(jax.default_matmul_precision("float32"))
        return jax.jit(epoch, donate_argnums=0)
    if backend.backend() == "tensorflow":
        import tensorflow as tf

        shorten = tf.config.experimental.enable_tensor_float_32_execution
        held.callback(shorten, tf.config.experimental.tensor_float_32_execution_enabled())
        shorten(False)
        return tf.function(epoch, jit_compile=bool(accelerator()))
    import torch

    held.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
    torch.set_float32_matmul_precision("highest")
    held.enter_context(torch.no_grad())
    recorded = []

    def run(state, films, rules, rows, looked):
        if state[0].is_cuda and not recorded:  # a hundred kernels become one launch
            sample = state, films, rules, [array[0].clone() for array in rows]
            recorded.append(torch.cuda.make_graphed_callables(step, sample))
        return epoch(state, films, rules, rows, looked, *recorded)

    return run


def epoch(state, films, rules, rows, looked, learn=None):
    """Learn from all batches, and score both parts: the state, and sums (r, h, part, 2)."""
    from keras import ops

    def each(function, blocks, now):
        def one(n, now):
            return function(now, [array[n] for array in blocks])

        return ops.fori_loop(0, blocks[0].shape[0], one, now)

    learn = learn or step
    state = each(lambda now, batch: learn(now, films, rules, batch), rows, state)
    weights, sums = state[: len(state) // 3], []
    for part in looked:
        none = ops.zeros((*weights[0].shape[:2], 2), weights[0].dtype)
        sums.append(each(lambda now, block: now + _score(weights, films, *block), part, none))
    return state, ops.stack(sums, axis=2)


# Below, functions get arrays and operators get numbers: a number given to a function would be
# copied to the device in each step, and PyTorch could not record it.


def step(state, films, rules, batch):
    """Learn from a batch of each run: the new weights, first and second moments, in one list."""
    from keras import ops

    rows, shares, change, turn = batch
    third = len(state) // 3
    x, target = _pick(films, rows)
    entering, logits = _forward(state[:third], x, rules, turn)
    answers = ops.sigmoid(logits) if target.shape[-1] == 1 else ops.softmax(logits)
    delta, slopes = (answers - target) * shares[:, None, :, None], []
    for number in reversed(range(len(entering))):
        units, kernel = entering[number], state[2 * number]
        slopes = [_turned(units) @ delta, ops.sum(delta, axis=2, keepdims=True), *slopes]
        if number:
            delta = delta @ _turned(kernel) * ops.cast(units > 0, units.dtype)
            delta = delta / (1 - rules["shares"][number - 1]) if "keys" in rules else delta
    learned, (pace, *betas) = [], (change[:, n, None, None, None] for n in range(3))
    for number, slope in enumerate(slopes):
        first = betas[0] * state[third + number] + slope
        second = betas[1] * state[2 * third + number] + slope * slope
        way = pace * rules["rates"][number // 2] * first / (ops.sqrt(second) + EPSILON / ROOT)
        learned.append((state[number] - way, first, second))
    return [array for arrays in zip(*learned, strict=True) for array in arrays]


def _turned(array):
    from keras import ops

    return ops.swapaxes(array, -1, -2)


def _pick(films, rows):
    """Give the standardised features (r, 1, b, d) and the targets (r, 1, b, outputs) of rows."""
    from keras import ops

    features, targets, mean, deviation = films
    x = (ops.take(features, rows, axis=0) - mean) / deviation
    return x[:, None], ops.take(targets, rows, axis=0)[:, None]


def _forward(weights, x, rules=(), turn=None):
    """Answer: what enters each layer, and the logits (r, h, b, outputs)."""
    from keras import ops

    entering = [x]
    for number, (kernel, bias) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
        if number:
            x = ops.relu(x)
            entering.append(_silence(x, rules, number - 1, turn) if "keys" in rules else x)
        x = entering[-1] @ kernel + bias
    return entering, x


def _silence(x, rules, number: int, turn):
    """Drop units at random and raise the others, so that the mean stays (dropout)."""
    from keras import ops

    drawn = _mixed(_mixed(rules["places"] + rules["keys"][number]) + turn) & (2**31 - 1)
    share = rules["shares"][number]
    return x * ops.cast(ops.cast(drawn, x.dtype) * 2.0**-31 >= share, x.dtype) / (1 - share)


def _mixed(x):
    """Hash int32 numbers, alike on all backends: C. Wellons's lowbias32 (github.com/skeeto)."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32), (16, 1)):
        x = (x ^ (x // 2**shift & 2 ** (32 - shift) - 1)) * factor  # shifted without its sign
    return x


def _score(weights, films, rows, there):
    """Sum the losses and right answers of each head over a block, (r, h, 2), dropout off."""
    from keras import ops

    x, target = _pick(films, rows)
    _, logits = _forward(weights, x)
    if target.shape[-1] == 1:
        loss = ops.softplus(logits) - target * logits
        right = (logits > 0) == (target > 0.5)
    else:
        loss = ops.logsumexp(logits, axis=-1, keepdims=True)
        loss = loss - ops.sum(target * logits, axis=-1, keepdims=True)
        right = (ops.argmax(logits, axis=-1) == ops.argmax(target, axis=-1))[..., None]
    both = ops.concatenate([loss, ops.cast(right, loss.dtype)], axis=-1)
    return ops.sum(both * there[:, None, :, None], axis=2)
