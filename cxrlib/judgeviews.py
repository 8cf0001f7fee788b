"""What the probes of an audit mean that look for shortcuts: views, sources, leaky splits."""

from __future__ import annotations

from cxrlib import leaks, shortcuts, views
from cxrlib.judge import LIGHTS, RED, Finding, light_of, word_p

NOTABLE = 0.6  # AUC: below it, even a sure effect would hardly lift a model's score
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
    light = light_of(row.p, row.auc >= NOTABLE)
    seen = views.VIEWS[row.view].split(";")[0]
    return Finding(
        name,
        light,
        f"From {seen}, the classes are told apart with AUC {row.auc:.2f} "
        f"[{row.low:.2f}, {row.high:.2f}] (0.5 is chance; p {word_p(row.p)}).",
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
    told = light_of(float((table["p"] * len(table)).min()), table["auc"].max() >= NOTABLE)
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
