"""The course at the paper's sizes on a GPU: seconds by notebook, share of the peak, bottleneck.

python benchmarks/gpu.py [--write]       on a machine with a GPU; an hour or so
python benchmarks/gpu.py --tiny          anywhere: tries that the command works, writes nothing

Runs `cxr run --profile paper` on phantoms (27,000 images to train on, 6,750 to test), then takes
feature extraction and training apart: reading, copying to the device, computing.
KERAS_BACKEND decides on the backend; without it, the first that is installed and sees a GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from rounds import PAGE, ROOT, machine, table, versions, write

BACKENDS = ("tensorflow", "jax", "torch")
PACKAGES = ("tensorflow", "tensorflow-cpu", "jax", "torch", "numpy", "opencv-python-headless")
# Films of two labels, and three copies of each: 33,750 images, a fifth of them to test.
FILMS = {"patients": 6330, "confounding": 0.0}
STAGE1 = {
    "patients": 33750,
    "labels": ["healthy", "pneumonia"],
    "images_per_patient": [1, 1],
    "confounding": 0.0,
    "seed": 1000,
}
HOSPITAL = {"labels": ["healthy", "covid"]}
INSIDE, OUTSIDE = ["digital", "computed", "film"], ["portable", "enhanced"]
CODE = "from cxrlib import machine; machine.start_keras(); print(machine.accelerator())"


def choose_backend() -> str:
    """Find a backend that sees an accelerator, and set it; gives the kind of accelerator."""
    asked = os.environ.get("KERAS_BACKEND")
    for name in (asked,) if asked else filter(find_spec, BACKENDS):
        surroundings = os.environ | {"KERAS_BACKEND": name, "PYTHONPATH": str(ROOT)}
        told = subprocess.run(
            [sys.executable, "-c", CODE], env=surroundings, capture_output=True, text=True
        )
        if kind := told.stdout.strip():
            os.environ["KERAS_BACKEND"] = name
            return kind
    return ""


def run_course(out: Path, tiny: bool) -> None:
    """Run the notebooks at the paper's sizes on phantoms; or one, to try it."""
    options = {
        "source_options": FILMS,
        "stage1_options": STAGE1,
        "inside_options": HOSPITAL | {"patients": 80, "confounding": 0.8, "scanners": INSIDE},
        "outside_options": HOSPITAL | {"patients": 60, "seed": 50, "scanners": OUTSIDE},
    }
    words = ["--profile", "paper", "--set", "weights=auto"]
    for name in ("source", "stage1_source", "inside_source", "outside_source"):
        words += ["--set", f"{name}=phantom"]
    for name, value in options.items():
        words += ["--set", f"{name}={json.dumps(value)}"]
    if tiny:
        words = ["--profile", "smoke", "--only", "01"]
    command = [sys.executable, "-m", "cxrlib.cli", "run", "--out", str(out), *words]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


def seconds_of(out: Path) -> list[list]:
    """Read a run folder; rows: notebook, seconds."""
    states = [json.loads(path.read_text()) for path in sorted((out / "state").glob("*.json"))]
    return [[one["notebook"], f"{one['seconds']:.0f}"] for one in states]


def flops(model) -> float:
    """Floating point operations for one image: the products and sums of its weights.

    A multiplication and an addition count as two. Activations, pooling and normalisation are
    left out: next to convolutions they are few.
    """
    total = 0.0
    for layer in model.layers:
        kernel = next((w for w in layer.weights if w.path.endswith("kernel")), None)
        if hasattr(layer, "layers"):
            total += flops(layer)
        elif kernel is not None:
            places = layer.output.shape[1:-1] if len(kernel.shape) == 4 else ()
            total += 2.0 * math.prod(kernel.shape) * math.prod(places)
    return total


def median(work, rounds: int) -> float:
    """Seconds of a call, median; one call before them is not timed (it compiles)."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def peak(dtype: str, rounds: int, tiny: bool) -> float:
    """FLOP/s of large matrix products on the device, in this precision: its practical peak."""
    import keras

    side, times = (512, 4) if tiny else (8192, 20)
    a = keras.ops.cast(keras.ops.ones((side, side)) / side, dtype)

    def work():
        found = a
        for _ in range(times):  # each waits for the one before
            found = keras.ops.matmul(a, found)
        keras.ops.convert_to_numpy(found[0, 0])

    return times * 2 * side**3 / median(work, rounds)


def parts(read, compute, size: int, rounds: int) -> dict[str, float]:
    """Seconds an image of reading, of copying to the device and of computing, each alone.

    Parameters
    ----------
    read : function, gives a batch as it is on the host: ndarray (size, height, width, channels)
    compute : function of such a batch on the device; waits for the result
    """
    import keras

    batch = read()
    there = keras.ops.convert_to_tensor(batch)

    def copy():
        copied = keras.ops.convert_to_tensor(batch)
        keras.ops.convert_to_numpy(copied[0, 0, 0, 0])

    work = {"reading": read, "copying": copy, "computing": lambda: compute(there)}
    return {name: median(once, rounds) / size for name, once in work.items()}


def measure_features(name: str, films, size: int, batch_size: int, rounds: int) -> tuple:
    """Augment, prepare, copy and compute, and the FLOPs an image."""
    import numpy as np

    from cxrlib import augment, backbone
    from cxrlib.machine import dtype_policy

    short = "bfloat16" if os.environ.get("CXR_PRECISION") == "bfloat16" else "float32"
    with dtype_policy("mixed_bfloat16" if short == "bfloat16" else "float32"):
        model = backbone.load(name, size, "random", pooling="avg")
    some = films[np.arange(batch_size) % len(films)]
    rng = np.random.default_rng(0)

    def read():
        copies = np.stack([augment.augment(film, rng) for film in some])
        return backbone.prepare(copies, name, size)

    found = parts(read, lambda x: np.asarray(model.predict_on_batch(x)), batch_size, rounds)
    return found, flops(model), short


def measure_training(films, side: int, batch_size: int, rounds: int) -> tuple:
    """Read, copy and take a step of the custom CNN's size, and the FLOPs an image and step."""
    import numpy as np
    from keras import Sequential, layers

    from cxrlib import training
    from cxrlib.machine import dtype_policy, training_precision

    training.set_seed(0)
    policy = training_precision()
    with dtype_policy(policy):
        model = Sequential([layers.Input((side, side, 1)), layers.Rescaling(1 / 255)])
        for filters, kernel, strides in ((16, 5, 3), (32, 3, 1), (64, 3, 1), (64, 3, 1)):
            model.add(layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False))
            model.add(layers.BatchNormalization(momentum=0.9))
            model.add(layers.ReLU())
            if len(model.layers) < 13:
                model.add(layers.MaxPooling2D())
        model.add(layers.Flatten())
        model.add(layers.Dense(1, "sigmoid", dtype="float32"))
        training.compile_model(model, 1e-3)
    some = films[np.arange(batch_size) % len(films)]
    target = np.arange(batch_size)[:, None] % 2
    found = parts(
        lambda: training.batches(some, side, None, batch_size)[0][0],
        lambda x: model.train_on_batch(x, target),
        batch_size,
        rounds,
    )
    # a step goes forwards once, and backwards for the inputs and for the weights
    return found, 3 * flops(model), policy


def line(work: str, found: dict, count: float, precision: str, peaks: dict) -> list:
    """Give a table row: parts in images/s, the share of the peak, and which part is slowest."""
    rates = [f"{1 / seconds:,.0f}" for seconds in found.values()]
    dtype = precision.removeprefix("mixed_")
    share = count / found["computing"] / peaks[dtype]
    slowest = max(found, key=found.get)
    return [work, precision, *rates, f"{count / 1e9:.2f}", f"{share:.1%}", slowest]


def describe(seconds: list, kind: str, rounds: int, tiny: bool) -> str:
    """Take the work apart, and word the section."""
    from cxrlib import machine as ours
    from cxrlib.phantom import make_cohort

    keras = ours.start_keras()
    size, side, many = (32, 32, 4) if tiny else (224, 150, 256)
    films = make_cohort(patients=16, images_per_patient=(1, 1), size=size).images
    names = ("MobileNet",) if tiny else ("ResNet50", "VGG16", "DenseNet121")
    measured = {
        f"features, {name}": measure_features(name, films, size, many, rounds) for name in names
    }
    measured["training, custom CNN"] = measure_training(films, side, 32, rounds)
    needed = sorted({one[2].removeprefix("mixed_") for one in measured.values()})
    peaks = {dtype: peak(dtype, rounds, tiny) for dtype in needed}
    told = ", ".join(f"{rate / 1e12:.2f} TFLOP/s in {dtype}" for dtype, rate in peaks.items())
    head = ["work", "precision", "reading, images/s", "copying", "computing"]
    head += ["GFLOP an image", "share of the peak", "slowest"]
    lines = [line(work, *one, peaks) for work, one in measured.items()]
    return f"""\
`python benchmarks/gpu.py --write`, on {ours.device()} ({kind or "no accelerator"}; \
{machine()}), {keras.backend.backend()} backend; \
{versions("keras", *PACKAGES)}.

`cxr run --profile paper` on synthetic images (phantoms), 33,750 with their copies: 27,000 to \
train and validate on, 6,750 to test; seed 0. Weights: ImageNet's where they could be had, else \
random, as each result says. Of a notebook's time a part goes into making its phantoms.

{table(["notebook", "seconds"], seconds)}

Each part alone, batches of {many} (features, {size} x {size}, random weights) and 32 (training, \
{side} x {side}), medians of {rounds} rounds. Reading is augmenting and preparing, or resizing, on \
the processor. The device's own ceiling, a chain of large matrix products: {told}. The share is \
that of computing alone. Where reading or copying is the slowest, the device waits for it.

{table(head, lines)}"""


def main() -> int:
    """Run, print, and write; returns 1 where there is no GPU to measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each part (5)")
    parser.add_argument("--write", action="store_true", help=f"put it into {PAGE.name}")
    parser.add_argument("--tiny", action="store_true", help="a try, without a GPU too")
    parser.add_argument("--out", type=Path, help="run folder [default: a temporary one]")
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    kind = choose_backend()
    if not kind and not given.tiny:
        print("No GPU was found, so nothing is measured. Try the command: --tiny")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        out = given.out or Path(folder) / "run"
        run_course(out, given.tiny)
        text = describe(seconds_of(out), kind, given.rounds, given.tiny)
    if given.tiny:
        seen = "" if kind else "No GPU was found. "
        print(f"{seen}A try of the command, no measurement: nothing is written.\n")
    print(text)
    if given.write and not given.tiny:
        write("gpu", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
