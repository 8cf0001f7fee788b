"""What each probe of an audit means: a traffic light, a sentence, and what to do.

A light is red where chance is unlikely (p at most 0.01) and the effect large enough to matter,
amber where p is at most 0.05. Of views that are probed together, p is corrected for their number
(Holm 1979, www.jstor.org/stable/4615733). How often a light is wrong on synthetic images is
measured in docs/audit/README.md.

Each function takes what an experiment found, and gives a finding: nothing is probed or drawn here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cxrlib import metrics, shortcuts
from cxrlib.shortcuts import duplicates, leaks, views

LIGHTS = ("red", "amber", "green", "grey")
RED, AMBER = 0.01, 0.05  # p values
STRONG = 0.3  # Cramer's V: above it, knowing the source is knowing much of the label
NOTABLE = 0.6  # AUC: below it, even a sure effect would hardly lift a model's score
NEARLY = 0.9  # share of what the whole image knows beyond chance
SMALL = 30  # patients in a class
FEW_A_SOURCE = 5  # patients: in a table with fewer in half of its rows, V is high by chance
KINDS = {"patient": "patient", "near-duplicate": "near-duplicate", "origin": "augmented film"}
SURE = 0.97  # similarity: different patients never came near it, among phantoms or real films
NOTHING = "Nothing was found, which proves nothing."
BLIND = {  # what a view without lungs is called, and what to do if it tells the classes apart
    "lungs covered": (
        "Lungs covered",
        "Crop to the lungs, balance the sources, and report the score with the lungs covered "
        "beside your model's.",
    ),
    "border": (
        "Border alone",
        "Crop the borders off before anything else, and look at collimation and frames.",
    ),
    "corners": (
        "Corners alone",
        "Remove markers and burned-in text, or crop them off.",
    ),
    "file": (
        "File alone",
        "Bring all images to one format and size from one export; sizes betray the source.",
    ),
}
COARSE = {"thumbnail": "Thumbnail alone", "histogram": "Histogram alone"}
IMAGE_SPLIT = "Image-level split"


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
    figures : dict of str to tuple
        By caption, which serves as the alternative text too: the name of a function of
        ``cxrlib.plots``, then what it is given. The page draws it.
    """

    name: str
    light: str
    headline: str
    meaning: str
    advice: str
    tables: dict = field(default_factory=dict)
    figures: dict = field(default_factory=dict)


def size(cohort) -> Finding:
    """Judge what the number of patients can show at all."""
    patients = cohort.table.groupby("label")["patient"].nunique()
    fewest, n = patients.idxmin(), int(patients.min())
    held = max(1, round(0.2 * n))
    low, high = metrics.wilson(round(0.9 * held), held)
    meaning = "Precision comes from patients, not from images or augmented copies."
    advice = "Report intervals by patient. Cross-validate by patient rather than test once."
    if one_image_each(cohort):
        meaning += " Every image counts as a patient of its own here."
        advice += " If patients have several images, add a column 'patient': see the CSV format."
    return Finding(
        "Size of the set",
        "amber" if n < SMALL else "green",
        f"The smallest class, {fewest}, has {count_of(n, 'patient')}. A test part of a fifth holds "
        f"{held}: a sensitivity near 90 % would be known as {low:.0%} to {high:.0%}.",
        meaning,
        advice,
    )


def two_classes(cohort) -> Finding:
    """Judge patients who stand in two classes."""
    found = duplicates.patients_in_two_classes(cohort)
    everyone = cohort.table["patient"].nunique()
    return Finding(
        "Patients in two classes",
        "amber" if len(found) else "green",
        f"{len(found)} of {count_of(everyone, 'patient')} stand in two classes.",
        "It can be right (people fall ill and recover), or a label is wrong. Split by image, "
        "such patients stand on both sides; split by label, nobody notices.",
        "Look at each of them, and split by patient."
        if len(found)
        else "Nothing; split by patient all the same.",
        {"Patients in two classes": found} if len(found) else {},
    )


def copies(cohort, pairs) -> Finding:
    """Judge images that are copies of each other, as ``near_duplicates`` found them."""
    other_label = pairs["same label"].eq(False).to_numpy(dtype=bool)
    other_patient = pairs["same patient"].eq(False).to_numpy(dtype=bool)
    bad = pairs[other_label | other_patient]
    images = pd.unique(pairs[["image", "other"]].to_numpy().ravel())
    return Finding(
        "Duplicates",
        "green" if bad.empty else "red" if (bad["similarity"] >= SURE).any() else "amber",
        f"{count_of(len(images), 'image')} ({count_of(len(pairs), 'pair')}) look the same; "
        f"{count_of(int(other_patient.sum()), 'pair')} under two patients, "
        f"{count_of(int(other_label.sum()), 'pair')} under two labels.",
        "A copy in the test part of an image in the training part is an answer that was given "
        "away. Under two patients, not even a split by patient keeps them apart; under two "
        "labels, one of them is wrong.",
        "Look at the pairs. Keep one image of each that is one film, or give both the same "
        "patient; this audit did the latter."
        if len(bad)
        else "Nothing; mirrored films and stronger crops may go unnoticed.",
        {"Pairs": bad} if len(bad) else {},
        {"Pairs of images that look the same": ("pairs_plot", cohort, bad)} if len(bad) else {},
    )


def split(cohort, pairs) -> Finding:
    """Judge the user's own division into training and test parts, if the table has one."""
    if "split" not in cohort.table or cohort.table["split"].nunique() < 2:
        there = "names one part only" if "split" in cohort.table else "is not there"
        return Finding(
            "Your split",
            "grey",
            f"The column 'split' {there}, so your own division was not checked.",
            "Many published splits divide images, and put one patient on both sides.",
            "Add a column 'split' (such as train and test) to the CSV, and audit again.",
        )
    found = duplicates.split_overlap(cohort, pairs)
    counts = found["kind"].value_counts().reindex(KINDS, fill_value=0)
    told = ", ".join(count_of(counts[kind], word) for kind, word in KINDS.items())
    return Finding(
        "Your split",
        "red" if len(found) else "green",
        f"On more than one side of your split stand {told}.",
        "What a model has seen in training, it need not understand to recognise in the test.",
        "Divide patients, not images, and give copies of one film one patient."
        if len(found)
        else "Nothing.",
        {"On both sides": found} if len(found) else {},
    )


def source_and_label(cohort, by) -> Finding:
    """Judge how far the source gives the label away."""
    from scipy.stats import chi2_contingency

    name, (table, strength) = "Source and label", shortcuts.association(cohort, by)
    captions = {f"Patients by {by} and label": table.reset_index()}
    nameless = int(cohort.table[by].isna().sum())
    told = f" {count_of(nameless, 'image')} of {len(cohort)} name no {by}." if nameless else ""
    if np.isnan(strength) or table.sum(axis=1).median() < FEW_A_SOURCE:
        many = "has too few patients for each value" if len(table) > 1 else "has one value only"
        return Finding(
            name,
            "grey",
            f"The column {by!r} {many}, among the labels that name one.{told}",
            "If the classes come from different hospitals after all, this audit cannot know.",
            f"Name the hospital or the machine in the column {by!r}, a few values in all.",
            captions if len(table) else {},
        )
    p = float(chi2_contingency(table.loc[:, table.any(axis=0)]).pvalue)
    light = light_of(p, strength >= STRONG)
    headline = f"Cramer's V between {by} and label is {strength:.2f} (p {word_p(p)}).{told}"
    if light != "green" and bool(((table > 0).sum(axis=1) == 1).all()):
        headline = f"Each {by} has one label only: they coincide. {headline}"
    return Finding(
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


def too_few(cohort) -> str:
    """Say which class has too few patients to be probed; nothing if all have enough."""
    patients = cohort.table.groupby("label")["patient"].nunique()
    few = patients[patients < shortcuts.FEWEST]
    return "" if few.empty else f"only {few.iloc[0]} patients of class {few.index[0]!r} are left"


def untested(name: str, few: str) -> Finding:
    """Say that a probe was not run, as `few` says which class has too few patients."""
    return Finding(
        name,
        "grey",
        f"Counting copies of a film as one patient, {few}.",
        f"A probe needs {shortcuts.FEWEST} patients of each class to learn from and to test on.",
        "See the duplicates; add patients, or leave the class out.",
    )


def views_without_lungs(cohort, classes, table) -> list[Finding]:
    """Judge each view that cannot show the disease, by what ``shortcuts`` found."""
    from statsmodels.stats.multitest import multipletests

    blind = table[table["view"].isin(BLIND)].copy()
    scored = blind["p"].notna()  # one that cannot be scored must not spoil the others
    blind.loc[scored, "p"] = multipletests(blind.loc[scored, "p"], method="holm")[1]
    findings = [_blind_view(row, classes) for row in blind.itertuples()]
    worst = min(findings, key=lambda finding: LIGHTS.index(finding.light))
    worst.figures["How well each view tells the classes apart"] = ("shortcut_plot", table)
    worst.figures["What each view leaves of an image"] = ("views_plot", cohort)
    return findings


def _blind_view(row, classes) -> Finding:
    name, advice = BLIND[row.view]
    light = light_of(row.p, row.auc >= NOTABLE)
    seen = views.VIEWS[row.view].split(";")[0]
    told = "the classes are" if len(classes) == 2 else f"{row.told!r} is, of all classes the best,"
    return Finding(
        name,
        light,
        f"From {seen}, {told} told apart with AUC {_area(row)} (0.5 is chance; corrected p "
        f"{word_p(row.p)}).",
        "There are no lungs in this view, or hardly any. Whatever tells the classes apart here is "
        "a shortcut that a network can take as well."
        if light in ("red", "amber")
        else "There are hardly any lungs in this view, so it should not tell the classes apart.",
        advice if light in ("red", "amber") else NOTHING,
    )


def coarse_views(table) -> list[Finding]:
    """Judge whether thumbnail or histogram do nearly as well as the whole image."""
    rows = {row.view: row for row in table.itertuples()}
    whole, findings = rows["whole image"], []
    for view, name in COARSE.items():
        row = rows[view]
        nearly = row.auc - 0.5 >= NEARLY * (whole.auc - 0.5)
        enough = row.p <= RED and row.auc >= NOTABLE and nearly
        findings.append(
            Finding(
                name,
                "amber" if enough else "green",
                f"From {views.VIEWS[view].split(';')[0]}, AUC {_area(row)}; from the whole image "
                f"{_area(whole)}.",
                "Grey values without detail can carry a disease (a white lung) or a scanner. If "
                "they do nearly as well as the whole image, a network is hardly needed.",
                "Compare your model with this baseline, on another source."
                if enough
                else "Report it as the baseline to beat.",
            )
        )
    return findings


def source_within_class(table, confounded: bool) -> Finding:
    """Judge whether the source can be told among images of one label.

    Parameters
    ----------
    table : DataFrame
        As ``sources_within_class`` found it.
    confounded : bool
        Whether the sources differ in labels too, which makes a shortcut of it.
    """
    name = "Source within one class"
    if table.empty:
        return Finding(
            name,
            "grey",
            f"No class has two sources with {shortcuts.FEWEST} patients each.",
            "So it cannot be told whether the sources look different for the same disease.",
            "Add images of one class from a second source.",
        )
    table = table.assign(p=(table["p"] * len(table)).clip(upper=1))  # as many tests as classes
    lights = [light_of(row.p, row.auc >= NOTABLE) for row in table.itertuples()]
    place = min(range(len(lights)), key=lambda n: (LIGHTS.index(lights[n]), -table["auc"].iloc[n]))
    row = list(table.itertuples())[place]
    light = "amber" if lights[place] == "red" and not confounded else lights[place]
    return Finding(
        name,
        light,
        f"Among {row.label} images, {row.told!r} is told from other sources with AUC {_area(row)} "
        f"(corrected p {word_p(row.p)}).",
        "The label is the same, so this is not the disease: the sources look different. "
        + ("As they also differ in labels, that is a shortcut." if confounded else ""),
        "Test on a source that was not trained on."
        if light in ("red", "amber")
        else "Nothing found, which proves nothing.",
        {"Source, told within one class": table},
    )


def one_image_each(cohort) -> bool:
    """Tell whether no patient has a second image, as far as the table knows."""
    return cohort.table["patient"].nunique() == len(cohort)


def no_image_split() -> Finding:
    """Say why a split by image adds nothing where every patient has one image."""
    return Finding(
        IMAGE_SPLIT,
        "grey",
        "Every patient has one image, as far as the table knows.",
        "Then a split by image is a split by patient, until images are augmented.",
        "Augment after the split, never before.",
    )


def image_split(runs, most: int) -> Finding:
    """Judge what a split by image knows of labels that mean nothing.

    Parameters
    ----------
    runs : DataFrame
        As ``leakage`` found it.
    most : int
        Images that it used at most.
    """
    summary, chance = leaks.leakage_summary(runs), runs["chance"].iloc[0]
    permuted = summary[summary["labels"] == "permuted"].set_index("protocol")
    by_image, clean = permuted.loc["split images, then augment"], permuted.loc[leaks.CLEAN]
    first = permuted.loc["augment, then split images"]
    return Finding(
        IMAGE_SPLIT,
        "amber" if by_image["excess low"] > 0 else "green",
        f"With labels shuffled among the patients, remembering alone scores {by_image['mean']:.0%} "
        f"after a split by image and {clean['mean']:.0%} after a split by patient; chance is "
        f"{chance:.0%}. Augmenting before the split gives {first['mean']:.0%}, as in any set.",
        "Shuffled labels hold nothing to learn: what is above chance is memory of patients or of "
        "copies, and it comes on top of every score of such a split. Balanced accuracy of one "
        f"nearest neighbour by grey histograms, on at most {most} of the images.",
        "Split by patient, then augment the training part only.",
        {"By protocol": summary.round(3)},
        {"Scores by protocol, with true and with permuted labels": ("leakage_plot", runs)},
    )


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


def _area(row) -> str:
    """Word an AUC and its interval."""
    return f"{row.auc:.2f} [{row.low:.2f}, {row.high:.2f}]"
