"""What ``cxr audit`` is to look at: found, checked, loaded, and what must be said of it."""

from __future__ import annotations

import shlex
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import click

from cxrlib.files import no_such, printable

COLLECTIONS = ("phantom", "open", "external")
SECRET = 0.8  # of the phantoms' scanners follow the label: without it, few lights would light up


def kind_of(place: str) -> str:
    """Name of the source that a place is: a collection of the course, or 'folder'."""
    there = Path(place).expanduser().exists()
    if place in COLLECTIONS:
        if there:
            click.echo(f"Note: this is the course's collection; your own is ./{place}", err=True)
        return place
    if not there:
        raise _unknown("folder, CSV file or collection", place, COLLECTIONS, "PLACE")
    return "folder"


def name_of(place: str) -> str:
    """Name an image set after its folder or file."""
    path = Path(place).expanduser()
    return (path.stem if path.is_file() else path.resolve().name) or "images"


def _unknown(kind: str, name: str, there, option: str) -> click.BadParameter:
    return click.BadParameter(printable(no_such(kind, name, list(there))), param_hint=option)


@contextmanager
def heard(notes: list[str]):
    """Turn what is warned of while images are found and read into notes, said at once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        finally:
            for one in caught:
                text = str(one.message)
                if issubclass(one.category, UserWarning) and text not in notes:
                    notes.append(text)
                    click.echo(worded(text), err=True)


def worded(note: str) -> str:
    """Wrap a note for the terminal."""
    return click.wrap_text(printable(f"Note: {note}"), 88, preserve_paragraphs=True)


def check_table(
    kind: str, described: dict, by: str, labels: list[str], allow_missing: bool, notes: list[str]
):
    """Complain about labels and columns that do not exist before an image is opened.

    `described` says where a folder or a table is, and how to read it. Returns a table with a row
    an image; of phantoms, which are made later, a few.
    """
    from cxrlib import sources
    from cxrlib.audit.examine import AuditError
    from cxrlib.sources import folders

    if by == "label":
        raise click.BadParameter(
            "the label gives itself away. Name a column such as hospital or machine.",
            param_hint="--by",
        )
    with heard(notes):
        if kind == "phantom":
            table = sources.load(kind, patients=3, size=64).table  # made in no time
        else:
            known = {**described, "allow_missing": allow_missing or None}
            table = folders.make_table(**known)[0] if described else sources.manifest(kind)
    there = sorted(table["label"].dropna().unique())
    for label in labels:
        if label not in there:
            raise _unknown("label", label, there, "--label")
    if len(labels or there) < 2:
        only, place = (labels or there or ["none"])[0], described.get("folder", kind)
        inner = Path(place).expanduser() / str(only)
        below = sorted(each.name for each in inner.glob("*") if each.is_dir())
        told = f" If {' and '.join(below[:2])} are labels, name {inner}." if below[1:] else ""
        raise AuditError(
            f"{place}: the only label is {only!r}.{told} An audit asks what tells labels apart: "
            "give it two or more, one folder or one value of the column 'label' each, or make "
            'classes of findings: --class NAME="FINDING".'
        )
    if by not in table:
        raise _unknown("column", by, table, "--by")
    return table


def load(kind, described, table, labels, limit, allow_missing, seed, notes):
    """Load the images, and add to `notes` what the page must say first.

    `described` and `table` are as in :func:`check_table`, the others as on the command line.
    Returns the cohort, and the labels of which `limit` left some out.
    """
    from cxrlib import sources
    from cxrlib.audit.lights import count_of

    try:
        with heard(notes):
            if kind == "phantom":
                shown = sys.stderr.isatty()
                cohort = sources.load(kind, confounding=SECRET, seed=seed, progress=shown)
                table = cohort.table
                if limit:
                    cohort = cohort.take(table.groupby("label").cumcount() < limit)
            else:
                options = {"allow_missing": allow_missing, "limit": limit, "seed": seed}
                cohort = sources.load(kind, **described, **options)
    except sources.SourceError as error:
        # Whoever types a command does not write Python
        words = str(error).replace("allow_missing=True", "--allow-missing")
        raise sources.SourceError(words) from error
    unlabelled = int(cohort.table["label"].isna().sum())
    if unlabelled:
        have = "has" if unlabelled == 1 else "have"
        many = count_of(unlabelled, "image")
        notes.append(f"{many} {have} no label, or an unknown one, and did not take part.")
    cohort = cohort.where(label=labels or cohort.labels)
    before = table["label"].value_counts()
    cut = [label for label in cohort.labels if limit and before[label] > limit]
    if cut:
        some = ", ".join(f"{count_of(before[label], 'image')} of {label}" for label in cut)
        chosen = "the first" if kind == "phantom" else f"chosen by seed {seed}"
        notes.append(
            f"--limit {limit}: only {limit} of {some} took part, {chosen}. Copies and patients "
            "among the rest stay unseen."
        )
    if kind == "folder":
        cohort = cohort.take(range(len(cohort)), name_of(described["folder"]))
    return cohort, cut


def remedy(cohort, cut: list[str], limit: int | None) -> str:
    """Say what to type if a class has too few patients; nothing if all have enough."""
    from cxrlib.audit.lights import few_patients

    few, told = set(few_patients(cohort).index), ""
    if few & set(cut):
        told += f" It was --limit {limit} that left so few: raise it, or leave it out."
    enough = [label for label in cohort.labels if label not in few]
    if few and len(enough) > 1:
        words = " ".join(f"--label {shlex.quote(label)}" for label in enough)
        told += f" Those that are large enough: {words}"
    return told
