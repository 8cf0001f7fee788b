"""Features of very many films: files in, a Zarr store out, a shard a task, resumed by shard.

A task reads the files of a shard, passes them through a frozen backbone and writes the shard: one
object for each array, and then, last, a note that it is done. What has no such note is not there.
Nothing but file names and counts travels between the client and the workers of a cluster
(:mod:`cxrlib.compute.cluster`). On one machine the same tasks run in turn.

``PLACE/zarr.json``                  Zarr version 3; any library that knows sharding reads it
``PLACE/features/...``               float32 (n, channels); a row that failed is NaN
``PLACE/images/...``                 uint8 (n, side, side), where asked for
``PLACE/shards/000012.json``         names of the files, what is wrong with some
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import click

from cxrlib.compute import cluster

VERSION = 2  # of what is in a store: raise it when reading, resizing or extracting changes
SHARD = 2048  # images in an object: of ResNet50's features 17 MB, which object stores like
CHUNK = 256  # images that a reader of the store has to read at once
BLOCK = 64  # images in memory at once
SHOWN = 10  # unreadable files in the command's summary


class StoreError(ValueError):
    """A store that holds something else, or is none."""


@dataclass(frozen=True)
class Store:
    """A store that is open for reading.

    Attributes
    ----------
    place : str, a folder or an address such as ``s3://bucket/chexpert.zarr``
    settings : dict, what the features are: backbone, size, weights, number of images
    features : zarr.Array, shape (n, channels), float32; slices of it are read when asked for
    """

    place: str
    settings: dict
    features: object

    @property
    def images(self):
        """The decoded images, zarr.Array, shape (n, side, side), uint8, if they were kept."""
        return _array(self.place, "images") if self.settings["pixels"] else None

    def names(self) -> list[str]:
        """Names of the files, row by row."""
        return [name for note in self._notes() for name in note["names"]]

    def failures(self) -> dict[int, str]:
        """Say what is wrong with each file that could not be read, by row."""
        return {int(row): why for note in self._notes() for row, why in note["failures"].items()}

    def _notes(self):
        for number in range(-(-self.settings["images"] // self.settings["shard"])):
            note = _note(self.place, number)
            if note is None:
                raise StoreError(f"{self.place}: shard {number} is not done. Extract again.")
            yield note


def open_store(place) -> Store:
    """Open a store for reading.

    Raises
    ------
    StoreError
        If there is none, or Zarr is not installed.
    """
    place = _address(place)
    try:
        features = _array(place, "features")
    except (OSError, ValueError) as error:
        raise StoreError(f"{place}: there is no store of features ({error}).") from error
    return Store(place, dict(features.attrs), features)


def extract(
    paths,
    place,
    name: str,
    size: int = 224,
    weights="auto",
    side: int | None = None,
    pixels: bool = False,
    shard: int = SHARD,
    batch_size: int = 16,
    progress: bool = True,
) -> Store:
    """Decode files and extract their features into a store; go on where a run stopped.

    On a cluster (:mod:`cxrlib.compute.cluster`) each shard is a task. The features are those of
    ``backbone.features(images.decode(paths).images, ...)``, without the arrays in between. Two
    runs at once do no harm: they write the same to the same places.

    Parameters
    ----------
    paths : sequence of path-like
        All workers must see the files under these names.
    place : path-like or str
        A folder that all workers see, or any address that fsspec knows, such as
        ``s3://bucket/features.zarr`` (with s3fs installed on all of them).
    name, size, weights
        As in :func:`cxrlib.backbone.load`.
    side : int, optional
        Films are brought to `side` x `side` first; as everywhere in this course by default.
    pixels : bool
        Keep the decoded images too: `side` x `side` bytes each.
    shard : int
        Images in a task and in an object, rounded up to whole chunks of `CHUNK`.
    batch_size : int
        Images in the backbone at once.
    progress : bool
        Show a progress bar on a terminal.

    Returns
    -------
    Store
        Files that cannot be read are listed in ``failures()``; they don't stop the others.

    Raises
    ------
    StoreError
        If there is no file, Zarr is not installed, or the place holds something else.
    """
    from tqdm import tqdm

    from cxrlib.cohort import SIDE

    paths, place = [str(path) for path in paths], _address(place)
    if not paths:
        raise StoreError("There is no file to extract features of.")
    shard = -(-min(shard, len(paths)) // CHUNK) * CHUNK
    settings = {"version": VERSION, "images": len(paths), "shard": shard, "side": side or SIDE}
    # A worker looks at the network, so that this process never needs to load one
    facts = cluster.collect(_facts, [(name, size, weights)], "backbone", progress=False)[0]
    settings |= {"pixels": pixels, **facts}
    _lay_out(place, settings)
    starts = range(0, len(paths), shard)
    tasks = (
        (place, settings, number, paths[start : start + shard], weights, batch_size)
        for number, start in enumerate(starts)
    )
    what = f"{name} features"
    bar = tqdm(total=len(paths), desc=what, unit="image", disable=None if progress else True)
    with bar:
        for _, done in cluster.spread(write_shard, tasks, what):
            bar.update(done)
    return open_store(place)


def write_shard(place: str, settings: dict, number: int, paths, weights, batch_size: int) -> int:
    """Do one shard, unless it is done: the task of :func:`extract`; gives its number of images."""
    import numpy as np

    from cxrlib.compute import ahead
    from cxrlib.images import decode_block

    digest = hashlib.sha256("\n".join(map(_key, paths)).encode()).hexdigest()
    if _is_done(place, settings, number, digest):
        return len(paths)
    compute, side = _network(settings, weights, batch_size), settings["side"]
    values = {"features": np.full((len(paths), settings["channels"]), np.nan, np.float32)}
    if settings["pixels"]:
        values["images"] = np.zeros((len(paths), side, side), np.uint8)
    failures, threads = {}, cluster.threads()
    starts = range(0, len(paths), BLOCK)
    read = ahead(lambda start: decode_block(paths[start : start + BLOCK], side, threads), starts)
    for start, block in zip(starts, read, strict=True):
        good = [row for row, found in enumerate(block) if not isinstance(found, str)]
        for row in set(range(len(block))).difference(good):
            failures[number * settings["shard"] + start + row] = block[row]
        if good:
            stack = np.stack([block[row][1] for row in good])
            rows = start + np.array(good)
            values["features"][rows] = compute(stack)
            if settings["pixels"]:
                values["images"][rows] = stack
    for name, content in values.items():
        _write(place, settings, name, number, content)
    note = {"digest": digest, "failures": failures, "names": paths}
    system, path = _file(_note_name(place, number))
    system.pipe_file(path, json.dumps(note).encode())  # half of it is no JSON, so it is none
    return len(paths)


def _key(path: str) -> str:
    """Tell a file from what it was before it changed."""
    try:
        status = Path(path).stat()
    except OSError:
        return f"{path} is missing"
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def _facts(name, size, weights) -> dict:
    """Ask a worker what sets these features apart from others."""
    import numpy as np

    from cxrlib import backbone
    from cxrlib.compute import engine

    found = backbone.find_weights(name, weights) if isinstance(weights, str) else weights
    features = backbone.features(np.zeros((1, 64, 64), np.uint8), name, size, found, progress=False)
    chosen = engine.choose(size)
    return {
        "backbone": name,
        "size": size,
        "channels": features.shape[1],
        "weights": found.key,
        "weights_are": found.kind,
        "backend": backbone.start_keras().config.backend(),
        "engine": chosen.name,
        "precision": chosen.precision,
    }


def _network(settings, weights, batch_size):
    """Give a function from images (n, side, side) uint8 to features (n, channels) float32."""
    from cxrlib import backbone
    from cxrlib.compute import engine

    name, size = settings["backbone"], settings["size"]
    chosen = engine.Engine(settings["engine"], settings["precision"])
    found = backbone.find_weights(name, weights) if isinstance(weights, str) else weights
    if found.key != settings["weights"]:
        raise StoreError(
            f"A worker's weights of {name} ({found.key}) are not those of the store "
            f"({settings['weights']}). Set CXR_WEIGHTS to the same files on all machines."
        )
    return lambda grey: backbone.compute_features(grey, name, size, found, chosen, batch_size)


# --- The store --------------------------------------------------------------------------------


def _address(place) -> str:
    """Give the full name of a place: an absolute path, or the address as it is."""
    try:
        import zarr  # noqa: F401
    except ImportError as error:
        raise StoreError('A store needs Zarr. Run: pip install "cxrlib[cluster]".') from error
    text = str(place).removeprefix("file://")
    return text.rstrip("/") if "://" in text else str(Path(text).expanduser().absolute())


def _lay_out(place: str, settings: dict) -> None:
    """Make the empty arrays, or make sure that those which are there are for this."""
    import numpy as np
    import zarr
    from zarr.codecs import Crc32cCodec

    rows, shard, side = settings["images"], settings["shard"], settings["side"]
    group = zarr.open_group(place, mode="a")
    group.require_group("shards")
    # The features come last: where they are there, all is. Damage is seen by whoever reads it
    kinds = {"images": (np.uint8, (side, side), 16)} if settings["pixels"] else {}
    kinds["features"] = np.float32, (settings["channels"],), CHUNK
    for name, (kind, shape, chunk) in kinds.items():
        if name not in group:
            group.create_array(
                name,
                shape=(rows, *shape),
                shards=(shard, *shape),
                chunks=(chunk, *shape),
                dtype=kind,
                fill_value=np.nan if name == "features" else 0,
                compressors=[Crc32cCodec()],
                attributes=settings,
            )
    there = dict(_array(place, "features").attrs)
    for key, wanted in settings.items():
        if there.get(key) != wanted:
            raise StoreError(
                f"{place} holds something else: its {key} is {there.get(key)!r}, not {wanted!r}. "
                "Choose another place, or delete it."
            )


def _write(place: str, settings: dict, name: str, number: int, content) -> None:
    """Write one object, after what was there: Zarr reads the last one first if it is there."""
    array = _array(place, name, "r+")
    system, path = _object(place, name, array, number)
    if system.exists(path):
        system.rm_file(path)
    array[_rows(settings, number)] = content


def _is_done(place: str, settings: dict, number: int, digest: str | None = None) -> bool:
    """Tell whether a shard is done (for these files), and can be read as it was written."""
    note = _note(place, number)
    if note is None or digest not in (None, note["digest"]):
        return False
    try:
        for name in ["features", "images"] if settings["pixels"] else ["features"]:
            array = _array(place, name)
            system, path = _object(place, name, array, number)
            if not system.exists(path):
                return False
            array[_rows(settings, number)]
    except (OSError, ValueError):  # a checksum failed
        return False
    return True


def _rows(settings: dict, number: int) -> slice:
    start = number * settings["shard"]
    return slice(start, min(start + settings["shard"], settings["images"]))


def _array(place: str, name: str, mode: str = "r"):
    import zarr

    return zarr.open_array(f"{place}/{name}", mode=mode)


def _object(place: str, name: str, array, number: int):
    """Where a shard of an array is: a file system of fsspec, and the path in it."""
    return _file(
        f"{place}/{name}/{array.metadata.encode_chunk_key((number, *[0] * (array.ndim - 1)))}"
    )


def _file(name: str):
    import fsspec

    return fsspec.core.url_to_fs(name)


def _note_name(place: str, number: int) -> str:
    return f"{place}/shards/{number:06}.json"


def _note(place: str, number: int) -> dict | None:
    """Read what was noted when a shard was done; None if it is not."""
    system, path = _file(_note_name(place, number))
    try:
        return json.loads(system.cat_file(path))
    except (FileNotFoundError, ValueError):
        return None


# --- The command ------------------------------------------------------------------------------

EXIT_CODES = """
\b
Exit codes: 0 all is well; 1 an image could not be read, or something failed;
2 an option is wrong; 130 interrupted.
"""


@click.command(epilog=EXIT_CODES)
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
    """Write the features of many images to STORE.

    A frozen backbone makes them. FILES is a folder, searched in depth, or a text file with the
    path of an image on each line, relative to that file. STORE is a folder to make, or any
    address that fsspec knows. Whatever stops the command, the same one goes on with what is
    missing. With DASK_SCHEDULER_ADDRESS set, dask.distributed does the work.

    \b
    Examples:
      cxr features films features.zarr
      cxr features list.txt s3://bucket/features.zarr --backbone DenseNet121
      DASK_SCHEDULER_ADDRESS=tcp://10.0.0.1:8786 cxr features films /shared/features.zarr
    """  # noqa: D301
    found = extract(_paths(files), place, backbone, size, weights, pixels=pixels)
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


def _paths(files: Path) -> list[Path]:
    """List the images of a folder, or those that a text file names."""
    from cxrlib.sources import SourceError, folders

    if files.is_dir():
        return folders.list_images(files)
    try:
        lines = files.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{files} is no text: name a folder, or a text file with an image's path on each line."
        ) from error
    paths = [files.parent / line.strip() for line in lines if line.strip()]
    if not paths:
        raise SourceError(f"{files} is empty: write the path of an image on each line.")
    return paths
