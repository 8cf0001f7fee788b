"""A trained model with all that is needed to use it: saved, loaded, asked about an image."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from cxrlib import backbone, explain, training
from cxrlib.cohort import SIDE
from cxrlib.files import check_weights, sha256, whole_file, write_json
from cxrlib.machine import start_keras

PLAIN = {"keras", *(f"keras.{name}" for name in ("layers", "models", "initializers"))}
CODE = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "__lambda__"}
CARD, WEIGHTS = "predictor.json", "model.weights.h5"


class PredictorError(ValueError):
    """A saved model that is missing, damaged or of another version."""


@dataclass
class Prediction:
    """What a model says about one image. Teaching material: not for clinical use."""

    probabilities: dict[str, float]
    heat_map: np.ndarray  # (300, 300) float32, 0 to 1: Grad-CAM of the most probable class
    image: np.ndarray  # (300, 300) uint8, as the model saw it before its own resizing
    warnings: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The most probable class."""
        return max(self.probabilities, key=self.probabilities.get)


@dataclass
class Predictor:
    """A head on a frozen backbone, or a whole CNN, and what its outputs mean."""

    model: object  # keras.Sequential: the head (features to probabilities), or the CNN
    classes: list[str]  # in the order of the outputs; the second is the positive one of a sigmoid
    backbone_name: str | None = None  # None of a CNN
    size: int | None = None  # pixels of the backbone's input, on each side
    weights: backbone.Weights | None = None
    provenance: dict = field(default_factory=dict)  # as :func:`cxrlib.results.provenance` tells
    _derivatives: dict = field(default_factory=dict, init=False, repr=False)

    def save(self, folder: Path | str) -> Path:
        """Write the weights, and a card (JSON) that vouches for them; an older Keras reads both."""
        folder = Path(folder)
        (folder / CARD).unlink(missing_ok=True)
        with whole_file(folder / WEIGHTS) as partial:
            plain = partial.with_name(f"{partial.name}.weights.h5")  # as Keras wants it
            self.model.save_weights(plain)
            plain.replace(partial)
        card = {
            "classes": list(self.classes),
            "backbone": self.backbone_name,
            "size": self.size,
            "weights": self.weights.describe() if self.weights else None,
            "provenance": self.provenance,
            "keras": start_keras().version(),
            "model_sha256": sha256(folder / WEIGHTS),
            "architecture": json.loads(self.model.to_json()),
        }
        write_json(folder / CARD, card)
        return folder

    def probabilities(self, images) -> np.ndarray:
        """Probabilities of all classes, shape (n, classes), of grey images (n, h, w) uint8."""
        if self.backbone_name is None:
            return training.predict(self.model, images)
        found = backbone.features(images, self.backbone_name, self.size, self.weights, 8, False)
        return training.predict(self.model, found)

    def heat_maps(self, images, class_number: int) -> np.ndarray:
        """Grad-CAM of a class, (n, h, w) float32 from 0 to 1 on one scale, at the images' size."""
        images = np.asarray(images)
        return explain.enlarge(explain.weigh(*self.evidence(images, class_number)), images.shape[1])

    def evidence(self, images, class_number: int) -> tuple[np.ndarray, np.ndarray]:
        """Feature maps and a class's gradients by them, of which :func:`explain.weigh` makes heat.

        Both are float32, (n, height, width, channels), of grey images (n, h, w) uint8.
        """
        maps = self._maps(np.asarray(images))
        return maps, explain.gradients(self._reader[1], maps, class_number)

    @cached_property
    def _reader(self):
        """What makes feature maps, and the layers that read them; building it takes seconds."""
        if self.backbone_name is None:
            return explain.split_at_last_convolution(self.model)
        base = backbone.load(self.backbone_name, self.size, self.weights)
        return base, [start_keras().layers.GlobalAveragePooling2D(), *self.model.layers]

    def _maps(self, images) -> np.ndarray:
        if self.backbone_name is None:
            ready = training.batches(images, self.model.input_shape[1])
        else:
            ready = backbone.prepare(images, self.backbone_name, self.size)
        return training.ask(self._reader[0], ready, 8)

    def predict(self, image) -> Prediction:
        """Ask about a grey image (h, w) uint8, or a file as in :func:`cxrlib.images.read_grey`."""
        from cxrlib.images import read, resize

        grey, *_, notes = (image, []) if isinstance(image, np.ndarray) else read(Path(image))
        seen = resize(grey, SIDE)[None]
        maps = self._maps(seen)
        asked = seen if self.backbone_name is None else maps.mean(axis=(1, 2))
        found = training.predict(self.model, asked)[0]
        first = int(found.argmax())
        if first not in self._derivatives:  # compiling one takes longer than asking it
            self._derivatives[first] = explain.Derivative(self._reader[1], maps.shape, first)
        heat = explain.enlarge(explain.weigh(maps, self._derivatives[first](maps)), SIDE)[0]
        named = dict(zip(self.classes, map(float, found), strict=True))
        return Prediction(
            named, heat, seen[0], [*self._warnings(grey), *(f"The film: {note}." for note in notes)]
        )

    def _warnings(self, grey: np.ndarray) -> list[str]:
        found = []
        if self.provenance.get("synthetic"):
            found.append("The model was trained on synthetic phantoms; real films are new to it.")
        if self.weights is not None and self.weights.kind == "random":
            found.append("The backbone has random weights: it has learned nothing from ImageNet.")
        if min(grey.shape) < SIDE:
            found.append(f"The image is small ({grey.shape[1]} x {grey.shape[0]} pixels).")
        if max(grey.shape) > 2 * min(grey.shape):
            found.append("The image is far from square; a chest film hardly ever is.")
        return found


def load(folder: Path | str) -> Predictor:
    """Load what :meth:`Predictor.save` wrote; a PredictorError tells why it cannot be read.

    A :class:`cxrlib.backbone.WeightsError` says if the backbone's weights cannot be had.
    """
    keras = start_keras()
    folder = Path(folder)
    if folder.is_file():
        raise PredictorError(
            f"{folder} is a file. Models are folders with {CARD} and {WEIGHTS}, as a run of the "
            "course leaves them in models/. Archives and .keras files can hold code: not loaded."
        )
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        intact = sha256(folder / WEIGHTS) == card["model_sha256"]
        known = [card[name] for name in ("classes", "backbone", "size", "weights", "provenance")]
        told = f"Keras {card['keras']}"
        card["architecture"].pop("compile_config", None)  # how it was trained matters no more
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PredictorError(
            f"{folder} holds no model ({CARD} and {WEIGHTS}). A run of the course leaves them in "
            "its folder models/, for instance runs/quick/models/05_vgg16."
        ) from error
    if not intact:
        raise PredictorError(f"{folder / WEIGHTS} is damaged: run the notebook again.")
    if odd := _not_plain(card["architecture"]):
        raise PredictorError(
            f"{folder / CARD} asks for {odd}, which is no plain layer and could run code. "
            "The model is not loaded: take one that a run of the course has made."
        )
    try:
        check_weights(folder / WEIGHTS)
        model = keras.models.model_from_json(json.dumps(card["architecture"]))
        model.load_weights(folder / WEIGHTS)
    except Exception as error:  # Keras raises many kinds here
        raise PredictorError(
            f"The model in {folder} was written by {told} and cannot be read by "
            f"Keras {keras.version()}: run its notebook again with this version."
        ) from error
    known[3] = _weights(card) if card["weights"] else None
    return Predictor(model, *known)


def _not_plain(part) -> str:
    """Find what an architecture asks for besides Keras's own layers; nothing if it is plain."""
    if isinstance(part, list):
        return next(filter(None, map(_not_plain, part)), "")
    if not isinstance(part, dict):
        return ""
    module, name = part.get("module"), part.get("class_name")
    foreign = module is not None and module not in PLAIN
    registered = part.get("registered_name") not in (None, name)
    if foreign or registered or name in CODE:
        return repr(f"{module}.{name}")[:100]
    return _not_plain(list(part.values()))


def _weights(card: dict) -> backbone.Weights:
    """Find the weights that the backbone had when the head was trained."""
    noted = card["weights"]
    kind = "imagenet" if noted["kind"] == "file" else noted["kind"]
    found = backbone.find_weights(card["backbone"], kind, noted["seed"] or 0)
    if found.sha256 == noted["sha256"]:
        return found
    if noted["kind"] == "file":
        raise PredictorError(
            f"The head was trained on the backbone weights in {noted['path']} (SHA-256 "
            f"{noted['sha256'][:12]}), which are not those in {found.path}. Put that file, named "
            f"{card['backbone'].lower()}_notop.weights.h5, into the folder named by CXR_WEIGHTS."
        )
    told = f"The head was trained on {noted['path']}; {found.path} has another content"
    warnings.warn(f"{told}, so the probabilities may differ.", stacklevel=3)
    return found
