"""One HTML page on a run: the paper's tables beside ours, figures, and where all comes from."""

from __future__ import annotations

import base64
import io
from datetime import UTC, datetime
from pathlib import Path

from cxrlib import NOT_CLINICAL, results
from cxrlib.course.folder import read_states
from cxrlib.course.progress import clock
from cxrlib.files import whole_file
from cxrlib.paper import tables as paper_tables
from cxrlib.paper import verdicts
from cxrlib.plots import pages
from cxrlib.results import PROTOCOLS, Result, ResultsError

LONGEST_TABLE = 60  # rows


def write(folder: Path | str) -> Path:
    """Write ``report.html`` into a run folder; parts of a run are enough.

    The page needs nothing but itself: no network, no JavaScript. A ResultsError if the folder
    holds no run.
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
    profiles = {one.profile for one in found.values()}
    profiles |= {state["profile"] for state in states.values() if state.get("profile")}
    page = pages.template(Path(__file__).with_name("report.html.j2")).render(
        not_clinical=NOT_CLINICAL,
        banners=_banners(found),
        damaged=damaged,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        profiles=sorted(profiles),
        runs=_runs(states, found),
        table1=paper_tables.table1(found),
        table2=paper_tables.table2(found),
        verdicts=paper_tables.verdicts(found),
        margin=f"{verdicts.MARGIN:.2f}",
        sections=[_section(one) for one in found.values()],
        facts=[(name, _facts(one)) for name, one in found.items()],
    )
    with whole_file(folder / "report.html") as partial:
        # A file's name may hold bytes that are no text, which Python keeps as lone surrogates
        partial.write_text(page, encoding="utf-8", errors="replace")
    return folder / "report.html"


def _banners(found: dict[str, Result]) -> list[str]:
    """Say what makes results incomparable with the paper's, and in which notebooks."""
    synthetic = [name for name, one in found.items() if one.data["synthetic"]]
    random = [name for name, one in found.items() if one.has_random_weights]
    banners = {
        "SYNTHETIC DATA: these images are phantoms, made by a computer, of no patient. The "
        "results show how the methods work, not how well they detect a disease.": synthetic,
        "RANDOM WEIGHTS: the backbone learned nothing from ImageNet. The results show how the "
        "code works, not what the paper's models can do.": random,
    }
    return [f"{text} ({', '.join(names)})" for text, names in banners.items() if names]


def _runs(states: dict, found: dict[str, Result]) -> list[dict]:
    """Status, time and error of each notebook, those that were run by hand included."""
    rows = []
    for name in sorted(set(states) | set(found)):
        state = states.get(name, {"status": "run by hand"})
        seconds = state.get("seconds") or (found[name].seconds if name in found else None)
        created = found[name].created if name in found else ""
        rows.append(
            {
                "name": name,
                "status": state["status"],
                "time": "" if seconds is None else clock(seconds),
                "failure": state.get("failure"),
                "why": state.get("why", ""),
                "ended": _time(state.get("ended") or created),
            }
        )
    return rows


def _time(text: str) -> str:
    return text[:16].replace("T", " ") + " UTC" if text else ""


def _section(one: Result) -> dict:
    """Figures (text, data URI, CSS class) and tables (caption, HTML) of one notebook."""
    from cxrlib import plots

    figures, tables = [], []
    marks = {"synthetic images": one.data["synthetic"], "random weights": one.has_random_weights}
    mark = ", ".join(text for text, holds in marks.items() if holds)

    def add(kind, figure, style=""):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", facecolor="white")
        image = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
        figures.append((f"{kind} ({mark})" if mark else kind, image, style))

    for name, history in one.histories.items():
        figure = plots.learning_curves(history, name, note=mark)
        add(f"Training curves: {name}", figure, "wide")
    if one.predictions is not None:
        curves = {}
        for protocol in PROTOCOLS:
            matrix = paper_tables.confusion_of(one, protocol)
            if matrix is not None:
                title = f"{protocol} protocol"
                add(f"Confusion matrix, {title}", plots.confusion_matrix(matrix, title, mark))
                curves |= _curves(one, protocol)
        if curves:
            add("ROC curves on test data", plots.roc_curves(curves, "test data", mark))
    if "headline" in one.tables:
        title = "One model, four scores"
        add(title, plots.headline_plot(one.tables["headline"], title, mark), "wide")
    for name, table in one.tables.items():
        shown = table.head(LONGEST_TABLE).to_html(
            border=0,
            float_format="{:.4g}".format,
            na_rep="–",
            index=table.index.dtype.kind != "i",
        )
        if len(table) > LONGEST_TABLE:
            name = f"{name} (first {LONGEST_TABLE} of {len(table)} rows)"
        tables.append((name, shown))
    return {"result": one, "figures": figures, "tables": tables}


def _curves(one: Result, protocol: str) -> dict:
    """ROC curves' input: truth and probability of the positive class, or of each of several."""
    mine = one.predictions[one.predictions["protocol"] == protocol]
    binary = len(one.classes) == 2
    found = {}
    for name in one.classes[1:] if binary else one.classes:
        truth = (mine["label"] == name).astype(int)
        if truth.nunique() == 2:
            title = protocol if binary else f"{protocol}: {name}"
            found[title] = (truth.to_numpy(), mine[f"p_{name}"].to_numpy())
    return found


def _facts(one: Result) -> dict[str, str]:
    """Say where a notebook's numbers come from."""
    data, machine = one.data, one.environment
    weights = []
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
        "Data": _data(data),
        "Weights": "; ".join(weights) or "no backbone",
        "Backend": ", ".join(filter(None, [keras, trained])) if machine["keras"] else "none used",
        "Frozen features": f"{computed}, {machine['precision']}" if computed else "none computed",
        "Device": f"{machine['device']}, {machine['cores']} cores; {machine['platform']}",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Parameters": ", ".join(f"{name}={value!r}" for name, value in one.parameters.items()),
        "Seed": str(one.seed),
        "Profile": one.profile,
        "Command": one.command or "run by hand",
        "Created": _time(one.created),
    }


def _data(data: dict) -> str:
    if not data["images"]:
        return f"{data['name']}; no images"
    counts = "; ".join(
        f"{label}: {count['images']} images of {count['patients']} patients"
        for label, count in data["counts"].items()
    )
    kind = "synthetic" if data["synthetic"] else "real"
    people = f"{data['images']} images of {data['patients']} patients"
    return f"{data['name']} ({kind}), {people} ({counts})"
