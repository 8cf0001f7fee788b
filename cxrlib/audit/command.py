"""The command ``cxr audit``: what else than the disease gives the label away in an image set."""

from __future__ import annotations

import re
import shlex
import tempfile
import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from cxrlib import NOT_CLINICAL
from cxrlib.audit import subject
from cxrlib.audit.subject import SECRET
from cxrlib.files import printable, short_path, write_json
from cxrlib.sources import table_options

COLOURS = {"red": "red", "amber": "yellow", "green": "green", "grey": "bright_black"}
EXIT_CODES = """
\b
Exit codes: 0 audited, whatever the lights; 1 it failed, or a light is as bad
as --fail-on says; 2 it was asked for something that does not exist; 130
interrupted.
"""


FILE = click.Path(dir_okay=False, path_type=Path)


class _Remembering(click.Command):
    """A command that keeps what was typed, for the page."""

    def parse_args(self, ctx, args):
        ctx.meta["typed"] = shlex.join(["cxr", "audit", *args])
        return super().parse_args(ctx, args)


@click.command("audit", cls=_Remembering, epilog=EXIT_CODES)
@click.argument("place")
@click.option("--out", type=FILE, help="The page to write.  [default: audit-NAME.html, here]")
@click.option(
    "--by",
    metavar="COLUMN",
    help="Column that names the source: hospital, machine, data set.  "
    "[default: source; scanner for phantom]",
)
@table_options
@click.option("--label", "labels", multiple=True, help="Audit these classes only. Repeatable.")
@click.option(
    "--features",
    default="pixels",
    show_default=True,
    metavar="NAME",
    help="What the probes see: pixels (quick, no network), or a network of keras.applications "
    "such as VGG16. On two cores a network takes 1 s for 7 (VGG16) to 25 images, for each view.",
)
@click.option(
    "--weights",
    metavar="WEIGHTS",
    help="The network's weights: imagenet (fetched once), random, or a file.  [default: imagenet]",
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many images a label.")
@click.option("--allow-missing", is_flag=True, help="Go on without images that cannot be read.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For all chance."
)
@click.option(
    "--json", "json_file", type=FILE, help="Write the findings as data too, for a program to read."
)
@click.option(
    "--fail-on",
    type=click.Choice(["red", "amber"]),
    help="End with exit code 1 if a light is this or worse.  [default: never]",
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in the browser.")
@click.pass_context
def audit_command(
    ctx, place, out, by, labels, features, weights, limit, allow_missing, seed, json_file,
    fail_on, open_page, described,
):  # fmt: skip
    """Look for shortcuts and leaks in an image set.

    PLACE is a folder with one folder a label; a table with the columns image and label, and if
    you have them patient, source, view, split, sex and age; the table of a known set, such as NIH
    ChestX-ray14 or RSNA Pneumonia; or a collection of this course: phantom (synthetic: a set
    with a secret, to practise on), open or external. PNG, JPEG and DICOM are read.

    The probes ask what else than the disease tells the labels apart: the border, the corners,
    the file, the hospital, the patients' age and sex; copies of images; patients on both sides
    of a split. You get one page with a light for each, what it means and what to do. A probe
    that finds nothing proves nothing. Nothing is uploaded.

    \b
    Examples:
      cxr audit my_images
      cxr audit films.csv --by hospital --label healthy --label covid --open
      cxr audit films.csv --features VGG16 --out vgg16.html
      cxr audit my_images --json audit.json --fail-on red
      cxr audit Data_Entry_2017_v2020.csv --images films --allow-missing \\
        --class healthy="No Finding" --class effusion=Effusion
    """  # noqa: D301 (click wants a real backspace before lines that it shall not wrap)
    start = time.monotonic()
    kind = subject.kind_of(place)
    out = out or Path("audit-" + re.sub(r"[^\w.-]+", "-", subject.name_of(place)) + ".html")
    by = by or ("scanner" if kind == "phantom" else "source")
    labels = list(dict.fromkeys(labels))
    notes: list[str] = []
    if kind == "folder":
        described["folder"] = place
    elif described:
        option = next(iter(described)).replace("classes", "class").replace("_", "-")
        raise click.UsageError(f"--{option} is for images of your own; {place} needs none.")
    table = subject.check_table(kind, described, by, labels, allow_missing, notes)
    _check_file(out, "--out", ".html", ".htm")
    if json_file:
        _check_file(json_file, "--json", ".json")
    extract, seen = _features(features, weights, seed)
    cohort, cut = subject.load(kind, described, table, labels, limit, allow_missing, seed, notes)
    from cxrlib.audit import examine, page
    from cxrlib.audit.lights import count_of

    counts = cohort.table["label"].value_counts()
    patients = count_of(cohort.table["patient"].nunique(), "patient")
    told = ", ".join(f"{count} {label}" for label, count in counts.items())
    greeting = f"{cohort.name}: {count_of(len(cohort), 'image')} of {patients} ({told})"
    click.echo(printable(greeting), err=True)

    def tell(number, total, name):
        click.echo(f"[{number + 1:2}/{total}] {name} ...", err=True)

    with warnings.catch_warnings():
        # Of small classes scikit-learn says on each fold what the page says once
        warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")
        try:
            found = examine.run(cohort, labels or None, by, extract, seed, tell)
        except examine.AuditError as error:
            raise examine.AuditError(f"{error}{subject.remedy(cohort, cut, limit)}") from error
    facts = {"Features": seen, "Command": ctx.meta["typed"]}
    if kind == "phantom":
        facts["Secret"] = (
            f"these phantoms were made with confounding {SECRET}: for {SECRET:.0%} of the patients "
            "the label chooses the scanner, for the others chance does. An audit should find that."
        )
    facts["Time"] = f"{time.monotonic() - start:.0f} seconds"
    found = replace(found, facts=found.facts | facts)
    if "RANDOM" in seen:
        notes = [seen, *notes]
    page.write(found, out, notes)
    if json_file:
        write_json(json_file, page.as_data(found, notes))
    _conclude(found, notes, page.conclusion(found))
    click.echo(f"\nPage: {short_path(out)}")
    if json_file:
        click.echo(f"Data: {short_path(json_file)}")
    click.echo(NOT_CLINICAL)
    if open_page:
        click.launch(out.resolve().as_uri())
    if fail_on and examine.LIGHTS.index(found.light) <= examine.LIGHTS.index(fail_on):
        told = f"Exit code 1: the worst light is {found.light} (--fail-on {fail_on})."
        click.echo(told, err=True)
        ctx.exit(1)


def _check_file(path: Path, option: str, *endings: str) -> None:
    """Refuse a file that cannot or should not be written, before minutes are spent."""
    if path.suffix.lower() not in endings:
        raise click.BadParameter(f"the file's name must end in {endings[0]}.", param_hint=option)
    folder = path.resolve().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ends = {"prefix": f".{path.stem}.", "suffix": f".part{path.suffix}"}  # as long as later
        with tempfile.NamedTemporaryFile(dir=folder, **ends):
            pass
    except OSError as error:
        raise click.BadParameter(
            f"{path} cannot be written ({error.strerror}). Name a file in a folder of yours.",
            param_hint=option,
        ) from error


def _features(name: str, weights: str | None, seed: int):
    """Find what turns images into features (None: the probes' own way), and its description."""
    if name.lower() == "pixels":
        if weights:
            raise click.BadParameter("only a network has weights.", param_hint="--weights")
        return None, "pixels: brightness and fine detail of 24 x 24 squares; no network"
    from cxrlib import backbone

    try:
        found = backbone.find_weights(name, weights or "imagenet", seed)
    except ImportError as error:
        raise click.BadParameter(
            f"a network needs Keras with a backend, one of tensorflow, jax and torch ({error}). "
            "Install it, or name one that is installed in KERAS_BACKEND.",
            param_hint="--features",
        ) from error
    return partial(backbone.features, name=name, weights=found), str(found)


def _conclude(found, notes: list[str], conclusion: str) -> None:
    """Print the lights, those to act on with their numbers, and what must be known."""
    click.echo(err=True)
    for one in found.findings:
        light = click.style(f"{one.light.upper():6}", fg=COLOURS[one.light], bold=True)
        click.echo(f"{light} {one.name}")
        if one.light in ("red", "amber"):
            click.echo(click.wrap_text(printable(one.headline), 88, " " * 7, " " * 7))
    click.echo(f"\n{click.wrap_text(conclusion, 88)}")
    for note in notes:
        click.echo(subject.worded(note))
