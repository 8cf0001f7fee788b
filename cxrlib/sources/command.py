"""The commands ``cxr data list``, ``fetch`` and ``verify``, and the options for tables of films."""

from __future__ import annotations

import functools

import click

FOR_TABLES = {
    "images": "Folder with a table's images, at any depth.",
    "image_column": "Column with the path of an image.",
    "label_column": "Column with the label or findings; given again, each column is a finding.",
    "patient_column": "Column that names the patient.",
    "view_column": "Column with the view, such as PA.",
    "split_column": "Column that says train or test.",
    "sex_column": "Column that says F or M.",
    "age_column": "Column with the age in years.",
    "classes": 'Images with one of these findings are a class: healthy="No Finding|Normal". '
    "Repeatable; images of no class are left out.",
    "patient_from": "Regular expression that finds the patient in a path: its group, or all of it.",
}


def _classes(ctx, option, values) -> dict[str, list[str]]:
    found = {}
    for value in values:
        name, _, findings = value.partition("=")
        if not (name.strip() and findings.strip()):
            raise click.BadParameter(f'{value!r} is not like healthy="No Finding|Normal".')
        found.setdefault(name.strip(), []).extend(findings.split("|"))
    return found


def table_options(command):
    """Give a command the options that tell how to read a table of films: a dict ``described``.

    It holds those that were given, as keyword arguments of ``sources.load("folder", ...)``.
    """

    @functools.wraps(command)
    def described(*words, **given):
        found = {name: value for name in FOR_TABLES if (value := given.pop(name))}
        return command(*words, **given, described=found)

    for name, text in reversed(FOR_TABLES.items()):
        kind = {"metavar": {"classes": "NAME=FINDING|...", "images": "DIR"}.get(name, "TEXT")}
        kind |= {"multiple": True} if name in ("classes", "label_column") else {}
        kind |= {"callback": _classes} if name == "classes" else {}
        option = "--class" if name == "classes" else f"--{name.replace('_', '-')}"
        described = click.option(option, name, help=text, **kind)(described)
    return described


@click.group("data")
def data_command():
    """List, download and verify image collections.

    CXR_CACHE moves the folder that images are kept in; CXR_MIRROR names another server.

    \b
    Examples:
      cxr data list
      cxr data fetch open
      cxr data verify open
    """  # noqa: D301


@data_command.command("list")
def list_sources():
    """List the collections: what they are, their licence, their size."""
    from cxrlib import sources

    for name, source in sources.SOURCES.items():
        click.secho(name, bold=True)
        click.echo(click.wrap_text(source.story, 84, "  ", "  "))
        click.echo(f"  Licence: {source.licence}\n  Size: {source.size}\n")


def _check_name(ctx, option, name: str) -> str:
    """Refuse a collection that does not exist, or has nothing to download."""
    from cxrlib import sources

    try:
        sources.manifest(name)
    except sources.SourceError as error:
        raise click.BadParameter(str(error)) from error
    return name


@data_command.command()
@click.argument("name", callback=_check_name)
@click.option("--allow-missing", is_flag=True, help="Go on without what the server lacks.")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="How many files at a time.",
)
def fetch(name, allow_missing, workers):
    """Download collection NAME (open or external) and verify every file.

    What is there already is not fetched again: after a break, only the rest is.

    \b
    Examples:
      cxr data fetch open
      CXR_MIRROR=http://localhost:8000 cxr data fetch open --allow-missing
    """  # noqa: D301
    from cxrlib import sources

    states = sources.fetch(name, allow_missing, workers)["state"].value_counts()
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    click.echo(f"{name}: {told} of {states.sum()} files")


@data_command.command()
@click.argument("name", callback=_check_name)
@click.pass_context
def verify(ctx, name):
    """Compare every file of collection NAME with its hash; exit code 1 if one is wrong.

    \b
    Example:
      cxr data verify open
    """  # noqa: D301
    from cxrlib import sources
    from cxrlib.sources.paths import SHOWN

    table = sources.verify(name)
    for state, count in table["state"].value_counts().items():
        click.echo(f"{count:6} {state}")
    wrong = table[table["state"] != "present"]
    for row in wrong.head(SHOWN).itertuples():
        click.echo(f"       {row.state}: {row.path}")
    if len(wrong) > SHOWN:
        click.echo(f"       and {len(wrong) - SHOWN} more")
    if len(wrong):
        click.echo(f"Get them with: cxr data fetch {name}")
        ctx.exit(1)
