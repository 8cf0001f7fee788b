"""One audit of any image set: every experiment that doubts a score, and a light for each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cxrlib import __version__, shortcuts
from cxrlib.audit import lights as judge
from cxrlib.audit.lights import LIGHTS, Finding
from cxrlib.machine import environment

AUTHORS, TITLE = "The course authors", "COVID-19 in chest X-rays: a notebook course"
STEPS = (  # those that take their time
    "Near-duplicates",
    "Views without lungs, coarse views",
    "Source within one class",
    "Image-level split",
)
SHOWN_SOURCES = 4  # of which films are shown
PROBED = 1000  # images that a probe sees: it compares each with each
MOST = 150  # images for the leak's nearest neighbour, which takes a minute for a thousand


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


def run(cohort, classes=None, by="source", extract=None, seed=0, progress=None) -> Audit:
    """Audit a cohort: every probe, a light for each, and what to do.

    Images without a label are left out; of more than a thousand, classifiers see whole patients
    with so many. `classes` are the labels to tell apart, by default all;
    the column `by` names the source, hospital or scanner; `extract` is a frozen backbone, as in
    :func:`cxrlib.shortcuts.views.features`; ``progress(number, total, name)`` is called before
    each step. Raises AuditError where there are fewer than two classes, fewer than ten patients
    in one of them, or no such column.
    """
    cohort, classes = _ready(cohort, classes, by)

    def begin(step):
        if progress:
            progress(STEPS.index(step), len(STEPS), step)

    begin("Near-duplicates")
    pairs = shortcuts.near_duplicates(cohort)
    single = shortcuts.together(cohort, pairs)  # no fold parts copies of one image
    seen = shortcuts.some_patients(single, PROBED, seed)
    if set(seen.labels) != set(classes) or len(judge.few_patients(seen)):
        seen = single  # of few patients with many images none can be spared
    few = judge.few_patients(seen)
    findings = [judge.size(cohort), judge.two_classes(cohort), judge.copies(cohort, pairs)]
    findings.append(judge.odd_films(cohort, shortcuts.odd_films(cohort)))
    source = judge.source_and_label(cohort, by)
    findings += [judge.split(cohort, pairs), source]

    begin("Views without lungs, coarse views")
    if len(few):
        findings += [judge.untested(name, few) for name in (*judge.NAMES.values(), judge.WHO)]
    else:
        told = shortcuts.shortcuts(seen, classes, extract=extract, seed=seed)
        findings += judge.views_without_lungs(seen, classes, told) + judge.coarse_views(told)
        told = shortcuts.who_they_are(seen.table, classes, seed=seed)
        findings.append(judge.who_they_are(seen, told))

    begin("Source within one class")
    told = shortcuts.sources_within_class(seen, by, extract=extract, seed=seed)
    findings.append(judge.source_within_class(told, confounded=source.light == "red"))

    begin("Image-level split")
    if len(few):
        findings.append(judge.untested(judge.IMAGE_SPLIT, few))
    else:
        runs = None
        if not judge.one_image_each(cohort):
            runs = shortcuts.leakage(single, classes, repeats=10, most=MOST, seed=seed)
        findings.append(judge.image_split(runs, MOST))

    findings = [_with_films(one, seen, classes, by, told, seed) for one in findings]
    findings.sort(key=lambda finding: LIGHTS.index(finding.light))
    grouped = cohort.table.groupby(["label", by], dropna=False, observed=True)
    counts = grouped.agg(images=("image", "size"), patients=("patient", "nunique"))
    synthetic = bool(cohort.table["source"].astype(str).str.startswith("phantom").any())
    facts = _facts(single, classes, by, extract, seed) | _checksums(cohort)
    if len(seen) < len(single):
        facts["Classifiers"] = (
            f"trained on {len(seen):,} of the images: whole patients, drawn from each class in turn"
        )
    return Audit(cohort.name, counts, findings, facts, synthetic)


def _with_films(finding, cohort, classes, by, told, seed) -> Finding:
    """Give a red light the films that say so, and where in them it lies.

    Copies show themselves already (a figure of the pairs, a table of what stands on two sides).
    """
    if finding.light != "red":
        return finding
    view, column = "whole image", by
    if finding.name in judge.NAMES.values():
        view = next(view for view, name in judge.NAMES.items() if name == finding.name)
        column = "label"
    elif finding.name == "Source within one class":
        cohort = cohort.where(label=told.loc[told["auc"].idxmax(), "label"])
    elif finding.name != "Source and label":
        return finding
    if column != "label":  # its most frequent values
        patients = cohort.table.groupby(by)["patient"].nunique().nlargest(SHOWN_SOURCES)
        classes = list(patients.index[patients >= shortcuts.FEWEST])
    if len(classes) < 2:
        return finding
    found = shortcuts.loudest(cohort, view, classes, column, seed=seed)
    caption = f"The films that speak loudest for each {column}, by {finding.name.lower()}"
    finding.figures[caption] = ("loudest_plot", cohort, found)
    finding.tables[caption] = found.films
    return replace(finding, meaning=f"{finding.meaning} {found.said}")


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
    few = judge.few_patients(cohort)
    if len(few):
        raise AuditError(
            f"{cohort.name}: only {few.iloc[0]} patients are {few.index[0]!r}. With fewer than "
            f"{shortcuts.FEWEST} a class nothing can be told; add some, or leave the class out."
        )
    return cohort, classes


def _checksums(cohort) -> dict[str, str]:
    """SHA-256 of what was audited, so that a reader can tell whether theirs is the same."""
    films, rows = hashlib.sha256(), cohort.table.to_csv(index=False, lineterminator="\n")
    for image in cohort.images:
        films.update(np.ascontiguousarray(image))
    table = hashlib.sha256(rows.encode(errors="backslashreplace"))
    return {
        "Checksum of the images": f"SHA-256 {films.hexdigest()} (grey values as read, row by row)",
        "Checksum of the table": f"SHA-256 {table.hexdigest()} (CSV of the rows that took part)",
    }


def _facts(cohort, classes, by, extract, seed) -> dict[str, str]:
    there, table = environment(), cohort.table
    versions = ", ".join(f"{name} {number}" for name, number in there["versions"].items())
    return {
        "Data": f"{cohort.name}: {len(table)} images of {table['patient'].nunique()} "
        "patients (copies of one image count as one patient)",
        "Classes": ", ".join(classes),
        "Source column": by,
        "Features": "a frozen backbone" if extract else "24 x 24 squares, no network",
        "Seed": str(seed),
        "Machine": f"{there['device']}, {there['cores']} cores; {there['platform']}",
        "Versions": f"Python {there['python']}, {versions}",
        "Cite as": f"{AUTHORS}. {TITLE}. cxrlib {__version__}, cxr audit.",
    }
