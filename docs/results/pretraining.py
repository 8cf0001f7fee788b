"""Measured on real films; teaching material, not for clinical use.

```sh
python docs/results/reduced.py FOLDER runs/reduced.csv
CXR_WEIGHTS=WEIGHTS python docs/results/pretraining.py runs/reduced.csv docs/results/pretraining
```

Heads on frozen features learn from few patients or many, and are tested on films of others: five
folds by patient, five seeds, 95 % intervals by patient, 96 pixels. VGG16 has ImageNet's weights or
random ones, the course's small network (98,000 weights) ones learned on phantoms or random ones,
each drawn once. Healthy and COVID-19 films come from two sources, so the hospital may tell the
class; healthy and pneumonia films come from one, but AP more often where healthy. An interval that
holds 0 does not say that pretraining is worth nothing: it says that these films cannot tell.
"""

import sys
from pathlib import Path

import pandas as pd

from cxrlib import backbone, plots, sources, split
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


def page(found: dict[str, list[str]], name: str) -> str:
    """Write the page: what this file says of itself, and of each task the figure and the lines."""
    said = ["# What pretraining is worth, on real films", "", __doc__]
    for task, text in found.items():
        said += [f"![AUC by patients, healthy or {task}]({name}_{task}.png)", "", *text]
    return "\n".join([*said, f"All numbers, accuracy among them: [{name}.csv]({name}.csv)."]) + "\n"


if __name__ == "__main__":
    table, target = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    films, kept, found = sources.load("folder", folder=str(table)), [], {}
    for ill in ("covid", "pneumonia"):
        classes = ["healthy", ill]
        cohort = split.balance(films.where(label=classes), 0)
        scores, gains = measure(cohort, classes)
        kept += [scores.assign(task=ill, kind="score"), gains.assign(task=ill, kind="gain")]
        title = f"Healthy or {ill}: frozen features, real films"
        note = plots.provenance(cohort) + " Below: minus random weights of the same network."
        figure = plots.patient_curves(scores, gains, "auc", title, note)
        figure.savefig(target.with_name(f"{target.name}_{ill}.png"), dpi=100)
        found[ill] = lines(f"Healthy or {ill}", cohort, scores, gains)
    pd.concat(kept).round(4).to_csv(target.with_suffix(".csv"), index=False)
    target.with_suffix(".md").write_text(page(found, target.name), encoding="utf-8")
