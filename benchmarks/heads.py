"""Train the paper's grid of heads: alone on cached features, from the images on, and repeated.

python benchmarks/heads.py [--rounds 5] [--write]

Ours beside Keras fitting one head after another, scikit-learn, and JAX with all heads in one
compiled step. Synthetic images, random weights: these are times, not accuracies.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from rounds import machine, options, race, sgemm_ceiling, table, versions, write

LAYERS, NEURONS, EPOCHS, BATCH, RATE = (1, 2, 3, 4), (8, 16, 32, 64, 128), 20, 32, 5e-4
GRID = [(depth, width) for depth in LAYERS for width in NEURONS]
TRAIN, HELD, SIZE, SEED = 384, 96, 224, 0
SEEDS, FOLDS = range(5), 4
OURS, KERAS, SKLEARN, JAX = (
    "ours: `training.fit_grid`",
    "20 Keras fits one by one",
    "scikit-learn, `MLPClassifier` 20 times",
    "JAX, all heads in one compiled step",
)
TOGETHER, IN_TURN = "ours, together", "ours, one after another"


def make_films(folder: Path) -> None:
    """Draw the films: 480 phantoms at 224 x 224, two classes."""
    from cxrlib import sources

    classes = ["healthy", "covid"]
    options = {"patients": TRAIN + HELD, "labels": classes, "images_per_patient": [1, 1]}
    films = sources.load("phantom", **options, size=SIZE, seed=SEED)
    order = np.random.default_rng(SEED).permutation(len(films))[: TRAIN + HELD]
    np.save(folder / "films.npy", np.asarray(films.images)[order])
    np.save(folder / "targets.npy", films.targets(classes)[order])


def divide(x, y):
    """Divide them into training and validation part."""
    return (x[:TRAIN], y[:TRAIN]), (x[TRAIN:], y[TRAIN:])


def read(folder: Path, standardised: bool = False):
    """Read features and targets; without a head's own first layer they come standardised."""
    from cxrlib.heads import moments

    x, y = np.load(folder / "features.npy"), np.load(folder / "targets.npy")
    if standardised:
        mean, variance = moments(x[:TRAIN])
        x = ((x - mean) / np.sqrt(variance)).astype(np.float32)
    return divide(x, y)


def keras_features(folder: Path):
    """Keras: features of all images, once."""
    from cxrlib import backbone

    extractor = backbone.load("ResNet50", SIZE, "random", SEED, pooling="avg")
    films = np.load(folder / "films.npy")

    def once():
        ready = backbone.prepare(films, "ResNet50", SIZE)
        x = extractor.predict(ready, batch_size=BATCH, verbose=0)
        np.save(folder / "features.npy", x)

    return once


def keras_heads(folder: Path, backend: str = ""):
    """Keras: one head after another, batches in the order of the rows."""
    if backend:
        os.environ["KERAS_BACKEND"] = backend
    return partial(one_by_one, np.load(folder / "features.npy"), np.load(folder / "targets.npy"))


def one_by_one(x, y) -> np.ndarray:
    """Fit the grid with Keras; validation losses, (heads, epochs)."""
    from cxrlib import training
    from cxrlib.packs import Head, glorot

    (x_train, y_train), held = divide(x, y)
    losses = []
    for depth, width in GRID:
        head = training.dense_head(x_train, 2, depth, width)
        head.set_weights(glorot(Head(depth, width), x.shape[1], 1, SEED))
        training.compile_model(head, RATE)
        how = {"batch_size": BATCH, "epochs": EPOCHS, "verbose": 0, "shuffle": False}
        found = head.fit(x_train, y_train[:, None], validation_data=held, **how)
        losses.append(found.history["val_loss"])
    return np.array(losses)


def differences(folder: Path, precision: str, theirs):
    """Find how far our losses are from Keras's, same start, same batches; (heads, epochs)."""
    import keras

    from cxrlib.heads import fit_heads
    from cxrlib.packs import Head, glorot

    keras.config.set_dtype_policy(precision)
    keras.config.set_floatx(precision)
    x, y = np.load(folder / "features.npy").astype(precision), np.load(folder / "targets.npy")
    parts = divide(x, y)
    heads = [Head(*shape, learning_rate=RATE, batch_size=BATCH) for shape in GRID]
    start = [glorot(head, x.shape[1], 1, SEED) for head in heads]

    def once():
        history = fit_heads(*parts, heads, EPOCHS, start=start, shuffle=False).history
        ours = history["val_loss"].to_numpy().reshape(len(GRID), EPOCHS)
        return np.abs(ours - (one_by_one(x, y) if theirs is None else theirs))

    return once


def usual(folder: Path):
    """Time single steps of the usual way: the frozen backbone stays inside the model."""
    import keras

    from cxrlib import backbone, training

    network = backbone.load("ResNet50", SIZE, "random", SEED, pooling="avg")
    films = backbone.prepare(np.load(folder / "films.npy")[:BATCH], "ResNet50", SIZE)
    y = np.load(folder / "targets.npy")[:BATCH, None]
    layers = [keras.layers.Dense(64, "relu"), keras.layers.Dense(1, "sigmoid")]
    model = keras.Sequential([network, *layers])
    training.compile_model(model, RATE)

    def once():
        seconds = []
        for work in (model.train_on_batch, model.test_on_batch):
            start = time.perf_counter()
            for _ in range(3):
                work(films, y)
            seconds.append((time.perf_counter() - start) / 3)
        return seconds

    return once


def our_grid(folder: Path):
    """Train the grid on features that are there already."""
    from cxrlib import training

    parts = read(folder)
    return lambda: len(training.fit_grid(*parts, LAYERS, NEURONS, EPOCHS, RATE, BATCH))


def our_course(folder: Path):
    """From the images to the grid, with an empty cache."""
    from cxrlib import backbone, training

    cache = folder / "cache"
    os.environ["CXR_CACHE"] = str(cache)
    films, y = np.load(folder / "films.npy"), np.load(folder / "targets.npy")
    weights = backbone.find_weights("ResNet50", "random", SEED)

    def once():
        shutil.rmtree(cache, ignore_errors=True)
        x = backbone.features(films, "ResNet50", SIZE, weights)
        return len(training.fit_grid(*divide(x, y), LAYERS, NEURONS, EPOCHS, RATE, BATCH))

    return once


def scikit_learn(folder: Path):
    """Fit the same heads with scikit-learn, which looks at no validation data meanwhile."""
    import warnings

    from sklearn.neural_network import MLPClassifier

    (x, y), _ = read(folder, standardised=True)
    how = {"batch_size": BATCH, "learning_rate_init": RATE, "alpha": 0, "max_iter": EPOCHS}

    def once():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that 20 epochs are few
            for depth, width in GRID:
                shape = (width,) * depth
                MLPClassifier(shape, **how, n_iter_no_change=EPOCHS, random_state=SEED).fit(x, y)

    return once


def jax_fused(folder: Path):
    """Compile a whole epoch of all heads: one product for all first layers, Adam, scores."""
    import jax
    import jax.numpy as jnp

    from cxrlib.packs import Head, glorot

    (x, y), (x_held, y_held) = (
        (jnp.asarray(a), jnp.asarray(b, jnp.float32)) for a, b in read(folder, standardised=True)
    )
    drawn = [glorot(Head(*shape), x.shape[1], 1, SEED) for shape in GRID]
    first = [np.concatenate([w[n] for w in drawn], axis=-1) for n in (0, 1)]
    start = (first, [w[2:] for w in drawn])
    ends = np.cumsum([width for _, width in GRID])[:-1]

    def losses(weights, x, y):
        (kernel, bias), rest = weights
        entering = jnp.split(jax.nn.relu(x @ kernel + bias), ends, axis=1)
        found = []
        for units, layers in zip(entering, rest, strict=True):
            for kernel, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
                units = jax.nn.relu(units @ kernel + bias)
            logits = (units @ layers[-2] + layers[-1])[:, 0]
            found.append(jnp.mean(jnp.logaddexp(0, logits) - y * logits))
        return jnp.stack(found)

    slopes = jax.grad(lambda *given: losses(*given).sum())

    def step(state, rows):
        count, weights, m, v = state
        g, count = slopes(weights, x[rows], y[rows]), count + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        pace = RATE * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        change = jax.tree.map(lambda w, m, v: w - pace * m / (jnp.sqrt(v) + 1e-7), weights, m, v)
        return (count, change, m, v), None

    @jax.jit
    def epoch(state, order):
        state, _ = jax.lax.scan(step, state, order)
        return state, losses(state[1], x, y), losses(state[1], x_held, y_held)

    def once():
        weights = jax.tree.map(jnp.asarray, start)
        state = (0, weights, *[jax.tree.map(jnp.zeros_like, weights) for _ in "mv"])
        random = np.random.default_rng(SEED)
        for _ in range(EPOCHS):
            state, _, held = epoch(state, random.permutation(TRAIN).reshape(-1, BATCH))
        return np.asarray(held)

    return once


def repeated(folder: Path, together: bool):
    """One head of 64 neurons, from five seeds on four folds."""
    from cxrlib.heads import Head, fit_heads

    data, _ = read(folder)
    heads, rows = [Head(1, 64)], np.arange(TRAIN)
    folds = [(rows[rows % FOLDS != fold], rows[rows % FOLDS == fold]) for fold in range(FOLDS)]

    def once():
        if together:
            runs = [fit_heads(data, None, heads, EPOCHS, SEEDS, folds)]
        else:
            runs = [fit_heads(data, None, heads, EPOCHS, [s], [f]) for s in SEEDS for f in folds]
        return [loss for run in runs for loss in run.history["val_loss"]]

    return once


def measure(folder: Path, rounds: int) -> dict:
    """Run everything; the rows by name."""
    make_films(folder)
    whole = {"features": keras_features, "course": our_course, "usual": usual}
    found = race({name: partial(setup, folder) for name, setup in whole.items()}, rounds)
    alone = {OURS: our_grid, SKLEARN: scikit_learn, JAX: jax_fused, KERAS: keras_heads}
    found += race({name: partial(setup, folder) for name, setup in alone.items()}, rounds)
    losses = found[-1].said
    apart = {"float32": losses, "float64": None}
    again = {kind: partial(differences, folder, kind, loss) for kind, loss in apart.items()}
    found += race({**again, "jax": partial(keras_heads, folder, "jax")}, 1, 0)
    both = {TOGETHER: True, IN_TURN: False}
    found += race({name: partial(repeated, folder, how) for name, how in both.items()}, rounds)
    return {row.name: row for row in found}


def goal(reached: bool, words: str) -> str:
    """Say whether a goal is met."""
    return f"{words}: {'met' if reached else '**missed**'}."


def lines(found: dict, names, base: str) -> list[list]:
    """Rows of a table: seconds, times as long as another, memory, rounds."""
    rows = []
    for name in names:
        row = found[name]
        numbers = [row.problem or f"{row.median:.2f}", f"{row.median / found[base].median:.2f}"]
        rows.append([name, *numbers, f"{row.peak:.0f}", len(row.seconds)])
    return rows


def report(found: dict, ceiling: float) -> str:
    """Put all that was measured into words and tables."""
    for name in ("features", "course", "usual", OURS, SKLEARN, KERAS, "float32", "float64"):
        if found[name].problem:
            raise SystemExit(f"{name}: {found[name].problem}")
    train_step, look = found["usual"].said
    steps = (-(-TRAIN // BATCH) * train_step + -(-HELD // BATCH) * look) * EPOCHS * len(GRID)
    ours, course = found[OURS].median, found["course"].median
    single, double = (found[kind].said for kind in ("float32", "float64"))
    equal = (single.max(axis=1) < 1e-4).sum()
    peer = found["features"].median + found[KERAS].median
    header = ["20 heads, 20 epochs, features cached", "s", "x ours", "peak MB", "rounds"]
    whole = [
        ["ours: `backbone.features`, `fit_grid`", f"{course:.1f}", "1", "measured"],
        ["features once, 20 Keras fits", f"{peer:.0f}", f"{peer / course:.1f}", "measured"],
        ["backbone inside the model", f"{steps:.0f}", f"{steps / course:.0f}", "estimated"],
    ]
    names = [name for name in (OURS, SKLEARN, JAX, KERAS) if name in found]
    share = ours / found[SKLEARN].median
    return f"""
`python benchmarks/heads.py`, {machine()}; {versions("numpy", "keras", "tensorflow", "jax")},
{versions("scikit-learn")}. Synthetic films ({TRAIN} to train, {HELD} to validate, {SIZE} x {SIZE},
seed {SEED}), ResNet50 with random weights, float32, batches of {BATCH}. Matrix products here run
at {ceiling:.0f} GFLOP/s at most. Medians of rounds in turn.

{table(header, lines(found, names, OURS))}

Ours scores every head on both parts after each epoch; Keras scores the validation part, and
scikit-learn neither. Compiling, which JAX does once, is not in its time.
{goal(share <= 0.5, f"Goal, half of scikit-learn's time; ours takes {share:.2f} of it")}

**The same losses as Keras's**, from the same start and with the same batches? In float64, where
rounding does not matter, no validation loss of the {len(GRID)} x {EPOCHS} differs by more than
{double.max():.0e}. {goal(double.max() < 1e-4, "Goal, 1e-4")} In float32, {single[:, 0].max():.0e}
after the first epoch; {equal} of the {len(GRID)} heads stay within 1e-4 through all epochs. In
the others a rounding somewhere, in Keras or here, tips a unit or a step of Adam the other way, and
from there on the two runs part (up to {single.max():.0e}). {among_backends(found)}

{table(["From the images to the grid", "s", "x ours", "how"], whole)}

The last row is an estimate: one step of training took {train_step:.2f} s and one of validation
{look:.2f} s, times {len(GRID)} heads, {EPOCHS} epochs, and the steps of each.
{goal(steps / course >= 300, f"Goal, 300 times the usual way; found {steps / course:.0f}")}
{goal(peer / course >= 3.5, f"Goal, 3.5 times the best peer; found {peer / course:.1f}")}

{
        table(
            ["One head of 64, 5 seeds x 4 folds", "s", "x together", "peak MB", "rounds"],
            lines(found, [TOGETHER, IN_TURN], TOGETHER),
        )
    }

The results of both are the same numbers, bit for bit
({found[TOGETHER].said == found[IN_TURN].said}); together, all cores have something to do.
"""


def among_backends(found: dict) -> str:
    """Say how far Keras on JAX is from Keras on TensorFlow."""
    row = found["jax"]
    if row.problem:
        return ""
    apart = np.abs(row.said - found[KERAS].said)
    equal = (apart.max(axis=1) < 1e-4).sum()
    return (
        f"So do Keras on JAX and Keras on TensorFlow, from that start too: {equal} of "
        f"{len(GRID)} heads stay within 1e-4, and the others part by up to {apart.max():.0e}."
    )


def main() -> None:
    """Measure, print, and write if asked."""
    given = options(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="cxr-heads-") as folder:
        found = measure(Path(folder), given.rounds)
    text = report(found, sgemm_ceiling())
    print(text)
    if given.write:
        write("heads", text)


if __name__ == "__main__":
    main()
