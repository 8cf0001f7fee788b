"""What the probes of an audit mean that look for shortcuts: views, sources, leaky splits."""

from __future__ import annotations

from cxrlib import leaks, shortcuts, views
from cxrlib.judge import LIGHTS, RED, Finding, light_of, word_p

NOTABLE = 0.6  # AUC: below it, even a sure effect would hardly lift a model's score
NAMES = {
    "lungs covered": "Lungs covered",
    "border": "Border alone",
    "corners": "Corners alone",
    "file": "File alone",
}
COARSE = ("thumbnail", "histogram")
MOST = 150  # images for the leak's nearest neighbour, which takes a minute for a thousand
NEARLY = 0.9  # share of what the whole image knows beyond chance
ADVICE = {
    "lungs covered": "Crop to the lungs, balance the sources, and report the score with the "
    "lungs covered beside your model's.",
    "border": "Crop the borders off before anything else, and look at collimation and frames.",
    "corners": "Remove markers and burned-in text, or crop them off.",
    "file": "Bring all images to one format and size from one export; sizes betray the source.",
}


def views_without_lungs(evidence) -> list[Finding]:
    """Judge each view that cannot show the disease."""
    from statsmodels.stats.multitest import multipletests

    if evidence.too_few:
        return [_untested(NAMES[view], evidence) for view in views.WITHOUT_LUNGS]
    table = shortcuts.shortcuts(
        evidence.cohort, evidence.classes, extract=evidence.extract, seed=evidence.seed
    )
    evidence.tables["views"] = table
    blind = table[table["view"].isin(views.WITHOUT_LUNGS)].copy()
    scored = blind["p"].notna()  # one that cannot be scored must not spoil the others
    blind.loc[scored, "p"] = multipletests(blind.loc[scored, "p"], method="holm")[1]
    findings = [_blind_view(row, evidence.classes) for row in blind.itertuples()]
    worst = min(findings, key=lambda finding: LIGHTS.index(finding.light))
    worst.figures.update(_view_figures(evidence, table))
    return findings


def _blind_view(row, classes) -> Finding:
    light = light_of(row.p, row.auc >= NOTABLE)
    seen = views.VIEWS[row.view].split(";")[0]
    told = "the classes are" if len(classes) == 2 else f"{row.told!r} is, of all classes the best,"
    return Finding(
        NAMES[row.view],
        light,
        f"From {seen}, {told} told apart with AUC {row.auc:.2f} "
        f"[{row.low:.2f}, {row.high:.2f}] (0.5 is chance; corrected p {word_p(row.p)}).",
        "There are no lungs in this view, or hardly any. Whatever tells the classes apart here is "
        "a shortcut that a network can take as well."
        if light in ("red", "amber")
        else "There are hardly any lungs in this view, so it should not tell the classes apart.",
        ADVICE[row.view]
        if light in ("red", "amber")
        else "Nothing was found, which proves nothing.",
    )


def _untested(name, evidence) -> Finding:
    """Say that too few patients are left for a probe."""
    return Finding(
        name,
        "grey",
        f"Counting copies of a film as one patient, {evidence.too_few}.",
        f"A probe needs {shortcuts.FEWEST} patients of each class to learn from and to test on.",
        "See the duplicates; add patients, or leave the class out.",
    )


def _view_figures(evidence, table) -> dict:
    from cxrlib import plots

    return {
        "How well each view tells the classes apart": plots.shortcut_plot(table),
        "What each view leaves of an image": plots.views_plot(evidence.cohort),
    }


def coarse_views(evidence) -> list[Finding]:
    """Judge whether thumbnail or histogram do nearly as well as the whole image."""
    if evidence.too_few:
        return [_untested(f"{view.capitalize()} alone", evidence) for view in COARSE]
    table = evidence.tables["views"].set_index("view")
    whole, findings = table.loc["whole image"], []
    for view in COARSE:
        row = table.loc[view]
        nearly = row["auc"] - 0.5 >= NEARLY * (whole["auc"] - 0.5)
        enough = row["p"] <= RED and row["auc"] >= NOTABLE and nearly
        findings.append(
            Finding(
                f"{view.capitalize()} alone",
                "amber" if enough else "green",
                f"From {views.VIEWS[view].split(';')[0]}, AUC {row['auc']:.2f} [{row['low']:.2f}, "
                f"{row['high']:.2f}]; from the whole image {whole['auc']:.2f} "
                f"[{whole['low']:.2f}, {whole['high']:.2f}].",
                "Grey values without detail can carry a disease (a white lung) or a scanner. If "
                "they do nearly as well as the whole image, a network is hardly needed.",
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
    table["p"] = (table["p"] * len(table)).clip(upper=1)  # as many tests as classes
    lights = [light_of(row.p, row.auc >= NOTABLE) for row in table.itertuples()]
    place = min(range(len(lights)), key=lambda n: (LIGHTS.index(lights[n]), -table["auc"].iloc[n]))
    row, confounded = table.iloc[place], evidence.source_light == "red"
    light = "amber" if lights[place] == "red" and not confounded else lights[place]
    return [
        Finding(
            name,
            light,
            f"Among {row['label']} images, {row['told']!r} is told from other sources with AUC "
            f"{row['auc']:.2f} [{row['low']:.2f}, {row['high']:.2f}] (corrected p "
            f"{word_p(row['p'])}).",
            "The label is the same, so this is not the disease: the sources look different. "
            + ("As they also differ in labels, that is a shortcut." if confounded else ""),
            "Test on a source that was not trained on."
            if light in ("red", "amber")
            else "Nothing found, which proves nothing.",
            {"Source, told within one class": table},
        )
    ]


def image_split(evidence) -> list[Finding]:
    """Judge what a split by image would add to a score."""
    from cxrlib import plots

    name, table = "Image-level split", evidence.original.table
    if evidence.too_few:
        return [_untested(name, evidence)]
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
        evidence.cohort, evidence.classes, repeats=10, most=MOST, seed=evidence.seed
    )
    summary = leaks.leakage_summary(runs)
    figure = {"Scores by protocol, with true and with permuted labels": plots.leakage_plot(runs)}
    return [_leak(name, summary, figure, 1 / len(evidence.classes))]


def _leak(name, summary, figure, chance) -> Finding:
    """Word what a split by image knows of labels that mean nothing."""
    permuted = summary[summary["labels"] == "permuted"].set_index("protocol")
    by_image, clean = permuted.loc["split images, then augment"], permuted.loc[leaks.CLEAN]
    first = permuted.loc["augment, then split images"]
    leaky = by_image["excess low"] > 0
    return Finding(
        name,
        "amber" if leaky else "green",
        f"With labels shuffled among the patients, remembering alone scores {by_image['mean']:.0%} "
        f"after a split by image and {clean['mean']:.0%} after a split by patient; chance is "
        f"{chance:.0%}. Augmenting before the split gives {first['mean']:.0%}, as in any set.",
        "Shuffled labels hold nothing to learn: what is above chance is memory of patients or of "
        "copies, and it comes on top of every score of such a split. Balanced accuracy of one "
        f"nearest neighbour by grey histograms, on at most {MOST} of the images.",
        "Split by patient, then augment the training part only.",
        {"By protocol": summary.round(3)},
        figure,
    )
