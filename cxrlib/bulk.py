"""Features of very many films: files in, a Zarr store out, a shard a task, resumed by shard.

A task reads the files of a shard, passes them through a frozen backbone and writes the shard: one
object with checksums in each array, ``PLACE/NAME/...``, and then, last, a note that it is done,
``PLACE/shards/000012.json``. What has no such note is not there, and two who write the same shard
at once do no harm. Any library reads it that knows Zarr version 3 with sharding. Nothing but file
names and counts travels between the client and the workers of a cluster
(:mod:`cxrlib.parallel.cluster`); on one machine the same tasks run in turn.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import click

from cxrlib.parallel import cluster
from cxrlib.sources import table_options

VERSION = 2  # of what is in a store: raise it when reading, resizing or extracting changes
SHARD = 2048  # images in an object: of ResNet50's features 17 MB, which object stores like
CHUNK = 256  # images that a reader of the store has to read at once
SHOWN = 10  # unreadable files in the command's summary
NOTE = "{}/shards/{:06}.json"  # place, number


class StoreError(ValueError):
    """A store that holds something else, or is none."""


@dataclass(frozen=True)
class Store:
    """A store that is open for reading; slices of its arrays are read when asked for."""

    place: str  # a folder or an address such as s3://bucket/chexpert.zarr
    settings: dict  # what the features are: backbone, size, weights, number of images
    features: object  # zarr.Array, shape (n, channels), float32; NaN of unreadable files

    @property
    def images(self):
        """The decoded images, zarr.Array, shape (n, side, side), uint8, if they were kept."""
        return open_array(self.place, "images") if self.settings["pixels"] else None

    def names(self) -> list[str]:
        """Names of the files, row by row."""
        return [name for note in self._notes() for name in note["names"]]

    def failures(self) -> dict[int, str]:
        """Say what is wrong with each file that could not be read, by row."""
        return {int(row): why for note in self._notes() for row, why in note["failures"].items()}

    def _notes(self):
        for number in range(-(-self.settings["images"] // self.settings["shard"])):
            note = read_note(self.place, number)
            if note is None:
                raise StoreError(f"{self.place}: shard {number} is not done. Extract again.")
            yield note


def open_store(place) -> Store:
    """Open a store for reading; a StoreError if there is none, or Zarr is not installed."""
    place = address(place)
    try:
        features = open_array(place, "features")
    except (OSError, ValueError) as error:
        raise StoreError(f"{place}: there is no store of features ({error}).") from error
    return Store(place, dict(features.attrs), features)


def extract(
    paths, place, name: str, size: int = 224, weights="auto", pixels=False, shard: int = SHARD
) -> Store:
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

    paths, place = [str(path) for path in paths], address(place)
    if not paths:
        raise StoreError("There is no file to extract features of.")
    shard = -(-min(shard, len(paths)) // CHUNK) * CHUNK
    settings = {"version": VERSION, "images": len(paths), "shard": shard, "side": SIDE}
    # A worker looks at the network, so that this process never needs to load one
    facts = cluster.collect(_facts, [(name, size, weights)], "backbone", progress=False)[0]
    settings |= {"pixels": pixels, **facts}
    arrays = {"images": ("uint8", (SIDE, SIDE), 16, 0)} if pixels else {}
    arrays["features"] = "float32", (settings["channels"],), CHUNK, float("nan")
    lay_out(place, arrays, len(paths), shard, settings)
    starts = enumerate(range(0, len(paths), shard))
    tasks = ((place, settings, n, paths[start : start + shard], weights) for n, start in starts)
    what = f"{name} features"
    with tqdm(total=len(paths), desc=what, unit="image", disable=None) as bar:
        for _, done in cluster.spread(do_shard, tasks, what):
            bar.update(done)
    return open_store(place)


def do_shard(place: str, settings: dict, number: int, paths, weights) -> int:
    """Do one shard, unless it is done: the task of :func:`extract`; gives its number of images."""
    import numpy as np

    from cxrlib import backbone
    from cxrlib.compute import engine
    from cxrlib.images import decode_block
    from cxrlib.parallel import ahead

    digest = hashlib.sha256("\n".join(map(_key, paths)).encode()).hexdigest()
    side, count = settings["side"], len(paths)
    values = {"features": np.full((count, settings["channels"]), np.nan, np.float32)}
    if settings["pixels"]:
        values["images"] = np.zeros((count, side, side), np.uint8)
    if is_done(place, number, values, digest):
        return count
    name, size = settings["backbone"], settings["size"]
    found = backbone.find_weights(name, weights)
    if found.key != settings["weights"]:
        raise StoreError(
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
    write_shard(place, number, values, note)
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


def address(place) -> str:
    """Give the full name of a place: an absolute path, or an address of fsspec as it is."""
    try:
        import zarr  # noqa: F401
    except ImportError as error:
        raise StoreError('A store needs Zarr. Run: pip install "cxrlib[cluster]".') from error
    text = str(place).removeprefix("file://")
    return text.rstrip("/") if "://" in text else str(Path(text).expanduser().absolute())


def lay_out(place: str, arrays: dict, rows: int, shard: int, settings: dict) -> None:
    """Make a store of empty arrays; a StoreError if the place holds something else.

    Of each array's name `arrays` says its dtype, the shape of a row, how many rows a reader has
    to read at once (a chunk; divides `shard`), and the value of rows that nobody has written.
    There are so many rows, and `shard` of them in an object; `settings`, kept with each array,
    say what they are.
    """
    import zarr
    from zarr.codecs import Crc32cCodec

    group = zarr.open_group(place, mode="a")
    group.require_group("shards")
    for name, (kind, shape, chunk, empty) in arrays.items():
        if name not in group:
            group.create_array(
                name,
                shape=(rows, *shape),
                shards=(shard, *shape),
                chunks=(chunk, *shape),
                dtype=kind,
                fill_value=empty,
                compressors=[Crc32cCodec()],
                attributes=settings,
            )
    there = dict(open_array(place, name).attrs)  # where the last one is there, all are
    for key, wanted in settings.items():
        if there.get(key) != wanted:
            raise StoreError(
                f"{place} holds something else: its {key} is {there.get(key)!r}, not {wanted!r}. "
                "Choose another place, or delete it."
            )


def open_array(place: str, name: str, mode: str = "r"):
    """Open an array, zarr.Array; an OSError or a ValueError if there is none."""
    import zarr

    return zarr.open_array(f"{place}/{name}", mode=mode)


def write_shard(place: str, number: int, values: dict, note: dict) -> None:
    """Write a shard of some arrays, ndarrays by name, and that it is done."""
    for name, content in values.items():
        array = open_array(place, name, "r+")
        system, path = _object(place, name, array, number)
        if system.exists(path):  # Zarr would read it first, and it may be damaged
            system.rm_file(path)
        array[_rows(array, number)] = content
    system, path = _file(NOTE.format(place, number))
    system.pipe_file(path, json.dumps(note).encode())  # half of it is no JSON, so it is none


def is_done(place: str, number: int, names, digest: str) -> bool:
    """Tell whether a shard has a note with this ``digest``, and reads as it was written."""
    note = read_note(place, number)
    if note is None or note["digest"] != digest:
        return False
    try:
        for name in names:
            array = open_array(place, name)
            system, path = _object(place, name, array, number)
            if not system.size(path):  # else Zarr gives its rows as if nobody had written them
                return False
            array[_rows(array, number)]
    except (OSError, ValueError):  # it is missing, or a checksum failed
        return False
    return True


def read_note(place: str, number: int) -> dict | None:
    """Read the note of a shard; None if it is not done."""
    system, path = _file(NOTE.format(place, number))
    try:
        return json.loads(system.cat_file(path))
    except (FileNotFoundError, ValueError):
        return None


def _rows(array, number: int) -> slice:
    shard = array.shards[0]
    return slice(number * shard, min((number + 1) * shard, array.shape[0]))


def _object(place: str, name: str, array, number: int):
    key = array.metadata.encode_chunk_key((number, *[0] * (array.ndim - 1)))
    return _file(f"{place}/{name}/{key}")


def _file(name: str):
    """Where a file is: a file system of fsspec, and the path in it."""
    import fsspec

    return fsspec.core.url_to_fs(name)


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
