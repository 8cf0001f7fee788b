"""What each probe of an audit means: a traffic light, a sentence, and what to do.

A light is red where chance is unlikely (p at most 0.01) and the effect large enough to matter,
amber where p is at most 0.05. Of views that are probed together, p is corrected for their number
(Holm 1979, www.jstor.org/stable/4615733). How often a light is wrong on synthetic images is
measured in docs/audit.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cxrlib import duplicates, leaks, metrics, shortcuts, views

LIGHTS = ("red", "amber", "green", "grey")
RED, AMBER = 0.01, 0.05  # p values
NOTABLE = 0.6  # AUC: below it, even a sure effect would hardly lift a model's score
STRONG = 0.3  # Cramer's V: above it, knowing the source is knowing much of the label
SMALL = 30  # patients in a class


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
    table = evidence.cohort.table
    patients = table.groupby("label")["patient"].nunique()
    fewest, n = patients.idxmin(), int(patients.min())
    held = max(1, round(0.2 * n))
    low, high = metrics.wilson(round(0.9 * held), held)
    alone = table["patient"].nunique() == len(table)
    headline = (
        f"The smallest class, {fewest}, has {n} patients. A test part of a fifth holds {held}: a "
        f"sensitivity near 90 % would be known as {low:.0%} to {high:.0%}."
    )
    meaning = "Precision comes from patients, not from images or augmented copies."
    if alone:
        meaning += " Every image counts as a patient of its own here."
    advice = "Report intervals by patient. Cross-validate by patient rather than test once."
    if alone:
        advice += " If patients have several images, add a column 'patient': see the CSV format."
    light = "amber" if n < SMALL else "green"
    return [Finding("Size of the set", light, headline, meaning, advice)]


def two_classes(evidence) -> list[Finding]:
    """Judge patients who stand in two classes."""
    found = duplicates.patients_in_two_classes(evidence.cohort)
    count, all_patients = len(found), evidence.cohort.table["patient"].nunique()
    return [
        Finding(
            "Patients in two classes",
            "amber" if count else "green",
            f"{count} of {all_patients} patients have images in two classes.",
            "It can be right (people fall ill and recover), or a label is wrong. Split by image, "
            "such patients stand on both sides; split by label, nobody notices.",
            "Look at each of them, and split by patient."
            if count
            else "Nothing; split by patient all the same.",
            {"Patients in two classes": found} if count else {},
        )
    ]


def copies(evidence) -> list[Finding]:
    """Judge images that are copies of each other."""
    from cxrlib import plots

    pairs = evidence.pairs
    other_label = pairs["same label"].eq(False).to_numpy(dtype=bool)
    other_patient = pairs["same patient"].eq(False).to_numpy(dtype=bool)
    bad = pairs[other_label | other_patient]
    headline = (
        f"{len(pairs)} pairs of images are the same or nearly so; {int(other_patient.sum())} of "
        f"them under two patients, {int(other_label.sum())} under two labels."
    )
    finding = Finding(
        "Duplicates",
        "red" if len(bad) else "green",
        headline,
        "A copy in the test part of an image in the training part is an answer that was given "
        "away. Under two patients, not even a split by patient keeps them apart; under two "
        "labels, one of them is wrong.",
        "Keep one image of each pair, or give both the same patient. This audit did the latter."
        if len(bad)
        else "Nothing; copies of films with other crops or burned-in marks may go unnoticed.",
        {"Pairs": bad} if len(bad) else {},
        {"Pairs of images that look the same": plots.pairs_plot(evidence.original, bad)}
        if len(bad)
        else {},
    )
    return [finding]


def split(evidence) -> list[Finding]:
    """Judge the user's own division into training and test parts, if the table has one."""
    name = "Your split"
    if "split" not in evidence.cohort.table:
        return [
            Finding(
                name,
                "grey",
                "The table has no column 'split', so your own division was not checked.",
                "Many published splits divide images, and put one patient on both sides.",
                "Add a column 'split' (such as train and test) to the CSV, and audit again.",
            )
        ]
    found = duplicates.split_overlap(evidence.cohort, "split", evidence.pairs)
    counts = found["kind"].value_counts().reindex(["patient", "near-duplicate"], fill_value=0)
    return [
        Finding(
            name,
            "red" if len(found) else "green",
            f"{counts['patient']} patients and {counts['near-duplicate']} pairs of near-duplicates "
            "stand in more than one part of your split.",
            "What a model has seen in training, it need not understand to recognise in the test.",
            "Divide patients, not images." if len(found) else "Nothing.",
            {"On both sides": found} if len(found) else {},
        )
    ]


def source_and_label(evidence) -> list[Finding]:
    """Judge how far the source gives the label away."""
    from scipy.stats import chi2_contingency

    name, by = "Source and label", evidence.by
    table, strength = shortcuts.association(evidence.cohort, by)
    if np.isnan(strength):
        return [
            Finding(
                name,
                "grey",
                f"The column {by!r} has one value only: {table.index[0]}.",
                "If the classes come from different hospitals after all, this audit cannot know.",
                f"If you know the hospital or the machine, name it in the column {by!r}.",
            )
        ]
    p = float(chi2_contingency(table).pvalue)
    coincide = bool(((table > 0).sum(axis=1) == 1).all())
    light = _light(p, strength >= STRONG)
    headline = f"Cramer's V between source and label is {strength:.2f} (p {_p(p)})."
    if coincide:
        headline = f"Each source has one label only: source and label coincide. {headline}"
    evidence.tables["association"] = pd.DataFrame({"light": [light]})
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
            {f"Patients by {by} and label": table.reset_index()},
        )
    ]


def views_without_lungs(evidence) -> list[Finding]:
    """Judge each view that cannot show the disease."""
    from statsmodels.stats.multitest import multipletests

    table = shortcuts.shortcuts(
        evidence.cohort, evidence.classes, extract=evidence.extract, seed=evidence.seed
    )
    evidence.tables["views"] = table
    blind = table[table["view"].isin(views.WITHOUT_LUNGS)].copy()
    blind["p"] = multipletests(blind["p"], method="holm")[1]
    findings = [_blind_view(row) for row in blind.itertuples()]
    worst = min(findings, key=lambda finding: LIGHTS.index(finding.light))
    worst.figures.update(_view_figures(evidence, table))
    return findings


def _blind_view(row) -> Finding:
    name = "Lungs covered" if row.view == "lungs covered" else f"{row.view.capitalize()} alone"
    light = _light(row.p, row.auc >= NOTABLE)
    seen = views.VIEWS[row.view].split(";")[0]
    return Finding(
        name,
        light,
        f"From {seen}, the classes are told apart with AUC {row.auc:.2f} "
        f"[{row.low:.2f}, {row.high:.2f}] (0.5 is chance; p {_p(row.p)}).",
        "There are no lungs in this view. Whatever tells the classes apart here is a shortcut "
        "that a network can take as well."
        if light != "green"
        else "There are no lungs in this view, so it should not tell the classes apart.",
        ADVICE[row.view] if light != "green" else "Nothing was found, which proves nothing.",
    )


def _view_figures(evidence, table) -> dict:
    from cxrlib import plots

    return {
        "How well each view tells the classes apart": plots.shortcut_plot(table),
        "What each view leaves of an image": plots.views_plot(evidence.cohort),
    }


ADVICE = {
    "lungs covered": "Crop to the lungs, balance the sources, and report the score with the "
    "lungs covered beside your model's.",
    "border": "Crop the borders off before anything else, and look at collimation and frames.",
    "corners": "Remove markers and burned-in text, or crop them off.",
    "file": "Bring all images to one format and size from one export; sizes betray the source.",
}


def coarse_views(evidence) -> list[Finding]:
    """Judge whether thumbnail or histogram do as well as the whole image."""
    table = evidence.tables["views"].set_index("view")
    whole, findings = table.loc["whole image"], []
    for view in ("thumbnail", "histogram"):
        row = table.loc[view]
        enough = row["p"] <= RED and row["auc"] >= NOTABLE and row["high"] >= whole["auc"]
        findings.append(
            Finding(
                f"{view.capitalize()} alone",
                "amber" if enough else "green",
                f"From {views.VIEWS[view].split(';')[0]}, AUC {row['auc']:.2f} [{row['low']:.2f}, "
                f"{row['high']:.2f}]; from the whole image {whole['auc']:.2f} "
                f"[{whole['low']:.2f}, {whole['high']:.2f}].",
                "Grey values without detail can carry a disease (a white lung) or a scanner. If "
                "they do as well as the whole image, a network is not needed, and hardly tested.",
                "Compare your model with this baseline, on another source."
                if enough
                else "Report it as the baseline to beat.",
            )
        )
    return findings


def source_within_class(evidence) -> list[Finding]:
    """Judge whether the source can be told among images of one label."""
    name = "Source within one class"
    table = shortcuts.sources_within_class(
        evidence.cohort, evidence.by, extract=evidence.extract, seed=evidence.seed
    )
    if table.empty:
        return [
            Finding(
                name,
                "grey",
                f"No class has two sources with {shortcuts.FEWEST} patients each.",
                "So it cannot be told whether the sources look different for the same disease.",
                "Add images of one class from a second source.",
            )
        ]
    told = _light(float((table["p"] * len(table)).min()), table["auc"].max() >= NOTABLE)
    confounded = evidence.tables["association"]["light"].iloc[0] != "green"
    light = told if confounded or told == "green" else "amber"
    best = table.loc[table["auc"].idxmax()]
    return [
        Finding(
            name,
            light,
            f"Among {best['label']} images, the source is told with AUC {best['auc']:.2f} "
            f"[{best['low']:.2f}, {best['high']:.2f}].",
            "The label is the same, so this is not the disease: the sources look different. "
            + ("As they also differ in labels, that is a shortcut." if confounded else ""),
            "Test on a source that was not trained on."
            if light != "green"
            else "Nothing found, which proves nothing.",
            {"Source, told within one class": table},
        )
    ]


def image_split(evidence) -> list[Finding]:
    """Judge what a split by image would add to a score."""
    from cxrlib import plots

    name, table = "Image-level split", evidence.cohort.table
    if table["patient"].nunique() == len(table):
        return [
            Finding(
                name,
                "grey",
                "Every patient has one image, as far as the table knows.",
                "Then a split by image is a split by patient, until images are augmented.",
                "Augment after the split, never before.",
            )
        ]
    runs = leaks.leakage(
        evidence.cohort, evidence.classes, repeats=10, most=150, seed=evidence.seed
    )
    summary = leaks.leakage_summary(runs)
    figure = {"Scores by protocol, with true and with permuted labels": plots.leakage_plot(runs)}
    return [_leak(name, summary, figure)]


def _leak(name, summary, figure) -> Finding:
    """Word what a split by image knows of labels that mean nothing."""
    permuted = summary[summary["labels"] == "permuted"].set_index("protocol")
    by_image, clean = permuted.loc["split images, then augment"], permuted.loc[leaks.CLEAN]
    first = permuted.loc["augment, then split images"]
    leaky = by_image["excess low"] > 0
    return Finding(
        name,
        "amber" if leaky else "green",
        f"With labels shuffled among the patients, a nearest neighbour is right for "
        f"{by_image['mean']:.0%} of new images after a split by image, {first['mean']:.0%} if "
        f"they were augmented before it, and {clean['mean']:.0%} after a split by patient.",
        "Shuffled labels hold nothing to learn: what is above chance is memory of patients or of "
        "copies, and it comes on top of every score of such a split.",
        "Split by patient, then augment the training part only.",
        {"By protocol": summary.round(3)},
        figure,
    )


def _light(p: float, large: bool) -> str:
    if p <= RED and large:
        return "red"
    return "amber" if p <= AMBER else "green"


def _p(p: float) -> str:
    return f"= {p:.3f}" if p > 0.001 else "at most 0.001"
