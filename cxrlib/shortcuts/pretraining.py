"""What pretraining is worth: the same frozen network with learned and with random weights.

It is an old belief of this field that a network does better on few films if it has seen many
others before. Raghu et al. 2019, arXiv:1902.07208, found less in it than is believed. Here it is
tested: scores against the number of patients that a head learns from, for several backbones.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from cxrlib import augment, metrics, split, training
from cxrlib.compute import Head, fit_folds
from cxrlib.files import cache_folder, shipped, whole_file
from cxrlib.machine import start_keras
from cxrlib.phantom import make_cohort
from cxrlib.shortcuts import probes, views
from cxrlib.shortcuts.views import ShortcutError

SIDE = 96  # of the small backbone's input in pixels
BLOCKS = ((16, 5, 2), (32, 3, 1), (64, 3, 1), (128, 3, 1))  # filters, their side, stride
STATES = ("healthy", "pneumonia")  # what it learns: a task without COVID-19
EPOCHS, SEED = 12, 2000  # of that task; no lesson draws its phantoms from this seed
HEAD = Head(1, 64, learning_rate=3e-3)  # at the usual rate random features learn too slowly
NEW_HEAD = (200, 3e-3)  # fine-tuning begins with it: steps of Adam, learning rate
GOING_ON = (100, 1e-3)  # from there, smaller: what the block knows must not be washed away
WAYS = {"head alone": ("output",), "last block": ("output", "convolution_4")}  # what goes on
SHIPPED = 1000  # patients that the weights in data/pretrained.npz were learned from
VERSION = 1  # of the weights in the cache: raise it when network or task change


def build_network(seed: int = 0):
    """Build the small backbone with random weights: Model 1's blocks, and a mean over space.

    About 98,000 weights. From (n, SIDE, SIDE, 1), 0 to 255, to the probability (n, 1) of the
    second of STATES; the layer before the output gives 128 features.
    """
    keras = start_keras()
    layers = [keras.Input((SIDE, SIDE, 1)), keras.layers.Rescaling(1 / 128, -1)]
    how = {"padding": "same", "use_bias": False, "kernel_initializer": "he_normal"}
    training.set_seed(seed)
    for number, (filters, width, step) in enumerate(BLOCKS, 1):
        layers += [
            keras.layers.Conv2D(filters, width, step, name=f"convolution_{number}", **how),
            keras.layers.BatchNormalization(momentum=0.9, name=f"normalisation_{number}"),
            keras.layers.ReLU(name=f"relu_{number}"),
            keras.layers.MaxPooling2D(name=f"pooling_{number}"),
        ]
    layers[-1] = keras.layers.GlobalAveragePooling2D(name="features")
    return keras.Sequential([*layers, keras.layers.Dense(1, "sigmoid", name="output")])


def pretrained_network(patients: int = SHIPPED):
    """Build the small backbone with weights learned on phantoms of so many patients.

    Those of `SHIPPED` patients come with the course, the same on every Keras backend. With others
    the first call makes the phantoms and trains, a minute of processor time; then the weights are
    in the cache, a file for each backend, which is made again if it is damaged.
    """
    network, backend = build_network(), start_keras().backend.backend()
    path = shipped("data") / "pretrained.npz"
    if patients != SHIPPED:
        path = cache_folder("pretrained") / f"v{VERSION}-{backend}-{patients}.npz"
    try:
        with np.load(path, allow_pickle=False) as kept:
            network.set_weights(list(kept.values()))
    except Exception:  # NumPy, zipfile and Keras raise many kinds here
        if patients == SHIPPED:
            raise
        network = learned_on_phantoms(patients)
        save(network, path)
    return network


def learned_on_phantoms(patients: int):
    """Train the small backbone on phantoms of so many patients to tell STATES apart."""
    network = build_network()
    cohort = make_cohort(patients, (1, 1), STATES, size=SIDE, seed=SEED)
    some = cohort.take(np.arange(min(patients, 100)))  # scored, but nothing is chosen by it
    data = [(part.images, part.targets(STATES)) for part in (cohort, some)]
    training.fit(network, *data, EPOCHS, learning_rate=1e-3)
    return network


def save(network, path) -> None:
    """Write a network's weights into one file, whole or not at all."""
    with whole_file(path) as partial:
        np.savez(partial, *network.get_weights())


def features(network, images) -> np.ndarray:
    """Give what the network's last layer reads of images, uint8 (n, height, width).

    float32 (n, d). Nothing is kept: the small network sees some hundred films a second.
    """
    import keras

    body = keras.Sequential([keras.Input(network.input_shape[1:]), *network.layers[:-1]])
    return training.ask(body, training.batches(images, network.input_shape[1]))


def learning_curves(
    features: dict, cohort, classes, sizes, seeds=(0, 1, 2), folds=5, steps=200, against="random"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score heads on frozen features against the number of patients that they learn from.

    The folds are by patient, anew for each seed. Those whom a fold does not test stand in one
    order, the classes in turn; a head of size n learns from the first n. So a smaller training set
    is part of a larger one, and every size is tested on the same films, each once a seed. All
    heads are alike (HEAD) and take `steps` of Adam or a few more at every size, or few patients
    would also mean little training. Nothing is chosen, so nobody is kept for validation.

    Parameters
    ----------
    features : dict of ndarray, (n, d) float32
        By the backbone's name, a row an image; the others are compared with `against`.
    cohort : Cohort
        Originals of two classes, balanced (``split.balance``): no copies.
    sizes : sequence of int
        Patients to learn from. A ShortcutError if a fold leaves fewer than the largest.

    Returns
    -------
    (DataFrame, DataFrame)
        Scores, and differences from `against`: a row a backbone, size and metric (accuracy, auc),
        with value, low and high, means over the seeds, 95 % intervals by patient, and ``n``
        images. An interval takes the trained heads as given, so it leaves out that other patients
        might have been drawn for training, except as far as the seeds show it.
    """
    whole, y, found = augment.expand(cohort, 0), cohort.targets(classes), {}
    patients, rows = cohort.table["patient"].to_numpy(), np.arange(len(y))
    groups = metrics.patient_numbers(patients, len(y))
    for seed in seeds:
        divided = split.folds(whole, "clean", folds, seed)
        orders = [_in_turn(np.setdiff1d(rows, f.test), y, patients, seed) for f in divided]
        if max(sizes) > (most := min(map(len, orders))):
            raise ShortcutError(
                f"A fold leaves {most} patients for training, fewer than the size {max(sizes)}: "
                "give smaller sizes, more patients or more folds."
            )
        for size in sizes:
            few = [np.flatnonzero(np.isin(patients, order[:size])) for order in orders]
            ready = [split.Fold(some, some, f.test) for some, f in zip(few, divided, strict=True)]
            epochs = _epochs(steps, min(map(len, few)))
            for name, x in features.items():
                answers = fit_folds(x, y, ready, [HEAD], epochs, [seed])
                probability = answers.probability[0, 0, :, 1]
                right = metrics.share((probability >= 0.5) == y, rows >= 0, groups)
                area = metrics.area(y == 1, probability, groups, fold=answers.fold)
                for metric, estimate in {"accuracy": right, "auc": area}.items():
                    found.setdefault((name, size, metric), []).append(estimate)
    others = {key: found[against, *key[1:]] for key in found if key[0] != against}
    gains = {key: _mean(found[key], other) for key, other in others.items()}
    return _table({key: _mean(each) for key, each in found.items()}), _table(gains)


def fine_tuning(pretrained, tested: dict, classes, seed: int = 0):
    """Measure what it adds to release the last block, and what the features then give away.

    The patients are dealt into two halves; each half is tested by networks that learned from the
    other. A new head learns on the frozen features (NEW_HEAD). From there training goes on in two
    ways, with the same films, steps and learning rate (GOING_ON): the head alone, or the last
    convolution with it. So a gain is not what more training would have brought anyway. In both
    ways all batch normalisations stay as pretraining left them, averages and weights: they run as
    they do in prediction, and no film of a training batch speaks about another.

    Parameters
    ----------
    pretrained : keras.Model
        As :func:`pretrained_network` or :func:`build_network` gives it; it is left as it is.
    tested : dict of Cohort
        By name; originals of two classes. All learn from the first; the others show the same
        patients, row by row, under another condition, and are tested only.
    classes : sequence of str
        The two labels, the one that is looked for last.

    Returns
    -------
    (DataFrame, DataFrame)
        What the last block adds: by films and metric (accuracy, auc) value, low and high of
        the difference from the head alone, with 95 % interval by patient, and ``n`` images. And
        what a probe reads from the features of each tested half of the first cohort, as area
        under the ROC curve (value, low, high, n): the class with the lungs covered, and the
        scanner where the table has one; NaN where a half has too few patients of it.

    Raises
    ------
    ShortcutError
        If the cohorts show other patients.
    """
    films = next(iter(tested.values()))
    y, patients, half = films.targets(classes), films.table["patient"], np.zeros(len(films), int)
    if any(list(other.table["patient"]) != list(patients) for other in tested.values()):
        raise ShortcutError("The tested cohorts must show the same patients, row by row.")
    found, read = {(name, way): np.zeros(len(y)) for name in tested for way in WAYS}, {}
    for number, part in enumerate(split.folds(augment.expand(films, 0), "clean", 2, seed)):
        rest, half[part.test] = np.setdiff1d(np.arange(len(y)), part.test), number
        data = films.images[rest], y[rest]
        begun = _new_head(pretrained, data, seed)
        for way, names in WAYS.items():
            network = _go_on(begun, names, data, seed)
            for name, cohort in tested.items():
                answer = training.predict(network, cohort.images[part.test])
                found[name, way][part.test] = answer[:, 1]
            for asked, row in _read(network, films.take(part.test), classes).items():
                read[asked, number, way] = row
    gains = {}
    for name in tested:
        pair = found[name, "last block"], found[name, "head alone"]
        gain = metrics.binary_differences(y, *pair, patients=patients, folds=(half, half))
        gains[name] = gain.loc[["accuracy", "auc"], ["value", "low", "high", "n"]]
    read = pd.DataFrame(read, ["value", "low", "high", "n"]).T.rename_axis(["read", "half", "way"])
    return pd.concat(gains, names=["films", "metric"]), read.sort_index()


def _new_head(pretrained, data, seed: int):
    """Train a new output layer on the frozen features; the rest is a copy."""
    import keras

    network = build_network(seed)
    network.set_weights(pretrained.get_weights()[:-2] + network.get_weights()[-2:])
    (images, y), (steps, rate) = data, NEW_HEAD
    x, head = features(network, images), network.layers[-1]
    alone = keras.Sequential([keras.Input((x.shape[1],)), head])  # the layer itself, not a copy
    training.fit(alone, (x, y), (x, y), _epochs(steps, len(y)), rate, seed=seed)
    return network


def _go_on(begun, names, data, seed: int):
    """Train the layers of these names in a copy of a network."""
    network, (steps, rate) = build_network(seed), GOING_ON
    network.set_weights(begun.get_weights())
    for layer in network.layers:
        layer.trainable = layer.name in names
    training.fit(network, data, data, _epochs(steps, len(data[1])), rate, seed=seed)
    return network


def _read(network, films, classes) -> dict:
    """Probe what a network's features of films give away: area, low, high, images."""
    asked, found = {"class, lungs covered": ("lungs covered", films.targets(classes))}, {}
    if "scanner" in films.table:
        asked["scanner"] = ("whole image", pd.factorize(films.table["scanner"])[0])
    for name, (view, y) in asked.items():
        seen = views.features(films, view, partial(features, network))
        try:
            one = probes.probe(seen, y, films.table["patient"], permutations=1)  # its p is not used
            found[name] = (one.auc, one.low, one.high, one.images)
        except ShortcutError:  # too few patients of a class
            found[name] = (np.nan, np.nan, np.nan, len(films))
    return found


def _epochs(steps: int, films: int) -> int:
    """Epochs that take so many steps of Adam, or a few more."""
    return -(-steps // -(-films // HEAD.batch_size))


def _in_turn(rows, y, patients, seed: int) -> np.ndarray:
    """Put the patients of these rows into a random order in which the classes take turns."""
    table = pd.DataFrame({"patient": patients[rows], "y": y[rows]}).drop_duplicates("patient")
    table = table.sample(frac=1, random_state=seed)
    table["turn"] = table.groupby("y").cumcount()
    return table.sort_values(["turn", "y"])["patient"].to_numpy()


def _mean(ours, theirs=()) -> metrics.Estimate:
    """Mean over seeds of some estimates, less that of others on the same patients."""
    weights = [1 / len(ours)] * len(ours) + [-1 / len(ours)] * len(theirs)
    return metrics.combine([*ours, *theirs], weights)


def _table(estimates: dict) -> pd.DataFrame:
    columns = ["backbone", "patients", "metric", "value", "low", "high", "n"]
    return pd.DataFrame([(*key, *e[:3], e.n) for key, e in estimates.items()], columns=columns)
