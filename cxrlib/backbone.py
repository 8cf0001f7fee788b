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
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from cxrlib.files import cache_folder, sha256, whole_file
from cxrlib.machine import start_keras

VERSION = 1  # of the features in the cache: raise it when `prepare` or the weights' use changes
BLOCK = 256  # images read, prepared and kept at once: bounds the memory, whatever the number


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
    return module.preprocess_input(batch, data_format="channels_last")


def features(
    images, name: str, size: int = 224, weights="auto", batch_size: int = 16, progress: bool = True
) -> np.ndarray:
    """Pass images through a frozen backbone and average over space; remember the result.

    Features are kept in the cache folder by the content of each image, so that an image (or an
    augmented copy) that occurs in two splits, notebooks or runs is computed once. Blocks are
    written as they are done: an interrupted run goes on where it stopped.

    Parameters
    ----------
    images : array_like, shape (n, height, width), uint8
        An array or ``cohort.images``; read block by block.
    name, size, weights
        As in :func:`load`.
    batch_size : int
        Images in the backbone at once; 8 for VGG16 where memory is scarce.
    progress : bool
        Show a progress bar on a terminal.

    Returns
    -------
    ndarray, shape (n, channels), float32
    """
    from tqdm import tqdm

    if isinstance(weights, str):
        weights = find_weights(name, weights)
    backend = start_keras().backend.backend()
    folder = cache_folder("features", f"v{VERSION}-{backend}-{name}-{size}-{weights.key}")
    known = _read_shards(folder)
    model, rows = None, []
    blocks = range(0, len(images), BLOCK)
    for start in tqdm(blocks, desc=f"{name} features", disable=None if progress else True):
        block = images[start : start + BLOCK]
        keys = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in block]
        new = list({key: place for place, key in enumerate(keys) if key not in known}.values())
        if new:
            model = model or _extractor(name, size, weights)
            ready = prepare(block[new], name, size)
            found = np.asarray(model.predict(ready, batch_size=batch_size, verbose=0))
            found = found.astype(np.float32)
            new_keys = [keys[place] for place in new]
            _write_shard(folder, new_keys, found)
            known.update(zip(new_keys, found, strict=True))
        rows.extend(known[key] for key in keys)
    return np.stack(rows)


_last = {}


def _extractor(*which):
    """Keep the last backbone: building it takes longer than a few dozen small images."""
    if which not in _last:
        _last.clear()  # two networks at once take more memory than Binder has
        gc.collect()
        _last[which] = load(*which, pooling="avg")
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
