"""Drawings of networks: a model as boxes, a dense block, a residual block."""

from __future__ import annotations

import math
from itertools import pairwise

from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from cxrlib.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, SMALL, finish, need, subplots

IN_COLUMN = 8  # boxes below each other
MOST_BOXES = 24  # more cannot be read; runs of frozen layers are then drawn as one
FILL = {"Conv": SKY, "Pool": ORANGE, "Dense": GREEN, "Dropout": PURPLE, "Input": "#DDDDDD"}
MIDDLE = {"ha": "center", "va": "center"}


def architecture(model, title="", note=""):
    """Draw a network as boxes, as Figs. 4, 6, 7 and 10 of the paper; frozen ones hatched.

    `model` is a Keras model that is built, or a list of layers or of dicts with ``name``, ``kind``
    (such as ``Dense``), ``shape`` (tuple without the batch), ``parameters`` and ``frozen``. A
    model inside a model (a backbone) is one box.
    """
    layers = [_describe(layer) for layer in getattr(model, "layers", model)]
    need(layers, "model: layers")
    total, trainable = (sum(layer[key] for layer in layers) for key in ("parameters", "trainable"))
    if len(layers) > MOST_BOXES:
        layers = _joined(layers)
    columns = math.ceil(len(layers) / IN_COLUMN)
    rows = math.ceil(len(layers) / columns)
    figure, axis = subplots(height=0.82 * rows + 0.9, width=max(4.8, 3.7 * columns))
    axis.set(xlim=(0, columns), ylim=(rows - 0.05, -0.05))
    axis.axis("off")
    for place, layer in enumerate(layers):
        column, row = divmod(place, rows)
        _layer_box(axis, column, row, layer)
        if place < len(layers) - 1 and row < rows - 1:
            _arrow(axis, (column + 0.48, row + 0.7), (column + 0.48, row + 1.0))
        elif place < len(layers) - 1:
            _turn(axis, column, rows)
    counts = f"{total:,} parameters: {trainable:,} trainable, {total - trainable:,} frozen"
    return finish(figure, title, "\n".join(filter(None, [counts, note])))


def dense_block(layers=4, note=""):
    """Draw a dense block of 2 to 6 layers, as Fig. 9: each reads the feature maps of all before."""
    if not 2 <= layers <= 6:
        raise ValueError(f"layers={layers}: a readable drawing has 2 to 6.")
    figure, axis = subplots(height=3.9)
    axis.axis("off")
    axis.set(xlim=(-0.45, layers + 1.45), ylim=(-1.35, 2.35))
    names = ["input", *[f"layer\n{number}" for number in range(1, layers + 1)], "transition"]
    fills = [FILL["Input"], *[SKY] * layers, ORANGE]
    for place, (name, fill) in enumerate(zip(names, fills, strict=True)):
        _round_box(axis, place, name, fill, SMALL)
    for start in range(layers + 1):
        _arrow(axis, (start + 0.35, 0), (start + 0.66, 0))
        for end in range(start + 2, layers + 2):
            bend = -0.38 - 0.02 * (end - start)
            _arrow(axis, (start + 0.12, 0.36), (end - 0.12, 0.36), bend, GREY)
    maps = [64 + 32 * place for place in range(layers + 1)]  # DenseNet121: each layer adds 32
    counts = ["64", *(f"+32\n= {total}" for total in maps[1:]), f"{maps[-1] // 2}"]
    for place, said in enumerate(counts):
        axis.text(place, -0.45, said, ha="center", va="top", fontsize=SMALL)
    told = (
        "below: feature maps so far. A layer is normalisation, ReLU, convolution 3 x 3; arrows\n"
        "are concatenation. The transition: convolution 1 x 1, then pooling 2 x 2."
    )
    axis.text(-0.4, -1.3, told, fontsize=SMALL, va="bottom")
    return finish(figure, "Dense block: every layer reads all before it (as Fig. 9)", note)


def residual_block(note=""):
    """Draw a residual block of ResNet50: the input is added to what three layers make of it."""
    figure, axis = subplots(height=3.4)
    axis.axis("off")
    axis.set(xlim=(-0.6, 6.6), ylim=(-1.0, 2.0))
    boxes = {
        0: ("input\nx", FILL["Input"]),
        1.5: ("conv\n1 x 1", SKY),
        2.7: ("conv\n3 x 3", SKY),
        3.9: ("conv\n1 x 1", SKY),
        5.1: ("+", GREEN),
        6.2: ("ReLU", ORANGE),
    }
    for place, (name, fill) in boxes.items():
        _round_box(axis, place, name, fill, 10)
    for start, end in pairwise(boxes):
        _arrow(axis, (start + 0.35, 0), (end - 0.34, 0))
    _arrow(axis, (0, 0.36), (5.1, 0.36), -0.28, BLUE)
    axis.text(2.55, 1.55, "shortcut: x unchanged", ha="center", fontsize=10, color=BLUE)
    axis.text(2.7, -0.75, "F(x): the layers learn only the difference", ha="center", fontsize=10)
    axis.text(5.1, -0.75, "F(x) + x", ha="center", fontsize=10)
    return finish(figure, "Residual block: a shortcut around three layers (ResNet50)", note)


def _describe(layer) -> dict:
    """Describe a layer by name, kind, shape, parameters, how many are trainable, and frozen."""
    if isinstance(layer, dict):
        need(layer, f"layer {layer.get('name')}", "name", "kind", "shape", "parameters", "frozen")
        return {"trainable": 0 if layer["frozen"] else layer["parameters"]} | layer
    kind = type(layer).__name__
    if getattr(layer, "layers", None):
        kind = f"network of {len(layer.layers)} layers"
    output = getattr(layer, "output", None)
    parameters = layer.count_params()
    trainable = sum(math.prod(weight.shape) for weight in layer.trainable_weights)
    return {
        "name": layer.name,
        "kind": kind,
        "shape": tuple(output.shape[1:]) if hasattr(output, "shape") else (),
        "parameters": parameters,
        "trainable": trainable,  # fewer than all in batch normalisation, frozen or not
        "frozen": parameters > 0 and trainable == 0,
    }


def _joined(layers: list[dict]) -> list[dict]:
    """Draw each run of layers up to the last frozen one as a single box."""
    frozen = [place for place, layer in enumerate(layers) if layer["frozen"]]
    if not frozen or len(layers) - frozen[-1] > MOST_BOXES:
        raise ValueError(f"{len(layers)} layers cannot be drawn readably; draw a part of the list.")
    base, rest = layers[: frozen[-1] + 1], layers[frozen[-1] + 1 :]
    box = dict(base[-1], name=f"{base[0]['name']} to {base[-1]['name']}")
    box["kind"] = f"{len(base)} layers"
    box["parameters"] = sum(layer["parameters"] for layer in base)
    return [box, *rest]


def _layer_box(axis, column, row, layer):
    fill = next((colour for key, colour in FILL.items() if key in layer["kind"]), "#EEEEEE")
    corner, hatch = (column + 0.03, row), {"facecolor": "white", "edgecolor": GREY, "hatch": "///"}
    axis.add_patch(Rectangle(corner, 0.9, 0.7, facecolor=fill, edgecolor="black", alpha=0.45))
    if layer["frozen"]:
        axis.add_patch(Rectangle(corner, 0.16, 0.7, **hatch))
    middle = column + (0.56 if layer["frozen"] else 0.48)
    frozen = ", frozen" if layer["frozen"] else ""
    shape = " x ".join("?" if side is None else str(side) for side in layer["shape"]) or "?"
    weights = f", {layer['parameters']:,} parameters" if layer["parameters"] else ""
    name = layer["name"] if len(layer["name"]) <= 30 else layer["name"][:29] + "…"
    axis.text(middle, row + 0.17, name, weight="bold", fontsize=10, **MIDDLE)
    axis.text(middle, row + 0.38, f"{layer['kind']}{frozen}", fontsize=SMALL, **MIDDLE)
    axis.text(middle, row + 0.57, f"{shape}{weights}", fontsize=SMALL, **MIDDLE)


def _round_box(axis, place, name, fill, size):
    """Draw a step of a block, as wide as it is high, with its name in it."""
    look = {"boxstyle": "round,pad=0.04", "facecolor": fill, "alpha": 0.75}
    axis.add_patch(FancyBboxPatch((place - 0.3, -0.3), 0.6, 0.6, **look))
    axis.text(place, 0, name, fontsize=size, **MIDDLE)


def _arrow(axis, start, end, bend=0.0, colour="black"):
    look = {"arrowstyle": "-|>", "mutation_scale": 12, "shrinkA": 0, "shrinkB": 0}
    path = f"arc3,rad={bend}"
    axis.add_patch(FancyArrowPatch(start, end, connectionstyle=path, color=colour, **look))


def _turn(axis, column, rows):
    """Lead from the foot of a column to the head of the next one."""
    foot, gap = rows - 0.65, column + 0.965
    axis.plot([column + 0.93, gap, gap], [foot, foot, 0.35], color="black", linewidth=1)
    _arrow(axis, (gap, 0.35), (column + 1.03, 0.35))
