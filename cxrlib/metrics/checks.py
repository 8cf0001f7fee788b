"""What can be scored: labels, probabilities and patients, checked, or a MetricsError."""

from __future__ import annotations

import numpy as np
import pandas as pd

ROUNDING = 1e-6  # a float32 softmax may end at 1.0000001


class MetricsError(ValueError):
    """Predictions that cannot be scored; the message names the argument at fault."""


def check_confidence(confidence: float) -> None:
    """Complain about a confidence that is no share."""
    if not 0 < confidence < 1:
        raise MetricsError(f"confidence={confidence}: give a share between 0 and 1, such as 0.95.")


def check_same_length(**arrays) -> None:
    """Complain about arrays, given by name, that differ in length."""
    if len(set(map(len, arrays.values()))) > 1:
        said = ", ".join(f"{name} has {len(array)}" for name, array in arrays.items())
        raise MetricsError(f"Lengths differ: {said}.")


def check_probabilities(probabilities, name: str) -> np.ndarray:
    """Turn probabilities into floats in 0 to 1, or complain about what they are instead."""
    try:
        values = np.asarray(probabilities, dtype=float)
    except (TypeError, ValueError) as error:
        raise MetricsError(f"{name}: not a rectangle of numbers ({error}).") from error
    if values.size == 0:
        raise MetricsError(f"{name} is empty: there is nothing to score.")
    if np.isnan(values).any():
        row = int(np.argwhere(np.isnan(values))[0][0])
        raise MetricsError(f"{name}: NaN for image number {row}; did the training diverge?")
    if values.min() < -ROUNDING or values.max() > 1 + ROUNDING:
        ends = f"{values.min():g} to {values.max():g}, not within 0 to 1"
        raise MetricsError(f"{name} runs from {ends}; give the output of a sigmoid or softmax.")
    return values.clip(0, 1)


def check_binary(y_true, probability) -> tuple[np.ndarray, np.ndarray]:
    """Turn labels into bool and probabilities into float, both of shape (n,), or complain."""
    probability = check_probabilities(probability, "probability")
    truth = np.asarray(y_true)
    for name, array in (("y_true", truth), ("probability", probability)):
        if array.ndim != 1:
            raise MetricsError(f"{name} has the shape {array.shape}; give one value an image.")
    check_same_length(y_true=truth, probability=probability)
    wrong = [value for value in pd.unique(pd.Series(truth)) if value not in (0, 1)]
    if wrong:
        raise MetricsError(f"y_true holds {wrong[0]!r}; it may hold 0 and 1 only.")
    return truth.astype(bool), probability


def class_numbers(values, classes: list, name: str) -> np.ndarray:
    """Turn numbers or names into class numbers, or complain about the first that is neither."""
    values = pd.Series(np.asarray(values))
    if values.empty:
        raise MetricsError(f"{name} is empty: there is nothing to score.")
    known = {number: number for number in range(len(classes))}
    numbers = values.map(known | {label: number for number, label in enumerate(classes)})
    if numbers.isna().any():
        wrong = values[numbers.isna()].iloc[0]
        raise MetricsError(f"{name} holds {wrong!r}, which is no class of {classes}.")
    return numbers.to_numpy(dtype=np.int64)


def patient_numbers(patients, n: int) -> np.ndarray:
    """Give each image its patient's number, or one of its own where `patients` is None."""
    if patients is None:
        return np.arange(n)
    patients = pd.Series(np.asarray(patients))
    check_same_length(y_true=range(n), patients=patients)
    if patients.isna().any():
        row = int(patients.isna().to_numpy().argmax())
        raise MetricsError(f"patients: image number {row} has none; name one for every image.")
    return pd.factorize(patients)[0]
