"""One HTML page on a run: what it found, the paper's tables, figures, where all comes from."""

from __future__ import annotations

import base64
import io
from contextlib import suppress
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from cxrlib import results
from cxrlib.course import finding
from cxrlib.course.folder import read_states
from cxrlib.course.progress import clock
from cxrlib.files import whole_file, write_json
from cxrlib.paper import tables as paper_tables
from cxrlib.paper import verdicts
from cxrlib.plots import pages, style
from cxrlib.results import PROTOCOLS, Result, ResultsError

LONGEST_TABLE = 60  # rows
DRAWN = {  # what is shown as a figure too: by what, under which caption
    "accuracy": ("protocol_comparison", "Accuracy: images divided (paper) or patients (clean)"),
    "headline": ("headline_plot", "One model, four scores"),
    "shortcuts": ("shortcut_plot", "What tells the classes apart"),
    "knob": ("knob_curves", "The knob: how far the scanner gives the label away"),
    "Table II, counts": ("confusion_matrix", "Table II as the paper prints it, in images"),
}
SYNTHETIC = "SYNTHETIC DATA: phantoms, made by a computer, of no patient"
RANDOM = "RANDOM WEIGHTS: backbones that learned nothing"


def write(folder: Path | str) -> Path:
    """Write ``report.html`` and ``finding.json`` into a run folder; parts of a run are enough.

    The page needs nothing but itself: no network, no JavaScript. :mod:`cxrlib.course.finding` says
    what the JSON holds. A ResultsError if the folder holds no run.
    """
    folder = Path(folder)
    states, found, damaged = read_states(folder), {}, []
    for path in sorted((folder / "results").glob("[!.]*.json")):
        try:
            found[path.stem] = results.load(folder, path.stem)
        except ResultsError as error:
            damaged.append(str(error))
    if not states and not found and not damaged:
        raise ResultsError(f"{folder} holds no run. Make one: cxr run --out {folder}")
    runs = _runs(states, found, folder)
    facts = {name: _facts(one) for name, one in found.items()}
    content = finding.content(found, {run["name"]: run["status"] for run in runs}, facts)
    shown = {name: table for one in found.values() for name, table in one.tables.items()}
    shown["accuracy"] = finding.accuracy(found).assign(metric="accuracy")
    page = pages.template(Path(__file__).with_name("report.html.j2")).render(
        finding=content,
        figures=islice(_drawn(shown, _marks(found.values()), "What was found"), 1),
        banner=_marks(found.values(), SYNTHETIC, RANDOM),
        damaged=damaged,
        runs=runs,
        table1=paper_tables.table1(found),
        table2=paper_tables.table2(found),
        verdicts=paper_tables.verdicts(found),
        margin=f"{verdicts.MARGIN:.2f}",
        sections=[_section(one) for one in found.values()],
        facts=facts,
    )
    write_json(folder / "finding.json", content)
    with whole_file(folder / "report.html") as partial:
        # A file's name may hold bytes that are no text, which Python keeps as lone surrogates
        partial.write_text(page, encoding="utf-8", errors="replace")
    return folder / "report.html"


def _marks(several, synthetic="synthetic images", random="random weights") -> str:
    """Say what makes results incomparable with the paper's, and where, if not everywhere."""
    filmed = [one for one in several if one.data["images"]]
    backed = [one for one in several if one.weights]
    said = []
    for text, those, marked in (
        (synthetic, filmed, [one.notebook for one in filmed if one.data["synthetic"]]),
        (random, backed, [one.notebook for one in backed if one.has_random_weights]),
    ):
        where = f" ({', '.join(marked)})" if len(marked) < len(those) else ""
        said += [text + where] if marked else []
    return "; ".join(said)


def _runs(states: dict, found: dict[str, Result], folder: Path) -> list[dict]:
    """Status, time, error and file of each notebook, those that were run by hand included."""
    rows = []
    for name in sorted(set(states) | set(found)):
        state = {"status": "run by hand", "why": "", "failure": None} | states.get(name, {})
        seconds = state.get("seconds") or (found[name].seconds if name in found else None)
        created = found[name].created if name in found else ""
        kept = [f"{place}/{name}.ipynb" for place in ("notebooks", "failed")]
        there = [quote(path, errors="replace") for path in kept if (folder / path).exists()]
        row = {"name": name, "file": there[0] if there else None}
        row |= {key: state[key] for key in ("status", "failure", "why")}
        row |= {"time": "" if seconds is None else clock(seconds)}
        rows.append(row | {"ended": _time(state.get("ended") or created)})
    return rows


def _time(text: str) -> str:
    return text[:16].replace("T", " ") + " UTC" if text else ""


def _picture(figure, title: str, mark: str, where: str, width="wide") -> dict[str, str]:
    """Caption, data URI, width and words for those who cannot see it, which no two share."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", facecolor="white")
    image = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    alt = f"{where}, {title}: {style.describe(figure)}"
    caption = f"{title} ({mark})" if mark else title
    return {"caption": caption, "image": image, "alt": alt, "width": width}


def _drawn(tables: dict, mark: str, where: str):
    """Draw what there is of `DRAWN`, one after the other."""
    from cxrlib import plots

    for name, (draw, title) in DRAWN.items():
        with suppress(KeyError, ValueError):  # not there, empty, or of another version
            yield _picture(getattr(plots, draw)(tables[name], note=mark), title, mark, where)


def _section(one: Result) -> dict:
    """Figures and tables (caption, HTML) of one notebook."""
    from cxrlib import plots

    figures, tables, mark = [], [], _marks([one])
    where = (mark, one.notebook)
    for name, history in one.histories.items():
        figure = plots.learning_curves(history, name, note=mark)
        figures.append(_picture(figure, f"Training curves: {name}", *where))
    if one.predictions is not None:
        curves = {}
        for protocol in PROTOCOLS:
            matrix = paper_tables.confusion_of(one, protocol)
            if matrix is not None:
                title = f"Confusion matrix, {protocol} protocol"
                figure = plots.confusion_matrix(matrix, f"{protocol} protocol", mark)
                figures.append(_picture(figure, title, *where, ""))
                curves |= _curves(one, protocol)
        if curves:
            figure = plots.roc_curves(curves, "test data", mark)
            figures.append(_picture(figure, "ROC curves on test data", *where, ""))
    figures += _drawn(one.tables, *where)
    for name in sorted(one.tables, key="lessons held".__ne__):  # those first
        table = one.tables[name]
        how = {"border": 0, "float_format": "{:.4g}".format, "na_rep": "–"}
        shown = table.head(LONGEST_TABLE).to_html(index=table.index.dtype.kind != "i", **how)
        if len(table) > LONGEST_TABLE:
            name = f"{name} (first {LONGEST_TABLE} of {len(table)} rows)"
        tables.append((name, shown))
    return {"result": one, "figures": figures, "tables": tables}


def _curves(one: Result, protocol: str) -> dict:
    """ROC curves' input: truth and probability of the positive class, or of each of several."""
    mine = one.predictions[one.predictions["protocol"] == protocol]
    fold = [mine["fold"].to_numpy()] if "fold" in mine else []
    binary = len(one.classes) == 2
    found = {}
    for name in one.classes[1:] if binary else one.classes:
        truth = (mine["label"] == name).astype(int)
        if truth.nunique() == 2:
            title = protocol if binary else f"{protocol}: {name}"
            found[title] = (truth.to_numpy(), mine[f"p_{name}"].to_numpy(), *fold)
    return found


def _facts(one: Result) -> dict[str, str]:
    """Say where a notebook's numbers come from."""
    data, machine = one.data, one.environment
    kind, weights = "synthetic" if data["synthetic"] else "real", []
    for name, facts in one.weights.items():
        digest = f", SHA-256 {facts['sha256'][:12]}" if facts.get("sha256") else ""
        weights.append(f"{name}: {facts['kind']}{digest}")
    versions = {"Python": machine["python"]} | machine["versions"]
    keras = f"Keras {machine['keras']} on {machine['backend']} {machine['backend_version'] or ''}"
    trained, computed = machine.get("training_precision"), machine.get("engine")
    did = machine.get("training_multiplies_in")
    if did and did not in trained:  # results of an older version do not say
        trained += f" (multiplied in {did})"
    return {
        "Data": data["name"] + (f" ({kind} images)" if data["images"] else ""),
        "Images": _films(data) if data["images"] else "none",
        "Weights": "; ".join(weights) or "no backbone",
        "Backend": ", ".join(filter(None, [keras, trained])) if machine["keras"] else "none used",
        "Frozen features": f"{computed}, {machine['precision']}" if computed else "none computed",
        "Device": f"{machine['device']}, {machine['cores']} cores; {machine['platform']}",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Parameters": ", ".join(f"{name}={value!r}" for name, value in one.parameters.items()),
        "Seed": str(one.seed),
        "Profile": one.profile,
        "Command": one.command or "run by hand",
        "Date": _time(one.created)[:10],
    }


def _films(data: dict) -> str:
    said = (f"{label} {one['images']} ({one['patients']})" for label, one in data["counts"].items())
    return f"{data['images']} images ({data['patients']} patients): {', '.join(said)}"
