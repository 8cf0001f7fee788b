"""The commands ``cxr data list``, ``fetch`` and ``verify``."""

from __future__ import annotations

import click

from cxrlib.files import no_such

SHOWN = 10  # files that are named; the rest is counted


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

    there = [key for key, source in sources.SOURCES.items() if source.download]
    if name not in sources.SOURCES:
        raise click.BadParameter(no_such("collection", name, there))
    if name not in there:
        raise click.BadParameter(f"{name} has no files to download; {' and '.join(there)} have.")
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
