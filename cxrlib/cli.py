"""The command ``cxr``. Nothing heavy is imported before a subcommand needs it."""

from __future__ import annotations

import errno
import shlex
import signal
import time
from pathlib import Path

import click

from cxrlib import NOT_CLINICAL, __version__
from cxrlib.audit import audit_command
from cxrlib.bulk import features
from cxrlib.files import printable, short_path, whole_file
from cxrlib.paper import check_command
from cxrlib.sources import data_command

EXIT_CODES = """
\b
Exit codes: 0 all is well; 1 something failed (a notebook, a download, an
image); 2 it was asked for something that does not exist; 130 interrupted.
"""


class Friendly(click.Group):
    """A group whose expected errors end as one clear message and an exit code."""

    def invoke(self, ctx):
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\nInterrupted.", err=True)
            ctx.exit(130)
        except (ValueError, OSError) as error:
            if ctx.params.get("debug") or getattr(error, "errno", None) == errno.EPIPE:
                raise
            click.echo(f"{click.style('Error:', fg='red')} {printable(_worded(error))}", err=True)
            ctx.exit(getattr(error, "exit_code", 1))


def _worded(error: Exception) -> str:
    if type(error).__module__.startswith("cxrlib"):
        return str(error)
    if type(error) in (ValueError, OSError):
        return f"{error}"
    return f"{type(error).__name__}: {error} (cxr --debug ... shows where)"


@click.group(
    cls=Friendly,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
)
@click.version_option(__version__, prog_name="cxr")
@click.option("--debug", is_flag=True, help="Show the full traceback of an error.")
def main(debug):
    """Detect COVID-19 in chest X-rays, and find out whether such a detector works.

    Teaching material: not for clinical use.

    \b
    Examples:
      cxr run                      the course on synthetic images, in minutes
      cxr data fetch open          download the open collections of real images
      cxr run --profile paper      the course on them, as in the paper (wants a GPU)
      cxr report runs/quick        write the report of a run again
      cxr check runs/paper         hold runs to the paper's claims
    """  # noqa: D301


@main.command(epilog=EXIT_CODES)
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
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder.  [default: runs/PROFILE]",
)
@click.option("--force", is_flag=True, help="Run notebooks again that are already done.")
@click.option(
    "--notebooks",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with other notebooks to run.  [default: the course's own]",
)
@click.option(
    "--cell-timeout",
    type=click.IntRange(min=1),
    metavar="SECONDS",
    help="Longest time for one cell.  [default: 900 in smoke, 86400 in paper, else 3600]",
)
@click.pass_context
def run(ctx, profile, only, settings, out, force, notebooks, cell_timeout):
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
    from cxrlib import course

    # To be told to end is like Ctrl-C, so that no kernel is left behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.monotonic()
    command = _command(profile, only, settings, out, notebooks)
    try:
        summary = course.run(profile, only, settings, out, force, notebooks, cell_timeout, command)
    except KeyboardInterrupt:
        click.echo(
            f"\nInterrupted. What is done is kept; go on with: {command}"
            + (" (without --force)" if force else ""),
            err=True,
        )
        ctx.exit(130)
    _conclude(summary, time.monotonic() - start)
    ctx.exit(1 if summary.failed else 0)


def _command(profile, only, settings, out, notebooks) -> str:
    parts = ["cxr", "run", "--profile", profile]
    for name, values in (("--only", only), ("--set", settings)):
        for value in values:
            parts += [name, value]
    for name, value in (("--out", out), ("--notebooks", notebooks)):
        parts += [name, str(value)] if value else []
    return shlex.join(parts)


def _conclude(summary, seconds: float) -> None:
    """Say what failed and where the report is."""
    from cxrlib import course
    from cxrlib.course import clock, report

    counts = {}
    for outcome in summary.outcomes:
        counts[outcome.status] = counts.get(outcome.status, 0) + 1
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    click.echo(f"Notebooks: {told} ({clock(seconds)})")
    for outcome in summary.failed:
        if outcome.status == course.FAILED:
            kept = short_path(summary.out / "failed" / f"{outcome.name}.ipynb")
            click.echo(f"\n{outcome.name} failed in {printable(outcome.why)}\nSee {kept}", err=True)
    click.echo(f"\nReport: {short_path(report.write(summary.out))}")


@main.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def report(folder):
    """Write report.html for the run in FOLDER again.

    \b
    Example:
      cxr report runs/quick
    """  # noqa: D301
    from cxrlib.course import report as page

    click.echo(f"Report: {short_path(page.write(folder))}")


main.add_command(check_command)
main.add_command(audit_command)
main.add_command(features)
main.add_command(data_command)


@main.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "--model",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of a saved model, such as runs/quick/models/05_vgg16.",
)
@click.option(
    "--heatmap",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write the heat map.  [default: IMAGE's name with -heatmap.png, here]",
)
def predict(image, model, heatmap):
    """Ask a trained model about IMAGE (PNG, JPEG or DICOM). Not for clinical use.

    Prints a probability for each class, and draws which regions spoke for the most probable.

    \b
    Example:
      cxr predict film.png --model runs/quick/models/05_vgg16 --heatmap film-heat.png
    """  # noqa: D301
    heatmap = heatmap or Path(f"{image.stem}-heatmap.png")
    if heatmap.resolve() == image.resolve():
        raise click.BadParameter("it would overwrite the image.", param_hint="--heatmap")
    if heatmap.suffix.lower() != ".png":
        raise click.BadParameter("the file's name must end in .png.", param_hint="--heatmap")
    from cxrlib import plots, predictor
    from cxrlib.course import lessons

    lessons.backend()  # complains if Keras's backend is not installed
    found = predictor.load(model).predict(image)
    for name, probability in sorted(found.probabilities.items(), key=lambda item: -item[1]):
        click.echo(f"{printable(name):<12} {probability:6.1%}")
    for warning in found.warnings:
        click.echo(f"Note: {warning}")
    title = f"{image.name}: {found.label} {found.probabilities[found.label]:.0%}"
    figure = plots.heat_map(found.image, found.heat_map, title)
    with whole_file(heatmap) as partial:
        figure.savefig(partial, dpi=150, bbox_inches="tight")
    click.echo(f"Heat map: {short_path(heatmap)}")
    click.echo(NOT_CLINICAL)


if __name__ == "__main__":
    main()
