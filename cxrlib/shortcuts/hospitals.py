"""What is left of a score at another hospital.

A logistic regression on what a view (or a frozen backbone) gives of each image is trained on one
cohort and tested on another. It is quick, and shows the mechanism, not the best score possible.
What helps there is asked in :mod:`cxrlib.shortcuts.remedies`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import pandas as pd

from cxrlib import metrics
from cxrlib.cohort import Cohort
from cxrlib.machine import one_thread
from cxrlib.shortcuts import views

PENALTY = 0.01  # scikit-learn's C: strong, as there are more features than images
TELLING = 12  # characters from which a file name is taken for one of its kind
PARTS = ("inside", "outside", "outside, recalibrated")
COLUMNS = ("image", "patient", "truth", "probability")


class TransferError(ValueError):
    """Two cohorts, or two tables of predictions, that cannot be compared."""


@dataclass(frozen=True)
class External:
    """What a model scores inside, and at another hospital.

    The intervals hold for this one model: they tell how far other patients would change the
    scores, not how far other training data would.

    Attributes
    ----------
    inside, outside : DataFrame
        As ``metrics.binary_scores`` gives them.
    drop : DataFrame
        Rows ``auc`` and ``accuracy``; columns ``inside``, ``outside``, ``drop`` (inside minus
        outside), ``low``, ``high`` (patients of both cohorts drawn independently).
    threshold : float
        The largest one that reaches the sensitivity asked for inside.
    at_threshold : DataFrame
        ``part``, ``metric`` (sensitivity, specificity), ``value``, ``low``, ``high``, ``images``,
        ``patients``. The sensitivity inside was chosen, so it is no news.
    calibration : dict of str to DataFrame
        For `PARTS`, as ``metrics.calibration`` gives them.
    quality : DataFrame
        Rows `PARTS`; ``brier`` and ``ece`` (expected calibration error), 0 is best; ``images``.
    predictions : DataFrame
        ``part`` (inside, outside), ``image``, ``patient``, ``truth`` (0 or 1), ``probability``,
        and ``recalibrated`` (NaN inside).
    """

    inside: pd.DataFrame
    outside: pd.DataFrame
    drop: pd.DataFrame
    threshold: float
    at_threshold: pd.DataFrame
    calibration: dict[str, pd.DataFrame]
    quality: pd.DataFrame
    predictions: pd.DataFrame


def external_validation(
    inside: Cohort,
    outside: Cohort,
    classes,
    extract=None,
    by_view: str = "whole image",
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 1000,
    sensitivity: float = 0.95,
) -> External:
    """Cross-validate by patient inside, train on all of inside, test outside.

    Parameters
    ----------
    inside, outside : Cohort
        Of different patients; images of other labels than `classes` are left out.
    classes : (str, str)
        The second is the one to find.
    extract, by_view
        As ``extract`` and ``view`` of :func:`cxrlib.shortcuts.views.features`.
    confidence, seed, resamples
        Of the bootstrap over patients.
    sensitivity : float
        For which the threshold is chosen, on the predictions inside.

    Returns
    -------
    External

    Raises
    ------
    TransferError
        If a class is missing or has fewer than two patients in a cohort, or the cohorts share
        patients or file names.
    """
    inside, outside = choose(inside, outside, classes)
    if by_view == "file":
        raise TransferError("The facts of files differ in kind between cohorts; name another view.")
    described = [views.features(cohort, by_view, extract) for cohort in (inside, outside)]
    tables = predict(inside, outside, classes, *described, seed)
    return compare(*tables, confidence, seed, resamples, sensitivity)


def compare(inside, outside, confidence=0.95, seed=0, resamples=1000, sensitivity=0.95) -> External:
    """Compare a model's predictions inside with those outside, whatever made them.

    Parameters
    ----------
    inside, outside : DataFrame
        Columns ``image``, ``patient``, ``truth`` (0 or 1) and ``probability`` (0 to 1). Those
        inside must be of patients that the model was not trained on.
    confidence, seed, resamples, sensitivity
        As in :func:`external_validation`.

    Returns
    -------
    External

    Raises
    ------
    TransferError
        If a column or a class is missing, or a class has fewer than two patients.
    """
    parts = {"inside": inside, "outside": outside}
    for name, table in parts.items():
        _check_table(table, name)
    metrics.check_confidence(confidence)
    mended = recalibrate(*_columns(outside), outside["patient"], seed=seed)
    outside = outside.assign(recalibrated=mended)
    options = {"confidence": confidence, "resamples": resamples, "seed": seed}
    scores = [
        metrics.binary_scores(*_columns(table), patients=table["patient"], **options)
        for table in parts.values()
    ]
    threshold = metrics.threshold_for(*_columns(inside), sensitivity)
    promised = [_columns(inside), _columns(outside), _columns(outside, "recalibrated")]
    quality = [
        (metrics.brier(*each), metrics.expected_calibration_error(*each), len(each[0]))
        for each in promised
    ]
    both = pd.concat([inside.assign(part="inside"), outside.assign(part="outside")])
    return External(
        *scores,
        _drop(parts, **options),
        threshold,
        _at_threshold(parts, threshold, **options),
        {name: metrics.calibration(*each) for name, each in zip(PARTS, promised, strict=True)},
        pd.DataFrame(quality, index=list(PARTS), columns=["brier", "ece", "images"]),
        both[["part", *COLUMNS, "recalibrated"]].reset_index(drop=True),
    )


def recalibrate(y_true, probability, patients, seed: int = 0) -> np.ndarray:
    """Correct probabilities by Platt's method, each half of the patients with the other half.

    A logistic curve from the old to the new probability (Platt 1999), fitted on patients other
    than those it is applied to. It needs labels from the other hospital, and it changes what a
    probability promises, not the order of the images within a half.

    Parameters
    ----------
    y_true, probability, patients : array_like, shape (n,)
    seed : int
        Of the division in halves.

    Returns
    -------
    ndarray, shape (n,), 0 to 1

    Raises
    ------
    TransferError
        If there are fewer than two patients with the class, or without it.
    """
    from scipy.special import logit
    from sklearn.model_selection import train_test_split

    truth, probability = metrics.check_binary(y_true, probability)
    groups, _ = metrics.patient_numbers(patients, len(truth))
    label = np.array([truth[groups == number].max() for number in range(groups.max() + 1)])
    if np.bincount(label, minlength=2).min() < 2:
        raise TransferError("Recalibration needs two patients with and two without the class.")
    halves = train_test_split(np.arange(len(label)), test_size=0.5, random_state=seed,
                              stratify=label)  # fmt: skip
    score = logit(probability.clip(1e-6, 1 - 1e-6))[:, None]
    found = np.empty(len(truth))
    for fitted, applied in (halves, halves[::-1]):
        learn, use = np.isin(groups, fitted), np.isin(groups, applied)
        curve = _model().fit(score[learn], truth[learn])
        found[use] = curve.predict_proba(score[use])[:, 1]
    return found


def choose(inside, outside, classes) -> tuple[Cohort, Cohort]:
    """Keep the classes asked for, and refuse cohorts that cannot be compared."""
    classes = list(classes)
    if len(set(classes)) != 2:
        raise TransferError(f"Name two classes, the second the one to find, not {classes}.")
    for cohort in (inside, outside):
        patients = cohort.table.groupby("label")["patient"].nunique()
        for label in classes:
            if patients.get(label, 0) < 2:
                raise TransferError(
                    f"{cohort.name}: the class {label!r} has {patients.get(label, 0)} patient(s); "
                    f"it needs two, better fifty. It has {patients.to_dict()}."
                )
    inside, outside = inside.where(label=classes), outside.where(label=classes)
    both = set(inside.table["patient"]) & set(outside.table["patient"])
    if both:
        raise TransferError(
            f"{len(both)} patient(s), {sorted(map(str, both))[0]!r} among them, stand in both "
            f"{inside.name} and {outside.name}; leave them out of one."
        )
    both = _file_names(inside) & _file_names(outside)
    if both:
        raise TransferError(
            f"{len(both)} file(s), {sorted(both)[0]!r} among them, are in both {inside.name} and "
            f"{outside.name}; they seem to be the same images. Leave them out of one."
        )
    return inside, outside


def _file_names(cohort) -> set[str]:
    """Names without folder and ending. Short ones, IM-0001 and the like, occur everywhere."""
    stems = {PurePath(str(name)).stem.lower() for name in cohort.table["image"]}
    return {stem for stem in stems if len(stem) >= TELLING}


def _check_table(table, name) -> None:
    lacking = [column for column in COLUMNS if column not in table]
    if lacking:
        raise TransferError(f"The predictions {name} lack {', '.join(lacking)}.")
    truth, _ = metrics.check_binary(table["truth"], table["probability"])
    for value in (False, True):
        patients = table.loc[truth == value, "patient"].nunique()
        if patients < 2:
            raise TransferError(
                f"The predictions {name} have {patients} patient(s) with truth {int(value)}; "
                "give two or more."
            )


def _columns(table, column="probability"):
    return table["truth"].to_numpy(), table[column].to_numpy(dtype=float)


def _model(penalty: float = 1.0):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=2000))


def predict(inside, outside, classes, seen, unseen, seed, weights=None, by_image=False):
    """Give tables of predictions: cross-validated inside, and outside by a model of all inside.

    Parameters
    ----------
    inside, outside : Cohort
        As :func:`choose` leaves them.
    classes : (str, str)
    seen, unseen : ndarray, shape (n, d)
        Features of the images inside and outside.
    seed : int
        Of the folds.
    weights : ndarray, shape (n,), optional
        Of the images inside, for training; the table of them then has a column ``weight``.
    by_image : bool
        Divide images and not patients, which is leaky.

    Returns
    -------
    inside, outside : DataFrame
        As :func:`compare` takes them.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    truth = inside.targets(classes)
    patients = inside.table["patient"].to_numpy()
    groups = np.arange(len(truth)) if by_image else pd.factorize(patients)[0]
    fewest = min(len(set(groups[truth == number])) for number in (0, 1))
    folds = StratifiedGroupKFold(min(5, fewest), shuffle=True, random_state=seed)
    given = np.ones(len(truth)) if weights is None else weights
    probability = np.empty(len(truth))
    for train, test in folds.split(seen, truth, groups):
        if len(set(truth[train])) < 2:
            raise TransferError(f"{inside.name}: too few patients to cross-validate; add some.")
        model = _fitted(seen[train], truth[train], given[train])
        probability[test] = model.predict_proba(seen[test])[:, 1]
    found = _table(inside, truth, probability)
    if weights is not None:
        found["weight"] = weights
    told = _fitted(seen, truth, given).predict_proba(unseen)[:, 1]
    return found, _table(outside, outside.targets(classes), told)


def _fitted(described, truth, weights):
    with one_thread():
        return _model(PENALTY).fit(described, truth, logisticregression__sample_weight=weights)


def _table(cohort, truth, probability):
    found = cohort.table[["image", "patient"]].reset_index(drop=True)
    return found.assign(truth=truth, probability=probability)


def resampled(table, measure, resamples, seed) -> np.ndarray:
    """Measure all predictions of a table, then each resample of their patients.

    Parameters
    ----------
    table : DataFrame
        As :func:`predict` gives it; a column ``weight`` counts in every resample.
    measure : callable
        From weights, shape (resamples, n), truth and probability to scores, such as
        :func:`cxrlib.metrics.weighted_auc`.
    resamples : int
    seed : int or sequence of int

    Returns
    -------
    ndarray, shape (1 + resamples,)
    """
    truth, probability = metrics.check_binary(*_columns(table))
    groups, _ = metrics.patient_numbers(table["patient"], len(table))
    drawn = metrics.draw_patients(groups, resamples, np.random.default_rng(seed))
    drawn = np.vstack([np.ones(len(table)), drawn])
    if "weight" in table:
        drawn = drawn * table["weight"].to_numpy()
    return measure(drawn, truth, probability)


def interval(values, confidence) -> tuple[float, float, float]:
    """Give the first value, with the percentile interval of the others."""
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.nanquantile(values[1:], tails)
    return float(values[0]), float(low), float(high)


def _accuracy(drawn, truth, probability) -> np.ndarray:
    return drawn @ (truth == (probability >= 0.5)) / drawn.sum(axis=1)


def _drop(parts, confidence, resamples, seed) -> pd.DataFrame:
    rows = {}
    for name, measure in (("auc", metrics.weighted_auc), ("accuracy", _accuracy)):
        # Another seed outside: the two sets of patients are independent
        here = resampled(parts["inside"], measure, resamples, seed)
        there = resampled(parts["outside"], measure, resamples, [seed, 1])
        values = (here[0], there[0], *interval(here - there, confidence))
        rows[name] = dict(zip(("inside", "outside", "drop", "low", "high"), values, strict=True))
    return pd.DataFrame(rows).T


def _at_threshold(parts, threshold, confidence, resamples, seed) -> pd.DataFrame:
    """Sensitivity and specificity with intervals that draw patients."""
    rows = []
    for part, table in parts.items():
        truth, probability = metrics.check_binary(*_columns(table))
        for metric, kept, right in (
            ("sensitivity", truth, probability >= threshold),
            ("specificity", ~truth, probability < threshold),
        ):
            hits = right[kept]
            groups, drawn = metrics.patient_numbers(table["patient"][kept], len(hits))
            patients = int(groups.max() + 1)
            measure = {"share": lambda w, hits=hits: w @ hits / w.sum(axis=1)}
            found = metrics.bootstrap_rows(measure, groups, drawn, confidence, resamples, seed)
            value, low, high = found["share"][:3]
            if value in (0, 1):  # no resample differs; Wilson's interval of patients still can
                low, high = metrics.wilson(int(value) * patients, patients, confidence)
            rows.append((part, metric, value, low, high, len(hits), patients))
    names = ["part", "metric", "value", "low", "high", "images", "patients"]
    return pd.DataFrame(rows, columns=names)
