"""ImageNet backbones: their weights, their preprocessing, and their frozen features, cached.

Any class of ``keras.applications`` works. A frozen backbone gives the same features for the
same image every time, so each image passes through it once and never again.
"""

from __future__ import annotations

import gc
import importlib
import os
import re
import threading
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from cxrlib import machine
from cxrlib.compute import engine
from cxrlib.files import cache_folder, check_weights, no_such, sha256
from cxrlib.machine import start_keras
from cxrlib.parallel import RowCache, cluster, share

VERSION = 2  # of the features in the cache: raise it when how they are computed changes
BLOCK = 64  # images read and prepared at once, while the backbone works on as many others
FIRST = 16  # images in the first block, and in a batch
ON_DEVICE = 128  # images in a batch on an accelerator, and a quarter of a block


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
def application(name: str):
    """Find the constructor and the module of a backbone in keras.applications."""
    keras = start_keras()
    known = [one for one in dir(keras.applications) if one[0].isupper()]
    if name not in known:
        raise WeightsError(no_such("backbone", name, known))
    constructor = getattr(keras.applications, name)
    return constructor, importlib.import_module(constructor.__module__)


def is_weights_of(name: str, file: str) -> bool:
    """Tell by its name whether a file holds the convolutions ('notop') of a backbone."""
    plain, pattern = re.sub(r"[^a-z0-9]", "", file.lower()), rf"{name.lower()}(weights.*)?notop"
    if name == "MobileNet":  # Keras names these files otherwise
        pattern += r"|mobilenet10.*notop"
    elif name.startswith("MobileNetV3"):
        pattern += rf"|weights{name.lower()}224.*notop"
    return re.match(pattern, plain) is not None


def find_weights(name: str, weights: str | Weights = "auto", seed: int = 0) -> Weights:
    """Decide which weights a backbone will use; what is decided already stays.

    `name` is a class of ``keras.applications``, such as ``"ResNet50"``; `weights` are one of:

    - ``"imagenet"``: the folder named by ``CXR_WEIGHTS``, Keras's own cache, or a download; a
      WeightsError if none has them. ``"auto"``: the same, but random ones if none has them.
    - ``"random"``: untrained (He et al. 2015), drawn from `seed`.
    - The path of a weights file; a WeightsError if it is missing, as for an unknown backbone.
    """
    if isinstance(weights, Weights):
        return weights
    application(name)
    if weights == "random":
        return Weights(name, "random", seed=seed)
    if weights in ("imagenet", "auto"):
        try:
            path = _imagenet_file(name)
        except WeightsError:
            if weights == "imagenet":
                raise
            return Weights(name, "random", seed=seed)
        return Weights(name, "imagenet", str(path), sha256(path))
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"There is no weights file {weights}. Give 'auto', 'imagenet', 'random' or the path "
            "of an .h5 file."
        )
    if path.suffix not in (".h5", ".hdf5"):
        raise WeightsError(
            f"{path} is no .h5 file. Others, such as .keras, can hold code and are not loaded: "
            "save the weights alone, with model.save_weights('NAME.weights.h5')."
        )
    return Weights(name, "file", str(path), sha256(path))


def _imagenet_file(name: str) -> Path:
    """Find a backbone's file: in the folder of one's own, in Keras's cache, or on the web."""
    own = os.environ.get("CXR_WEIGHTS")
    if own and not Path(own).expanduser().is_dir():
        raise NotADirectoryError(f"CXR_WEIGHTS names {own}, which is no folder: mend or unset it")
    folders = [Path(own).expanduser()] if own else []
    folders.append(Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models")

    def here():
        files = (path for folder in folders for path in sorted(folder.glob("*.h5")))
        return next((path for path in files if is_weights_of(name, path.name)), None)

    if found := here():
        return found
    import requests

    host = "https://storage.googleapis.com/tensorflow/keras-applications/"
    try:
        requests.head(host, timeout=5, allow_redirects=True)  # fails soon where there is no network
        application(name)[0](include_top=False, weights="imagenet", pooling="avg")
    except Exception as error:  # Keras raises bare Exception for a failed download
        raise WeightsError(
            f"The ImageNet weights of {name} cannot be downloaded ({str(error)[:200]}). Put "
            f"the file {name.lower()}_notop.weights.h5 (or Keras's own *_notop.h5) into a folder "
            "and set CXR_WEIGHTS to that folder; or use weights='random' to see the code run."
        ) from error
    if found := here():
        return found
    raise WeightsError(f"Keras has no ImageNet weights for {name} that can be recognised.")


def _fill_randomly(model, seed: int) -> None:
    """He-normal kernels drawn with NumPy, so that every Keras backend gets the same ones."""
    import keras

    rng = np.random.default_rng(seed)
    kind = keras.layers.DepthwiseConv2D
    depthwise = {w.path for one in model.layers if isinstance(one, kind) for w in one.weights}
    for variable in model.weights:
        if variable.path.endswith("kernel"):
            alone = variable.path in depthwise or "depthwise" in variable.path
            fan_in = np.prod(variable.shape[: 2 if alone else -1])
            draw = rng.standard_normal(tuple(variable.shape), dtype=np.float32)
            variable.assign(draw * np.float32(np.sqrt(2 / fan_in)))


def load(name: str, size: int = 224, weights: str | Weights = "auto", seed: int = 0, pooling=None):
    """Build a frozen backbone without its ImageNet classifier.

    The model takes preprocessed images, float32 (n, size, size, 3), to feature maps (n, height,
    width, channels), or with `pooling` "avg" or "max" to one value a channel; the rest is as in
    :func:`find_weights`. A WeightsError if weights or size do not fit the network.
    """
    constructor, _ = application(name)
    weights = find_weights(name, weights, seed)
    try:
        shape = (size, size, 3)
        model = constructor(include_top=False, weights=None, input_shape=shape, pooling=pooling)
    except ValueError as error:
        raise WeightsError(f"{name} cannot take images of {size} x {size}: {error}") from error
    model.trainable = False
    if weights.kind == "random":
        _fill_randomly(model, weights.seed)
        return model
    for variable in model.weights:  # so that none is skipped: Keras passes over some in silence
        variable.assign(np.full(tuple(variable.shape), np.nan, dtype=np.float32))
    try:
        check_weights(weights.path)
        model.load_weights(weights.path)
        missed = [v.path for v in model.weights if np.isnan(np.asarray(v.numpy())).any()]
        if missed:
            raise ValueError(f"the file lacks {len(missed)} weights, {missed[0]} among them")
    except Exception as error:  # h5py and Keras raise many kinds here
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise WeightsError(
            f"{weights.path} does not hold the weights of {name} without its top "
            f"(damaged, or of another network). Take it away or name another. ({reason})"
        ) from error
    return model


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Resize grey images in threads: uint8 (n, height, width) to uint8 (n, size, size)."""
    import cv2

    small = np.empty((len(images), size, size), np.uint8)

    def one(place):
        cv2.resize(images[place], (size, size), dst=small[place], interpolation=cv2.INTER_AREA)

    share(one, len(images))
    return small


def prepare(images: np.ndarray, name: str, size: int) -> np.ndarray:
    """Resize grey images, uint8 (n, height, width), and preprocess them as `name` wants.

    The grey channel is repeated: float32 (n, size, size, 3).
    """
    _, module = application(name)
    colours = np.repeat(resize(images, size)[..., None], 3, axis=3).astype(np.float32)
    return np.ascontiguousarray(module.preprocess_input(colours, data_format="channels_last"))


def from_grey(model, name: str):
    """Let a network begin with grey images, uint8 (n, size, size), and prepare them itself.

    So a twelfth of the bytes is copied to an accelerator, which does the rest in no time.
    """
    keras, (_, module) = start_keras(), application(name)
    grey = keras.Input(model.input_shape[1:3], dtype="uint8")
    colours = keras.ops.repeat(keras.ops.cast(grey, "float32")[..., None], 3, axis=-1)
    return keras.Model(grey, model(module.preprocess_input(colours, data_format="channels_last")))


def features(
    images, name: str, size: int = 224, weights="auto", batch_size=None, progress: bool = True
) -> np.ndarray:
    """Pass images through a frozen backbone and average over space: float32 (n, channels).

    Features are kept in the cache folder by the content of each image, so that an image (or an
    augmented copy) that occurs in two splits, notebooks or runs is computed once; an interrupted
    run goes on where it stopped. :mod:`cxrlib.compute.engine` says what computes them: Keras, or
    OpenVINO, which is faster; its EngineError, what is asked for and not there.

    Images, uint8 (n, height, width), an array or ``cohort.images``, are read block by block; Keras
    gets `batch_size` at once: 16 where none is given (8 for VGG16 where memory is scarce), 128 on
    an accelerator. The rest is as in :func:`load`.
    """
    weights = find_weights(name, weights)
    while True:
        chosen = engine.choose(size)
        try:
            found = _features(images, (name, size, weights, chosen, batch_size), progress)
        except engine.ConversionError as error:
            engine.give_up(str(error))
            continue
        did, precision = chosen
        if did == "keras":
            precision = machine.multiplies_in(precision)
        machine.engines_used.add((did, precision))
        return found


def _features(images, which: tuple, progress: bool):
    """Compute with one engine, and read from that engine's cache only."""
    from tqdm import tqdm

    name, size, weights, chosen, _ = which
    # What anything else computed, be it another version of Keras, is never taken for this
    label = f"v{VERSION}-{engine.mark(chosen)}-{name}-{size}-{weights.key}"
    what, count = f"{name} features", len(images)
    # To workers and devices go grey pixels, a twelfth of the bytes; OpenVINO wants them prepared
    grey = cluster.client() is not None or chosen.name == "keras"

    def make(new):
        return resize(new, size) if grey else prepare(new, name, size)

    def compute(batches):
        return cluster.spread(compute_features, ((ready, *which) for ready in batches), what)

    block = block_size()
    ends = [0, *range(min(FIRST, BLOCK), count, block), count]  # the backbone waits for the first
    blocks = [slice(*pair) for pair in pairwise(ends)]
    kept = RowCache(cache_folder("features", label))
    with tqdm(total=count, desc=what, unit="image", disable=None if progress else True) as bar:
        return kept.look_up(images, blocks, make, compute, bar.update)


_one_at_a_time = threading.Lock()  # threads share one network, which serves one at a time
_last = {}  # the network that is kept: building it takes longer than a few dozen small images


def forget_network() -> None:
    """Give back the memory of the network that computed last."""
    _last.clear()
    gc.collect()


def block_size() -> int:
    """Count the images that are read at once: more where an accelerator would wait for them."""
    return 4 * ON_DEVICE if machine.accelerator() else BLOCK


def compute_features(images, name, size, weights: Weights, chosen, batch_size=None):
    """Compute features here and now, past the cache: a task for this machine or a worker.

    The images are grey, uint8 (n, height, width), or for OpenVINO from :func:`prepare`. `chosen`
    is the Engine that computes; a ConversionError if it is OpenVINO and cannot take the network
    over. The batches are as in :func:`features`.
    """
    ready, batch_size = images, batch_size or (ON_DEVICE if machine.accelerator() else FIRST)
    if chosen.name == "openvino" and images.ndim == 3:
        ready = prepare(images, name, size)
    elif images.shape[1:3] != (size, size):
        ready = resize(images, size)
    which = name, size, weights, chosen, batch_size
    with _one_at_a_time:
        if which not in _last:
            forget_network()  # two at once take more memory than Binder has
            _last[which] = _network(*which)
        return _last[which](ready)


def _network(name, size, weights, chosen, batch_size):
    build = partial(load, name, size, weights, pooling="avg")
    if chosen.name == "openvino":
        label = f"v{VERSION}-{name}-{size}-{weights.key}"
        return engine.on_openvino(build, label, size, chosen.precision)
    with machine.dtype_policy("mixed_bfloat16" if chosen.precision == "bfloat16" else "float32"):
        return engine.on_keras(from_grey(build(), name), batch_size)


def dataset(parts, classes, name: str, size: int, weights):
    """Turn the parts of a split into pairs: :func:`features`, and class numbers (n,) int64."""
    pairs = ((features(part.images, name, size, weights), part.targets(classes)) for part in parts)
    return type(parts)(*pairs)
