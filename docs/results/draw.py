"""Write the page and the figures of this folder from runs on real films.

python docs/results/draw.py runs/real runs/reduced runs/paper runs/talo

The runs' results are copied beside them as JSON; no image, and nothing said of single patients.
No result on the page is typed by hand.
"""

import re
import shutil
import sys
from pathlib import Path

import audited
import pandas as pd

from cxrlib import metrics, plots, results
from cxrlib.paper import check, claims, verdicts

HERE = Path(__file__).resolve().parent
COMMANDS = """\
cxr data fetch open --allow-missing
cxr data fetch external --allow-missing
cxr run --profile paper --out runs/real --only 01 --only 02 --only 03 --only 05 \\
    --set 'source_options={allow_missing: true}' --set 'stage1_options={allow_missing: true}' \\
    --set grid_epochs=30 --set search_draws=3
cxr run --profile paper --out runs/real --only 04 --only 06 --set backbone_name=Xception \\
    --set 'source_options={allow_missing: true}' --set grid_epochs=30
cxr run --profile paper --out runs/real --only 07 --only 08 --only 09 \\
    --set 'source_options={allow_missing: true}' --set 'inside_options={allow_missing: true}' \\
    --set 'outside_options={allow_missing: true}'
python docs/results/reduced.py FOLDER runs/reduced.csv  # the films of 'open', 320 pixels wide
cxr run --profile paper --out runs/reduced --only 09 --set inside_source=folder \\
    --set 'inside_options={folder: runs/reduced.csv}' \\
    --set 'outside_options={allow_missing: true}'
for s in $(seq 0 4); do cxr run --profile paper --out runs/paper/seed$s --only 05 \\
    --set 'source_options={allow_missing: true}' --set grid_epochs=30 --set search_draws=3 \\
    --set seed=$s
  cxr run --profile paper --out runs/paper/seed$s --only 04 --set backbone_name=Xception \\
    --set 'source_options={allow_missing: true}' --set grid_epochs=30 --set fine_tuning=false \\
    --set seed=$s; done
python docs/results/reduced.py FOLDER runs/talo.csv FACTS.csv talo  # FACTS: labels, patients
for s in $(seq 0 4); do cxr run --profile paper --out runs/talo/seed$s --only 05 \\
    --set source=folder --set 'source_options={folder: runs/talo.csv}' \\
    --set grid_epochs=30 --set search_draws=3 --set seed=$s
  cxr run --profile paper --out runs/talo/seed$s --only 04 --set backbone_name=Xception \\
    --set source=folder --set 'source_options={folder: runs/talo.csv}' --set grid_epochs=30 \\
    --set fine_tuning=false --set seed=$s; done
cxr check runs/talo --only-present --json docs/results/verdicts.json
python docs/results/draw.py runs/real runs/reduced runs/paper runs/talo"""
SHOWN = ["accuracy", "precision", "recall", "f1", "auc"]


def backbone(result) -> str:
    """Name the backbone as it was, not as the lesson's title says."""
    return result.parameters.get("backbone", "custom CNN")


def table_of(found) -> pd.DataFrame:
    """Scores of all models as one long table, as plots.protocol_comparison wants it."""
    rows = []
    for result in found:
        name = f"Lesson {result.notebook[:2]}: {backbone(result)}"
        for protocol, scores in result.scores.items():
            one = scores.rename_axis("metric").reset_index()
            rows.append(one.assign(model=name, protocol=protocol))
    return pd.concat(rows)


def cell(row) -> str:
    """One value with its interval, for Markdown."""
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def score_lines(found) -> list[str]:
    """Markdown rows of the binary models, both protocols."""
    lines = [
        "| lesson, backbone | protocol | test images | patients | " + " | ".join(SHOWN) + " |",
        "| --- " * (4 + len(SHOWN)) + "|",
    ]
    for result in found:
        for protocol, scores in result.scores.items():
            if "auc" not in scores.index:
                continue
            rows = result.predictions[result.predictions["protocol"] == protocol]
            numbers = [str(len(rows)), str(rows["patient"].nunique())]
            cells = [cell(scores.loc[name]) for name in SHOWN]
            first = f"{result.notebook[:2]}, {backbone(result)}"
            lines.append("| " + " | ".join([first, protocol, *numbers, *cells]) + " |")
    return lines


def class_lines(result) -> list[str]:
    """Markdown rows of Table II, the paper's and ours."""
    lines = ["| actual | images | healthy | pneumonia | covid |", "| --- " * 5 + "|"]
    tables = {"paper prints": claims.table2()}
    for protocol, rows in result.predictions.groupby("protocol", sort=False):
        matrix = metrics.confusion(rows["label"], rows["predicted"], result.classes)
        tables[f"ours, {protocol} protocol"] = metrics.row_percent(matrix)
    for title, table in tables.items():
        lines.append(f"| *{title}* | | | | |")
        for label, row in table.iterrows():
            images, *shares = row
            cells = [str(label), f"{images:.0f}", *(f"{share:.1f} %" for share in shares)]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def provenance_lines(found) -> list[str]:
    """Say what each lesson ran on."""
    lines = ["| lesson | images | patients | weights | backend, device | seed |"]
    lines.append("| --- " * 6 + "|")
    for result in found:
        kinds = [f"{name}: {facts['kind']}" for name, facts in result.weights.items()]
        there = result.environment
        cells = [
            result.notebook,
            str(result.data["images"]),
            str(result.data["patients"]),
            ", ".join(kinds) or "none",
            f"{there['backend'] or 'no Keras'}, {there['device']}",
            str(result.seed),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def copy_results(run: Path, name: str) -> dict:
    """Copy a run's results into a folder beside this file, and read them."""
    shutil.rmtree(HERE / name, ignore_errors=True)
    shutil.copytree(run / "results", HERE / name, ignore=shutil.ignore_patterns(".*"))
    for path in (HERE / name).glob("*.json"):
        text = path.read_text(encoding="utf-8")
        # Of a folder of films only its own name is anybody's business
        path.write_text(re.sub(r'("folder": ")[^"]*/', r"\1", text), encoding="utf-8")
    return results.load_all(run)


def protocol_figures(scored) -> None:
    """Draw accuracy and AUC of each model under the two protocols."""
    note = "Real films of the source 'open', as far as the mirror had them; by folds."
    table = table_of(scored)
    for metric, shown in {"accuracy": "accuracy", "auc": "AUC"}.items():
        some = table[table["metric"].isin([metric, f"macro {metric}"])]
        figure = plots.protocol_comparison(
            some.assign(metric=shown), shown, f"Real films, {shown}: two protocols", note
        )
        figure.savefig(HERE / f"protocols_{metric}.png", bbox_inches="tight", dpi=110)


def shortcut_figure(lesson9) -> None:
    """Draw what views without lungs tell on real films."""
    backbone = lesson9.parameters["probe_backbone"]
    note = f"Real films (SIRM, NIH). Images seen by {backbone} with ImageNet weights."
    title = "COVID-19 or healthy? What each view tells"
    figure = plots.shortcut_plot(lesson9.tables["shortcuts"], title, note)
    figure.savefig(HERE / "shortcuts.png", bbox_inches="tight", dpi=110)


def seeds_of(folder: Path, notebook: str = "05_vgg16") -> list:
    """Load a lesson's results of every seed, in their order."""
    found = (results.load_all(run).get(notebook) for run in check.find_runs([folder]))
    return sorted((one for one in found if one is not None), key=lambda one: one.seed)


def healthy_drawn(runs) -> str:
    """Say how many healthy films all seeds together have seen: classes are balanced by lot."""
    rows = pd.concat(one.predictions for one in runs)
    healthy = rows[rows["label"] == "healthy"]
    return (
        f"Each seed draws its own healthy films, as the paper balances its classes; together the "
        f"seeds test {healthy['origin'].nunique()} healthy films of "
        f"{healthy['patient'].nunique()} patients."
    )


def main(run: Path, reduced: Path, paper: Path, talo: Path) -> None:
    """Copy the runs' results here, draw, and write README.md."""
    found, small = copy_results(run, "results"), copy_results(reduced, "reduced")
    scored = [result for result in found.values() if result.scores]
    lesson7, lesson9 = found["07_evaluation"], found["09_shortcuts"]
    protocol_figures(scored)
    shortcut_figure(lesson9)
    lines = [
        "# Results on real films",
        "",
        "Teaching material: not for clinical use. Written by `draw.py` from the runs that these "
        "commands made; the numbers are in `results/` and `reduced/`.",
        "",
        "```sh",
        COMMANDS,
        "```",
        "",
        "The sources `open` and `external` were served by a mirror that lacks most of them, so the "
        "sets are small: read the intervals first. Weights for ResNet50 and DenseNet121 were not "
        "at hand; lessons 4 and 6 ran with Xception in their place, so they are not reproductions "
        "of Models 2 and 4. Label and hospital coincide in `open`: a high score need not come from "
        "the lungs. **The healthy films of the other hospital are NIH's too**, so what is said of "
        "another hospital here is an upper bound.",
        "",
        "## One model, four scores",
        "",
        *audited.headline_lines(lesson7, HERE),
        "",
        "![One model under the paper's protocol, the clean one, with the lungs covered, and at "
        "another hospital: its scores fall from step to step](headline.png)",
        "",
        "## The paper's models, COVID-19 against healthy (95 % intervals)",
        "",
        *score_lines(scored),
        "",
        "![Accuracy of each model under the two protocols](protocols_accuracy.png)",
        "",
        "![Area under the ROC curve of each model under the two protocols](protocols_auc.png)",
        "",
        "Every film is tested once under either protocol, by folds; no copy is tested. What the "
        "paper's protocol adds, seed by seed, on the same films and patients; first VGG16 "
        "(lesson 5):",
        "",
        *audited.fold_lines(seeds_of(paper)),
        "",
        "Then Xception (lesson 4):",
        "",
        *audited.fold_lines(seeds_of(paper, "04_resnet50")),
        "",
        "The same on the largest collection at hand: the COVID-19 films of "
        "muhammedtalo/COVID-19, from case reports of many hospitals, and as many healthy ones of "
        "NIH, reduced to 320 pixels. " + healthy_drawn(seeds_of(talo)) + " First VGG16, then "
        "Xception (lesson 4):",
        "",
        *audited.fold_lines(seeds_of(talo)),
        "",
        *audited.fold_lines(seeds_of(talo, "04_resnet50")),
        "",
        "## Verdicts on the paper's claims",
        "",
        "By five seeds on the largest collection. Model 3 is the one whose ImageNet weights were "
        "at hand; the other claims are *not comparable*. Intervals add the variation of patients "
        "and that of seeds; "
        f"*reproduced* is within {verdicts.MARGIN:.2f} of the printed figure "
        "([the rule](../measured/index.md#verdicts-on-the-papers-claims)).",
        "",
        *audited.verdict_lines(HERE / "verdicts.json"),
        "",
        "Better than the paper prints, under a protocol that leaks, is no success: it says how "
        "much such a protocol gives. The claims' side stays as it was: the paper's test shows a "
        "dozen patients with COVID-19, and no number of ours makes them more. Under the clean "
        "protocol ours is better, too. Here the ill and the healthy come from different sources: "
        "who tells the sources apart scores as well (below).",
        "",
        "## Three classes",
        "",
        *class_lines(next(r for r in scored if r.notebook.startswith("06"))),
        "",
        "## Shortcuts and leaks: the films of the mirror",
        *audited.audit_lines(lesson9),
        "",
        "![AUC of each view of the films; views without lungs stand far above chance]"
        "(shortcuts.png)",
        "",
        "## Shortcuts and leaks: more films, reduced to 320 pixels",
        *audited.audit_lines(small["09_shortcuts"]),
        "",
        "The file view sees the reduced JPEGs here, not the originals. The other hospital's films "
        "are the mirror's originals.",
        "",
        "## Beside an analysis by hand",
        "",
        "An earlier analysis of the same collections, with simple models and on other samples, is "
        "what the lessons were built to check. Here are its figures (none of them made by this "
        "repository) beside those of the mirror's films.",
        "",
        *audited.comparison_lines(lesson9),
        "",
        "## What it ran on",
        "",
        *provenance_lines(found.values()),
        "",
        "The reduced films:",
        "",
        *provenance_lines(small.values()),
        "",
    ]
    (HERE / "README.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
