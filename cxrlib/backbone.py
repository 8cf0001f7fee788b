"""ImageNet backbones: their preprocessing, and their frozen features, cached.

Any class of ``keras.applications`` works. A frozen backbone gives the same features for the
same image every time, so each image passes through it once and never again.
"""

from __future__ import annotations

import gc
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from cxrlib import cluster, engine
from cxrlib.files import cache_folder, whole_file
from cxrlib.machine import note_engine, start_keras
from cxrlib.weights import (
    Weights,
    WeightsError,
    application,
    fill_randomly,
    find_weights,
    load_all,
)

VERSION = 1  # of the features in the cache: raise it when `prepare` or the weights' use changes
BLOCK = 64  # images read and prepared at once, while the backbone works on as many others
FIRST = 16  # images in the first block


def load(name: str, size: int = 224, weights: str | Weights = "auto", seed: int = 0, pooling=None):
    """Build a frozen backbone without its ImageNet classifier.

    Parameters
    ----------
    name, weights, seed
        As in :func:`cxrlib.weights.find_weights`; `weights` may be its result.
    size : int
        Side of the square input in pixels.
    pooling : {None, "avg", "max"}
        None gives feature maps (height, width, channels), "avg" one value a channel.

    Returns
    -------
    keras.Model
        float32 (n, size, size, 3), preprocessed, to features.

    Raises
    ------
    WeightsError
        If the weights belong to another network, or the size is too small for this one.
    """
    constructor, _ = application(name)
    if isinstance(weights, str):
        weights = find_weights(name, weights, seed)
    try:
        shape = (size, size, 3)
        model = constructor(include_top=False, weights=None, input_shape=shape, pooling=pooling)
    except ValueError as error:
        raise WeightsError(f"{name} cannot take images of {size} x {size}: {error}") from error
    if weights.kind == "random":
        fill_randomly(model, weights.seed)
    else:
        try:
            load_all(model, weights.path)
        except Exception as error:  # h5py and Keras raise many kinds here
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise WeightsError(
                f"{weights.path} does not hold the weights of {name} without its top "
                f"(damaged, or of another network). Take it away or name another. ({reason})"
            ) from error
    model.trainable = False
    return model


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Resize grey images: uint8 (n, height, width) to uint8 (n, size, size)."""
    import cv2

    small = np.empty((len(images), size, size), np.uint8)
    for image, place in zip(images, small, strict=True):
        cv2.resize(image, (size, size), dst=place, interpolation=cv2.INTER_AREA)
    return small


def prepare(images: np.ndarray, name: str, size: int) -> np.ndarray:
    """Resize grey images, repeat the grey channel three times, and preprocess as `name` wants.

    Parameters
    ----------
    images : ndarray, shape (n, height, width), uint8

    Returns
    -------
    ndarray, shape (n, size, size, 3), float32
    """
    return np.take(_preprocessed(name), resize(images, size), axis=0, mode="clip")


@cache
def _preprocessed(name: str) -> np.ndarray:
    """Give what a network makes of each grey level before its first layer, (256, 3) float32.

    Preprocessing treats every pixel by itself, so a look-up does it in one pass over the pixels.
    """
    _, module = application(name)
    greys = np.repeat(np.arange(256, dtype=np.float32)[None, None, :, None], 3, axis=3)
    return np.ascontiguousarray(module.preprocess_input(greys, data_format="channels_last")[0, 0])


def features(
    images, name: str, size: int = 224, weights="auto", batch_size: int = 16, progress: bool = True
) -> np.ndarray:
    """Pass images through a frozen backbone and average over space; remember the result.

    Features are kept in the cache folder by the content of each image, so that an image (or an
    augmented copy) that occurs in two splits, notebooks or runs is computed once. Blocks are
    written as they are done: an interrupted run goes on where it stopped. The next block is
    read (augmented, resized) while the backbone works on this one.

    :mod:`cxrlib.engine` says what computes them: Keras, or OpenVINO, which is faster.

    Parameters
    ----------
    images : array_like, shape (n, height, width), uint8
        An array or ``cohort.images``; read block by block.
    name, size, weights
        As in :func:`load`.
    batch_size : int
        Images in Keras's backbone at once; 8 for VGG16 where memory is scarce. OpenVINO has
        its own.
    progress : bool
        Show a progress bar on a terminal.

    Returns
    -------
    ndarray, shape (n, channels), float32

    Raises
    ------
    cxrlib.engine.EngineError
        If ``CXR_ENGINE`` or ``CXR_PRECISION`` asks for what is not there.
    """
    if isinstance(weights, str):
        weights = find_weights(name, weights)
    while True:
        chosen = engine.choose(size)
        try:
            found = _features(images, (name, size, weights), chosen, batch_size, progress)
        except engine.ConversionError as error:
            engine.give_up(str(error))
            continue
        note_engine(chosen.name, chosen.precision)
        return found


def _features(images, which, chosen: engine.Engine, batch_size: int, progress: bool):
    """Compute with one engine, and read from that engine's cache only."""
    from tqdm import tqdm

    name, size, weights = which

    label = f"v{VERSION}-{start_keras().backend.backend()}-{name}-{size}-{weights.key}"
    folder = cache_folder("features", label + chosen.suffix)
    known, claimed, order, taken = _read_shards(folder), set(), [], []
    # Grey pixels are a twelfth of the bytes: to send to a worker, and for OpenVINO to read
    small = cluster.client() or chosen.name == "openvino"

    def make(new):
        return resize(new, size) if small else prepare(new, name, size)

    def read(rows):
        """Read a block; prepare those images that neither the cache nor an earlier block has."""
        block = images[rows]
        keys = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in block]
        new = {k: p for p, k in enumerate(keys) if k not in claimed and k not in known}
        claimed.update(new)
        return keys, list(new), make(block[list(new.values())]) if new else None

    def tasks():
        for keys, new, ready in _ahead(read, _blocks(len(images))):
            order.append(keys)
            if new:
                taken.append((new, len(keys)))
                yield ready, name, size, weights, chosen, batch_size
            else:
                bar.update(len(keys))

    what = f"{name} features"
    bar = tqdm(total=len(images), desc=what, unit="image", disable=None if progress else True)
    with bar, ThreadPoolExecutor(1) as writer:
        written = None
        # Keras's network serves one caller; OpenVINO's cores go on to the next block meanwhile
        ahead = 2 if chosen.name == "openvino" else 1
        for number, found in cluster.spread(_compute, tasks(), what, ahead):
            new, count = taken[number]
            if written:
                written.result()  # a full disk is told before more is computed
            written = writer.submit(_write_shard, folder, new, found)
            known.update(zip(new, found, strict=True))
            bar.update(count)
        if written:
            written.result()
    return np.stack([known[key] for keys in order for key in keys])


def _blocks(count: int):
    """Divide rows into blocks; the first is small, since the backbone waits for it."""
    ends = [0, *range(min(FIRST, BLOCK), count, BLOCK), count] if count else [0]
    return [slice(*pair) for pair in pairwise(ends)]


_one_at_a_time = threading.Lock()  # threads share one network, and Keras's serves one at a time


def _compute(images, name, size, weights, chosen, batch_size) -> np.ndarray:
    """Compute the features of a block, here or on a worker: of grey pixels, or prepared ones."""
    if chosen.name == "openvino":
        with _one_at_a_time:
            network = _extractor(name, size, weights, chosen)
        return network(resize(images, size))
    ready = prepare(images, name, size) if images.ndim == 3 else images
    with _one_at_a_time:
        network = _extractor(name, size, weights, chosen)
        return engine.on_keras(network, batch_size)(ready)


def _ahead(make, arguments):
    """Yield ``make(argument)`` of each; the next one is made in a thread meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        coming = None
        for argument in arguments:
            made = coming and coming.result()  # its error comes before anything else is begun
            first, coming = coming is None, thread.submit(make, argument)
            if not first:
                yield made
        if coming:
            yield coming.result()


_last = {}


def _extractor(name: str, size: int, weights: Weights, chosen=engine.PLAIN):
    """Keep the last network: building it takes longer than a few dozen small images.

    A Keras model of prepared images, or OpenVINO's function of grey ones.
    """
    which = (name, size, weights, chosen)
    if which not in _last:
        _last.clear()  # two networks at once take more memory than Binder has
        gc.collect()

        def build():
            return load(name, size, weights, pooling="avg")

        if chosen.name == "openvino":
            label = f"v{VERSION}-{name}-{size}-{weights.key}"
            _last[which] = engine.on_openvino(
                build, label, size, chosen.precision, _preprocessed(name)
            )
        else:
            with engine.policy(chosen.precision):
                _last[which] = build()
    return _last[which]


def dataset(parts, classes, name: str, size: int, weights, batch_size: int = 16):
    """Features and class numbers of the three parts of a split.

    Parameters
    ----------
    parts : split.Parts
    classes : sequence of str
        As in :meth:`cxrlib.cohort.Cohort.targets`.
    name, size, weights, batch_size
        As in :func:`features`.

    Returns
    -------
    split.Parts
        Of pairs: features (n, channels) float32, class numbers (n,) int64.
    """
    pairs = (
        (features(part.images, name, size, weights, batch_size), part.targets(classes))
        for part in parts
    )
    return type(parts)(*pairs)


def _write_shard(folder: Path, keys: list[bytes], found: np.ndarray) -> None:
    name = hashlib.blake2b(b"".join(keys), digest_size=16).hexdigest()
    with whole_file(folder / f"{name}.npz") as partial:
        np.savez(partial, keys=np.frombuffer(b"".join(keys), dtype="V16"), features=found)


def _read_shards(folder: Path) -> dict[bytes, np.ndarray]:
    known = {}
    for path in folder.glob("[!.]*.npz"):
        try:
            with np.load(path, allow_pickle=False) as shard:
                keys, found = shard["keys"], shard["features"]
        except Exception:  # a damaged shard is only a cache: forget it, compute again
            path.unlink(missing_ok=True)
            continue
        known.update((key.tobytes(), row) for key, row in zip(keys, found, strict=True))
    return known
