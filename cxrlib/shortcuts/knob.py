"""The knob: what a network learns as the scanner tells it more and more of the answer.

Phantoms (:mod:`cxrlib.phantom.radiograph`) come with any amount of *confounding*: at 0 the scanner
says nothing about the label, at 1 each label has a scanner of its own. At every setting a small
network is trained and tested twice on the same new patients: *inside*, with the scanners and the
confounding of the training, as an internal validation would; and on *new* scanners that have
nothing to do with the label, as another hospital would. What the network goes by is measured in
four ways, each a share from 0 to 1 that belongs to the lungs or to the finding:

``heat``
    Grad-CAM heat for the second label, on its images.
``places``
    The same with each place weighed by itself (HiResCAM, Draelos and Carin 2020,
    arXiv:2011.08891). Grad-CAM takes a mean over all places; here the last layer does not, so
    only HiResCAM divides its score among places as it does.
``covered``
    Occlusion: how far the score moves with the lungs painted grey, against everything else
    painted grey. It works with any model, on pictures that no model has seen.
``finding``
    Twins: how far another finding in the same body moves the score, against another scanner.
    Only phantoms have such twins; check the other three by it.

Real films have fooled networks in this way: Zech et al. 2018, doi:10.1371/journal.pmed.1002683;
DeGrave et al. 2021, doi:10.1038/s42256-021-00338-7. Everything here is synthetic.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from cxrlib import explain, metrics, training
from cxrlib.cohort import Cohort
from cxrlib.machine import start_keras
from cxrlib.metrics import bootstrap_rows, weighted_auc
from cxrlib.phantom import make_cohort, render

LEVELS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)


class KnobError(ValueError):
    """An experiment that cannot be made, or a table that cannot be read, as asked."""


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
    levels=LEVELS,
    patients: int = 150,
    test_patients: int = 150,
    size: int = 96,
    epochs: int = 12,
    labels=("healthy", "covid"),
    seeds=(0,),
    inside_scanners=("digital", "computed"),
    new_scanners=("film", "portable", "enhanced"),
    progress: bool = True,
) -> pd.DataFrame:
    """Train and test a network at every setting of the knob.

    Bodies, findings and initial weights are the same at every setting: only scanners change.

    Parameters
    ----------
    levels : sequence of float
        Settings of the knob, 0 to 1.
    patients, test_patients : int
        For training, and for both tests. One image each; nobody is in both.
    size : int
        Side of the images in pixels.
    epochs : int
    labels : (str, str)
        Two of the phantom's findings; the second is the one to be found.
    seeds : sequence of int
        Each has patients and initial weights of its own.
    inside_scanners, new_scanners : sequence of str
        Out of ``phantom.SCANNERS``. At level 1 the first inside scanner sees the first label
        only, the second the second, and any further one is idle.
    progress : bool
        Show a progress bar.

    Returns
    -------
    DataFrame
        One row a seed and level: ``level``, ``seed``; ``auc_inside``, ``auc_new``,
        ``accuracy_inside``, ``accuracy_new`` (threshold 0.5) and ``drop`` (AUC inside minus
        new), each with a 95 % interval in ``..._low`` and ``..._high``; ``heat_inside``,
        ``heat_new``, ``places_inside``, ``places_new``, ``covered``, ``finding`` (see above;
        NaN where undefined); ``area_inside``, ``area_new`` (the lungs' share of the image:
        what evenly spread heat would reach); ``patients``, ``test_patients``.

    Raises
    ------
    KnobError
        If levels, seeds, labels or scanners do not make an experiment.
    PhantomError
        If the phantoms cannot be made, such as for an unknown scanner.
    """
    from tqdm.auto import tqdm

    levels, seeds, labels = [float(level) for level in levels], list(seeds), tuple(labels)
    known, new = tuple(inside_scanners), tuple(new_scanners)
    _check(levels, seeds, labels, known, new)
    start_keras()
    rows, model = [], None
    for seed in seeds:
        mine, others = 2 * seed, 2 * seed + 1  # seeds of the training's and the tests' patients
        strangers = make_cohort(test_patients, (1, 1), labels, 0, new, size, others)
        twins = _twins(test_patients, labels, known[:2], size, others)
        for level in tqdm(levels, f"knob, seed {seed}", unit="network", disable=not progress):
            train = make_cohort(patients, (1, 1), labels, level, known, size, mine)
            inside = make_cohort(test_patients, (1, 1), labels, level, known, size, others)
            model = _train(model, train, train.targets(labels), epochs, seed)
            found = _measure(model, inside.targets(labels), inside, strangers, twins)
            rows.append({"level": level, "seed": seed} | found)
    return pd.DataFrame(rows).assign(patients=patients, test_patients=test_patients)


def _check(levels, seeds, labels, inside, new):
    if not levels or not all(0 <= level <= 1 for level in levels):
        raise KnobError(f"levels are one or more numbers from 0 to 1, not {levels}.")
    if not seeds or len(set(levels)) < len(levels) or len(set(seeds)) < len(seeds):
        raise KnobError(f"Give each level and seed once, not levels={levels}, seeds={seeds}.")
    if len(labels) != 2 or labels[0] == labels[1]:
        raise KnobError(f"labels are two findings, such as 'healthy' and 'covid', not {labels}.")
    if len(inside) < 2 or not new:
        raise KnobError(
            f"{len(inside)} inside_scanners cannot give away 2 labels, or {len(new)} new_scanners "
            "cannot test it: name at least 2 and 1."
        )
    if both := sorted(set(inside) & set(new)):
        raise KnobError(f"{both} cannot be new: name other new_scanners than inside_scanners.")


def _twins(patients: int, labels, scanners, size: int, seed: int) -> np.ndarray:
    """Picture every patient with either finding on either scanner: (2, 2, patients, size, size)."""
    images = [
        render(label, scanner, (seed, patient), size).image
        for label, scanner, patient in product(labels, scanners, range(patients))
    ]
    return np.stack(images).reshape(2, 2, patients, size, size)


def _train(model, train: Cohort, y, epochs: int, seed: int):
    """Train from the seed's initial weights, in the model of the level before if there is one.

    Preparing a new model takes Keras longer than training one of this size.
    """
    side, targets = train.images.shape[1], y.astype(np.float32)[:, None]
    data = training.batches(train.images, side, targets, 16, shuffle=True, seed=seed)
    if model is None:  # Keras prepares in the first epoch, which on JAX and PyTorch is irregular
        model = build_cnn(side, seed)
        model.fit(data, epochs=1, verbose=0)
        data = training.batches(train.images, side, targets, 16, shuffle=True, seed=seed)
    fresh = build_cnn(side, seed)
    mine = [*model.weights, *model.optimizer.variables]
    for variable, first in zip(mine, [*fresh.weights, *fresh.optimizer.variables], strict=True):
        variable.assign(first)
    model.fit(data, epochs=epochs, verbose=0)
    return model


def _measure(model, truth, inside: Cohort, new: Cohort, twins) -> dict:
    """Say how well a network does on the same patients in both cohorts, and what it goes by."""
    said = training.predict(model, inside.images)[:, 1]
    row = both_scores(truth, said, training.predict(model, new.images)[:, 1])
    for place, cohort in (("inside", inside), ("new", new)):
        found = heat_inside_lungs(model, cohort.take(truth == 1))
        row |= {f"{name}_{place}": value for name, value in found.items()}
    return row | {"covered": covered_share(model, inside), "finding": finding_share(model, twins)}


def evidence(model, images) -> np.ndarray:
    """Give the model's logits; beyond one in a million float32 is too coarse to tell."""
    probability = np.clip(training.predict(model, images)[:, 1], 1e-6, 1 - 1e-6)
    return np.log(probability) - np.log1p(-probability)


def _share(part: float, rest: float) -> float:
    return float(part / (part + rest)) if part + rest > 0 else float("nan")


def covered_share(model, cohort: Cohort) -> float:
    """Occlusion: share of the lungs in what moves the logit when painted in the mean grey."""
    images, lungs = cohort.images[:], cohort.masks["lungs"][:]
    grey = images.mean(axis=(1, 2), keepdims=True).astype(np.uint8)
    before = evidence(model, images)
    without_lungs, without_rest = (
        np.abs(evidence(model, np.where(covered, grey, images)) - before).mean()
        for covered in (lungs, ~lungs)
    )
    return _share(without_lungs, without_rest)


def finding_share(model, twins) -> float:
    """Twins: share of the finding in what moves the logit, (2 labels, 2 scanners, n, ...)."""
    logits = evidence(model, twins.reshape(-1, *twins.shape[3:])).reshape(twins.shape[:3])
    finding, scanner = (logits[1] - logits[0]).mean(), (logits[:, 1] - logits[:, 0]).mean()
    # A finding that speaks against its own label is no evidence that was read.
    return _share(max(finding, 0), abs(scanner))


def both_scores(truth, inside, new) -> dict:
    """AUC and accuracy of both tests, and the drop between them, with intervals."""
    row, known = {}, truth == 1
    for place, said in (("inside", inside), ("new", new)):
        scores = metrics.binary_scores(truth, said)
        for name in ("auc", "accuracy"):
            for column, end in (("value", ""), ("low", "_low"), ("high", "_high")):
                row[f"{name}_{place}{end}"] = float(scores.loc[name, column])

    def drop(weights):  # the same patients stand in both tests: one weight for both
        return weighted_auc(weights, known, inside) - weighted_auc(weights, known, new)

    found = bootstrap_rows({"drop": drop}, np.arange(len(truth)), "patient", 0.95, 1000, 0)["drop"]
    return row | dict(zip(("drop", "drop_low", "drop_high"), found[:3], strict=True))


def heat_inside_lungs(model, cohort: Cohort) -> dict[str, float]:
    """Mean share of the heat for the positive class that lies inside the lungs.

    Returns ``heat`` (Grad-CAM) and ``places`` (HiResCAM), NaN where no image has any heat, and
    ``area``, the lungs' share of the images; all 0 to 1.
    """
    import keras

    base, tail = explain.split_at_last_convolution(model)
    ready = training.batches(cohort.images, model.input_shape[1])
    maps = [keras.ops.convert_to_numpy(base(ready[n][0])) for n in range(len(ready))]
    maps, lungs = np.concatenate(maps), cohort.masks["lungs"][:]
    slopes = explain.gradients(tail, maps, 1)
    weights = {"heat": slopes.mean(axis=(1, 2), keepdims=True), "places": slopes}
    found = {"area": float(lungs.mean())}
    for name, weight in weights.items():
        heat = np.maximum((weight * maps).sum(axis=-1), 0)
        inside = explain.mass_inside(explain.enlarge(heat, lungs.shape[1]), lungs)
        inside = inside[~np.isnan(inside)]
        found[name] = float(inside.mean()) if len(inside) else float("nan")
    return found


def collapse(table: pd.DataFrame) -> float | None:
    """Find where internal validation still looks fine while the new scanners are lost.

    It is the lowest level at which both hold, by means over the seeds:

    - inside, the AUC is not worse than at the lowest level: its interval reaches that AUC;
    - the drop to new scanners is larger than at the lowest level: its interval lies above 0
      and above the whole interval there. So new scanners alone do not explain it.

    No score is named that would be good or bad enough. Of several seeds, the ends of the
    intervals are averaged too: more seeds make the answer steadier, not stricter. More test
    patients narrow the intervals, and so find a smaller collapse.

    Parameters
    ----------
    table : DataFrame
        As :func:`knob` gives it, with at least two levels, the lowest one for every seed.

    Returns
    -------
    float or None
        The level; None where there is none.

    Raises
    ------
    KnobError
        If there is nothing to compare with.
    """
    lowest = table["level"].min()
    if table["level"].nunique() < 2 or (table.groupby("seed")["level"].min() > lowest).any():
        raise KnobError("A collapse is found by comparison: give two levels or more to each seed.")
    means = table.groupby("level")[
        ["auc_inside", "auc_inside_high", "drop_low", "drop_high"]
    ].mean()
    first = means.loc[lowest]
    fine = means["auc_inside_high"] >= first["auc_inside"]
    lost = means["drop_low"] > max(first["drop_high"], 0)
    held = means.index[fine & lost]
    return float(held[0]) if len(held) else None
