"""Train the course's own CNN for an epoch: TensorFlow, PyTorch, JAX; each step alone, or together.

python benchmarks/cnn.py [--rounds 3] [--write]

The network is lesson 3's, read from its notebook. Synthetic images: times, not accuracies.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
from functools import partial

import numpy as np
from rounds import ROOT, machine, options, race, sgemm_ceiling, table, versions, write

LESSON = ROOT / "notebooks" / "03_custom_cnn.ipynb"
IMAGES, SIDE, BATCH, SEED, RATE = 1000, 150, 32, 0, 2e-3
STEPS = 8  # timed; an epoch of 1,000 images has 32
DEFAULT = "TensorFlow"
BACKENDS = {
    DEFAULT: ("tensorflow", None),
    "TensorFlow with XLA": ("tensorflow", True),
    "PyTorch": ("torch", None),
    "JAX": ("jax", None),
}
PLAIN = list(BACKENDS)
BACKENDS |= {  # as on an accelerator, and with TensorFlow everywhere: CXR_STEPS=compiled
    f"{name}, steps together": (*BACKENDS[name], True) for name in (DEFAULT, "PyTorch", "JAX")
}


def build_network(side: int = SIDE):
    """Build the network of lesson 3, by the functions that its cells define."""
    import keras

    from cxrlib import training

    names = {"keras": keras, "layers": keras.layers, "training": training}
    names |= {"seed": SEED, "cnn_size": side}
    for cell in json.loads(LESSON.read_text(encoding="utf-8"))["cells"]:
        if cell["id"] in ("define-block", "build-cnn"):
            body = ast.parse("".join(cell["source"])).body
            wanted = [node for node in body if isinstance(node, ast.FunctionDef)]
            code = compile(ast.Module(wanted, []), LESSON.name, "exec")
            exec(code, names)  # our own lesson
    return names["build_cnn"]()


def epoch(backend: str, jit: bool | None, together: bool = False):
    """Prepare a network on a backend; None leaves XLA to `training.compile_model`."""
    os.environ["KERAS_BACKEND"] = backend
    importlib.import_module(backend)  # says so if it is not installed

    from cxrlib import training

    network = training.compile_model(build_network(), RATE)
    if jit is not None:
        network.compile(network.optimizer, "binary_crossentropy", jit_compile=jit)
    rng = np.random.default_rng(SEED)
    images = rng.integers(0, 256, (STEPS * BATCH, SIDE, SIDE), np.uint8)
    targets = rng.integers(0, 2, (len(images), 1)).astype(np.float32)
    data = training.batches(images, SIDE, targets, BATCH)

    def once():
        return network.fit(data, epochs=1, verbose=0, shuffle=False).history["loss"][0]

    return steps_together(network, data) if together else once


def steps_together(network, data):
    """Take the steps as `compute.epochs` does, the images on the device already."""
    from keras import ops

    from cxrlib.compute import epochs

    network._symbolic_build(data_batch=data[0])
    there = [ops.convert_to_tensor(array) for array in (data.read(), data.targets)]
    rows = ops.convert_to_tensor(data.order.reshape(STEPS, BATCH).astype(np.int32))
    run = epochs._loop(network, True)

    def once():
        network.reset_metrics()
        run(*there, rows)
        return float(network.get_metrics_result()["loss"])

    return once


def report(rows: list, ceiling: float) -> str:
    """Put the table into words."""
    scale = IMAGES / (STEPS * BATCH)
    ran = sorted((row for row in rows if row.seconds), key=lambda row: row.median)
    base = next((row.median for row in ran if row.name == DEFAULT), None)
    if base is None:
        raise SystemExit(f"{DEFAULT} did not run: {rows[0].problem}")
    cells = []
    for row in rows:
        numbers = [f"{row.median * scale:.1f}", f"{row.median / base:.1f}", f"{row.peak:.0f}"]
        cells.append([row.name, *([row.problem, "", ""] if row.problem else numbers)])
    first = next(row.name for row in ran if row.name in PLAIN)
    verdict = "and that is the default" if first == DEFAULT else f"**the default is {DEFAULT}**"
    return f"""
`python benchmarks/cnn.py`, {machine()}; {versions("keras", "tensorflow", "torch", "jax")}. The
network of lesson 3 on {IMAGES:,} synthetic images of {SIDE} x {SIDE}, batches of {BATCH}, float32,
seed {SEED}: {STEPS} of an epoch's {-(-IMAGES // BATCH)} steps were timed, scaled to all images;
medians of {len(ran[0].seconds)} rounds after one that compiles. Matrix products here run at
{ceiling:.0f} GFLOP/s at most.

{table(["backend", "s an epoch", "x the default", "peak MB"], cells)}

Fastest step by step is {first}, {verdict}
(`training.compile_model`, with `KERAS_BACKEND` unset: XLA only where there is an accelerator, or on
JAX, which knows nothing else). *Steps together* (`cxrlib.compute.epochs`) is what accelerators get,
and TensorFlow on a processor: images read before, an epoch in two compiled calls. JAX and PyTorch
take the steps one by one on a processor: JAX's loops are slow there.
"""


def main() -> None:
    """Measure, print, and write if asked."""
    given = options(__doc__).parse_args()
    rows = race({name: partial(epoch, *how) for name, how in BACKENDS.items()}, given.rounds)
    text = report(rows, sgemm_ceiling())
    print(text)
    if given.write:
        write("cnn", text)


if __name__ == "__main__":
    main()
