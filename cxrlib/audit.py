"""Leaks and shortcuts in any image set: the experiments, and one audit of them all.

A red light is a finding to act on. A green one proves nothing: these probes are simple, and a
network may find what they missed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cxrlib import judge, judgeviews
from cxrlib.duplicates import near_duplicates, patients_in_two_classes, split_overlap
from cxrlib.headline import predictions as four_conditions
from cxrlib.judge import LIGHTS, Finding
from cxrlib.knob import collapse, knob
from cxrlib.leaks import leakage, leakage_summary
from cxrlib.remedies import remedies
from cxrlib.shortcuts import FEWEST, association, shortcuts, sources_within_class
from cxrlib.transfer import External, compare, external_validation, recalibrate

__all__ = [
    "LIGHTS",
    "Audit",
    "AuditError",
    "Evidence",
    "External",
    "Finding",
    "association",
    "collapse",
    "compare",
    "external_validation",
    "four_conditions",
    "knob",
    "leakage",
    "leakage_summary",
    "near_duplicates",
    "patients_in_two_classes",
    "recalibrate",
    "remedies",
    "run",
    "shortcuts",
    "sources_within_class",
    "split_overlap",
    "together",
]

STEPS = (
    ("Size of the set", judge.size),
    ("Patients in two classes", judge.two_classes),
    ("Duplicates", judge.copies),
    ("Your split", judge.split),
    ("Source and label", judge.source_and_label),
    ("Views without lungs", judgeviews.views_without_lungs),
    ("Coarse views", judgeviews.coarse_views),
    ("Source within one class", judgeviews.source_within_class),
    ("Image-level split", judgeviews.image_split),
)


class AuditError(ValueError):
    """An image set that cannot be audited."""


@dataclass(frozen=True)
class Audit:
    """All findings on a cohort, worst first, and what they rest on.

    ``facts`` are shown at the end of the page, by name: data, options, seed, versions, time.
    """

    name: str
    counts: pd.DataFrame
    findings: list[Finding]
    facts: dict[str, str]
    synthetic: bool

    @property
    def light(self) -> str:
        """The worst light of all findings."""
        return min((f.light for f in self.findings), key=LIGHTS.index, default="grey")


@dataclass
class Evidence:
    """What the probes of one audit share, computed once."""

    cohort: object  # copies of one image share a patient
    original: object  # as it came
    classes: list[str]
    by: str
    extract: object
    seed: int
    pairs: pd.DataFrame
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    source_light: str = "grey"  # of the association of source and label

    @property
    def too_few(self) -> str:
        """Say which class has too few patients to be probed, once copies count as one."""
        patients = self.cohort.table.groupby("label")["patient"].nunique()
        few = patients[patients < FEWEST]
        return (
            "" if few.empty else f"only {few.iloc[0]} patients of class {few.index[0]!r} are left"
        )


def run(cohort, classes=None, by="source", extract=None, seed=0, progress=None) -> Audit:
    """Audit a cohort: every probe, a light for each, and what to do.

    Parameters
    ----------
    cohort : Cohort
        Images without a label are left out.
    classes : sequence of str, optional
        The labels to tell apart; all that occur by default.
    by : str
        Column that names the source, hospital or scanner.
    extract : callable, optional
        A frozen backbone, as in :func:`cxrlib.views.features`; brightness and detail of 24 x 24
        squares without it.
    seed : int
        For folds, shuffled labels and resamples.
    progress : callable, optional
        Called as ``progress(number, total, name)`` before each step.

    Returns
    -------
    Audit

    Raises
    ------
    AuditError
        If there are fewer than two classes, fewer than ten patients in one of them, or no such
        column.
    """
    cohort, classes = _ready(cohort, classes, by)
    note = progress or (lambda number, total, name: None)
    note(0, len(STEPS) + 1, "Near-duplicates")
    pairs = near_duplicates(cohort)
    evidence = Evidence(together(cohort, pairs), cohort, classes, by, extract, seed, pairs)
    findings = []
    for number, (name, step) in enumerate(STEPS, 1):
        note(number, len(STEPS) + 1, name)
        findings += step(evidence)
    findings.sort(key=lambda finding: LIGHTS.index(finding.light))
    table = cohort.table
    synthetic = bool(table["source"].astype(str).str.startswith("phantom").any())
    grouped = table.groupby(["label", by], dropna=False, observed=True)
    counts = grouped.agg(images=("image", "size"), patients=("patient", "nunique"))
    return Audit(cohort.name, counts, findings, _facts(evidence), synthetic)


def _ready(cohort, classes, by):
    """Keep the labelled images of the classes; complain about what cannot be audited."""
    if by not in cohort.table:
        raise AuditError(f"{cohort.name} has no column {by!r}; it has {', '.join(cohort.table)}.")
    if cohort.table["patient"].isna().any():
        raise AuditError(f"{cohort.name}: an image names no patient; give each image one.")
    classes = list(classes or cohort.labels)
    if len(classes) < 2:
        raise AuditError(
            f"{cohort.name} has the labels {classes}: an audit needs two classes to tell apart, "
            "one folder or one value of the column 'label' each."
        )
    cohort = cohort.where(label=classes)
    patients = cohort.table.groupby("label")["patient"].nunique()
    few = patients[patients < FEWEST]
    if len(few):
        raise AuditError(
            f"{cohort.name}: only {few.iloc[0]} patients are {few.index[0]!r}. With fewer than "
            f"{FEWEST} a class nothing can be told; add some, or leave the class out."
        )
    return cohort, classes


def _facts(evidence: Evidence) -> dict[str, str]:
    from cxrlib.machine import environment

    there, table = environment(), evidence.cohort.table
    versions = ", ".join(f"{name} {number}" for name, number in there["versions"].items())
    return {
        "Data": f"{evidence.cohort.name}: {len(table)} images of {table['patient'].nunique()} "
        "patients (copies of one image count as one patient)",
        "Classes": ", ".join(evidence.classes),
        "Source column": evidence.by,
        "Features": "a frozen backbone" if evidence.extract else "24 x 24 squares, no network",
        "Seed": str(evidence.seed),
        "Machine": f"{there['device']}, {there['cores']} cores; {there['platform']}",
        "Versions": f"Python {there['python']}, {versions}",
    }
