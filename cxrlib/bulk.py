"""Features of very many films: files in, a Zarr store out, a shard a task, resumed by shard.

A task reads the files of a shard, passes them through a frozen backbone and writes the shard
(:mod:`cxrlib.compute.store`). Nothing but file names and counts travels between the client and the
workers of a cluster (:mod:`cxrlib.compute.cluster`); on one machine the same tasks run in turn.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from cxrlib.compute import cluster, store
from cxrlib.sources import table_options

VERSION = 2  # of what is in a store: raise it when reading, resizing or extracting changes
SHARD = 2048  # images in an object: of ResNet50's features 17 MB, which object stores like
CHUNK = 256  # images that a reader of the store has to read at once
SHOWN = 10  # unreadable files in the command's summary


def open_store(place) -> store.Store:
    """Open a store for reading; a StoreError if there is none, or Zarr is not installed."""
    place = store.address(place)
    try:
        features = store.open_array(place, "features")
    except (OSError, ValueError) as error:
        raise store.StoreError(f"{place}: there is no store of features ({error}).") from error
    return store.Store(place, dict(features.attrs), features)


def extract(
    paths, place, name: str, size: int = 224, weights="auto", pixels=False, shard: int = SHARD
) -> store.Store:
    """Decode files and extract their features into a store; go on where a run stopped.

    It gets what ``backbone.features(images.decode(paths).images, name, size, weights)`` gives,
    without the arrays in between; its ``failures()`` lists the files that cannot be read. `place`
    is a folder or any address that fsspec knows, such as ``s3://bucket/features.zarr`` (with
    s3fs); all workers must see it and the files under these names. With `pixels` it keeps the
    decoded images too, 300 x 300 bytes each. A task and an object hold `shard` images, rounded up
    to chunks of `CHUNK`. A StoreError if there is no file or no Zarr, or the place holds another.
    """
    from tqdm import tqdm

    from cxrlib.cohort import SIDE

    paths, place = [str(path) for path in paths], store.address(place)
    if not paths:
        raise store.StoreError("There is no file to extract features of.")
    shard = -(-min(shard, len(paths)) // CHUNK) * CHUNK
    settings = {"version": VERSION, "images": len(paths), "shard": shard, "side": SIDE}
    # A worker looks at the network, so that this process never needs to load one
    facts = cluster.collect(_facts, [(name, size, weights)], "backbone", progress=False)[0]
    settings |= {"pixels": pixels, **facts}
    arrays = {"images": ("uint8", (SIDE, SIDE), 16, 0)} if pixels else {}
    arrays["features"] = "float32", (settings["channels"],), CHUNK, float("nan")
    store.lay_out(place, arrays, len(paths), shard, settings)
    starts = enumerate(range(0, len(paths), shard))
    tasks = ((place, settings, n, paths[start : start + shard], weights) for n, start in starts)
    what = f"{name} features"
    with tqdm(total=len(paths), desc=what, unit="image", disable=None) as bar:
        for _, done in cluster.spread(write_shard, tasks, what):
            bar.update(done)
    return open_store(place)


def write_shard(place: str, settings: dict, number: int, paths, weights) -> int:
    """Do one shard, unless it is done: the task of :func:`extract`; gives its number of images."""
    import numpy as np

    from cxrlib import backbone
    from cxrlib.compute import ahead, engine
    from cxrlib.images import decode_block

    digest = hashlib.sha256("\n".join(map(_key, paths)).encode()).hexdigest()
    side, count = settings["side"], len(paths)
    values = {"features": np.full((count, settings["channels"]), np.nan, np.float32)}
    if settings["pixels"]:
        values["images"] = np.zeros((count, side, side), np.uint8)
    if store.is_done(place, number, values, digest):
        return count
    name, size = settings["backbone"], settings["size"]
    found = backbone.find_weights(name, weights)
    if found.key != settings["weights"]:
        raise store.StoreError(
            f"A worker's weights of {name} ({found.key}) are not those of the store "
            f"({settings['weights']}). Set CXR_WEIGHTS to the same files on all machines."
        )
    network = name, size, found, engine.Engine(settings["engine"], settings["precision"])
    failures, threads, many = {}, cluster.threads(), backbone.block_size()
    starts = range(0, count, many)
    read = ahead(lambda start: decode_block(paths[start : start + many], side, threads), starts)
    for start, block in zip(starts, read, strict=True):
        films = {row: one[1] for row, one in enumerate(block, start) if not isinstance(one, str)}
        first = number * settings["shard"] + start
        failures |= {row: why for row, why in enumerate(block, first) if isinstance(why, str)}
        if films:
            rows, films = list(films), np.stack(list(films.values()))
            values["features"][rows] = backbone.compute_features(films, *network)
            if settings["pixels"]:
                values["images"][rows] = films
    note = {"digest": digest, "failures": failures, "names": paths}
    store.write_shard(place, number, values, note)
    return count


def _key(path: str) -> str:
    try:  # tells a file from what it was before it changed
        status = Path(path).stat()
    except OSError:
        return f"{path} is missing"
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def _facts(name, size, weights) -> dict:
    """Ask a worker what sets these features apart from others."""
    import numpy as np

    from cxrlib import backbone
    from cxrlib.compute import engine

    found = backbone.find_weights(name, weights)
    features = backbone.features(np.zeros((1, 64, 64), np.uint8), name, size, found, progress=False)
    chosen, backend = engine.choose(size), backbone.start_keras().config.backend()
    facts = {"backbone": name, "size": size, "channels": features.shape[1]}
    facts |= {"weights": found.key, "weights_are": found.kind, "backend": backend}
    return facts | {"engine": chosen.name, "precision": chosen.precision}


EXIT_CODES = """
\b
Exit codes: 0 all is well; 1 an image could not be read, or something failed;
2 an option is wrong; 130 interrupted.
"""


@click.command(epilog=EXIT_CODES, context_settings={"show_default": True})
@click.argument("files", type=click.Path(exists=True, path_type=Path))
@click.argument("place", metavar="STORE")
@click.option("--backbone", default="ResNet50", help="Any of keras.applications.")
@click.option("--size", type=click.IntRange(32), default=224, help="Pixels a side.")
@click.option(
    "--weights", default="imagenet", help="imagenet, random, auto (random if need be), or a file."
)
@click.option("--pixels", is_flag=True, help="Keep the decoded images in the store too.")
@table_options
@click.pass_context
def features(ctx, files, place, backbone, size, weights, pixels, described):
    """Write the features of many images to STORE.

    A frozen backbone makes them. FILES is a folder, searched in depth; a table of images, as for
    `cxr audit` (a .csv or .tsv file, or any with one of the options for tables); or a text file
    with the path of an image on each line, relative to that file. STORE is a folder to make, or any
    address that fsspec knows. Whatever stops the command, the same one goes on with what is
    missing. With DASK_SCHEDULER_ADDRESS set, dask.distributed does the work.

    \b
    Examples:
      cxr features films features.zarr
      cxr features list.txt s3://bucket/features.zarr --backbone DenseNet121
      DASK_SCHEDULER_ADDRESS=tcp://10.0.0.1:8786 cxr features films /shared/features.zarr
    """  # noqa: D301
    found = extract(_paths(files, described), place, backbone, size, weights, pixels=pixels)
    count, channels = found.features.shape
    settings, failures = found.settings, found.failures()
    click.echo(f"{place}: {count:,} images, {channels:,} features each, float32.")
    click.echo(
        f"{settings['backbone']} at {size} x {size}, {settings['weights_are']} weights; "
        f"{settings['engine']} on {settings['backend']}, {settings['precision']}."
    )
    click.echo(f"Read them with: cxrlib.bulk.open_store({place!r}).features[:10]")
    if failures:
        click.secho(f"{len(failures):,} of the images could not be read:", fg="red")
        for reason in list(failures.values())[:SHOWN]:
            click.echo(f"  {reason}")
        if len(failures) > SHOWN:
            click.echo(f"  ... and {len(failures) - SHOWN:,} more, in the store's failures()")
    ctx.exit(1 if failures else 0)


def _paths(files: Path, described: dict) -> list[Path]:
    """List the images of a folder, or those that a table or a text file names."""
    from cxrlib.sources import folders

    if files.is_dir() or described or {".csv", ".tsv"}.intersection(files.suffixes):
        return folders.list_images(files, **described)
    wanted = "name a folder, or a text file with an image's path on each line"
    try:
        lines = files.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{files} is no text: {wanted}.") from error
    paths = [files.parent / line.strip() for line in lines if line.strip()]
    if not paths:
        raise ValueError(f"{files} is empty: {wanted}.")
    return paths
