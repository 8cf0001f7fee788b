"""Write the cards of docs/, the CLAIM checklist and its drawing from measured values.

python docs/cards/write.py [RESULTS]

RESULTS is a folder with the results of a run, ``docs/results`` by default. The words are in the
templates beside this script; every number comes from those results, from the manifests, from
the phantom or from the paper's claims. No number is typed by hand. Teaching material: not for
clinical use.
"""

from __future__ import annotations

import inspect
import math
import sys
from pathlib import Path

import flow
import inventory
import pandas as pd

from cxrlib import NOT_CLINICAL, phantom, results, sources, split
from cxrlib.paper import claims

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent
CARDS = {
    "model_card.md": "model_card.md.j2",
    "data_card.md": "data_card.md.j2",
    "claim_checklist.md": "claim.md.j2",
}
MODEL = "05_vgg16"
VALUES = ("value", "auc", "mean", "accuracy", "drop")  # what low and high may belong to
UNKNOWN = "–"
LONGEST = 60  # rows of a table that a reader can take in


def cell(value) -> str:
    """Word one value for a Markdown table."""
    if not isinstance(value, str) and pd.isna(value):
        return UNKNOWN
    if isinstance(value, str):
        return value.replace("|", "\\|").replace("\n", " ")
    if pd.api.types.is_bool(value):
        return "yes" if value else "no"
    if pd.api.types.is_integer(value):
        return f"{int(value):,}"
    return f"{value:.2g}" if 0 < abs(value) < 0.001 else f"{value:.3f}"


def with_interval(value, low, high) -> str:
    """Word a score and its interval, as far as they are known."""
    if pd.isna(value):
        return UNKNOWN
    ends = [cell(float(end)) for end in (low, high)]
    return f"{value:.3f}" + ("" if ends == [UNKNOWN] * 2 else f" [{ends[0]}, {ends[1]}]")


def condense(table: pd.DataFrame) -> pd.DataFrame:
    """Average over repeats or seeds; intervals and p cannot be averaged and are left out."""
    drawn = next((name for name in ("repeat", "seed") if name in table), None)
    keys = [name for name in table if name == "level" or table[name].dtype.kind not in "biuf"]
    if drawn is None or not keys:
        return table
    bounds = [name for name in table if name.endswith(("low", "high")) or name == "p"]
    grouped = table.drop(columns=[drawn, *bounds]).groupby(keys, sort=False)
    return grouped.mean().assign(**{f"{drawn}s": grouped.size()}).reset_index()


def join_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Put the columns low and high (also x_low, x low) behind the value that they belong to."""
    table = table.copy()
    for low in [name for name in table if name.endswith("low")]:
        stem, high = low.removesuffix("low"), low.removesuffix("low") + "high"
        names = VALUES if stem == "" else (stem.rstrip("_ "), *(stem + name for name in VALUES))
        value = next((name for name in names if name in table), None)
        if value is None or high not in table:
            continue
        rows = table[[value, low, high]].astype(float).itertuples(index=False, name=None)
        table[value] = pd.Series([with_interval(*row) for row in rows], table.index, dtype=object)
        table = table.drop(columns=[low, high])
    return table


def whole(table: pd.DataFrame) -> pd.DataFrame:
    """Turn columns of whole numbers that a missing value made floats into integers again."""
    table = table.copy()
    for name in table.select_dtypes("float"):
        known = table[name].dropna()
        if len(known) and known.max() > 1 and (known % 1 == 0).all():  # 1.0 may be a score
            table[name] = table[name].astype("Int64")
    return table


def markdown(table: pd.DataFrame) -> str:
    """Make a Markdown table; an index that says something becomes its first column."""
    if table.index.name or not pd.api.types.is_integer_dtype(table.index):
        table = table.rename_axis(table.index.name or "").reset_index()
    table = join_intervals(condense(table))
    if len(table) > LONGEST:
        return f"*{len(table)} rows, too many for a card: see the results.*"
    ends = ["---:" if table[name].dtype.kind in "iuf" else "---" for name in table]
    heads = [str(name).replace("_", " ") for name in table]
    rows = [[cell(value) for value in row] for row in whole(table).itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, ends, *rows))


def table_of(found: dict, notebook: str, name: str) -> pd.DataFrame | None:
    """Look up a table of a lesson's results; None where it has not been measured.

    Lesson 9 sets its control phantoms beside the films; a card speaks of the films.
    """
    table = found[notebook].tables.get(name) if notebook in found else None
    if table is not None and "set" in table and (table["set"] == "inside").any():
        table = table[table["set"] == "inside"].drop(columns="set")
    return table


def is_real(found: dict, notebook: str, name: str) -> bool:
    """Tell whether a table has been measured, and on real films."""
    return table_of(found, notebook, name) is not None and not found[notebook].data["synthetic"]


def measured(found: dict, notebook: str, name: str) -> str:
    """Show a table of a lesson's results, or say how to come by it."""
    table = table_of(found, notebook, name)
    if table is None:
        only = f" --only {notebook[:2]}" if notebook > "07_evaluation" else ""
        return (
            f"*Not measured yet: run `cxr run --profile paper{only}`, then "
            "`python docs/cards/write.py runs/paper`.*"
        )
    if table.empty:
        return f"*Nothing could be measured: lesson {int(notebook[:2])}'s table is empty.*"
    shown = markdown(headline(table) if name == "headline" else table)
    return f"{shown}\n\n{origin(found[notebook], always_phantoms=name == 'knob')}"


def origin(one, always_phantoms: bool = False) -> str:
    """Say in one line what a lesson's results were measured on.

    Some experiments need a known truth: phantoms, whatever else the lesson reads, and a small
    network without borrowed weights.
    """
    synthetic = always_phantoms or one.data["synthetic"]
    kind = "**synthetic phantoms**" if synthetic else f"`{one.data['name']}`"
    borrowed = {} if always_phantoms else one.weights
    weights = [f"{name} with {facts['kind']} weights" for name, facts in borrowed.items()]
    told = f"Lesson {int(one.notebook[:2])} on {kind}, seed {one.seed}"
    told += f"; {', '.join(weights)}" if weights else ""
    return f"*{told}. {NOT_CLINICAL}*"


def headline(table: pd.DataFrame) -> pd.DataFrame:
    """Turn the honest headline on its side: a row a condition, a column a metric."""
    table = table.assign(text=[with_interval(*r) for r in table[["value", "low", "high"]].values])
    wide = table.pivot(index="condition", columns="metric", values="text")
    sizes = table.groupby("condition")[["images", "patients"]].first()
    wide = sizes.join(wide[list(table["metric"].unique())])
    return wide.loc[table["condition"].unique()].reset_index()


def two_protocols(model) -> pd.DataFrame:
    """Put the model's scores under both protocols beside what the paper prints."""
    columns = {
        f"{name} protocol": {
            metric: with_interval(row["value"], row["low"], row["high"])
            for metric, row in scores.iterrows()
        }
        for name, scores in model.scores.items()
    }
    if (apart := model.tables.get("protocol_difference")) is not None:
        rows = apart.reindex(model.scores["clean"].index).iterrows()
        columns["paper minus clean"] = {
            name: with_interval(row["value"], row["low"], row["high"]) for name, row in rows
        }
    table = pd.DataFrame(columns).rename_axis("metric")
    printed = claims.load().query("model == @model.model and place == 'Table I'")
    table["the paper prints"] = table.index.map(printed.set_index("metric")["printed"])
    return table.fillna(UNKNOWN)


def calibration(found: dict, model) -> pd.DataFrame | None:
    """Select the model's rows from the calibration table of lesson 7."""
    table = table_of(found, "07_evaluation", "calibration")
    if table is None:
        return None
    rows = [str(name).startswith(str(model.model)) for name in table.index]
    return table[rows].rename_axis("model / protocol")


def by_group(found: dict, model) -> pd.DataFrame | None:
    """Select the model's rows from the subgroups of lesson 7."""
    table = table_of(found, "07_evaluation", "subgroups")
    return None if table is None else table[table["model"] == model.model].drop(columns="model")


def planned(recall: float = 0.9, reach: float = 0.05) -> int:
    """Count the ill patients who would tell such a recall to `reach` either way, at 95 %."""
    from statsmodels.stats.proportion import samplesize_confint_proportion

    return math.ceil(samplesize_confint_proportion(recall, reach))


def drawing(found: dict, model) -> str:
    """Draw the flow of films and patients as far as it was measured on real films."""
    first = found.get("01_data_retrieval")
    films = [None if one is None or one.data["synthetic"] else one.data for one in (first, model)]
    real = is_real(found, "07_evaluation", "headline")
    table = table_of(found, "07_evaluation", "headline") if real else None
    sets = inventory.describe("open"), inventory.describe("external")
    return flow.draw(flow.steps(*sets, *films, table))


def facts(folder: Path | str) -> dict:
    """Gather everything that the templates name."""
    found = results.load_all(folder)
    model = results.load(folder, MODEL)
    defaults = inspect.signature(phantom.make_cohort).parameters
    shares = inspect.signature(split.by_patient).parameters
    return {
        "not_clinical": NOT_CLINICAL,
        "found": found,
        "model": model,
        "scores": two_protocols(model),
        "calibration": calibration(found, model),
        "open": inventory.describe("open"),
        "external": inventory.describe("external"),
        "shared": inventory.shared(),
        "who": inventory.who().reset_index(drop=True),
        "with_interval": with_interval,
        "sources": sources.SOURCES,
        "phantom": {name: one.default for name, one in defaults.items()},
        "measures": inventory.measures(),
        "phantom_labels": phantom.LABELS,
        "machines": inventory.machines(),
        "knob": inventory.knob(defaults["patients"].default),
        "validation_share": shares["validation"].default,
        "measured": lambda notebook, name: measured(found, notebook, name),
        "has": lambda notebook, name: table_of(found, notebook, name) is not None,
        "real": lambda notebook, name: is_real(found, notebook, name),
        "origin": origin,
        "planned": planned(),
        "by_group": by_group(found, model),
    }


def render(folder: Path | str = DOCS / "results") -> dict[str, str]:
    """Fill the templates from the results in `folder`, and draw: text by file name.

    Raises
    ------
    cxrlib.results.ResultsError
        If the folder has no results of the model, or they are damaged.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    maker = Environment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, autoescape=False,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    maker.filters |= {"table": markdown, "cell": cell}
    known = facts(folder)
    pages = {name: maker.get_template(card).render(known) for name, card in CARDS.items()}
    return pages | {"flow.svg": drawing(known["found"], known["model"])}


def main(folder: Path | str = DOCS / "results", out: Path = DOCS) -> None:
    """Write the three pages and the drawing."""
    for name, text in render(folder).items():
        (out / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except results.ResultsError as error:
        sys.exit(str(error))
