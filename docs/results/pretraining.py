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

from cxrlib import backbone, plots, results, sources, split
from cxrlib.shortcuts import pretraining

SIZES = [10, 25, 50, 100, 200, 400]
SEEDS = range(5)
SIDE = pretraining.SIDE
(FIRST, AT), (MORE, THEN) = pretraining.NEW_HEAD, pretraining.GOING_ON
TUNING = f"""\
## Fine-tuning

The small network with weights from phantoms gets a new head ({FIRST} steps at {AT}). Then its last
block learns, too ({MORE} steps at {THEN}); the gain is over a head that goes on alone, alike. Two
halves by patient test each other; one seed. The probe asks whether the class can be told from the
features with the lungs covered. The films of COVID-19 are those of the mirror, by lesson 4
([its results](results/04_resnet50.json), the command in [README.md](README.md)); the others are
those of above.
"""
LIMITS = """\
This says nothing of a large network with ImageNet's weights. Nor that a gain comes from the lungs:
where the probe reads the class without them, from the hospital or the view, so may the block, and
no film here comes from another hospital. The intervals draw patients and take the networks as
trained; other halves or another seed are not in them.
"""


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
    rows = pd.concat([scores, gains.assign(backbone=gains["backbone"] + " minus random")])
    rows = rows[rows["metric"] == "auc"]
    said = [f"{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in rows.itertuples()]
    wide = rows.assign(said=said).pivot(index="backbone", columns="patients", values="said")
    order = rows["backbone"].drop_duplicates()
    head = f"| AUC by patients to learn from | {' | '.join(map(str, wide.columns))} |"
    body = [f"| {name} | {' | '.join(wide.loc[name])} |" for name in order]
    return [
        f"**{task}**: {who(cohort)}.",
        "",
        head,
        "| --- " * (wide.shape[1] + 1) + "|",
        *body,
        "",
    ]


def who(cohort) -> str:
    """Films and patients of each label, in words."""
    counts = cohort.table.groupby("label")["patient"].agg(["size", "nunique"])
    return ", ".join(f"{n} {label} films of {p} patients" for label, n, p in counts.itertuples())


def tuning_lines(task: str, films: str, gains, read) -> list[str]:
    """Markdown: what the last block added, whether that can be told from 0, what a probe read."""
    rows = [
        (f"{metric}, last block minus head alone", row) for (_, metric), row in gains.iterrows()
    ]
    rows += [
        (f"probe, {asked}: {way}, half {half + 1}", r) for (asked, half, way), r in read.iterrows()
    ]
    told = [metric for (_, metric), row in gains.iterrows() if row["low"] > 0 or row["high"] < 0]
    body = [f"| {name} | {r['value']:.3f} [{r['low']:.3f}, {r['high']:.3f}] |" for name, r in rows]
    said = f"Told from 0: {' and '.join(told) or 'nothing'}."
    return [
        f"**{task}**: {films}. {said}",
        "",
        "| what | 95 % interval |",
        "| --- | --- |",
        *body,
        "",
    ]


def page(found: dict[str, list[str]], tuned: list[str], name: str) -> str:
    """Write the page: what this file says of itself, of each task the figure and lines, tuning."""
    said = ["# What pretraining is worth, on real films", "", __doc__]
    for task, text in found.items():
        said += [f"![AUC by patients, healthy or {task}]({name}_{task}.png)", "", *text]
    said += [TUNING, *tuned, LIMITS]
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
    # the last cohort is that of pneumonia; lesson 4 tuned on the other task
    network, run = pretraining.pretrained_network(), results.load(target.parent, "04_resnet50")
    gains, read = pretraining.fine_tuning(network, {"clean": cohort}, classes)
    of_lesson = [
        run.tables["fine-tuning"].set_index(["films", "metric"]),
        run.tables["fine-tuning probes"].set_index(["read", "half", "way"]),
    ]
    films = f"{run.data['images']} films of {run.data['patients']} patients"
    tuned = tuning_lines("Healthy or covid", films, *of_lesson)
    tuned += tuning_lines(f"Healthy or {ill}", who(cohort), gains, read)
    gains = gains.droplevel("films").reset_index().assign(task=ill, kind="fine-tuning gain")
    kept.append(gains.assign(backbone="small, phantoms"))
    kept = pd.concat(kept).astype({"patients": "Int64"}).round(4)
    kept.to_csv(target.with_suffix(".csv"), index=False)
    target.with_suffix(".md").write_text(page(found, tuned, target.name), encoding="utf-8")
