"""Measure on real films what pretraining is worth: a CSV, a figure a task, and lines for the page.

python docs/results/reduced.py FOLDER runs/reduced.csv
CXR_WEIGHTS=FOLDER python docs/results/pretraining.py runs/reduced.csv docs/results/pretraining

Healthy films against COVID-19 (two sources, so the hospital may tell) and against pneumonia (one
source). VGG16 with ImageNet's weights and with random ones, and the course's small network with
weights learned on phantoms and with random ones; 96 pixels, frozen features, five seeds.
"""

import sys
from pathlib import Path

import pandas as pd

from cxrlib import backbone, plots, sources, split
from cxrlib.files import whole_file
from cxrlib.shortcuts import pretraining

SIZES = [10, 25, 50, 100, 200, 400]
SEEDS = range(5)
SIDE = pretraining.SIDE


def features(films) -> dict[str, dict]:
    """Features of each pair of networks of one shape, (n, d): the learned and the random one."""
    weights = {kind: backbone.find_weights("VGG16", kind) for kind in ("imagenet", "random")}
    large = {
        kind: backbone.features(films, "VGG16", SIDE, each, progress=False)
        for kind, each in weights.items()
    }
    small = (pretraining.pretrained_network(), pretraining.build_network())
    phantoms, random = (pretraining.features(network, films) for network in small)
    return {
        "VGG16": {"VGG16, ImageNet": large["imagenet"], "VGG16, random": large["random"]},
        "small": {"small, phantoms": phantoms, "small, random": random},
    }


def measure(cohort, classes):
    """Scores and gains of all pairs, as ``pretraining.learning_curves`` gives them."""
    people = cohort.table["patient"].nunique()
    sizes = [size for size in SIZES if size <= people * 0.77]
    found = [
        pretraining.learning_curves(x, cohort, classes, sizes, SEEDS, against=list(x)[1])
        for x in features(cohort.images).values()
    ]
    return [pd.concat(tables, ignore_index=True) for tables in zip(*found, strict=True)]


def lines(task: str, cohort, scores, gains) -> list[str]:
    """Markdown: the areas, and what was gained over random weights, by patients."""
    counts = cohort.table.groupby("label")["patient"].agg(["size", "nunique"])
    who = ", ".join(f"{n} {label} films of {p} patients" for label, n, p in counts.itertuples())
    rows = pd.concat([scores, gains.assign(backbone=gains["backbone"] + " minus random")])
    rows = rows[rows["metric"] == "auc"]
    said = [f"{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in rows.itertuples()]
    wide = rows.assign(said=said).pivot(index="backbone", columns="patients", values="said")
    order = rows["backbone"].drop_duplicates()
    head = f"| AUC by patients to learn from | {' | '.join(map(str, wide.columns))} |"
    body = [f"| {name} | {' | '.join(wide.loc[name])} |" for name in order]
    return [f"**{task}**: {who}.", "", head, "| --- " * (wide.shape[1] + 1) + "|", *body, ""]


if __name__ == "__main__":
    table, target = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    films, kept = sources.load("folder", folder=str(table)), []
    for task, ill in {"covid": "covid", "pneumonia": "pneumonia"}.items():
        classes = ["healthy", ill]
        cohort = split.balance(films.where(label=classes), 0)
        scores, gains = measure(cohort, classes)
        for kind, found in {"score": scores, "gain": gains}.items():
            kept.append(found.assign(task=task, kind=kind))
        title = f"Healthy or {ill}: frozen features, real films"
        note = plots.provenance(cohort) + " Minus random weights of the same network."
        figure = plots.patient_curves(scores, gains, "auc", title, note)
        figure.savefig(target.with_name(f"{target.name}_{task}.png"), dpi=100)
        print("\n".join(lines(f"Healthy or {ill}", cohort, scores, gains)), flush=True)
    with whole_file(target.with_suffix(".csv")) as partial:
        pd.concat(kept).round(4).to_csv(partial, index=False)
