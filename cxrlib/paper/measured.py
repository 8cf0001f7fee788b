"""What runs measured of each claim: from predictions, histories and counts to verdicts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxrlib.metrics import bootstrap, patient_numbers, percentiles, weighted_f1
from cxrlib.paper import claims, verdicts
from cxrlib.paper.verdicts import LEVELS, Interval, Measurement, Verdict, effective_n, f1_of
from cxrlib.results import Result

MEASURES = ("accuracy", "precision", "recall", "f1")
CLASSES = ("healthy", "pneumonia", "covid")  # of Table II
RESAMPLES = 1000
FIGURE2 = "Fig. 2"  # the table in which a notebook records its counts of CheXpert's labels


def judge(seeds: list[Result], protocol: str) -> dict[str, Verdict]:
    """Judge what the paper claims about one of its models, under one protocol.

    Parameters
    ----------
    seeds : list of Result
        Of one notebook, one for each seed.
    protocol : {"paper", "clean"}

    Returns
    -------
    dict of str to Verdict
        By claim; empty where the notebook is about none of the models, or has no labelled
        predictions under this protocol.
    """
    number = seeds[0].model_number
    mine = [_of_protocol(one, protocol) for one in seeds]
    if number is None or any(part is None for part in mine):
        return {}
    why = next((one.why_not_comparable for one in seeds if not one.comparable), "")
    found = {
        name: verdicts.verdict(
            name,
            measure(mine, metric, predicted),
            why,
            lower_is_better=predicted is not None and predicted != metric,
        )
        for name, metric, predicted in _claims_on(number)
    }
    return found | (_judge_histories(seeds, protocol, why) if number == 1 else {})


def _of_protocol(one: Result, protocol: str) -> pd.DataFrame | None:
    """Predictions under a protocol; None where there are none that could be scored."""
    if one.predictions is None:
        return None
    mine = one.predictions[one.predictions["protocol"] == protocol]
    return None if mine["label"].isna().all() else mine


def _claims_on(number: int):
    """Claims on one model's test results: id, and what :func:`measure` wants to know."""
    for metric in MEASURES:
        yield f"table1.model{number}.{metric}", metric, None
    if number == 4:
        for actual in CLASSES:
            for predicted in CLASSES:
                yield f"table2.{actual}.{predicted}", actual, predicted


def _judge_histories(seeds: list[Result], protocol: str, why: str) -> dict[str, Verdict]:
    """Judge Model 1's training and validation accuracy by the last epochs."""
    found = {}
    histories = [one.histories.get(protocol, pd.DataFrame()) for one in seeds]
    for part, column in {"train": "accuracy", "validation": "val_accuracy"}.items():
        if all(column in history and len(history) for history in histories):
            ends = tuple(float(history[column].iloc[-1]) for history in histories)
            name = f"model1.{part}_accuracy"
            found[name] = verdicts.verdict(name, Measurement(ends, n=0), why)
    return found


def judge_figure2(one: Result) -> dict[str, Verdict]:
    """Compare the counts of CheXpert's labels, where a notebook counted them, cell by cell."""
    counts = one.tables.get(FIGURE2)
    printed = claims.load().query("place == 'Fig. 2'")
    answers = ["positive", "uncertain", "negative"]
    if counts is None or not set(answers) <= set(counts) or 3 * len(counts) != len(printed):
        return {}
    cells = counts[answers].to_numpy().ravel()  # in CheXpert's order, which is the paper's
    return {
        name: verdicts.exact(name, int(count))
        for name, count in zip(printed["id"], cells, strict=True)
    }


def measure(seeds, metric: str, predicted: str | None = None) -> Measurement:
    """Measure one result of a model from its predictions under one protocol.

    Parameters
    ----------
    seeds : sequence of DataFrame
        For each seed the columns ``label``, ``predicted``, ``patient`` and ``image``, as
        :func:`cxrlib.results.predictions` makes them; images without a label are left out.
    metric : str
        ``accuracy``; ``precision``, ``recall`` or ``f1`` of COVID-19 against the rest; or a
        label, with `predicted`: the share of its images that were called so (Table II).
    predicted : str, optional

    Returns
    -------
    Measurement
    """
    shares, patients = [], []
    for predictions in seeds:
        known = predictions[predictions["label"].notna()]
        among, hits = _shares_of(known, metric, predicted)
        shares.append(float(hits[among].mean()))
        patients.append(_patients(known)[among])
    n = effective_n(patients)
    if metric != "f1":
        return Measurement(tuple(shares), n)
    return Measurement(tuple(f1_of(share) for share in shares), n, _bootstrap(seeds))


def _shares_of(known: pd.DataFrame, metric: str, predicted: str | None) -> tuple:
    """Which images a share is of, and which of them count; of an F1, the share is J."""
    ill, called = known["label"] == "covid", known["predicted"] == "covid"
    shares = {
        "accuracy": (ill | ~ill, known["label"] == known["predicted"]),
        "precision": (called, ill),
        "recall": (ill, called),
        "f1": (ill | called, ill & called),
    }
    return shares.get(metric, (known["label"] == metric, known["predicted"] == predicted))


def _patients(known: pd.DataFrame) -> pd.Series:
    """Whose image it is; an image of nobody known is a patient of its own."""
    return known["patient"].fillna(known["image"])


def _bootstrap(seeds) -> dict[float, Interval]:
    """Bootstrap intervals of the mean F1 by level; a patient is drawn for all seeds at once."""
    known = pd.concat(seeds, keys=range(len(seeds))).query("label.notna()")
    groups, _ = patient_numbers(_patients(known), len(known))
    truth, called = (known[column].eq("covid").to_numpy() for column in ("label", "predicted"))
    parts = [known.index.get_level_values(0) == number for number in range(len(seeds))]

    def mean_f1(weights):
        each = [weighted_f1(weights[:, part], truth[part], called[part]) for part in parts]
        return np.mean(each, axis=0)

    drawn = bootstrap({"f1": mean_f1}, groups, RESAMPLES, seed=0)["f1"]
    ends = {level: percentiles(drawn, level) for level in LEVELS}
    return {level: (low, high) for level, (low, high) in ends.items() if low == low}
