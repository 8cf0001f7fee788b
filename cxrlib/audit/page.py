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
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxrlib import NOT_CLINICAL
from cxrlib.files import whole_file
from cxrlib.plots import pages
from cxrlib.results import pack, pack_all, to_native

SCHEMA = 1  # of the JSON file: raise it when a field changes its name or meaning
OPEN_ROWS = 12  # longer tables are folded
LONGEST_TABLE = 60  # rows


class Light(NamedTuple):
    """How a light is shown: its shape is there for those who cannot tell its colour."""

    shape: str
    says: str


LIGHTS = {
    "red": Light("■", "Act on it. Chance is an unlikely reason, and the effect is large."),
    "amber": Light("▲", "Look at it. There is something, but it is weak, unsure, or may be right."),
    "green": Light("●", "This probe found nothing. That proves nothing: it can have missed it."),
    "grey": Light("○", "Could not be tested with these images, or with what is known of them."),
}

LIMITS = (
    "A probe that finds nothing proves nothing. Its light is green, not a certificate.",
    "The probes are simple models. A neural network may find a shortcut that they miss.",
    "A red light says that a shortcut or a leak is in the data. It does not say that your model "
    "uses it. Test your model without it, or on images from elsewhere.",
    "Patients are taken as given. If one patient stands under two names, probes look better than "
    "they are, and leaks stay hidden.",
    "Labels are not checked. If they are wrong, this audit does not see it.",
    "It knows only the sources that you name. Hospitals, machines or years that no column names "
    "can differ all the same.",
    "Many probes look at the same images. The p values of the views without lungs are corrected "
    "for their number (Holm's method); those of the other probes, such as thumbnail and histogram, "
    "are not. So some false alarms remain. How often that happens is measured in "
    "docs/audit/README.md of this project.",
)


class Table(NamedTuple):
    """A DataFrame as text; columns are (name, whether they hold numbers), stubs head a row."""

    caption: str
    stubs: int
    columns: list[tuple[str, bool]]
    rows: list[list[str]]
    folded: bool


def write(audit, path: Path | str, notes=()) -> Path:
    """Write an audit as one page that needs nothing but itself: no network, no JavaScript.

    Parameters
    ----------
    audit : cxrlib.audit.examine.Audit
    path : path-like
        An older page there is replaced by the whole new one.
    notes : sequence of str
        What a reader must know before the lights, such as images that were left out.

    Returns
    -------
    Path
    """
    path = Path(path)
    page = pages.template(Path(__file__).with_name("page.html.j2")).render(
        audit=audit,
        lights=LIGHTS,
        conclusion=conclusion(audit),
        counts=_table("Images and patients by label and source.", audit.counts),
        sections=[_section(number, one) for number, one in enumerate(audit.findings, 1)],
        notes=list(notes),
        limits=LIMITS,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        not_clinical=NOT_CLINICAL,
    )
    with whole_file(path) as partial:
        # A file name may hold bytes that are no text, which Python keeps as lone surrogates
        partial.write_text(page, encoding="utf-8", errors="replace")
    return path


def as_data(audit, notes=()) -> dict:
    """Turn an audit into what JSON can hold: everything but its figures.

    Parameters
    ----------
    audit, notes
        As in :func:`write`.

    Returns
    -------
    dict
        ``schema``, ``name``, ``synthetic``, ``light`` (the worst), ``conclusion``, ``notes``,
        ``counts``, ``findings`` (each with name, light, headline, meaning, advice, tables),
        ``facts``, ``not_clinical``. A table has ``columns``, ``index`` and ``data`` (row by
        row); what is missing or infinite is None.
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
    told = {
        "red": f"{_lights(count, 'red')}: something other than the disease can tell these "
        "classes apart, or answers leak into the test. Do not trust a score measured on these "
        "images until you have acted on it.",
        "amber": f"{_lights(count, 'amber')}: nothing is sure, but look closer before you "
        "trust a score measured on these images.",
        "green": "No probe found a shortcut or a leak. That proves nothing: they are simple, and "
        "a network may find what they missed.",
        "grey": "Nothing could be tested, so this audit says nothing about these images.",
    }[audit.light]
    if audit.light != "grey" and tally["grey"]:
        told += f" Not tested: {tally['grey']} of {len(audit.findings)} points."
    return told


def _lights(count: int, colour: str) -> str:
    return f"{count} {colour} light{'' if count == 1 else 's'}"


def _section(number: int, finding) -> dict:
    """Prepare a finding for the page; what it wants drawn becomes pictures inside it."""
    from cxrlib import plots

    figures = {
        caption: getattr(plots, name)(*given) for caption, (name, *given) in finding.figures.items()
    }
    return {
        "id": f"finding-{number}",
        "finding": finding,
        "figures": [(caption, _embed(figure)) for caption, figure in figures.items()],
        "tables": [_table(caption, table) for caption, table in finding.tables.items()],
    }


def _embed(figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", facecolor="white")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _table(caption: str, table: pd.DataFrame) -> Table:
    """Word a table. A plain row number is left out; the first column then heads its row."""
    plain = isinstance(table.index, pd.RangeIndex) and table.index.name is None
    index = [] if plain else [_joined(name) for name in table.index.names]
    shown = table.head(LONGEST_TABLE)
    if len(table) > LONGEST_TABLE:
        caption = f"{caption} (first {LONGEST_TABLE} of {len(table)} rows; --json FILE keeps all)"
    rows = []
    for key, row in zip(shown.index, shown.itertuples(index=False, name=None), strict=True):
        stubs = [] if plain else (key if isinstance(key, tuple) else (key,))
        rows.append([*stubs, *row])
    names = [*index, *(_joined(name) for name in table.columns)]
    columns = [(name, any(_is_number(row[n]) for row in rows)) for n, name in enumerate(names)]
    texts = [[_text(value) for value in row] for row in rows]
    return Table(caption, max(1, len(index)), columns, texts, len(shown) > OPEN_ROWS)


def _joined(name) -> str:
    """Word the name of a column or of an index level; it may have several parts, or none."""
    if isinstance(name, tuple):
        return ", ".join(str(part) for part in name)
    return "" if name is None else str(name)


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
