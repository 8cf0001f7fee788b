"""The phantom's bones: centimetres of compact bone along each ray.

Bones look as they do because they are tubes: a dense rim around softer marrow. See
:mod:`cxrlib.phantom.thorax` for the coordinates and the measures ``a``.
"""

from __future__ import annotations

import numpy as np

from cxrlib.phantom.scanner import enlarge
from cxrlib.phantom.thorax import cage_width, chord, draw, refine, unit


def _tube(distance, half):
    """Path through the bone of a tube: dense rim, softer marrow (cm of compact bone)."""
    near = distance / half
    inside = near * 1.3
    return half * (chord(near * near) - 0.62 * chord(inside * inside))


def _rib_profile(first, count, a, rng):
    """Path through the ribs as a table over the straightened height, 64 entries a centimetre."""
    height = (np.arange(48 * 64) / 64 - 24).astype(np.float32)
    profile = np.zeros_like(height)
    for rib in range(count):
        jitter = draw({"at": (-0.2, 0.2), "half": (0.85, 1.12), "bone": (0.8, 1.15)}, rng)
        at = first + rib * a["rib_gap"] * (0.9 + 0.018 * rib) + jitter["at"]
        half = a["rib_half"] * jitter["half"] * (0.85 + 0.02 * rib)
        window = slice(int((at + 23) * 64), int((at + 25) * 64))
        tube = _tube(height[window] - np.float32(at), half) * jitter["bone"]
        profile[window] = np.maximum(profile[window], tube)
    return profile * np.float32(a["rib_bone"])


def rib_path(x, y, size, a, rng):
    """Path through compact bone of the ribs (cm), on the fine grid.

    Bending a rib straight makes all ribs of a side horizontal stripes, so one table over the
    straightened height holds them all. That height is smooth and can be enlarged.
    """
    side = np.abs(x)
    out = side / (cage_width(y, a) + 0.5)
    square = out * out
    back = y - a["rib_drop"] * (0.18 * out + 0.82 * square * square)
    front = y - a["rib_drop"] - 8 * (1 - out) + 2.5 * (1 - out) * (1 - out)
    fade = (
        unit((1.02 - out) * 20)
        * (1 + 1.4 * square * square * square)
        * unit((y + 15) / 3)
        * unit((a["dome"] + 7 - y) / 4)
    )
    behind = fade * unit((side - 1.6) / 1.2)
    before = fade * unit((out - 0.38) * 5) * 0.8
    total = 0
    for height, weight, count in ((back, behind, 11), (front, before, 8)):
        steps = np.minimum(np.maximum((height + 24) * 64, 0), 48 * 64 - 1).astype(np.uint16)
        path = _rib_profile(a["apex"] - 0.4, count, a, rng).take(enlarge(steps, size))
        total = total + path * refine(weight, 100, size, np.uint8)
    return total


def bone_path(x, y, a):
    """Path through compact bone (cm) of spine, clavicles, shoulder blades and upper arms."""
    side = np.abs(x)
    bow = unit((y + 12) / 24)
    axis = x - a["bend"] * bow * (1 - bow) * 4
    step = (y + 40) / (a["rib_gap"] * 0.98)
    step = np.abs(step - np.rint(step))  # 0.5 in a disc
    wide = axis * axis / (4.4 - 2.2 * unit((-11 - y) / 4))
    column = chord(wide) * (1 - 0.25 * unit((step - 0.36) * 9)) * 1.2
    pedicle = (np.abs(axis) - 1.2) * (np.abs(axis) - 1.2) * 4 + (step - 0.1) * (step - 0.1) * 30
    process = axis * axis * 8 + (step - 0.2) * (step - 0.2) * 14
    column = column + 0.5 * chord(pedicle) + 0.6 * chord(process)

    length = (side - 1.2) / (a["cage"] + 1)
    bend = length * (1 - length) * (1 - 2 * length) * 5
    beam = y - a["clavicle"] + a["clavicle_rise"] * length - bend
    clavicle = _tube(beam, 0.62 + 0.25 * np.maximum(0.3 - length, 0))
    clavicle = clavicle * unit(length * 12) * unit((1.05 - length) * 8)

    inner = side - a["scapula"] + 0.1 * y
    outer = 16.2 - 0.36 * (y + 10) - side
    plate = unit(inner * 3) * unit(outer * 3) * unit((y + 10.5) * 1.5)
    rim = chord((inner - 0.3) * (inner - 0.3) * 9) + 1.6 * chord((outer - 0.4) * (outer - 0.4) * 4)
    dx, dy = side - a["cage"] - 3.6, y + 9.2
    head = chord((dx * dx + dy * dy) / 6.3) * 1.6
    shaft = _tube(side - a["cage"] - 4.4 - 0.3 * (y + 9.2), 1.25) * unit((y + 9) / 2) * 1.6
    return column + 2.8 * clavicle + plate * (0.3 + 0.4 * rim) + np.maximum(head, shaft)
