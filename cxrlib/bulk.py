"""Features of a large collection: files in, a store of features out, one shard a task.

A task reads the files of a shard, passes them through a frozen backbone and writes the shard.
Nothing but file names and counts travels between the client and the workers, and a run that was
stopped goes on with the shards that are not done. On one machine the same tasks run in turn.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cxrlib import cluster, store
from cxrlib.cohort import SIDE

VERSION = 1  # of what is in a store: raise it when reading, resizing or extracting changes
SHARD = 2048  # images in an object: of ResNet50's features 17 MB, which object stores like
BLOCK = 64  # images in memory at once


def extract(
    paths,
    place,
    name: str,
    size: int = 224,
    weights="auto",
    side: int = SIDE,
    pixels: bool = False,
    shard: int = SHARD,
    batch_size: int = 16,
    progress: bool = True,
) -> store.Store:
    """Decode files and extract their features into a store; go on where a run stopped.

    On a cluster (:mod:`cxrlib.cluster`) each shard is a task. The features are those of
    ``backbone.features(images.decode(paths).images, ...)``, without the arrays in between. Two
    runs at once do no harm: they write the same bytes to the same places.

    Parameters
    ----------
    paths : sequence of path-like
        All workers must see the files under these names.
    place : path-like or str
        A folder that all workers see, or any address that fsspec knows, such as
        ``s3://bucket/features.zarr`` (with s3fs installed on all of them).
    name, size, weights
        As in :func:`cxrlib.backbone.load`.
    side : int
        Films are brought to `side` x `side` first, as everywhere in this course.
    pixels : bool
        Keep the decoded images too: `side` x `side` bytes each.
    shard : int
        Images in a task and in an object, rounded up to whole chunks of ``store.CHUNK``.
    batch_size : int
        Images in the backbone at once.
    progress : bool
        Show a progress bar on a terminal.

    Returns
    -------
    store.Store
        Files that cannot be read are listed in ``failures()``; they don't stop the others.

    Raises
    ------
    StoreError
        If Zarr is not installed, or the place holds features of something else.
    """
    from tqdm import tqdm

    paths, place = [str(path) for path in paths], store.address(place)
    store.check_zarr()
    if not paths:
        raise store.StoreError("There is no file to extract features of.")
    # A worker looks at the network, so that this process never needs to load one
    facts = cluster.collect(_facts, [(name, size, weights)], "backbone", progress=False)[0]
    settings = settings_of(paths, facts, shard, side, pixels)
    store.lay_out(place, settings)
    tasks = tasks_of(place, paths, settings, weights, batch_size)
    what = f"{name} features"
    bar = tqdm(total=len(paths), desc=what, unit="image", disable=None if progress else True)
    with bar:
        for _, done in cluster.spread(write_shard, tasks, what):
            bar.update(done)
    return store.open_store(place)


def settings_of(paths, facts: dict, shard=SHARD, side=SIDE, pixels=False) -> dict:
    """Describe a store: what must be the same for a run to go on with it."""
    shard = -(-min(shard, len(paths)) // store.CHUNK) * store.CHUNK
    return {"version": VERSION, "images": len(paths), "shard": shard, "side": side,
            "pixels": pixels, **facts}  # fmt: skip


def tasks_of(place: str, paths: list[str], settings: dict, weights, batch_size: int = 16):
    """Give the arguments of :func:`write_shard` for each shard, made as they are needed."""
    for number in range(-(-len(paths) // settings["shard"])):
        start = number * settings["shard"]
        some = paths[start : start + settings["shard"]]
        yield place, number, some, settings, weights, batch_size


def write_shard(place: str, number: int, paths: list[str], settings: dict, weights, batch_size):
    """Do one shard, unless it is done: the task of :func:`extract`.

    Returns
    -------
    int, the number of its images
    """
    digest = hashlib.sha256("\n".join(map(_key, paths)).encode()).hexdigest()
    if store.is_sound(place, number, digest):
        return len(paths)
    side, start = settings["side"], number * settings["shard"]
    found = {"features": np.full((len(paths), settings["channels"]), np.nan, np.float32)}
    if settings["pixels"]:
        found["images"] = np.zeros((len(paths), side, side), np.uint8)
    compute, failures = _network(settings, weights, batch_size), {}
    for first, block in _read_blocks(paths, side):
        rows = [row for row, image in enumerate(block, first) if not isinstance(image, str)]
        failures |= {
            start + row: why for row, why in enumerate(block, first) if isinstance(why, str)
        }
        if rows:
            stack = np.stack([block[row - first] for row in rows])
            found["features"][rows] = compute(stack)
            if settings["pixels"]:
                found["images"][rows] = stack
    store.write(place, number, found, {"digest": digest, "failures": failures, "names": paths})
    return len(paths)


def _read_blocks(paths, side):
    """Give images block by block, and read the next one while this one is worked on."""
    from cxrlib import images

    def read(path):
        try:
            return images.resize(images.read(Path(path), side)[0], side)
        except images.ImageError as error:
            return str(error)

    with ThreadPoolExecutor(cluster.threads()) as pool:
        waiting = [pool.submit(read, path) for path in paths[:BLOCK]]
        for start in range(0, len(paths), BLOCK):
            coming = paths[start + BLOCK : start + 2 * BLOCK]
            following = [pool.submit(read, path) for path in coming]
            yield start, [future.result() for future in waiting]
            waiting = following


def _facts(name, size, weights) -> dict:
    """Ask a worker what sets these features apart from others."""
    from cxrlib import backbone, engine

    found = backbone.find_weights(name, weights) if isinstance(weights, str) else weights
    film, features = np.zeros((1, SIDE, SIDE), np.uint8), None
    while features is None:
        chosen = engine.choose(size)
        try:
            features = backbone._compute(film, name, size, found, chosen, 1)
        except engine.ConversionError as error:
            engine.give_up(str(error))
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
    from cxrlib import backbone, engine

    name, size = settings["backbone"], settings["size"]
    chosen = engine.Engine(settings["engine"], settings["precision"])
    found = backbone.find_weights(name, weights) if isinstance(weights, str) else weights
    if found.key != settings["weights"]:
        raise store.StoreError(
            f"A worker's weights of {name} ({found.key}) are not those of the store "
            f"({settings['weights']}). Set CXR_WEIGHTS to the same files on all machines."
        )

    return lambda images: backbone._compute(images, name, size, found, chosen, batch_size)


def _key(path: str) -> str:
    """Tell a file from what it was before it changed."""
    try:
        status = Path(path).stat()
    except OSError:
        return f"{path} is missing"
    return f"{path} {status.st_size} {status.st_mtime_ns}"
