"""One HTML page on an audit: a light for each probe, what it means, and what to do about it.

People read it who did not take the course, on images that this project has never seen. So it
says what the lights cannot know, and trusts no text that came with the images.
"""

from __future__ import annotations

import base64
import io
import math
import numbers
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib import NOT_CLINICAL, plots
from cxrlib.audit.lights import LIGHTS, count_of
from cxrlib.files import whole_file
from cxrlib.plots import pages, style
from cxrlib.results import pack, pack_all, to_native

SCHEMA = 1  # of the JSON file: raise it when a field changes its name or meaning
OPEN_ROWS = 12  # longer tables are folded
LONGEST_TABLE = 60  # rows
HEADS = {  # what readers who took no course understand
    "told": "best told class",
    "auc": "AUC",
    "low": "95 % from",
    "high": "95 % to",
    "std": "spread (SD)",
    "sd": "spread (SD)",
    "excess": "above the clean split",
    "excess low": "above it, 95 % from",
    "excess high": "above it, 95 % to",
}


def write(audit, path: Path | str, notes=()) -> Path:
    """Write an audit as one page that needs nothing but itself: no network, no JavaScript.

    `notes` are texts that a reader must know before the lights, such as images that were left
    out. An older page at the path is replaced by the whole new one. Returns the path.
    """
    path = Path(path)
    counts = _table("Images and patients by label and source.", audit.counts)
    sections = [_section(number, one) for number, one in enumerate(audit.findings, 1)]
    for number, one in enumerate([counts, *(t for each in sections for t in each["tables"])], 2):
        one["caption"] = f"Table {number}. {one['caption']}"  # the first is that of the lights
    for number, one in enumerate((f for each in sections for f in each["figures"]), 1):
        one["caption"] = f"Figure {number}. {one['caption']}"
    page = pages.template(Path(__file__).with_name("page.html.j2")).render(
        audit=audit,
        conclusion=conclusion(audit),
        counts=counts,
        sections=sections,
        notes=list(notes),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        not_clinical=NOT_CLINICAL,
    )
    with whole_file(path) as partial:
        # A file name may hold bytes that are no text, which Python keeps as lone surrogates
        partial.write_text(page, encoding="utf-8", errors="replace")
    return path


def as_data(audit, notes=()) -> dict:
    """Turn an audit into what JSON can hold: everything but its figures.

    A table has ``columns``, ``index`` and ``data`` (row by row); what is missing or infinite is
    None.
    """
    texts = ("name", "light", "headline", "meaning", "advice")
    findings = [
        {name: getattr(one, name) for name in texts} | {"tables": pack_all(one.tables)}
        for one in audit.findings
    ]
    return to_native(
        {
            "schema": SCHEMA,
            "name": audit.name,
            "synthetic": bool(audit.synthetic),
            "light": audit.light,
            "conclusion": conclusion(audit),
            "notes": list(notes),
            "counts": pack(audit.counts),
            "findings": findings,
            "facts": audit.facts,
            "not_clinical": NOT_CLINICAL,
        }
    )


def conclusion(audit) -> str:
    """Say in one or two sentences what the worst light of an audit means."""
    tally = {light: sum(one.light == light for one in audit.findings) for light in LIGHTS}
    count = tally[audit.light]
    lights = count_of(count, f"{audit.light} light")
    told = {
        "red": f"{lights}: something other than the disease can tell these "
        "classes apart, or answers leak into the test. Do not trust a score measured on these "
        "images until you have acted on it.",
        "amber": f"{lights}: nothing is sure, but look closer before you "
        "trust a score measured on these images.",
        "green": "No probe found a shortcut or a leak. That proves nothing: they are simple, and "
        "a network may find what they missed.",
        "grey": "Nothing could be tested, so this audit says nothing about these images.",
    }[audit.light]
    if audit.light != "grey" and tally["grey"]:
        told += f" Not tested: {tally['grey']} of {len(audit.findings)} points."
    return told


def _section(number: int, finding) -> dict:
    """Prepare a finding for the page; what it wants drawn becomes pictures inside it."""
    figures = []
    for caption, (name, *given) in finding.figures.items():
        figure = getattr(plots, name)(*given)
        figures.append({"caption": caption, "alt": style.describe(figure), "image": _embed(figure)})
    tables = [_table(caption, table) for caption, table in finding.tables.items()]
    return {"id": f"finding-{number}", "finding": finding, "figures": figures, "tables": tables}


def _embed(figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", facecolor="white")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _table(caption: str, table: pd.DataFrame) -> dict:
    """Word a table: columns are (name, whether they hold numbers), stubs head a row.

    A plain row number is left out; the first column then heads its row.
    """
    plain = isinstance(table.index, pd.RangeIndex) and table.index.name is None
    if len(table) > LONGEST_TABLE:
        caption = f"{caption} (first {LONGEST_TABLE} of {len(table)} rows; --json FILE keeps all)"
    shown = table.head(LONGEST_TABLE)
    names = [*([] if plain else table.index.names), *table.columns]
    if not plain:
        shown = shown.reset_index(allow_duplicates=True)
    rows = list(shown.itertuples(index=False, name=None))
    numeric = [any(map(_is_number, column)) for column in zip(*rows, strict=True)]
    return {
        "caption": caption,
        "stubs": 1 if plain else table.index.nlevels,
        "columns": list(zip(map(_joined, names), numeric or [False] * len(names), strict=True)),
        "rows": [[_text(value) for value in row] for row in rows],
        "folded": len(rows) > OPEN_ROWS,
    }


def _joined(name) -> str:
    """Word the name of a column or of an index level; it may have several parts, or none."""
    parts = name if isinstance(name, tuple) else [HEADS.get(name, name)]
    return ", ".join("" if part is None else str(part) for part in parts)


def _is_number(value) -> bool:
    """Tell numbers from words, from yes and no, and from what is missing."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
    return number and not math.isnan(value)


def _text(value) -> str:
    """Word a cell: three digits of a fraction, all digits of a count, a dash for nothing."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if not _is_number(value):
        return str(value)
    number = float(value)
    whole = math.isfinite(number) and number == int(number)
    # 1.0 among fractions would look like a count
    if whole and not (isinstance(value, float) and abs(number) <= 1):
        return f"{int(number)}"
    return f"{number:.3f}" if 0.001 <= abs(number) < 1000 or number == 0 else f"{number:.3g}"
