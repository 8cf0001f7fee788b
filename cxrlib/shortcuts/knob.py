"""The knob: what a network learns as the scanner tells it more and more of the answer.

Phantoms (:mod:`cxrlib.phantom.radiograph`) come with any amount of *confounding*: at 0 the scanner
says nothing about the label, at 1 each label has a scanner of its own. Real films have fooled
networks in this way: Zech et al. 2018, doi:10.1371/journal.pmed.1002683; DeGrave et al. 2021,
doi:10.1038/s42256-021-00338-7. Everything here is synthetic.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
import pandas as pd

from cxrlib import explain, metrics, training
from cxrlib.cohort import Cohort
from cxrlib.compute import epochs as compiled
from cxrlib.machine import start_keras
from cxrlib.phantom import make_cohort, render
from cxrlib.shortcuts.views import ShortcutError

LEVELS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
LABELS = ("healthy", "covid")  # the second is the one to be found
INSIDE = ("digital", "computed")  # scanners: at level 1 the first sees the first label only
NEW = ("film", "portable", "enhanced")
AT_ONCE = 1024  # images that the small network is asked about together
ENDS = {"value": "", "low": "_low", "high": "_high"}  # of a score's columns


def build_cnn(side: int, seed: int = 0):
    """Build a network that learns phantoms of 64 to 96 pixels in a few epochs.

    Three convolutions, then an output that weighs every place by itself: from (n, side, side,
    1), 0 to 255, to (n, 1), 0 to 1. It comes compiled.
    """
    import keras
    from keras import layers

    training.set_seed(seed)
    blocks = []
    for filters, width, stride in ((8, 5, 2), (16, 3, 1), (32, 3, 1)):
        blocks += [
            layers.Conv2D(filters, width, stride, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.8),  # keeps up with some dozens of steps
            layers.ReLU(),
            layers.MaxPooling2D(),
        ]
    # Without the last pooling the maps, and so the heat, are finer.
    blocks[-1:] = [layers.Flatten(), layers.Dense(1, "sigmoid", name="output")]
    entry = [keras.Input((side, side, 1)), layers.Rescaling(1 / 128, -1)]
    model = training.compile_model(keras.Sequential([*entry, *blocks]), 2e-3)
    model.optimizer.build(model.trainable_variables)
    return model


def knob(
    levels=LEVELS, patients=150, test_patients=150, size=96, epochs=12, seeds=(0,), look=None
) -> pd.DataFrame:
    """Train and test a small network at every setting of the knob.

    It is tested twice on the same new patients: *inside*, with the scanners and the confounding of
    the training, as an internal validation would; and on *new* scanners that have nothing to do
    with the label, as another hospital would. Bodies, findings and initial weights are the same
    at every setting: only scanners change.

    Parameters
    ----------
    levels : sequence of float
        Settings of the knob, 0 to 1.
    patients, test_patients : int
        For training, and for both tests. One image each; nobody is in both.
    size, epochs : int
        Side of the images in pixels; passes through the training images.
    seeds : sequence of int
        Each has patients and initial weights of its own.
    look : callable, optional
        Called with each trained network and the cohort that tests it inside, to draw what it sees:
        the network itself is trained anew at the next setting.

    Returns
    -------
    DataFrame
        One row a seed and level: ``level``, ``seed``; ``auc_inside``, ``auc_new``,
        ``accuracy_inside``, ``accuracy_new`` (threshold 0.5) and ``drop`` (AUC inside minus
        new), each with a 95 % interval in ``..._low`` and ``..._high``; ``patients``,
        ``test_patients``; and what the network goes by, as the share (0 to 1, NaN where
        undefined) that belongs to the lungs or the finding:

        - ``heat_inside``, ``heat_new``: of Grad-CAM heat for the second label, on its images.
        - ``places_inside``, ``places_new``: the same with each place weighed by itself (HiResCAM,
          Draelos and Carin 2020, arXiv:2011.08891), as the last layer here does; Grad-CAM takes
          a mean over all places.
        - ``area_inside``, ``area_new``: of the image, what evenly spread heat would reach.
        - ``covered``: how far the logit moves with the lungs painted grey, against everything
          else painted grey. It works with any model, on pictures that no model has seen.
        - ``finding``: how far another finding in the same body moves the logit, against another
          scanner. Only phantoms have such twins; check the other three by it.

    Raises
    ------
    ShortcutError
        If levels or seeds do not make an experiment.
    """
    levels, seeds = [float(level) for level in levels], list(seeds)
    if not levels or not all(0 <= level <= 1 for level in levels):
        raise ShortcutError(f"levels are one or more numbers from 0 to 1, not {levels}.")
    if not seeds or len(set(levels)) < len(levels) or len(set(seeds)) < len(seeds):
        raise ShortcutError(f"Give each level and seed once, not levels={levels}, seeds={seeds}.")
    start_keras()
    rows, model, way = [], build_cnn(size), None
    for seed in seeds:
        mine, others = 2 * seed, 2 * seed + 1  # seeds of the training's and the tests' patients
        new = make_cohort(test_patients, (1, 1), LABELS, 0, NEW, size, others)
        twins, start = _twins(test_patients, size, others), _values(build_cnn(size, seed))
        for level in levels:
            train = make_cohort(patients, (1, 1), LABELS, level, INSIDE, size, mine)
            inside = make_cohort(test_patients, (1, 1), LABELS, level, INSIDE, size, others)
            way = _train(model, way, start, train, epochs, seed)
            found = _measure(model, inside, new, twins)
            rows.append({"level": level, "seed": seed} | found)
            if look:
                look(model, inside)
    return pd.DataFrame(rows).assign(patients=patients, test_patients=test_patients)


def _twins(patients: int, size: int, seed: int) -> np.ndarray:
    """Picture every patient with either finding on either scanner: (2, 2, patients, size, size)."""
    images = [
        render(label, scanner, (seed, patient), size).image
        for label, scanner, patient in product(LABELS, INSIDE, range(patients))
    ]
    return np.stack(images).reshape(2, 2, patients, size, size)


def _variables(model) -> list:
    return [*model.weights, *model.optimizer.variables]


def _values(model) -> list[np.ndarray]:
    """Copy what a model starts from: JAX takes the memory of what it trains."""
    return [np.array(variable.numpy()) for variable in _variables(model)]


def _train(model, way, start, train: Cohort, epochs: int, seed: int):
    """Train from the values of `start`, always the same model (a new one takes Keras longer).

    `way` is what trains it, which this returns: None where nothing has yet.
    """
    side, targets = train.images.shape[1], train.targets(LABELS).astype(np.float32)[:, None]
    data = training.batches(train.images, side, targets, 16, shuffle=True, seed=seed)
    if way is None:  # Keras prepares in the first epoch, which on JAX and PyTorch is irregular
        way = compiled.Steps(model) if compiled.fit_here(data) else model
        way.fit(data, epochs=1, verbose=0)
        data = training.batches(train.images, side, targets, 16, shuffle=True, seed=seed)
    for variable, value in zip(_variables(model), start, strict=True):
        variable.assign(value)
    if way is model:  # Keras shuffles the order of the batches once more
        training.set_seed(seed)
    way.fit(data, epochs=epochs, verbose=0)
    return way


def _measure(model, inside: Cohort, new: Cohort, twins) -> dict:
    """Say how well a network does on the same patients in both cohorts, and what it goes by."""
    truth = inside.targets(LABELS)
    said = [training.predict(model, cohort.images, AT_ONCE)[:, 1] for cohort in (inside, new)]
    row = both_scores(truth, *said)
    for place, cohort in (("inside", inside), ("new", new)):
        found = heat_inside_lungs(model, cohort.take(truth == 1))
        row |= {f"{name}_{place}": value for name, value in found.items()}
    return row | {"covered": covered_share(model, inside), "finding": finding_share(model, twins)}


def both_scores(truth, inside, new) -> dict:
    """AUC and accuracy of both tests, and the drop between them, with intervals."""
    row = {}
    for place, said in (("inside", inside), ("new", new)):
        scores = metrics.binary_scores(truth, said)
        for name, (column, end) in product(("auc", "accuracy"), ENDS.items()):
            row[f"{name}_{place}{end}"] = float(scores.loc[name, column])

    drop = metrics.binary_differences(truth, inside, new).loc["auc"]  # of the same patients
    return row | {f"drop{end}": float(drop[column]) for column, end in ENDS.items()}


def heat_inside_lungs(model, cohort: Cohort) -> dict[str, float]:
    """Mean share of the heat inside the lungs: ``heat``, ``places``, ``area`` as :func:`knob`'s."""
    base, derive = _reader(model, len(cohort))
    ready = training.batches(cohort.images, model.input_shape[1], batch_size=AT_ONCE)
    maps, lungs = training.ask(base, ready), cohort.masks["lungs"][:]
    slopes = derive(maps)
    weights = {"heat": slopes.mean(axis=(1, 2), keepdims=True), "places": slopes}
    found = {"area": float(lungs.mean())}
    for name, weight in weights.items():
        heat = np.maximum((weight * maps).sum(axis=-1), 0)
        inside = explain.mass_inside(explain.enlarge(heat, lungs.shape[1]), lungs)
        inside = inside[~np.isnan(inside)]
        found[name] = float(inside.mean()) if len(inside) else float("nan")
    return found


@lru_cache(1)
def _reader(model, films: int):
    """Prepare what makes a model's last maps, and what derives the second label's score by them."""
    base, tail = explain.split_at_last_convolution(model)
    return base, explain.Derivative(tail, (films, *base.output_shape[1:]), 1)


def covered_share(model, cohort: Cohort) -> float:
    """Occlusion: share of the lungs in what moves the logit when painted in the mean grey."""
    images, lungs = cohort.images[:], cohort.masks["lungs"][:]
    grey = images.mean(axis=(1, 2), keepdims=True).astype(np.uint8)
    before = _logit(model, images)
    without_lungs, without_rest = (
        np.abs(_logit(model, np.where(covered, grey, images)) - before).mean()
        for covered in (lungs, ~lungs)
    )
    return _share(without_lungs, without_rest)


def finding_share(model, twins) -> float:
    """Twins: share of the finding in what moves the logit, (2 labels, 2 scanners, n, ...)."""
    logits = _logit(model, twins.reshape(-1, *twins.shape[3:])).reshape(twins.shape[:3])
    finding, scanner = (logits[1] - logits[0]).mean(), (logits[:, 1] - logits[:, 0]).mean()
    # A finding that speaks against its own label is no evidence that was read.
    return _share(max(finding, 0), abs(scanner))


def _logit(model, images) -> np.ndarray:
    """Give the model's logits; beyond one in a million float32 is too coarse to tell."""
    probability = training.predict(model, images, AT_ONCE)[:, 1].clip(1e-6, 1 - 1e-6)
    return np.log(probability) - np.log1p(-probability)


def _share(part: float, rest: float) -> float:
    return float(part / (part + rest)) if part + rest > 0 else float("nan")


def collapse(table: pd.DataFrame) -> float | None:
    """Find where internal validation still looks fine while the new scanners are lost.

    It is the lowest level at which both hold, by means over the seeds:

    - inside, the AUC is not worse than at the lowest level: its interval reaches that AUC;
    - the drop to new scanners is larger than at the lowest level: its interval lies above 0
      and above the whole interval there. So new scanners alone do not explain it.

    Of several seeds, the ends of the intervals are averaged too: more seeds make the answer
    steadier, not stricter. More test patients narrow the intervals, and so find a smaller one.

    `table` is what :func:`knob` gives, with at least two levels, the lowest one for every seed;
    otherwise it raises a ShortcutError. None where there is no collapse.
    """
    lowest = table["level"].min()
    if table["level"].nunique() < 2 or (table.groupby("seed")["level"].min() > lowest).any():
        raise ShortcutError("A collapse is found by comparison: give each seed two levels or more.")
    means = table.groupby("level").mean(numeric_only=True)
    first = means.loc[lowest]
    fine = means["auc_inside_high"] >= first["auc_inside"]
    lost = means["drop_low"] > max(first["drop_high"], 0)
    held = means.index[fine & lost]
    return float(held[0]) if len(held) else None
