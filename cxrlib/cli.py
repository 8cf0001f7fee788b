"""The command ``cxr``. Nothing heavy is imported before a subcommand needs it."""

from __future__ import annotations

import errno
from pathlib import Path

import click

from cxrlib import NOT_CLINICAL, __version__
from cxrlib.audit import audit_command
from cxrlib.bulk import features
from cxrlib.course import Prepared, report_command, run_command
from cxrlib.files import printable, short_path, whole_file
from cxrlib.paper import check_command
from cxrlib.sources import data_command

EXIT_CODES = """
\b
Exit codes: 0 all is well; 1 something failed (a notebook, a download, an
image); 2 it was asked for something that does not exist; 130 interrupted.
"""


class Friendly(Prepared):
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
    kind = type(error)
    if kind.__module__.startswith("cxrlib") or kind in (ValueError, OSError):
        return str(error)
    return f"{kind.__name__}: {error} (cxr --debug ... shows where)"


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


ROOMS = (run_command, report_command, data_command, check_command, audit_command, features)
for room_command in ROOMS:
    main.add_command(room_command)


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
