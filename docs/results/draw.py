"""Write the page and the figures of this folder from a run on real films.

python docs/results/draw.py runs/real

The run's results are copied beside them as JSON; no image, and nothing said of single patients.
No number on the page is typed by hand.
"""

import shutil
import sys
from pathlib import Path

import pandas as pd

from cxrlib import claims, metrics, plots, results

HERE = Path(__file__).resolve().parent
COMMANDS = """\
cxr data fetch open --allow-missing
cxr run --profile paper --out runs/real --only 01 --only 02 --only 03 --only 05 \\
    --set 'source_options={allow_missing: true}' --set 'stage1_options={allow_missing: true}' \\
    --set grid_epochs=30 --set search_draws=3
cxr run --profile paper --out runs/real --only 04 --only 06 --set backbone_name=Xception \\
    --set 'source_options={allow_missing: true}' --set grid_epochs=30
cxr run --profile paper --out runs/real --only 07 --set 'source_options={allow_missing: true}'
python docs/results/draw.py runs/real"""
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


def main(run: Path) -> None:
    """Copy the run's results here, draw, and write README.md."""
    found = results.load_all(run)
    shutil.rmtree(HERE / "results", ignore_errors=True)
    shutil.copytree(run / "results", HERE / "results")
    scored = [result for result in found.values() if result.scores]
    note = "Real films of the source 'open', as far as the mirror had them; small test sets."
    table = table_of(scored)
    for metric in ("accuracy", "auc"):
        some = table[table["metric"].isin([metric, f"macro {metric}"])]
        figure = plots.protocol_comparison(
            some.assign(metric=metric), metric, f"Real films, {metric}: two protocols", note
        )
        figure.savefig(HERE / f"protocols_{metric}.png", bbox_inches="tight", dpi=110)
    classes = next(r for r in scored if r.notebook.startswith("06"))
    lines = [
        "# Results on real films",
        "",
        "Teaching material: not for clinical use. Written by `draw.py` from the run that these "
        "commands made; the numbers are in `results/`.",
        "",
        "```sh",
        COMMANDS,
        "```",
        "",
        "The source `open` was served by a mirror that lacks most of it, so the sets are small: "
        "read the intervals first. Weights for ResNet50 and DenseNet121 were not at hand; lessons "
        "4 and 6 ran with Xception in their place, so they are not reproductions of Models 2 and "
        "4. Label and hospital coincide in `open`: a high score need not come from the lungs.",
        "",
        "## COVID-19 against healthy (95 % intervals)",
        "",
        *score_lines(scored),
        "",
        "![Accuracy of each model under the two protocols](protocols_accuracy.png)",
        "",
        "![Area under the ROC curve of each model under the two protocols](protocols_auc.png)",
        "",
        "## Three classes",
        "",
        *class_lines(classes),
        "",
        "## What it ran on",
        "",
        *provenance_lines(found.values()),
        "",
    ]
    (HERE / "README.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
