"""What each probe of an audit means: a traffic light, a sentence, and what to do.

A light is red where chance is unlikely (p at most 0.01) and the effect large enough to matter,
amber where p is at most 0.05. Of views that are probed together, and of facts about the patients,
p is corrected for their number (Holm 1979, www.jstor.org/stable/4615733). How often a light is
wrong on synthetic images and tables is measured in docs/audit/README.md. Nothing is probed or
drawn here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cxrlib import metrics, shortcuts
from cxrlib.shortcuts import duplicates, leaks, odd, people, views

LIGHTS = ("red", "amber", "green", "grey")
RED, AMBER = 0.01, 0.05  # p values
STRONG = 0.3  # Cramer's V: above it, knowing the source is knowing much of the label
NOTABLE = 0.6  # AUC: below it, even a sure effect would hardly lift a model's score
NEARLY = 0.9  # share of what the whole image knows beyond chance
UNEVEN = 0.1  # difference between the labels' shares of patients with odd films
SMALL = 30  # patients in a class
FEW_A_SOURCE = 5  # patients: in a table with fewer in half of its rows, V is high by chance
KINDS = {"patient": "patient", "near-duplicate": "near-duplicate", "origin": "augmented film"}
SURE = 0.97  # similarity: different patients never came near it, among phantoms or real films
NOTHING = "Nothing was found, which proves nothing."
BLIND = {  # what to do if a view without lungs tells the classes apart
    "lungs covered": "Crop to the lungs, balance the sources, and report the score with the lungs "
    "covered beside your model's.",
    "border": "Crop the borders off before anything else, and look at frames and at the black "
    "edges that the X-ray machine leaves.",
    "corners": "Remove markers and text from the pictures, or crop them off.",
    "file": "Bring all images to one format and size from one export; sizes betray the source.",
}
COARSE = ("thumbnail", "histogram")
NAMES = {view: f"{view.capitalize()} alone" for view in (*BLIND, *COARSE)}
NAMES["lungs covered"] = "Lungs covered"
IMAGE_SPLIT = "Image-level split"
WHO = "Who they are"


@dataclass(frozen=True)
class Finding:
    """What one probe found: the numbers, why it matters, and what to do next.

    A light is red: act on it; amber: look at it; green: nothing found (which proves nothing); or
    grey: could not be tested. Tables are by their caption. So are figures, as the name of a
    function of ``cxrlib.plots`` and what it is given; the page draws them.
    """

    name: str
    light: str
    headline: str
    meaning: str
    advice: str
    tables: dict = field(default_factory=dict)
    figures: dict = field(default_factory=dict)


def _judged(name, light, headline, meaning, advice, otherwise="Nothing.", tables=()) -> Finding:
    """Make a finding: the advice is for a red or an amber light; empty tables are left out."""
    chosen = advice if light in ("red", "amber") else otherwise
    shown = {caption: table for caption, table in dict(tables).items() if len(table)}
    return Finding(name, light, headline, meaning, chosen, shown)


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
        advice += " If patients have several images, name them: --patient-column, --patient-from."
    return Finding(
        "Size of the set",
        "amber" if n < SMALL else "green",
        f"The smallest class, {fewest}, has {count_of(n, 'patient')}. A test part of a fifth holds "
        f"{held}: a sensitivity near 90 % would be known as {_share(low)} to {_share(high)}.",
        meaning,
        advice,
    )


def two_classes(cohort) -> Finding:
    """Judge patients who stand in two classes."""
    found = duplicates.patients_in_two_classes(cohort)
    everyone = cohort.table["patient"].nunique()
    return _judged(
        "Patients in two classes",
        "amber" if len(found) else "green",
        f"{len(found)} of {count_of(everyone, 'patient')} stand in two classes.",
        "It can be right (people fall ill and recover), or a label is wrong. Split by image, "
        "such patients stand on both sides; split by label, nobody notices.",
        "Look at each of them, and split by patient.",
        "Nothing; split by patient all the same.",
        {"Patients in two classes": found},
    )


def copies(cohort, pairs) -> Finding:
    """Judge images that are copies of each other, as ``near_duplicates`` found them."""
    other_label = pairs["same label"].eq(False).to_numpy(dtype=bool)
    other_patient = pairs["same patient"].eq(False).to_numpy(dtype=bool)
    bad = pairs[other_label | other_patient]
    images = pd.unique(pairs[["image", "other"]].to_numpy().ravel())
    found = _judged(
        "Duplicates",
        "green" if bad.empty else "red" if (bad["similarity"] >= SURE).any() else "amber",
        f"{count_of(len(images), 'image')} ({count_of(len(pairs), 'pair')}) look the same; "
        f"{count_of(int(other_patient.sum()), 'pair')} under two patients, "
        f"{count_of(int(other_label.sum()), 'pair')} under two labels.",
        "A copy in the test part of an image in the training part is an answer that was given "
        "away. Under two patients, not even a split by patient keeps them apart; under two "
        "labels, one of them is wrong.",
        "Look at the pairs. Keep one image of each that is one film, or give both the same "
        "patient; this audit did the latter.",
        "Nothing; mirrored films and stronger crops may go unnoticed.",
        {"Pairs under two patients or two labels": bad},
    )
    if len(bad):
        found.figures["Pairs that look the same"] = ("pairs_plot", cohort, bad)
    return found


def odd_films(cohort, found) -> Finding:
    """Judge films unlike the rest of their set, as ``odd_films`` found them."""
    name = "Odd films"
    meaning = (
        "Films that are inverted, turned, of another view or no radiograph teach a model what no "
        "patient has. A label whose films are odd is a shortcut."
    )
    if len(cohort) < odd.FEWEST:
        told = f"Of fewer than {odd.FEWEST} films nobody can say what is usual."
        return Finding(name, "grey", told, meaning, "Look at each of them.")
    labels = shortcuts.odd_by_label(cohort, found)
    worst = labels.loc[labels["p"].idxmin()]
    light = light_of(worst["p"], worst["share"] - worst["share of others"] >= UNEVEN)
    counts = found["reason"].str.split(" of ").str[0].value_counts()
    told = "; ".join(f"{reason}: {count}" for reason, count in counts.items())
    headline = f"{len(found)} of {count_of(len(cohort), 'film')} look unlike the rest"
    if len(found):
        headline += (
            f" ({told}). They come from {_share(worst['share'])} of the patients labelled "
            f"{worst['label']!r} and {_share(worst['share of others'])} of the others "
            f"(corrected p {word_p(worst['p'])})"
        )
    judged = _judged(
        name,
        "amber" if light == "green" and len(found) else light,
        f"{headline}.",
        meaning,
        "Look at each. Turn back what was turned, leave out what is not frontal: in all labels.",
        "Nothing; a heart on the right, or a lateral film, may go unnoticed.",
        {"Odd films": found.round({"score": 1}), "By label": labels[labels["odd"] > 0]},
    )
    if len(found):
        judged.figures["Films unlike the rest, and why"] = ("odd_plot", cohort, found)
    return judged


def split(cohort, pairs) -> Finding:
    """Judge the user's own division into training and test parts, if the table has one."""
    name = "Your split"
    if "split" not in cohort.table or cohort.table["split"].nunique() < 2:
        there = "names one part only" if "split" in cohort.table else "is not there"
        return Finding(
            name,
            "grey",
            f"The column 'split' {there}, so your own division was not checked.",
            "Many published splits divide images, and put one patient on both sides.",
            "Add a column 'split' (such as train and test) to the CSV, and audit again.",
        )
    found = duplicates.split_overlap(cohort, pairs)
    counts = found["kind"].value_counts().reindex(KINDS, fill_value=0)
    told = ", ".join(count_of(counts[kind], word) for kind, word in KINDS.items())
    return _judged(
        name,
        "red" if len(found) else "green",
        f"On more than one side of your split stand {told}.",
        "What a model has seen in training, it need not understand to recognise in the test.",
        "Divide patients, not images, and give copies of one film one patient.",
        tables={"On both sides": found},
    )


def source_and_label(cohort, by) -> Finding:
    """Judge how far the source gives the label away."""
    from scipy.stats import chi2_contingency

    table, strength = shortcuts.association(cohort, by)
    nameless = int(cohort.table[by].isna().sum())
    told = f" {count_of(nameless, 'image')} of {len(cohort)} name no {by}." if nameless else ""
    if np.isnan(strength) or table.sum(axis=1).median() < FEW_A_SOURCE:
        many = "has too few patients for each value" if len(table) > 1 else "has one value only"
        light, headline = "grey", f"The column {by!r} {many}, among the labels that name one.{told}"
        meaning = "If the classes come from different hospitals after all, this audit cannot know."
        otherwise = f"Name the hospital or the machine in the column {by!r}, a few values in all."
    else:
        p = float(chi2_contingency(table.loc[:, table.any(axis=0)]).pvalue)
        light = light_of(p, strength >= STRONG)
        much = "much" if strength >= STRONG else "little"
        headline = (
            f"To know the {by} is to know {much} of the label: their association is "
            f"{strength:.2f} of 1 (Cramér's V; p {word_p(p)}).{told}"
        )
        if light != "green" and bool(((table > 0).sum(axis=1) == 1).all()):
            headline = f"Each {by} has one label only: they coincide. {headline}"
        meaning = (
            "Where the source says what the label is, a model that knows the source needs no "
            "lungs, and no test on the same sources can tell the difference."
        )
        otherwise = "Nothing; test on another source all the same."
    return _judged(
        "Source and label",
        light,
        headline,
        meaning,
        "Collect every class from every source, or test on a source that was not trained on.",
        otherwise,
        {f"Patients by {by} and label": table.reset_index()},
    )


def few_patients(cohort) -> pd.Series:
    """Count the patients of each class that has too few of them to be probed."""
    patients = cohort.table.groupby("label")["patient"].nunique()
    return patients[patients < shortcuts.FEWEST]


def untested(name: str, few: pd.Series) -> Finding:
    """Say that a probe was not run, as :func:`few_patients` tells why."""
    return Finding(
        name,
        "grey",
        f"Counting copies of a film as one patient, only {few.iloc[0]} patients of class "
        f"{few.index[0]!r} are left.",
        f"A probe needs {shortcuts.FEWEST} patients of each class to learn from and to test on.",
        "See the duplicates; add patients, or leave the class out.",
    )


def views_without_lungs(cohort, classes, table) -> list[Finding]:
    """Judge each view that cannot show the disease, by what ``shortcuts`` found."""
    blind = _corrected(table[table["view"].isin(BLIND)])
    findings = [_blind_view(row, len(classes) == 2) for row in blind.itertuples()]
    worst = min(findings, key=lambda finding: LIGHTS.index(finding.light))
    worst.figures["How well each view tells the classes apart"] = ("shortcut_plot", table)
    best = blind.sort_values("auc", na_position="first")["told"].iloc[-1]
    shown = sorted(cohort.labels, key=lambda label: label != best)[:2]  # as the headline
    worst.figures["What each view leaves of an image"] = ("views_plot", cohort.where(label=shown))
    every = table.assign(**{"corrected p": blind["p"]})  # of those without lungs
    worst.tables["All views: AUC with its 95 % interval, images, patients and p"] = every
    return findings


def _corrected(table) -> pd.DataFrame:
    """Correct the p of all rows for their number, by Holm's method."""
    from statsmodels.stats.multitest import multipletests

    table = table.copy()
    scored = table["p"].notna()  # one that cannot be scored must not spoil the others
    table.loc[scored, "p"] = multipletests(table.loc[scored, "p"], method="holm")[1]
    return table


def _worst(table) -> tuple:
    """Give the worst light of all rows, and of those that have it the row told best."""
    rated = [(light_of(row.p, row.auc >= NOTABLE), row) for row in table.itertuples()]
    return min(rated, key=lambda one: (LIGHTS.index(one[0]), -one[1].auc))


def _told(row, two: bool) -> str:
    who = "the classes are told apart" if two else f"{row.told!r} is the class told apart best,"
    return f"{who} with AUC {_area(row)}"


def who_they_are(cohort, table) -> Finding:
    """Judge what age, sex, view and date tell, by what ``shortcuts.who_they_are`` found."""
    known = {"Who the patients are, by label": shortcuts.people_by_label(cohort.table)}
    tried = set(", ".join(table["fact"]).split(", "))
    rest = [fact for fact in people.FACTS if fact in cohort.table and fact not in tried]
    told = f" Not tested, as known of too few or the same for all: {', '.join(rest)}." * bool(rest)
    nobody = not tried & {"age", "sex"}  # then no light is green, whatever else is known
    told += " Nobody's age or sex could be tested." * nobody
    light, add = "grey", "Add columns 'age' (years) and 'sex' (F or M) to the table."
    if len(table):
        table = _corrected(table)
        light, row = _worst(table)
        two, facts = row.classes.count(", ") == 1, " and ".join(row.fact.rsplit(", ", 1))
        told = (
            f"From {facts} alone, without a film, {_told(row, two)} in {row.patients} patients "
            f"(0.5 is chance; corrected p {word_p(row.p)}).{told}"
        )
    found = _judged(
        WHO,
        "grey" if light == "green" and nobody else light,
        told.strip(),
        "A network can see age and sex in a film. As much as they tell, it may score without "
        "knowing the disease. Patients of whom a fact is not known took no part in its row: that "
        "it is unknown says something of the table, which no film shows.",
        "Credit a model only with what it knows beyond this AUC. Match or weigh the classes by "
        "these facts, or report scores within groups of them.",
        add if nobody else NOTHING,
        {"What each fact tells, one row a patient": table} | known,
    )
    if "age" in tried:
        years = pd.to_numeric(cohort.table["age"], errors="coerce")
        found.figures["Ages by label"] = ("ages", cohort.table.assign(age=years))
    return found


def _blind_view(row, two: bool) -> Finding:
    light, told = light_of(row.p, row.auc >= NOTABLE), _told(row, two)
    meaning = "There are hardly any lungs in this view, so it should not tell the classes apart."
    if light in ("red", "amber"):
        meaning = (
            "There are no lungs in this view, or hardly any. Whatever tells the classes apart here "
            "is a shortcut that a network can take as well."
        )
    headline = f"From {_seen(row.view)}, {told} (0.5 is chance; corrected p {word_p(row.p)})."
    return _judged(NAMES[row.view], light, headline, meaning, BLIND[row.view], NOTHING)


def coarse_views(table) -> list[Finding]:
    """Judge whether thumbnail or histogram do nearly as well as the whole image."""
    rows = table.set_index("view")
    return [_coarse_view(view, rows.loc[view], rows.loc["whole image"]) for view in COARSE]


def _coarse_view(view, row, whole) -> Finding:
    nearly = row["auc"] - 0.5 >= NEARLY * (whole["auc"] - 0.5)
    return _judged(
        NAMES[view],
        "amber" if row["p"] <= RED and row["auc"] >= NOTABLE and nearly else "green",
        f"From {_seen(view)}, AUC {_area(row)}; from the whole image {_area(whole)}.",
        "Grey values without detail can carry a disease (a white lung) or a scanner. If they do "
        "nearly as well as the whole image, a network is hardly needed.",
        "Compare your model with this baseline, on another source.",
        "Report it as the baseline to beat.",
    )


def _seen(view: str) -> str:
    return views.VIEWS[view].split(";")[0]


def source_within_class(table, confounded: bool) -> Finding:
    """Judge whether the source can be told among images of one label.

    `table` is as ``sources_within_class`` found it; `confounded` says whether the sources differ
    in labels too, which makes a shortcut of it.
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
    table = table.copy()
    table["p"] = (table["p"] * len(table)).clip(upper=1)  # as many tests as classes
    light, row = _worst(table)
    return _judged(
        name,
        "amber" if light == "red" and not confounded else light,
        f"Among {row.label} images, {row.told!r} is told from other sources with AUC {_area(row)} "
        f"(corrected p {word_p(row.p)}).",
        "The label is the same, so this is not the disease: the sources look different. "
        + ("As they also differ in labels, that is a shortcut." if confounded else ""),
        "Test on a source that was not trained on.",
        "Nothing found, which proves nothing.",
        {"Source, told within one class": table},
    )


def one_image_each(cohort) -> bool:
    """Tell whether no patient has a second image, as far as the table knows."""
    return cohort.table["patient"].nunique() == len(cohort)


def image_split(runs, most: int) -> Finding:
    """Judge what a split by image knows of shuffled labels.

    `runs` is what ``leakage`` found with `most` images at most; None if no patient has two.
    """
    if runs is None:
        return Finding(
            IMAGE_SPLIT,
            "grey",
            "Every patient has one image, as far as the table knows.",
            "Then a split by image is a split by patient, until images are augmented.",
            "Augment after the split, never before.",
        )
    summary, chance = leaks.leakage_summary(runs), runs["chance"].iloc[0]
    permuted = summary[summary["labels"] == "permuted"].set_index("protocol")
    by_image, clean = permuted.loc["split images, then augment"], permuted.loc[leaks.CLEAN]
    first = permuted.loc["augment, then split images"]
    caption = "Scores by protocol; permuted labels are shuffled ones"
    return Finding(
        IMAGE_SPLIT,
        "amber" if by_image["excess low"] > 0 else "green",
        f"With labels shuffled among the patients, remembering alone scores "
        f"{_share(by_image['mean'])} after a split by image and {_share(clean['mean'])} after a "
        f"split by patient; chance is {_share(chance)}. Augmenting before the split gives "
        f"{_share(first['mean'])}: copies can be remembered in any set.",
        "Shuffled labels hold nothing to learn: what is above chance is memory of patients or of "
        "copies, and it comes on top of every score of such a split. The score is "
        "the mean share called right per class. The model answers with the label of the film that "
        f"is most alike in its grey values; at most {most} images took part.",
        "Split by patient, then augment the training part only.",
        {caption: summary.round(3)},
        {caption: ("leakage_plot", runs)},
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


def _share(part: float) -> str:
    """Word a share as the page's other texts do: 52 %."""
    return f"{100 * part:.0f} %"


def word_p(p: float) -> str:
    """Word a p value, to follow the letter p."""
    return f"= {p:.3f}" if p > 0.001 else "at most 0.001"


def _area(row) -> str:
    """Word an AUC and its interval."""
    return f"{row.auc:.2f} [{row.low:.2f}, {row.high:.2f}]"
