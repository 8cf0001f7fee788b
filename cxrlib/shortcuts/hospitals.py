"""What is left of a score at another hospital.

A logistic regression on the features of the images is trained on one cohort and tested on
another. It is quick, and shows the mechanism, not the best score possible.
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
from cxrlib.shortcuts.views import ShortcutError

PENALTY = 0.01  # scikit-learn's C: strong, as there are more features than images
TELLING = 12  # characters from which a file name is taken for one of its kind
PARTS = ("inside", "outside", "outside, recalibrated")
COLUMNS = ("image", "patient", "truth", "probability")


@dataclass(frozen=True)
class External:
    """What a model scores inside, and at another hospital.

    The 95 % intervals tell how far other patients would change the scores of this one model, not
    how far other training data would.

    Attributes
    ----------
    inside, outside : DataFrame
        As ``metrics.binary_scores`` gives them.
    drop : DataFrame
        Rows ``auc``, ``accuracy`` (calls at one half), and at the threshold ``sensitivity`` and
        ``specificity``; columns ``inside``, ``outside``, ``drop`` (inside minus outside), ``low``,
        ``high`` (patients of both cohorts vary independently; the threshold does not).
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
        ``part`` and what :func:`compare` takes, and ``recalibrated`` (NaN inside).
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
    inside, outside, classes, extract=None, seed=0, sensitivity=0.95
) -> External:
    """Cross-validate by patient inside, train on all of inside, test outside.

    Parameters
    ----------
    inside, outside : Cohort
        Of different patients; images of other labels than `classes` are left out.
    classes : (str, str)
        The second is the one to find.
    extract : callable, optional
        A frozen backbone, as in :func:`cxrlib.shortcuts.views.features`.
    seed : int
        Of the folds.
    sensitivity : float
        For which the threshold is chosen, on the predictions inside.

    Raises
    ------
    ShortcutError
        If a class is missing or has fewer than two patients in a cohort, or the cohorts share
        patients or file names.
    """
    inside, outside = choose(inside, outside, classes)
    described = [views.features(cohort, extract=extract) for cohort in (inside, outside)]
    tables = predict(inside, outside, classes, *described, seed)
    return compare(*tables, seed, sensitivity)


def compare(inside, outside, seed=0, sensitivity=0.95) -> External:
    """Compare a model's predictions inside with those outside, whatever made them.

    Both are tables with the columns ``image``, ``patient``, ``truth`` (0 or 1) and ``probability``
    (0 to 1), two patients or more a class; those inside must be of patients that the model was
    not trained on. A column ``fold`` says which of several models answered, for the area compares
    only what the same one saw. The rest is as in :func:`external_validation`, errors too.
    """
    for name, table in {"inside": inside, "outside": outside}.items():
        _check_table(table, name)
    inside, outside = (table.assign(fold=table.get("fold", 0)) for table in (inside, outside))
    parts = {"inside": inside, "outside": outside}
    outside = outside.assign(recalibrated=_recalibrated(outside, seed))
    scores = [
        metrics.binary_scores(*_columns(table), patients=table["patient"], fold=table["fold"])
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
        _drop(inside, outside, threshold),
        threshold,
        _at_threshold(parts, threshold),
        {
            # In ten bins some hold a film or two
            name: metrics.calibration(*each, bins=5, patients=table["patient"])
            for name, each, table in zip(PARTS, promised, (inside, outside, outside), strict=True)
        },
        pd.DataFrame(quality, index=list(PARTS), columns=["brier", "ece", "images"]),
        both[["part", *COLUMNS, "fold", "recalibrated"]].reset_index(drop=True),
    )


def choose(inside, outside, classes) -> tuple[Cohort, Cohort]:
    """Keep the two classes asked for, and refuse cohorts that cannot be compared."""
    classes = list(classes)
    if len(classes) != 2 or classes[0] == classes[1]:
        raise ShortcutError(f"Name two classes, the second the one to find, not {classes}.")
    for cohort in (inside, outside):
        patients = cohort.table.groupby("label")["patient"].nunique()
        for label in classes:
            if patients.get(label, 0) < 2:
                raise ShortcutError(
                    f"{cohort.name}: the class {label!r} has {patients.get(label, 0)} patient(s); "
                    f"it needs two, better fifty. It has {patients.to_dict()}."
                )
    chosen = [cohort.where(label=classes) for cohort in (inside, outside)]
    patients = [set(cohort.table["patient"]) for cohort in chosen]
    for what, (one, other) in {"patient": patients, "file": map(_file_names, chosen)}.items():
        if both := sorted(map(str, one & other)):
            raise ShortcutError(
                f"{len(both)} {what}(s), {both[0]!r} among them, stand in both {inside.name} and "
                f"{outside.name}; leave them out of one."
            )
    return tuple(chosen)


def _file_names(cohort) -> set[str]:
    """Names without folder and ending. Short ones, IM-0001 and the like, occur everywhere."""
    stems = {PurePath(str(name)).stem.lower() for name in cohort.table["image"]}
    return {stem for stem in stems if len(stem) >= TELLING}


def classifier(**options):
    """Build a network's head without a hidden layer; `options` are of LogisticRegression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, **options))


def held_out(model, features, truth, parts, weights=None) -> tuple[np.ndarray, np.ndarray]:
    """Probability of class 1 for each image, by the model of its fold, and the fold's number."""
    found, fold = np.empty(len(truth)), np.empty(len(truth), int)
    with one_thread():
        for number, (train, test) in enumerate(parts):
            given = None if weights is None else weights[train]
            model.fit(features[train], truth[train], logisticregression__sample_weight=given)
            found[test], fold[test] = model.predict_proba(features[test])[:, 1], number
    return found, fold


def predict(inside, outside, classes, seen, unseen, seed, weights=None, by_image=False):
    """Give tables of predictions: cross-validated inside, and outside by a model of all inside.

    The cohorts are as :func:`choose` leaves them, `seen` and `unseen`, shape (n, d), the features
    of their images, and the tables as :func:`compare` takes them, with a column ``fold`` inside.
    `weights`, shape (n,), are those of the images inside, for training; their table then has a
    column ``weight``. `by_image`
    divides images and not patients, which is leaky.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    truth = inside.targets(classes)
    patients = pd.factorize(inside.table["patient"])[0]
    groups = np.arange(len(truth)) if by_image else patients
    fewest = min(len(set(groups[truth == number])) for number in (0, 1))
    folds = StratifiedGroupKFold(min(5, fewest), shuffle=True, random_state=seed)
    parts = list(folds.split(seen, truth, groups))
    if any(len(set(truth[train])) < 2 for train, _ in parts):
        raise ShortcutError(f"{inside.name}: too few patients to cross-validate; add some.")
    model = classifier(C=PENALTY)
    told, fold = held_out(model, seen, truth, parts, weights)
    found = _table(inside, truth, told).assign(fold=fold)
    if weights is not None:
        found["weight"] = weights
    with one_thread():
        model.fit(seen, truth, logisticregression__sample_weight=weights)
    told = model.predict_proba(unseen)[:, 1]
    return found, _table(outside, outside.targets(classes), told)


def area(table, confidence: float = 0.95) -> metrics.Estimate:
    """Estimate the area under the ROC curve of predictions; a column ``weight`` counts images.

    Where a column ``fold`` says which model answered, only images that the same one saw compare.
    """
    truth, probability = metrics.check_binary(*_columns(table))
    groups = metrics.patient_numbers(table["patient"], len(table))
    given = {"fold": table.get("fold"), "weights": table.get("weight")}
    return metrics.area(truth, probability, groups, confidence, **given)


def _columns(table, column="probability"):
    return table["truth"].to_numpy(), table[column].to_numpy(dtype=float)


def _table(cohort, truth, probability):
    found = cohort.table[["image", "patient"]].reset_index(drop=True)
    return found.assign(truth=truth, probability=probability)


def _check_table(table, name) -> None:
    lacking = [column for column in COLUMNS if column not in table]
    if lacking:
        raise ShortcutError(f"The predictions {name} lack {', '.join(lacking)}.")
    truth, _ = metrics.check_binary(*_columns(table))
    counts = [table.loc[truth == value, "patient"].nunique() for value in (False, True)]
    if min(counts) < 2:
        raise ShortcutError(
            f"The predictions {name} are of {counts[0]} patient(s) without the class and of "
            f"{counts[1]} with it; give two or more of each."
        )


def _recalibrated(table, seed: int) -> np.ndarray:
    """Correct probabilities by Platt's method (1999), each half of the patients with the other.

    It needs labels from there, and changes no order of images within a half.
    """
    from scipy.special import logit
    from sklearn.model_selection import train_test_split

    truth, probability = metrics.check_binary(*_columns(table))
    groups = metrics.patient_numbers(table["patient"], len(table))
    label = np.array([truth[groups == number].max() for number in range(groups.max() + 1)])
    if np.bincount(label, minlength=2).min() < 2:
        raise ShortcutError("Recalibration needs two patients with and two without the class.")
    everyone = np.arange(len(label))
    halves = train_test_split(everyone, test_size=0.5, random_state=seed, stratify=label)
    score = logit(probability.clip(1e-6, 1 - 1e-6))[:, None]
    parts = [[np.isin(groups, half) for half in order] for order in (halves, halves[::-1])]
    return held_out(classifier(), score, truth, parts)[0]


def _drop(inside, outside, threshold) -> pd.DataFrame:
    both = {"auc": [area(table) for table in (inside, outside)]}
    calls = {"accuracy": (0.5, None), "sensitivity": (threshold, 1), "specificity": (threshold, 0)}
    for name, asked in calls.items():
        both[name] = [_right(table, *asked)[0] for table in (inside, outside)]
    rows = {}
    for name, (here, there) in both.items():
        drop = metrics.combine([here, there], [1, -1], paired=False)
        rows[name] = (here.value, there.value, *drop[:3])
    columns = ["inside", "outside", "drop", "low", "high"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _right(table, threshold: float, label=None) -> tuple[metrics.Estimate, int]:
    """Share of the images of a label, or of all, called what they are; and how many patients."""
    truth, probability = metrics.check_binary(*_columns(table))
    groups = metrics.patient_numbers(table["patient"], len(table))
    among = np.ones(len(truth), dtype=bool) if label is None else truth == label
    found = metrics.share(truth == (probability >= threshold), among, groups)
    return found, len(np.unique(groups[among]))


def _at_threshold(parts, threshold) -> pd.DataFrame:
    rows = []
    for part, table in parts.items():
        for metric, label in (("sensitivity", 1), ("specificity", 0)):
            found, patients = _right(table, threshold, label)
            rows.append((part, metric, *found[:3], found.n, patients))
    names = ["part", "metric", "value", "low", "high", "images", "patients"]
    return pd.DataFrame(rows, columns=names)
