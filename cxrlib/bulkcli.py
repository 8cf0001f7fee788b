"""The command ``cxr features``: frozen features of a large collection, into a store."""

from __future__ import annotations

from pathlib import Path

import click

HELP = """Write the features of many images to STORE.

A frozen backbone makes them. FILES is a folder, searched in depth, or a text file with the
path of an image on each line, relative to that file. STORE is a folder to make, or any address
that fsspec knows. Whatever stops the command, the same one goes on with what is missing. With
DASK_SCHEDULER_ADDRESS set, dask.distributed does the work.

\b
Examples:
  cxr features films features.zarr
  cxr features list.txt s3://bucket/features.zarr --backbone DenseNet121
  DASK_SCHEDULER_ADDRESS=tcp://10.0.0.1:8786 cxr features films /shared/features.zarr
"""
EXIT_CODES = """
\b
Exit codes: 0 all is well; 1 an image could not be read, or something failed;
2 an option is wrong; 130 interrupted.
"""
SHOWN = 10  # unreadable files in the summary


@click.command(help=HELP, epilog=EXIT_CODES)
@click.argument("files", type=click.Path(exists=True, path_type=Path))
@click.argument("place", metavar="STORE")
@click.option(
    "--backbone", default="ResNet50", show_default=True, help="Any of keras.applications."
)
@click.option(
    "--size", type=click.IntRange(32), default=224, show_default=True, help="Pixels a side."
)
@click.option(
    "--weights",
    default="imagenet",
    show_default=True,
    help="imagenet, random, auto (random where ImageNet's are not at hand), or a file.",
)
@click.option("--pixels", is_flag=True, help="Keep the decoded images in the store too.")
@click.pass_context
def features(ctx, files, place, backbone, size, weights, pixels):
    """Write the features of many images to STORE."""
    from cxrlib import bulk

    found = bulk.extract(_paths(files), place, backbone, size, weights, pixels=pixels)
    count, channels = found.features.shape
    settings, failures = found.settings, found.failures()
    click.echo(f"{place}: {count:,} images, {channels:,} features each, float32.")
    click.echo(
        f"{settings['backbone']} at {size} x {size}, {settings['weights_are']} weights; "
        f"{settings['engine']} on {settings['backend']}, {settings['precision']}."
    )
    click.echo(f"Read them with: cxrlib.store.open_store({place!r}).features[:10]")
    if failures:
        click.secho(f"{len(failures):,} of the images could not be read:", fg="red")
        for reason in list(failures.values())[:SHOWN]:
            click.echo(f"  {reason}")
        if len(failures) > SHOWN:
            click.echo(f"  ... and {len(failures) - SHOWN:,} more, in the store's failures()")
    ctx.exit(1 if failures else 0)


def _paths(files: Path) -> list[Path]:
    """List the images of a folder, or those that a text file names."""
    from cxrlib import folders

    if files.is_dir():
        return folders.list_images(files)
    try:
        lines = files.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise folders.FolderError(
            f"{files} is no text: name a folder, or a text file with an image's path on each line."
        ) from error
    paths = [files.parent / line.strip() for line in lines if line.strip()]
    if not paths:
        raise folders.FolderError(f"{files} is empty: write the path of an image on each line.")
    return paths
