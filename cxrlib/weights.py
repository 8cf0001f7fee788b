"""The weights of ImageNet backbones: found, checked, loaded, or drawn at random."""

from __future__ import annotations

import importlib
import os
import re
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from cxrlib.files import check_weights, sha256
from cxrlib.machine import start_keras


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
    import difflib

    keras = start_keras()
    known = [n for n in dir(keras.applications) if n[0].isupper()]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise WeightsError(f"There is no backbone {name!r}.{hint} Known: {', '.join(known)}.")
    constructor = getattr(keras.applications, name)
    return constructor, importlib.import_module(constructor.__module__)


def is_weights_of(name: str, file: str) -> bool:
    """Tell by its name whether a file holds the convolutions ('notop') of a backbone."""
    plain = re.sub(r"[^a-z0-9]", "", file.lower())
    size = {"MobileNetV3Small": "mobilenetv3small", "MobileNetV3Large": "mobilenetv3large"}
    odd = {"MobileNet": "mobilenet10", **{k: f"weights{v}224" for k, v in size.items()}}
    pattern = rf"{name.lower()}(weights.*)?notop"
    if name in odd:  # Keras names these files otherwise
        pattern += rf"|{odd[name]}.*notop"
    return re.match(pattern, plain) is not None


def local_file(name: str, folder: Path) -> Path | None:
    """Find a backbone's file in a folder, by its name."""
    files = sorted(p for p in folder.glob("*.h5") if is_weights_of(name, p.name))
    return files[0] if files else None


def _download(name: str) -> None:
    """Let Keras fetch (or check) its ImageNet weights; fail soon where there is no network."""
    import requests

    constructor, _ = application(name)
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
    application(name)
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
    found = local_file(name, Path(folder).expanduser()) if folder else None
    kept = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"
    if found is None:
        found = local_file(name, kept)
    if found is None:
        _download(name)
        found = local_file(name, kept)
    if found is None:
        raise WeightsError(f"Keras has no ImageNet weights for {name} that can be recognised.")
    return found


def load_all(model, path: str) -> None:
    """Load weights, and make sure that none was skipped: Keras passes over some in silence.

    Raises a ValueError if one was.
    """
    for variable in model.weights:
        variable.assign(np.full(tuple(variable.shape), np.nan, dtype=np.float32))
    check_weights(path)
    model.load_weights(path)
    missed = [v.path for v in model.weights if np.isnan(np.asarray(v.numpy())).any()]
    if missed:
        raise ValueError(f"the file lacks {len(missed)} weights, {missed[0]} among them")


def fill_randomly(model, seed: int) -> None:
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
