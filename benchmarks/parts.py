"""The course's work on a device taken apart: whole, and reading, copying and computing alone.

python benchmarks/parts.py [--tiny]        a line of JSON for each part, as soon as it is there

benchmarks/gpu.py runs it, in a process of its own: so the lessons find the device's memory free.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path

from rounds import ROOT

PARTS = ["reading", "copying", "computing"]
PRODUCTS = ("Conv2D", "DepthwiseConv2dNative", "MatMul")  # of TensorFlow's operations


def count(model, training: bool = False) -> float:
    """Floating point operations for one image, counted by the backend; a product and a sum are two.

    Of a step of training where asked: forwards, and backwards for what learns. JAX counts what it
    hands to XLA, without products with the border's zeros, PyTorch the products that it runs,
    TensorFlow the forward graph: a step adds each product twice, but the first, whose input does
    not learn, once.
    """
    import keras

    backend, shape = keras.backend.backend(), (1, *model.input_shape[1:])
    x = keras.ops.ones(shape)
    if backend == "torch":
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            said = model(x, training=training)
            if training:
                said.sum().backward()
        return counter.get_total_flops()
    if backend == "jax":
        import jax

        def ask(learned, others):
            return model.stateless_call(learned, others, x, training=training)[0].sum()

        values = [[v.value for v in model.trainable_variables]]
        values += [[v.value for v in model.non_trainable_variables]]
        lowered = jax.jit(jax.grad(ask) if training else ask).lower(*values)
        return (lowered.cost_analysis() or lowered.compile().cost_analysis())["flops"]
    import tensorflow as tf
    from tensorflow.python.framework.ops import get_stats_for_node_def
    from tensorflow.python.profiler.internal import flops_registry  # noqa: F401, it says how

    graph = tf.function(lambda x: model(x)).get_concrete_function(tf.TensorSpec(shape)).graph
    counts = [
        (op.type, get_stats_for_node_def(graph, op.node_def, "flops").value or 0)
        for op in graph.get_operations()
    ]
    products = [flop for kind, flop in counts if kind in PRODUCTS]
    more = 2 * sum(products) - products[0] if training else 0
    return float(sum(flop for _, flop in counts) + more)


@contextmanager
def products(precision: str):
    """Let matrix products of float32 take TF32, or nothing less than float32, in a ``with``."""
    from keras import backend

    allowed = precision == "tf32"
    if backend.backend() == "jax":
        import jax

        with jax.default_matmul_precision("tensorfloat32" if allowed else "float32"):
            yield
        return
    if backend.backend() == "torch":
        import torch

        before = torch.get_float32_matmul_precision()
        put, now = torch.set_float32_matmul_precision, "high" if allowed else "highest"
    else:
        from tensorflow.config import experimental

        before, now = experimental.tensor_float_32_execution_enabled(), allowed
        put = experimental.enable_tensor_float_32_execution
    put(now)
    try:
        yield
    finally:
        put(before)


def timed(work) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median(work, rounds: int) -> float:
    """Seconds of a call, median; one call before them is not timed (it compiles)."""
    return statistics.median([timed(work) for _ in range(rounds + 1)][1:])


def peak(precision: str, rounds: int, tiny: bool) -> float:
    """FLOP/s of large matrix products on the device, in this precision: its practical peak."""
    import keras
    import numpy as np

    side, times = (256, 4) if tiny else (8192, 20)
    random = np.random.default_rng(0).standard_normal((side, side), np.float32) / side**0.5
    a = keras.ops.cast(random, precision.replace("tf32", "float32"))

    def work():
        found = a
        for _ in range(times):  # each waits for the one before
            found = keras.ops.matmul(a, found)
        keras.ops.convert_to_numpy(found[0, 0])

    with products(precision):
        return times * 2 * side**3 / median(work, rounds)


def copying(batch, rounds: int) -> float:
    """Images/s of copying a batch (n, ...) from the host to the device."""
    import keras

    def copy():
        keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(batch)[(0,) * batch.ndim])

    return len(batch) / median(copy, rounds)


def features(name: str, films, folder: Path, rounds: int, tiny: bool) -> dict:
    """Frozen features of files: decoded, prepared, copied and computed."""
    import cv2
    import keras

    from cxrlib import backbone, images
    from cxrlib.compute import engine
    from cxrlib.machine import dtype_policy, multiplies_in

    size, many = (32, 16) if tiny else (224, 256)
    paths = [folder / f"{number}.jpg" for number in range(len(films))]
    for path, film in zip(paths, films, strict=True):
        if not path.exists():
            cv2.imwrite(str(path), cv2.resize(film, (512, 512)))

    def decode(place):
        return images.decode(paths, folder / place, progress=False).images

    backbone.features(255 - films[:80], name, size, "random", progress=False)  # compiles
    rate = len(films) / timed(
        lambda: backbone.features(decode(name), name, size, "random", progress=False)
    )
    backbone.forget_network()

    def read():
        decoded = decode(f"{name} alone")
        for start in range(0, len(films), 512):
            backbone.resize(decoded[start : start + 512], size)

    policy = "mixed_bfloat16" if os.environ.get("CXR_PRECISION") == "bfloat16" else "float32"
    with dtype_policy(policy):
        plain = backbone.load(name, size, "random", pooling="avg")
        model = backbone.from_grey(plain, name)  # grey bytes are copied, the device does the rest
    batch = backbone.resize(films[:many], size)
    compute, there = engine.on_keras(model, many), keras.ops.convert_to_tensor(batch)
    computing = many / median(lambda: compute(there), rounds)
    parts = [len(films) / timed(read), copying(batch, rounds), computing]
    row = {"work": f"features from files, {name}", "images/s": rate, "flop": count(plain)}
    return row | {"precision": multiplies_in(policy)} | dict(zip(PARTS, parts, strict=True))


def cnn(films, rounds: int, tiny: bool) -> dict:
    """Lesson 3's network through `training.fit`, end to end."""
    import keras
    import numpy as np
    from cnn import build_network

    from cxrlib import training
    from cxrlib.machine import dtype_policy, multiplies_in, training_precision

    side, epochs = (32, 2) if tiny else (150, 10)
    y, held = np.arange(len(films)) % 2, (films[:32], np.arange(32) % 2)

    def fit(epochs):
        return timed(lambda: training.fit(build_network(side), (films, y), held, epochs))

    whole = fit(1 + epochs)
    first = whole if tiny else fit(1)
    while whole < 2 * first and not tiny:  # else the epochs are lost in what compiling takes
        epochs *= 6
        whole = fit(1 + epochs)
    seen, seconds = (1 + epochs, whole) if tiny else (epochs, whole - first)
    rate = seen * len(films) / seconds
    policy = training_precision()
    with dtype_policy(policy):
        model = training.compile_model(build_network(side), 1e-3)
    target = np.arange(32)[:, None] % 2
    data = training.batches(films, side, y[:, None], 32, shuffle=True)
    batch = data[0][0]
    there = keras.ops.convert_to_tensor(batch)
    reading = timed(lambda: [data[number] for number in range(len(data))])
    computing = 32 / median(lambda: model.train_on_batch(there, target), rounds)
    parts = [len(films) / reading, copying(batch, rounds), computing]
    row = {"work": f"training, custom CNN (first epoch {first:.1f} s)", "images/s": rate}
    row |= {"flop": count(model, training=True), "precision": multiplies_in(policy)}
    return row | dict(zip(PARTS, parts, strict=True))


def heads(way: str, tiny: bool) -> dict:
    """Lesson 5's search by folds, the paper's sizes: a few of its epochs."""
    import numpy as np
    import yaml

    from cxrlib import compute, training
    from cxrlib.split import Fold

    profile = yaml.safe_load((ROOT / "notebooks" / "profiles" / "paper.yaml").read_text())
    kinds = list(product(profile["search_layers"], profile["search_neurons"]))
    rates = np.geomspace(1e-4, 1e-2, profile["search_draws"] + 1)
    rows, epochs = 4 * 1027, 5  # the films of `open` and their copies
    if tiny:
        kinds, rates, rows, epochs = kinds[:2], rates[:1], 80, 1
    tried = [compute.Head(*kind, 0.2, rate) for rate in rates for kind in kinds]
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(rows, 512)).astype(np.float32), np.arange(rows) % 2
    fifths = np.array_split(rng.permutation(rows), 5)
    folds = []
    for number in range(5):
        rest = np.concatenate(fifths[:number] + fifths[number + 1 :])
        folds.append(Fold(rest[len(rest) // 5 :], rest[: len(rest) // 5], fifths[number]))
    os.environ.pop("CXR_HEADS", None)
    if way:
        os.environ["CXR_HEADS"] = way
    else:
        compute.fit_folds(x, y, folds, tried, epochs)  # compiles
    seconds = timed(lambda: compute.fit_folds(x, y, folds, tried, epochs)) / epochs
    each = {kind: count(training.dense_head(x, 2, *kind), training=True) for kind in kinds}
    work = f"{len(tried)} heads in 5 folds, {way or 'default'} ({seconds:.2f} s an epoch of all)"
    times = Counter(head[:2] for head in tried)
    flop = sum(each[kind] * number for kind, number in times.items())
    seen = sum(len(fold.train) for fold in folds)
    # Heads never take TF32: their losses are held to Keras's
    return {"work": work, "images/s": seen / seconds, "flop": flop, "precision": "float32"}


def take_apart(rounds: int, tiny: bool) -> None:
    """Measure each part, and print a row of JSON as soon as it is there."""
    from cxrlib import machine as ours
    from cxrlib.phantom import make_cohort

    keras, peaks = ours.start_keras(), {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CXR_CACHE"] = folder
        films = make_cohort(80 if tiny else 2064, (1, 1), size=96 if tiny else 300).images[:]
        names = ("MobileNet",) if tiny else ("ResNet50", "DenseNet121", "VGG16")
        todo = [partial(features, one, films, Path(folder), rounds, tiny) for one in names]
        todo += [partial(cnn, films, rounds, tiny)]
        todo += [partial(heads, way, tiny) for way in ("", "numpy")]
        for part in todo:
            try:
                row = part()
                kind = row["precision"]
                peaks[kind] = peaks.get(kind) or peak(kind, rounds, tiny)
                row["peak"] = peaks[kind]
            except Exception as error:  # one that fails leaves the others be
                row = {"work": part.func.__name__, "problem": f"{type(error).__name__}: {error}"}
            row |= {"device": ours.device(), "backend": keras.backend.backend()}
            print(json.dumps(row), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each part (5)")
    parser.add_argument("--tiny", action="store_true", help="a try, without a GPU too")
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    take_apart(given.rounds, given.tiny)


if __name__ == "__main__":
    main()
