"""The command ``cxr check``: hold runs to the paper's claims and to the recorded verdicts."""

from __future__ import annotations

from pathlib import Path

import click

from cxrlib import NOT_CLINICAL

EXIT_CODES = """
\b
Exit codes: 0 nothing got worse; 1 something did, or a result is damaged; 2 a
folder holds no run or no recorded verdicts, or the runs don't belong
together; 130 interrupted.
"""
COLOURS = {"exceeded": "green", "reproduced": "green", "not reproduced": "red"}


@click.command("check", epilog=EXIT_CODES)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="Folder whose verdicts.json to compare with.  [default: the course's own]",
)
@click.option("--protocol", type=click.Choice(["paper", "clean"]), help="Judge this one only.")
@click.option(
    "--margin",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="What counts as the same figure.  [default: 0.1]",
)
@click.option("--only-present", is_flag=True, help="Pass over recorded claims that RUNS lack.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all that was found, intervals too, to this file.",
)
@click.option(
    "--write",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Record the verdicts in this file; compares with others only where --reference is given.",
)
@click.pass_context
def check_command(ctx, runs, reference, protocol, margin, only_present, json_file, write):
    """Judge each claim of the paper by RUNS; exit code 1 if a verdict got worse.

    RUNS are run folders, one a seed, or a folder of them. A verdict is one of reproduced (within
    the margin of the printed figure), exceeded, not reproduced, undecidable at this n, and not
    comparable (synthetic images, random weights, another backbone); fewer than five seeds decide
    nothing. Below it stands what would have decided, what the paper's own patients allow, and
    whether the verdict hangs on how many they are. Choose the margin before you look.

    Worse than recorded is: a step from reproduced or exceeded to undecidable to not reproduced;
    what was comparable and is not; a claim or a lesson that is missing.

    \b
    Examples:
      cxr check runs/quick
      for s in 0 1 2 3 4; do cxr run --profile paper --set seed=$s --out runs/paper/seed$s; done
      cxr check runs/paper --json verdicts.json
      cxr check runs/paper --write data/reference/verdicts.json
    """  # noqa: D301
    from cxrlib.files import write_json
    from cxrlib.paper import check as checking
    from cxrlib.paper.verdicts import MARGIN

    recorded = checking.read_reference(reference) if reference or not write else None
    click.echo(f"Judging {', '.join(map(str, runs))}", err=True)
    protocols = [protocol] if protocol else checking.PROTOCOLS
    found = checking.check(runs, protocols, MARGIN if margin is None else margin)
    _tell(found, checking)
    for file, content in ((json_file, found.full), (write, found.short)):
        if file:
            click.echo(f"Written: {write_json(file, content())}")
    if recorded is None:
        return
    got_worse = checking.worse(recorded, found, only_present)
    for line in got_worse:
        click.secho(f"Worse than recorded: {line}", fg="red")
    if got_worse:
        ctx.exit(1)
    click.echo("No verdict is worse than the recorded one.")


def _tell(found, checking) -> None:
    """Print a table for each protocol, then what the letters in it stand for, and the sum."""
    reasons = {}
    for protocol, verdicts in found.verdicts.items():
        if verdicts:
            click.secho(f"\n{checking.PROTOCOL_IS[protocol]}", bold=True)
            heads = ("Claim", "Printed", "Ours", "95 % interval", "Why", "Verdict at 95 %")
            click.echo("{:<28}{:<12}{:>7}  {:<18}{:<4}{}".format(*heads))
        for one in verdicts.values():
            if protocol == "data" and one.verdict == "reproduced":
                continue  # 42 cells: only those that differ
            letter = reasons.setdefault(one.reason, chr(ord("a") + len(reasons) % 26))
            printed, ours, interval, verdict = checking.describe(one)
            start = f"{one.claim:<28}{printed:<12}{ours:>7}  {interval:<18}{letter:<4}"
            click.echo(start + click.style(verdict, fg=COLOURS.get(one.verdict)))
            if one.second:
                click.echo(f"    {one.second}")
    for reason, letter in reasons.items():
        click.echo(f"{'' if letter != 'a' else chr(10)}{letter}  {reason}")
    seeds = len(found.runs)
    click.echo(f"\n{seeds} run{'s' * (seeds != 1)} (a verdict needs five seeds).")
    for line in checking.headlines(found):
        click.secho(line, bold=True)
    for lesson, held in found.held.items():
        click.echo(f"Lesson {'held' if held else click.style('not held', fg='red')}: {lesson}")
    click.echo(NOT_CLINICAL)
