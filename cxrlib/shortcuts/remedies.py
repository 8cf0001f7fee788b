"""Remedies against shortcuts, tried one by one, and what each gains at another hospital.

Several are tried on one pair of cohorts, so by luck one of them may seem to help: ask for more
confidence than 95 %. The share cut off (`CENTRE`) and CLAHE's settings are customary values; the
penalty of the model (`hospitals.PENALTY`) was chosen among four with phantoms' scores in view.
"""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import pandas as pd

from cxrlib.cohort import Cohort
from cxrlib.metrics import combine
from cxrlib.shortcuts import hospitals, views

CENTRE = 0.12  # of each side is cut off where no lung mask is known
AS_IT_IS = "as it is: images divided"
TO_LUNGS = "cropped to the box around the lungs"
COLUMNS = [f"{part} {what}" for part in ("inside", "outside") for what in ("auc", "low", "high")]
COLUMNS += ["gap", "gap low", "gap high", "gain", "gain low", "gain high"]


def remedies(
    inside, outside, classes, by="source", extract=None, confidence=0.95, seed=0
) -> pd.DataFrame:
    """Try what is said to help against shortcuts, and measure it at another hospital.

    Parameters
    ----------
    inside, outside, classes, extract, seed
        As in :func:`cxrlib.shortcuts.hospitals.external_validation`.
    by : str
        Column of the inside table with what the labels should be balanced over, such as
        ``source`` or ``scanner``.
    confidence : float in (0, 1)

    Returns
    -------
    DataFrame
        A row a remedy: ``remedy``; ``inside auc``, ``inside low``, ``inside high``; the same
        ``outside``; and of ``gap`` (inside minus outside) and ``gain`` (area outside minus that of
        the model as it is, on the same patients); and ``note``. NaN where it cannot be tried.
        Where labels are balanced, so is the estimate inside: each image counts with its weight.

    Raises
    ------
    ShortcutError
        As :func:`external_validation`, and if there is no column `by`.
    """
    inside, outside = hospitals.choose(inside, outside, classes)
    if by not in inside.table:
        raise views.ShortcutError(f"{inside.name} has no column {by!r}: {list(inside.table)}.")
    cohorts = (inside, outside)

    def seen(changed=cohorts, view="whole image"):
        return [views.features(each, view, extract) for each in changed]

    predict = partial(hospitals.predict, *cohorts, classes, seed=seed)
    plain = seen()
    images, patients = predict(*plain, by_image=True), predict(*plain)
    weights, said = balanced_weights(inside, classes, by)
    balanced = None if weights is None else predict(*plain, weights=weights)
    prior = patients[0]["truth"].mean()
    constant = [table.assign(probability=prior) for table in patients]
    tried = {
        "always the most frequent class": (constant, "knows nothing of an image"),
        "8 x 8 thumbnail": (predict(*seen(view="thumbnail")), "sees no detail"),
        AS_IT_IS: (images, "patients stand on both sides inside"),
        "patients divided": (patients, "the same model; only the estimate inside is honest"),
        f"balanced over {by}": (balanced, said),
    }
    changes = {name: (change, "") for name, change in CHANGES.items()}
    if all("lungs" in cohort.masks for cohort in cohorts):
        changes[TO_LUNGS] = (to_lungs, "true masks, which real films lack")
    for name, (change, note) in changes.items():
        tried[name] = (predict(*seen([_changed(each, change) for each in cohorts])), note)
    return _rows(tried, confidence)


def balanced_weights(cohort, classes, by):
    """Weigh images so that every label draws equally from each source, and say what it cost.

    A source without one of the labels cannot be balanced and gets no weight.
    """
    counts = pd.crosstab(cohort.table[by], cohort.table["label"])[list(classes)]
    useful = counts.index[(counts > 0).all(axis=1)]
    if len(counts) == 1:
        return None, f"cannot be done: there is one {by} only"
    if len(useful) == 0:
        return None, f"cannot be done: no {by} has both labels"
    alike = cohort.table.groupby([by, "label"])["image"].transform("size")
    weights = np.where(cohort.table[by].isin(useful), 1 / alike, 0.0)
    effective = weights.sum() ** 2 / np.sum(weights**2)
    said = f"weights; worth {effective:.0f} of {len(cohort)} images"
    left = ", ".join(sorted(map(str, counts.index.difference(useful))))
    said += f"; left out: {left}" if left else ""
    return weights * len(weights) / weights.sum(), said


def _changed(cohort, change) -> Cohort:
    images = np.stack([change(cohort, number) for number in range(len(cohort))])
    return Cohort(cohort.table, images, cohort.name)


def _equalised_locally(cohort, number):
    return cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(cohort.images[number])


def to_lungs(cohort, number):
    """Cut an image to the box around its lung mask; one without lungs stays as it is."""
    mask = cohort.masks["lungs"][number]
    down, across = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(down) == 0:
        return cohort.images[number]
    return _window(cohort.images[number], down[0], down[-1] + 1, across[0], across[-1] + 1)


def _to_centre(cohort, number):
    side = cohort.images.shape[-1]
    first, last = round(CENTRE * side), round((1 - CENTRE) * side)
    return _window(cohort.images[number], first, last, first, last)


def _window(image, top, bottom, left, right):
    part = np.ascontiguousarray(image[top:bottom, left:right])
    return cv2.resize(part, image.shape[::-1], interpolation=cv2.INTER_LINEAR)


CHANGES = {
    f"cropped to the central {100 - 200 * CENTRE:.0f} % of each side": _to_centre,
    "histogram equalised": lambda cohort, number: cv2.equalizeHist(cohort.images[number]),
    "equalised locally (CLAHE)": _equalised_locally,
}


def _rows(tried, confidence) -> pd.DataFrame:
    usual = tried[AS_IT_IS][0][1]
    base = hospitals.area(usual, confidence)
    rows = []
    for remedy, (tables, note) in tried.items():
        values = [np.nan] * len(COLUMNS)
        if tables is not None:
            here, there = (hospitals.area(table, confidence) for table in tables)
            gap = combine([here, there], [1, -1], paired=False)
            same = tables[1]["probability"].equals(usual["probability"])  # the same model
            gain = (0.0, 0.0, 0.0) if same else combine([there, base], [1, -1])
            values = [end for each in (here, there, gap, gain) for end in each[:3]]
            if remedy in (*CHANGES, TO_LUNGS) or remedy.startswith("balanced"):
                note = "; ".join(part for part in (_verdict(*values[-2:]), note) if part)
        rows.append((remedy, *values, note))
    return pd.DataFrame(rows, columns=["remedy", *COLUMNS, "note"])


def _verdict(low, high) -> str:
    if low > 0:
        return "helps outside"
    return "harms outside" if high < 0 else "no help shown outside"
