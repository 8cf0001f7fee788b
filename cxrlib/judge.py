"""What each probe of an audit means: a traffic light, a sentence, and what to do.

A light is red where chance is unlikely (p at most 0.01) and the effect large enough to matter,
amber where p is at most 0.05. Of views that are probed together, p is corrected for their number
(Holm 1979, www.jstor.org/stable/4615733). How often a light is wrong on synthetic images is
measured in docs/audit/README.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cxrlib import duplicates, metrics, shortcuts

LIGHTS = ("red", "amber", "green", "grey")
RED, AMBER = 0.01, 0.05  # p values
STRONG = 0.3  # Cramer's V: above it, knowing the source is knowing much of the label
SMALL = 30  # patients in a class
FEW_A_SOURCE = 5  # patients: in a table with fewer in half of its rows, V is high by chance
KINDS = {"patient": "patient", "near-duplicate": "near-duplicate", "origin": "augmented film"}
SURE = 0.97  # similarity: different patients never came near it, among phantoms or real films


@dataclass(frozen=True)
class Finding:
    """What one probe found.

    Attributes
    ----------
    name : str
        Such as "Border alone".
    light : {"red", "amber", "green", "grey"}
        Act on it; look at it; nothing found (which proves nothing); could not be tested.
    headline : str
        One sentence with the numbers.
    meaning : str
        Why it matters, in plain words.
    advice : str
        What to do next.
    tables : dict of str to DataFrame
        By caption.
    figures : dict of str to matplotlib Figure
        By caption, which serves as the alternative text too.
    """

    name: str
    light: str
    headline: str
    meaning: str
    advice: str
    tables: dict = field(default_factory=dict)
    figures: dict = field(default_factory=dict)


def size(evidence) -> list[Finding]:
    """Judge what the number of patients can show at all."""
    table = evidence.original.table
    patients = table.groupby("label")["patient"].nunique()
    fewest, n = patients.idxmin(), int(patients.min())
    held = max(1, round(0.2 * n))
    low, high = metrics.wilson(round(0.9 * held), held)
    headline = (
        f"The smallest class, {fewest}, has {count_of(n, 'patient')}. A test part of a fifth holds "
        f"{held}: a sensitivity near 90 % would be known as {low:.0%} to {high:.0%}."
    )
    meaning = "Precision comes from patients, not from images or augmented copies."
    advice = "Report intervals by patient. Cross-validate by patient rather than test once."
    if table["patient"].nunique() == len(table):
        meaning += " Every image counts as a patient of its own here."
        advice += " If patients have several images, add a column 'patient': see the CSV format."
    light = "amber" if n < SMALL else "green"
    return [Finding("Size of the set", light, headline, meaning, advice)]


def two_classes(evidence) -> list[Finding]:
    """Judge patients who stand in two classes."""
    found = duplicates.patients_in_two_classes(evidence.original)
    some, everyone = len(found), evidence.original.table["patient"].nunique()
    return [
        Finding(
            "Patients in two classes",
            "amber" if some else "green",
            f"{some} of {count_of(everyone, 'patient')} stand in two classes.",
            "It can be right (people fall ill and recover), or a label is wrong. Split by image, "
            "such patients stand on both sides; split by label, nobody notices.",
            "Look at each of them, and split by patient."
            if some
            else "Nothing; split by patient all the same.",
            {"Patients in two classes": found} if some else {},
        )
    ]


def copies(evidence) -> list[Finding]:
    """Judge images that are copies of each other."""
    from cxrlib import plots

    pairs = evidence.pairs
    other_label = pairs["same label"].eq(False).to_numpy(dtype=bool)
    other_patient = pairs["same patient"].eq(False).to_numpy(dtype=bool)
    bad = pairs[other_label | other_patient]
    light = "green" if bad.empty else "red" if (bad["similarity"] >= SURE).any() else "amber"
    tables = {"Pairs": bad} if len(bad) else {}
    figures = {"Pairs of images that look the same": bad} if len(bad) else {}
    return [
        Finding(
            "Duplicates",
            light,
            f"{_alike(pairs)} look the same; {count_of(int(other_patient.sum()), 'pair')} under "
            f"two patients, {count_of(int(other_label.sum()), 'pair')} under two labels.",
            "A copy in the test part of an image in the training part is an answer that was given "
            "away. Under two patients, not even a split by patient keeps them apart; under two "
            "labels, one of them is wrong.",
            "Look at the pairs. Keep one image of each that is one film, or give both the same "
            "patient; this audit did the latter."
            if len(bad)
            else "Nothing; mirrored films and stronger crops may go unnoticed.",
            tables,
            {name: plots.pairs_plot(evidence.original, few) for name, few in figures.items()},
        )
    ]


def _alike(pairs) -> str:
    """Count the images that have a twin, and how many films they are of."""
    images = pd.unique(pairs[["image", "other"]].to_numpy().ravel())
    return f"{count_of(len(images), 'image')} ({count_of(len(pairs), 'pair')})"


def split(evidence) -> list[Finding]:
    """Judge the user's own division into training and test parts, if the table has one."""
    name, table = "Your split", evidence.original.table
    if "split" not in table or table["split"].nunique() < 2:
        there = "names one part only" if "split" in table else "is not there"
        return [
            Finding(
                name,
                "grey",
                f"The column 'split' {there}, so your own division was not checked.",
                "Many published splits divide images, and put one patient on both sides.",
                "Add a column 'split' (such as train and test) to the CSV, and audit again.",
            )
        ]
    found = duplicates.split_overlap(evidence.original, "split", evidence.pairs)
    counts = found["kind"].value_counts().reindex(KINDS, fill_value=0)
    told = ", ".join(count_of(counts[kind], word) for kind, word in KINDS.items())
    return [
        Finding(
            name,
            "red" if len(found) else "green",
            f"On more than one side of your split stand {told}.",
            "What a model has seen in training, it need not understand to recognise in the test.",
            "Divide patients, not images, and give copies of one film one patient."
            if len(found)
            else "Nothing.",
            {"On both sides": found} if len(found) else {},
        )
    ]


def source_and_label(evidence) -> list[Finding]:
    """Judge how far the source gives the label away."""
    from scipy.stats import chi2_contingency

    name, by, cohort = "Source and label", evidence.by, evidence.original
    table, strength = shortcuts.association(cohort, by)
    evidence.source_light = "grey"
    captions = {f"Patients by {by} and label": table.reset_index()}
    nameless = int(cohort.table[by].isna().sum())
    told = f" {count_of(nameless, 'image')} of {len(cohort)} name no {by}." if nameless else ""
    if np.isnan(strength) or table.sum(axis=1).median() < FEW_A_SOURCE:
        many = "has too few patients for each value" if len(table) > 1 else "has one value only"
        return [
            Finding(
                name,
                "grey",
                f"The column {by!r} {many}, among the labels that name one.{told}",
                "If the classes come from different hospitals after all, this audit cannot know.",
                f"Name the hospital or the machine in the column {by!r}, a few values in all.",
                captions if len(table) else {},
            )
        ]
    p = float(chi2_contingency(table.loc[:, table.any(axis=0)]).pvalue)
    evidence.source_light = light = light_of(p, strength >= STRONG)
    headline = f"Cramer's V between {by} and label is {strength:.2f} (p {word_p(p)}).{told}"
    if light != "green" and bool(((table > 0).sum(axis=1) == 1).all()):
        headline = f"Each {by} has one label only: they coincide. {headline}"
    return [
        Finding(
            name,
            light,
            headline,
            "Where the source says what the label is, a model that knows the source needs no "
            "lungs, and no test on the same sources can tell the difference.",
            "Collect every class from every source, or test on a source that was not trained on."
            if light != "green"
            else "Nothing; test on another source all the same.",
            captions,
        )
    ]


def count_of(number: int, word: str) -> str:
    """Word a count: 1 pair, 2 pairs."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def light_of(p: float, large: bool) -> str:
    """Choose a light by a p value, and whether the effect is large enough to matter."""
    if np.isnan(p):
        return "grey"
    if p <= RED and large:
        return "red"
    return "amber" if p <= AMBER else "green"


def word_p(p: float) -> str:
    """Word a p value, to follow the letter p."""
    return f"= {p:.3f}" if p > 0.001 else "at most 0.001"
