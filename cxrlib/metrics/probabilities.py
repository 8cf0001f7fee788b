"""What a probability is worth: calibration, the squared error, decisions and their costs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxrlib.metrics.checks import (
    ROUNDING,
    MetricsError,
    check_binary,
    check_confidence,
    patient_numbers,
)
from cxrlib.metrics.intervals import share


def calibration(y_true, probability, bins: int = 10, patients=None) -> pd.DataFrame:
    """Compare what was promised with what happened, in equal bins that hold images.

    The columns are ``mean_probability``; ``fraction_positive``, with its 95 % interval ``low`` and
    ``high`` as `share` gives it; ``n`` images.
    """
    truth, probability = check_binary(y_true, probability)
    if bins < 1:
        raise MetricsError(f"bins={bins}: give at least one bin.")
    number = np.minimum((probability * bins).astype(int), bins - 1)
    groups, rows = patient_numbers(patients, len(truth)), []
    for here in (number == each for each in np.unique(number)):
        found = share(truth, here, groups)
        rows.append((probability[here].mean(), *found[:3], found.n))
    columns = ["mean_probability", "fraction_positive", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


def brier(y_true, probability) -> float:
    """Mean squared error of the probabilities (Brier 1950): 0 is perfect, 0.25 a coin's."""
    truth, probability = check_binary(y_true, probability)
    return float(np.mean((probability - truth) ** 2))


def expected_calibration_error(y_true, probability, bins: int = 10) -> float:
    """Mean gap of the bins, weighted by images, 0 to 1 (doi:10.1609/aaai.v29i1.9602)."""
    table = calibration(y_true, probability, bins)
    gap = (table["mean_probability"] - table["fraction_positive"]).abs()
    return float(np.average(gap, weights=table["n"]))


def calibration_fit(y_true, probability, patients=None, confidence=0.95) -> pd.DataFrame:
    """Give calibration intercept and slope: 0 and 1 if probabilities mean what they say.

    The intercept (calibration in the large, above 0 where illness is more frequent than promised)
    is that of a logistic regression with the logit of the probability as offset; the slope (below
    1 where the model is too sure of itself) is the logit's coefficient (Van Calster et al. 2019,
    doi:10.1186/s12916-019-1466-7). Standard errors are clustered by patient, with t quantiles on
    the patients of the smaller class minus one. Probabilities of 0 and 1, which have no logit, are
    taken for 1e-6 and 1 - 1e-6. Parameters and errors are as in `binary_scores`.

    Rows intercept, slope. Columns value, low, high (NaN where undefined), n (images), method.
    """
    truth, probability = check_binary(y_true, probability)
    check_confidence(confidence)
    groups, drawn = (
        patient_numbers(patients, len(truth)),
        "image" if patients is None else "patient",
    )
    p = probability.clip(ROUNDING, 1 - ROUNDING)
    logit = np.log(p / (1 - p))
    freedom = min(len(np.unique(groups[truth == ill])) for ill in (True, False)) - 1
    columns = ["value", "low", "high", "n", "method"]
    rows = dict.fromkeys(("intercept", "slope"))
    for name in rows:
        why = "" if freedom > 0 else f"a class has fewer than two {drawn}s"
        if not why and name == "slope":  # then no largest likelihood, so no slope
            ill, well = logit[truth], logit[~truth]
            apart = ill.min() >= well.max() or well.min() >= ill.max()
            why = "the probabilities separate the classes" if apart else ""
            why = "all probabilities are alike" if np.ptp(logit) == 0 else why
        ends, method = [np.nan] * 3, f"undefined: {why}"
        if not why:
            ends = _logistic(truth, logit, groups, name == "slope", freedom, confidence)
            method = f"logistic regression, clustered by {drawn}"
        rows[name] = (*ends, len(truth), method)
    return pd.DataFrame.from_dict(rows, "index", columns=columns).rename_axis("metric")


def _logistic(truth, logit, groups, slope: bool, freedom: int, confidence: float) -> tuple:
    from scipy.stats import t
    from statsmodels.api import GLM, add_constant, families

    known = {} if slope else {"offset": logit}
    design = add_constant(logit) if slope else np.ones_like(logit)
    model = GLM(truth.astype(float), design, families.Binomial(), **known)
    found = model.fit(cov_type="cluster", cov_kwds={"groups": groups})
    value, reach = found.params[-1], t.ppf((1 + confidence) / 2, freedom) * found.bse[-1]
    return value, value - reach, value + reach


def net_benefit(y_true, probability, thresholds, prevalence=None) -> pd.DataFrame:
    """Give the net benefit of acting on the model, on everybody and on nobody: a decision curve.

    Index: the thresholds (above 0, below 1), the probabilities from which one would act. Columns
    model, everybody, nobody: true alarms minus false ones weighted by threshold / (1 - threshold),
    per patient (Vickers and Elkin 2006, doi:10.1177/0272989X06295361). `prevalence` is that of the
    place of use, by default the test's. MetricsError if a class is missing, or a value is wrong.
    """
    truth, probability = check_binary(y_true, probability)
    cuts = np.atleast_1d(np.asarray(thresholds, dtype=float))
    if not ((cuts > 0) & (cuts < 1)).all():
        raise MetricsError("thresholds: give probabilities above 0 and below 1.")
    rates = np.array([_rates(truth, probability >= cut) for cut in cuts])
    share = truth.mean() if prevalence is None else _share(prevalence)
    odds = cuts / (1 - cuts)
    curves = {
        "model": share * rates[:, 0] - (1 - share) * (1 - rates[:, 1]) * odds,
        "everybody": share - (1 - share) * odds,
        "nobody": 0.0,
    }
    return pd.DataFrame(curves, pd.Index(cuts, name="threshold"))


def decision_scores(y_true, probability, prevalence, threshold=0.5, miss=1.0, alarm=1.0) -> dict:
    """Score the calls at a threshold: ``balanced accuracy``, ``mcc`` and ``expected cost``.

    The cost per patient at a stated `prevalence` (0 to 1) is miss * prevalence * (1 - sensitivity)
    + alarm * (1 - prevalence) * (1 - specificity). Matthews' coefficient, -1 to 1, is 0 where all
    are called alike. MetricsError if a class is missing, or a value is wrong. They have no interval
    of their own: see those of recall and specificity in `binary_scores`.
    """
    from sklearn.metrics import balanced_accuracy_score, matthews_corrcoef

    truth, probability = check_binary(y_true, probability)
    share, called = _share(prevalence), probability >= threshold
    found, spared = _rates(truth, called)
    return {
        "balanced accuracy": float(balanced_accuracy_score(truth, called)),
        "mcc": float(matthews_corrcoef(truth, called)),
        "expected cost": miss * share * (1 - found) + alarm * (1 - share) * (1 - spared),
    }


def _rates(truth, called) -> tuple[float, float]:
    if truth.all() or not truth.any():
        raise MetricsError("y_true holds one class only: the other's error rate is unknown.")
    return float(called[truth].mean()), float((~called[~truth]).mean())


def _share(prevalence: float) -> float:
    if not 0 <= prevalence <= 1:
        raise MetricsError(f"prevalence={prevalence}: give a share from 0 to 1.")
    return prevalence
