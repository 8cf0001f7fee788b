"""The commands ``cxr run`` and ``cxr report``."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import click

from cxrlib.files import printable, short_path

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command(
    "run",
    epilog="""
\b
Exit codes: 0 all is well; 1 a notebook failed; 2 it was asked for something
that does not exist, or the folder is in use; 130 interrupted.
""",
)
@click.option(
    "--profile",
    default="quick",
    show_default=True,
    help="Sizes and data: smoke (a test), quick, paper, or any file in notebooks/profiles.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="NN",
    help="Run this notebook only; number or name. Repeatable.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change a parameter of the notebooks; the value is YAML. Repeatable.",
)
@click.option("--out", type=FOLDER, help="Folder.  [default: runs/PROFILE]")
@click.option("--force", is_flag=True, help="Run notebooks again that are already done.")
@click.option(
    "--notebooks",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with other notebooks to run.  [default: the course's own]",
)
@click.option(
    "--jobs",
    default=1,
    show_default=True,
    type=click.IntRange(1, 16),
    metavar="N",
    help="Notebooks to run at once, on a processor; each takes its own memory.",
)
@click.option(
    "--cell-timeout",
    type=click.IntRange(min=1),
    metavar="SECONDS",
    help="Longest time for one cell.  [default: 900 in smoke, 86400 in paper, else 3600]",
)
@click.option("--no-report", is_flag=True, help="Leave the report to `cxr report`.")
@click.pass_context
def run_command(ctx, profile, only, settings, out, force, notebooks, jobs, cell_timeout, no_report):
    """Run the notebooks and write a report.

    What an earlier run finished with the same notebooks, code, data and parameters is skipped,
    so an interrupted run goes on where it stopped. A notebook that fails does not stop the
    others; those that need its results are not run.

    \b
    Examples:
      cxr run --profile smoke
      cxr run --only 04 --only 05 --set seed=1 --out runs/seed1
      cxr run --set weights=imagenet --set "grid_neurons=[8, 32]"
    """  # noqa: D301
    from cxrlib.course import runs
    from cxrlib.course.progress import clock

    # To be told to end is like Ctrl-C, so that no kernel is left behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.monotonic()
    words = ["cxr", "run", "--profile", profile]
    words += [word for name in only for word in ("--only", name)]
    words += [word for setting in settings for word in ("--set", setting)]
    words += ["--out", str(out)] if out else []
    words += ["--notebooks", str(notebooks)] if notebooks else []
    command = shlex.join(words)
    try:
        how = (profile, only, settings, out, force, notebooks, cell_timeout, command, jobs)
        summary = runs.run(*how)
    except KeyboardInterrupt:
        without = " (without --force)" if force else ""
        told = f"\nInterrupted. What is done is kept; go on with: {command}{without}"
        click.echo(told, err=True)
        # Python's own end would wait for ever for a socket that the interruption left half made
        sys.stdout.flush()
        os._exit(130)
    from cxrlib.course import report

    counts = Counter(outcome.status for outcome in summary.outcomes)
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    click.echo(f"Notebooks: {told} ({clock(time.monotonic() - start)})")
    for outcome in summary.failed:
        if outcome.status == runs.FAILED:
            kept = short_path(summary.out / "failed" / f"{outcome.name}.ipynb")
            click.echo(f"\n{outcome.name} failed in {printable(outcome.why)}\nSee {kept}", err=True)
    if not no_report:
        click.echo(f"\nReport: {short_path(report.write(summary.out))}")
    ctx.exit(1 if summary.failed else 0)


@click.command("report")
@click.argument("folder", type=FOLDER)
def report_command(folder):
    """Write report.html and finding.json for the run in FOLDER again.

    \b
    Example:
      cxr report runs/quick
    """  # noqa: D301
    from cxrlib.course import report

    click.echo(f"Report: {short_path(report.write(folder))}")
