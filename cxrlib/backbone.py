"""ImageNet backbones: their weights, their preprocessing, and their frozen features, cached.

Any class of ``keras.applications`` works. A frozen backbone gives the same features for the
same image every time, so each image passes through it once and never again.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from cxrlib import cluster, engine
from cxrlib.files import cache_folder, sha256, whole_file
from cxrlib.guards import check_weights
from cxrlib.machine import note_engine, start_keras

VERSION = 1  # of the features in the cache: raise it when `prepare` or the weights' use changes
BLOCK = 64  # images read and prepared at once, while the backbone works on as many others
FIRST = 16  # images in the first block


class WeightsError(ValueError):
    """Weights that cannot be had, or that belong to another network."""


@dataclass(frozen=True)
class Weights:
    """Which weights a backbone runs on. Shown in a notebook, random ones are a red banner."""

    backbone: str
    kind: str  # imagenet, random or file
    path: str | None = None
    sha256: str | None = None
    seed: int | None = None

    @property
    def key(self) -> str:
        """What sets these weights apart from all others."""
        return self.sha256[:16] if self.sha256 else f"random{self.seed}"

    def describe(self) -> dict:
        """Facts for the results file; of a path only the file's name."""
        return asdict(self) | {"path": Path(self.path).name if self.path else None}

    def __str__(self) -> str:
        if self.kind == "random":
            return (
                f"RANDOM WEIGHTS: {self.backbone} has learned nothing from ImageNet. Its results "
                "show how the code works, not what the paper's model can do. For ImageNet "
                "weights go online, or put them in a folder named by CXR_WEIGHTS."
            )
        origin = "ImageNet weights" if self.kind == "imagenet" else "weights from a file"
        return f"{self.backbone}: {origin} ({Path(self.path).name}, SHA-256 {self.sha256[:12]})"

    def _repr_html_(self) -> str:
        from html import escape

        colours = "#8b0000;color:#fff;font-size:120%" if self.kind == "random" else "#e8f3ec"
        text = escape(str(self))
        return f'<div style="background:{colours};padding:10px;border-radius:4px">{text}</div>'


@cache
def _application(name: str):
    """Find the constructor and the module of a backbone in keras.applications."""
    import difflib

    keras = start_keras()
    known = [n for n in dir(keras.applications) if n[0].isupper()]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise WeightsError(f"There is no backbone {name!r}.{hint} Known: {', '.join(known)}.")
    constructor = getattr(keras.applications, name)
    return constructor, importlib.import_module(constructor.__module__)


def _is_weights_of(name: str, file: str) -> bool:
    """Tell by its name whether a file holds the convolutions ('notop') of a backbone."""
    plain = re.sub(r"[^a-z0-9]", "", file.lower())
    size = {"MobileNetV3Small": "mobilenetv3small", "MobileNetV3Large": "mobilenetv3large"}
    odd = {"MobileNet": "mobilenet10", **{k: f"weights{v}224" for k, v in size.items()}}
    pattern = rf"{name.lower()}(weights.*)?notop"
    if name in odd:  # Keras names these files otherwise
        pattern += rf"|{odd[name]}.*notop"
    return re.match(pattern, plain) is not None


def _local_file(name: str, folder: Path) -> Path | None:
    files = sorted(p for p in folder.glob("*.h5") if _is_weights_of(name, p.name))
    return files[0] if files else None


def _download(name: str) -> None:
    """Let Keras fetch (or check) its ImageNet weights; fail soon where there is no network."""
    import requests

    constructor, _ = _application(name)
    host = "https://storage.googleapis.com/tensorflow/keras-applications/"
    try:
        requests.head(host, timeout=5, allow_redirects=True)
        constructor(include_top=False, weights="imagenet", pooling="avg")
    except Exception as error:  # Keras raises bare Exception for a failed download
        cause = type(error).__name__
        raise WeightsError(
            f"The ImageNet weights of {name} cannot be downloaded ({cause}). Put the file "
            f"{name.lower()}_notop.weights.h5 (or Keras's own *_notop.h5) into a folder and set "
            "CXR_WEIGHTS to that folder; or use weights='random' to see the code run."
        ) from error


def find_weights(name: str, weights: str = "auto", seed: int = 0) -> Weights:
    """Decide which weights a backbone will use.

    Parameters
    ----------
    name : str
        A class of ``keras.applications``, such as ``"ResNet50"``.
    weights : str
        ``"imagenet"``: the folder named by ``CXR_WEIGHTS``, Keras's own cache, or a download;
        an error if none has them. ``"auto"``: the same, but random weights if none has them.
        ``"random"``: untrained (He et al. 2015). Anything else is the path of a weights file.
    seed : int
        For random weights.

    Raises
    ------
    WeightsError
        If the backbone is unknown, a file is missing, or ImageNet weights cannot be had.
    """
    _application(name)
    if weights == "random":
        return Weights(name, "random", seed=seed)
    if weights not in ("imagenet", "auto"):
        path = Path(weights).expanduser()
        if not path.is_file():
            raise WeightsError(
                f"There is no weights file {weights}. Give 'auto', 'imagenet', 'random' or the "
                "path of an .h5 file."
            )
        if path.suffix not in (".h5", ".hdf5"):
            raise WeightsError(
                f"{path} is no .h5 file. Others, such as .keras, can hold code and are not loaded: "
                "save the weights alone, with model.save_weights('NAME.weights.h5')."
            )
        return Weights(name, "file", str(path), sha256(path))
    try:
        path = _imagenet_file(name)
    except WeightsError:
        if weights == "imagenet":
            raise
        return Weights(name, "random", seed=seed)
    return Weights(name, "imagenet", str(path), sha256(path))


def _imagenet_file(name: str) -> Path:
    folder = os.environ.get("CXR_WEIGHTS")
    if folder and not Path(folder).expanduser().is_dir():
        raise NotADirectoryError(
            f"CXR_WEIGHTS names {folder}, which is no folder: mend or unset it"
        )
    found = _local_file(name, Path(folder).expanduser()) if folder else None
    kept = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"
    if found is None:
        found = _local_file(name, kept)
    if found is None:
        _download(name)
        found = _local_file(name, kept)
    if found is None:
        raise WeightsError(f"Keras has no ImageNet weights for {name} that can be recognised.")
    return found


def load(name: str, size: int = 224, weights: str | Weights = "auto", seed: int = 0, pooling=None):
    """Build a frozen backbone without its ImageNet classifier.

    Parameters
    ----------
    name, weights, seed
        As in :func:`find_weights`; `weights` may be its result.
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
    constructor, _ = _application(name)
    if isinstance(weights, str):
        weights = find_weights(name, weights, seed)
    try:
        shape = (size, size, 3)
        model = constructor(include_top=False, weights=None, input_shape=shape, pooling=pooling)
    except ValueError as error:
        raise WeightsError(f"{name} cannot take images of {size} x {size}: {error}") from error
    if weights.kind == "random":
        _fill_randomly(model, weights.seed)
    else:
        try:
            _load_all(model, weights.path)
        except Exception as error:  # h5py and Keras raise many kinds here
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise WeightsError(
                f"{weights.path} does not hold the weights of {name} without its top "
                f"(damaged, or of another network). Take it away or name another. ({reason})"
            ) from error
    model.trainable = False
    return model


def _load_all(model, path: str) -> None:
    """Load weights, and make sure that none was skipped: Keras passes over some in silence."""
    for variable in model.weights:
        variable.assign(np.full(tuple(variable.shape), np.nan, dtype=np.float32))
    check_weights(path)
    model.load_weights(path)
    missed = [v.path for v in model.weights if np.isnan(np.asarray(v.numpy())).any()]
    if missed:
        raise ValueError(f"the file lacks {len(missed)} weights, {missed[0]} among them")


def _fill_randomly(model, seed: int) -> None:
    """He-normal kernels drawn with NumPy, so that every Keras backend gets the same ones."""
    import keras

    rng = np.random.default_rng(seed)
    kind = keras.layers.DepthwiseConv2D
    depthwise = {w.path for one in model.layers if isinstance(one, kind) for w in one.weights}
    for variable in model.weights:
        if variable.path.endswith("kernel"):
            fan_in = np.prod(variable.shape[:-1])
            if variable.path in depthwise or "depthwise" in variable.path:
                fan_in = np.prod(variable.shape[:2])
            draw = rng.standard_normal(tuple(variable.shape), dtype=np.float32)
            variable.assign(draw * np.float32(np.sqrt(2 / fan_in)))


def prepare(images: np.ndarray, name: str, size: int) -> np.ndarray:
    """Resize grey images, repeat the grey channel three times, and preprocess as `name` wants.

    Parameters
    ----------
    images : ndarray, shape (n, height, width), uint8

    Returns
    -------
    ndarray, shape (n, size, size, 3), float32
    """
    import cv2

    _, module = _application(name)
    batch = np.empty((len(images), size, size, 3), dtype=np.float32)
    for place, image in enumerate(images):
        batch[place] = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)[..., None]
    ready = module.preprocess_input(batch, data_format="channels_last")
    return np.ascontiguousarray(ready)  # some networks want the channels in another order


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
    make = _shrink if cluster.client() else prepare  # a worker prepares what it was sent

    def read(rows):
        """Read a block; prepare those images that neither the cache nor an earlier block has."""
        block = images[rows]
        keys = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in block]
        new = {k: p for p, k in enumerate(keys) if k not in claimed and k not in known}
        claimed.update(new)
        return keys, list(new), make(block[list(new.values())], name, size) if new else None

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
        for number, found in cluster.spread(_compute, tasks(), what):
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


_one_at_a_time = threading.Lock()  # a worker's threads share one network


def _compute(images, name, size, weights, chosen, batch_size) -> np.ndarray:
    """Compute the features of a block, here or on a worker; grey pixels are prepared first."""
    ready = prepare(images, name, size) if images.ndim == 3 else images
    with _one_at_a_time:
        return _computer(name, size, weights, chosen, batch_size)(ready)


def _shrink(images: np.ndarray, name: str, size: int) -> np.ndarray:
    """Do the first step of :func:`prepare` only: a twelfth of the bytes to send."""
    import cv2

    area = cv2.INTER_AREA
    return np.stack([cv2.resize(image, (size, size), interpolation=area) for image in images])


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

    A Keras model, or OpenVINO's function of prepared images.
    """
    which = (name, size, weights, chosen)
    if which not in _last:
        _last.clear()  # two networks at once take more memory than Binder has
        gc.collect()

        def build():
            return load(name, size, weights, pooling="avg")

        if chosen.name == "openvino":
            label = f"v{VERSION}-{name}-{size}-{weights.key}"
            _last[which] = engine.on_openvino(build, label, size, chosen.precision)
        else:
            with engine.policy(chosen.precision):
                _last[which] = build()
    return _last[which]


def _computer(name, size, weights, chosen: engine.Engine, batch_size: int):
    """Give a function from prepared images to features, both float32."""
    network = _extractor(name, size, weights, chosen)
    return network if chosen.name == "openvino" else engine.on_keras(network, batch_size)


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
