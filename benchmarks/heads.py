"""Train the paper's grid of 20 heads on cached features: ours in two ways, scikit-learn, Keras.

python benchmarks/heads.py [--rounds 3] [--write]

Synthetic films, random weights: these are times, not accuracies. About three minutes.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from rounds import machine, options, race, sgemm_ceiling, table, versions, write

LAYERS, NEURONS, EPOCHS, BATCH, RATE = (1, 2, 3, 4), (8, 16, 32, 64, 128), 20, 32, 5e-4
GRID = [(depth, width) for depth in LAYERS for width in NEURONS]
TRAIN, HELD, SIZE, SEED = 384, 96, 96, 0
OURS, DEVICE, SKLEARN, KERAS = (
    "ours: `compute.fit_heads`",
    "ours, `CXR_HEADS=device`",
    "scikit-learn, `MLPClassifier` 20 times",
    "20 Keras fits one by one",
)


def make_features(folder: Path):
    """Give what all begin with: features of 480 films by ResNet50, and their classes."""
    from cxrlib import backbone, sources

    classes = ["healthy", "covid"]
    how = {"patients": TRAIN + HELD, "labels": classes, "images_per_patient": [1, 1], "size": SIZE}

    def once():
        films = sources.load("phantom", **how, seed=SEED)
        order = np.random.default_rng(SEED).permutation(len(films))[: TRAIN + HELD]
        images = np.asarray(films.images)[order]
        network = backbone.load("ResNet50", SIZE, "random", SEED, pooling="avg")
        x = network.predict(backbone.prepare(images, "ResNet50", SIZE), verbose=0)
        np.savez(folder / "data.npz", x=x, y=films.targets(classes)[order])

    return once


def read(folder: Path, precision: str = "float32"):
    """Training and validation part."""
    with np.load(folder / "data.npz") as data:
        x, y = data["x"].astype(precision), data["y"]
    return (x[:TRAIN], y[:TRAIN]), (x[TRAIN:], y[TRAIN:])


def our_grid(folder: Path, way: str):
    """All heads at once, in NumPy or on Keras's device; compiling is timed, importing is not."""
    from cxrlib.compute import Head, fit_heads
    from cxrlib.machine import start_keras

    os.environ["CXR_HEADS"], parts = way, read(folder)
    if way == "device":
        start_keras()
    grid = [Head(*shape, 0, RATE, BATCH) for shape in GRID]
    return lambda: len(fit_heads(*parts, grid, EPOCHS).history)


def scikit_learn(folder: Path):
    """Fit the same heads with scikit-learn, which looks at no validation data meanwhile."""
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler

    (x, y), _ = read(folder)
    x = StandardScaler().fit_transform(x)
    how = {"batch_size": BATCH, "learning_rate_init": RATE, "alpha": 0, "max_iter": EPOCHS}
    warnings.simplefilter("ignore")  # it warns that 20 epochs are few

    def once():
        for depth, width in GRID:
            shape = (width,) * depth
            MLPClassifier(shape, **how, n_iter_no_change=EPOCHS, random_state=SEED).fit(x, y)

    return once


def keras_losses(train, held) -> np.ndarray:
    """Fit the grid with Keras, batches in the order of the rows; losses (heads, epochs)."""
    from cxrlib import training

    losses, held = [], (held[0], held[1][:, None])
    for shape in GRID:
        head = training.dense_head(train[0], 2, *shape, seed=SEED)
        training.compile_model(head, RATE)
        how = {"batch_size": BATCH, "epochs": EPOCHS, "verbose": 0, "shuffle": False}
        found = head.fit(train[0], train[1][:, None], validation_data=held, **how)
        losses.append(found.history["val_loss"])
    return np.array(losses)


def keras_heads(folder: Path):
    """Fit one head after another; importing Keras is not timed."""
    from cxrlib.machine import start_keras

    start_keras()
    return partial(keras_losses, *read(folder))


def differences(folder: Path):
    """Find how far our losses are from Keras's in float64, same start, same batches."""
    from cxrlib import training
    from cxrlib.compute import Head, fit_heads
    from cxrlib.machine import start_keras

    keras = start_keras()  # which sets precisions back, once
    keras.config.set_dtype_policy("float64")
    keras.config.set_floatx("float64")
    parts = read(folder, "float64")
    os.environ["CXR_HEADS"] = "numpy"
    heads = [Head(*shape, learning_rate=RATE, batch_size=BATCH) for shape in GRID]
    start = [training.dense_head(parts[0][0], 2, *shape, seed=SEED).get_weights() for shape in GRID]

    def once():
        history = fit_heads(*parts, heads, EPOCHS, start=start, shuffle=False).history
        ours = history["val_loss"].to_numpy().reshape(len(GRID), EPOCHS)
        return np.abs(ours - keras_losses(*parts)).max()

    return once


def report(folder: Path, rounds: int) -> str:
    """Measure, and put it into words and a table."""
    from cxrlib.machine import device, start_keras

    race({"features": partial(make_features, folder)}, 1, 0)
    ways = {OURS: partial(our_grid, folder, "numpy"), DEVICE: partial(our_grid, folder, "device")}
    ways[SKLEARN] = partial(scikit_learn, folder)
    rows = race(ways, rounds)
    # Once is enough for what takes thirty times as long
    rows += race({KERAS: partial(keras_heads, folder)}, 1, 0)
    (apart,) = race({"apart": partial(differences, folder)}, 1, 0)
    for row in [*rows, apart]:
        if row.problem:
            raise SystemExit(f"{row.name}: {row.problem}")
    ours, backend, where = rows[0].median, start_keras().backend.backend(), device()
    lines = [
        [row.name, f"{row.median:.2f}", f"{row.median / ours:.1f}", f"{row.peak:.0f}",
         len(row.seconds)]
        for row in rows
    ]  # fmt: skip
    header = ["20 heads, 20 epochs, features cached", "s", "x ours", "peak MB", "rounds"]
    equal = "held" if apart.said < 1e-4 else "**not held**"
    return f"""
`python benchmarks/heads.py`, {machine()}; {versions("numpy", "keras", "scikit-learn")}. Synthetic
films ({TRAIN} to train, {HELD} to validate, {SIZE} x {SIZE}, seed {SEED}), ResNet50 with random
weights, float32, batches of {BATCH}. Matrix products here run at {sgemm_ceiling():.0f} GFLOP/s at
most. Medians of rounds in turn.

{table(header, lines)}

What `CXR_HEADS=device` compiles, here for {backend} on {where}, is meant for a GPU. Ours scores
every head on both parts after each epoch; Keras scores the validation part, and
scikit-learn neither. **The same losses as Keras's**, from the same start and with the same batches:
in float64, where rounding does not matter, no validation loss of the {len(GRID)} x {EPOCHS} differs
by more than {apart.said:.0e} (1e-4 was promised: {equal}). In float32 a rounding, in Keras or here,
tips a unit or a step of Adam the other way in some deep heads, and from there on the two runs part,
as Keras on JAX and Keras on TensorFlow do.
"""


def main() -> None:
    """Measure, print, and write if asked."""
    given = options(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="cxr-heads-") as folder:
        text = report(Path(folder), given.rounds)
    print(text)
    if given.write:
        write("heads", text)


if __name__ == "__main__":
    main()
