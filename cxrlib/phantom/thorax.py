"""The phantom's soft tissues: paths in centimetres along each ray, in closed form.

Functions of x, y take body coordinates (cm, two float32 arrays, or a row and a column) and the
measures ``a`` of one patient in one pose. Balls and tubes are the whole vocabulary, so that only
operations are needed that IEEE 754 defines exactly (no sine, no exponential).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cxrlib.cohort import SIDE
from cxrlib.phantom.scanner import enlarge

# Linear attenuation in 1/cm, approximate, at an effective energy near 70 keV: NIST XCOM
# (doi:10.18434/T48G6X) gives 0.19 for water; inflated lung has a quarter of its density.
TISSUE, BONE, LUNG = 0.20, 0.50, 0.05

# What differs between patients: (lowest, highest), centimetres where nothing else is said.
# The origin lies on the spine, at mid-thorax; x grows to the image's right, y downwards.
PATIENT = {
    "cage": (12.4, 14.4),  # half the width of the lungs
    "apex": (-13.0, -11.4),
    "dome": (7.4, 10.4),  # top of the right diaphragm
    "dome_left": (0.3, 1.6),  # how much lower the left one stands
    "angle": (2.6, 4.2),  # depth of the costophrenic angle below the dome
    "thick": (19.0, 27.0),  # chest from front to back
    "fat": (1.8, 5.5),  # soft tissue outside the ribs
    "taper": (-0.08, 0.16),  # of the trunk, cm for each cm down
    "air": (0.58, 0.68),  # share of the thickness that is lung
    "heart": (0.85, 1.12),  # size, 1 is usual
    "heart_tilt": (0.35, 0.75),
    "knob": (1.3, 2.0),  # aortic knob, radius
    "mediastinum": (2.0, 2.9),  # half width
    "rib_gap": (2.15, 2.65),
    "rib_half": (0.48, 0.66),  # half width of a rib
    "rib_bone": (0.55, 1.0),  # how well mineralised
    "rib_drop": (4.5, 7.5),  # fall of a posterior rib towards the side
    "clavicle": (-9.8, -8.2),  # height at the breastbone
    "clavicle_rise": (1.2, 3.4),
    "shoulder": (-18.0, -16.0),
    "scapula": (10.2, 13.2),  # inner border
    "bend": (-0.9, 0.9),  # scoliosis
    "gas": (-0.7, 1.0),  # stomach bubble, none below 0
    "breast": (0.0, 1.0),  # women only
    "woman": (0.0, 1.0),  # above 0.5
    "vessels": (1.6, 3.0),  # calibre, 1 is the drawn tree's
    "width": (0.66, 0.73),  # share of the image that the lungs take
    "top": (0.125, 0.155),  # share of the image above the lungs
}
# What differs between two images of one patient.
POSE = {
    "across": (-0.5, 0.5),
    "down": (-0.7, 0.7),
    "tilt": (-0.035, 0.035),  # radians
    "turn": (-0.7, 0.7),  # rotation of the chest: how far the middle moves
    "breath": (-0.9, 0.7),  # height of the diaphragm
    "exposure": (-0.35, 0.35),  # units of optical depth
    "severity": (0.9, 1.1),
}


def draw(ranges, rng) -> dict[str, float]:
    """Draw each measure uniformly from its (lowest, highest)."""
    return {name: low + (high - low) * float(rng.random()) for name, (low, high) in ranges.items()}


def unit(values):
    """Clip to 0..1: a ramp."""
    ramp = np.maximum(values, 0)
    return np.minimum(ramp, 1, out=ramp)


def chord(square):
    """Path through a unit ball (half of it) at squared distance `square` from its centre."""
    rest = 1 - square
    np.maximum(rest, 0, out=rest)
    return np.sqrt(rest, out=rest)


@lru_cache(maxsize=8)
def _frame(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres from -1 to 1: a row and a column."""
    centres = ((2 * np.arange(size) + 1) / size - 1).astype(np.float32)
    return centres[None, :], centres[:, None]


def coordinates(size, scanner, a):
    """Body coordinates (cm) of the pixel centres, upright and centred on the spine."""
    across, down = _frame(size)
    shape = scanner.height / scanner.width
    # The radiographer frames the whole lungs: they leave a margin of a tenth on every side.
    length = a["dome"] + a["breath"] + a["dome_left"] + a["angle"] + 1 - a["apex"]
    half = max(a["cage"] / a["width"], length / (2 * 0.69 * shape))  # cm, half the width
    tall = half * shape
    middle = a["apex"] + tall * (1 - 2 * a["top"])
    across, down = across * half - a["across"], down * tall + middle - a["down"]
    tilt = a["tilt"]
    return across + down * tilt, down - across * tilt


@lru_cache(maxsize=1)
def _texture() -> np.ndarray:
    """Cloudy noise of many scales, shape (1024, 1024), int16, from -2343 to 2343."""
    rng = np.random.default_rng(20200327)
    total = np.zeros((1024, 1024), dtype=np.int32)
    for cells, weight in ((16, 24), (32, 20), (64, 15), (128, 10), (256, 6), (512, 4)):
        noise = rng.integers(-1000, 1001, size=(cells, cells)).astype(np.int16)
        total += enlarge(noise, 1024).astype(np.int32) * weight
    return (total // 24).astype(np.int16)


def clouds(size, rng):
    """Draw a piece of the cloudy noise, standard deviation about 0.6, at the size given."""
    row, column = rng.integers(0, 1024 - SIDE, size=2)
    piece = _texture()[row : row + SIDE, column : column + SIDE]
    return enlarge(np.ascontiguousarray(piece), size) * np.float32(0.001)


def refine(values, scale, size, kind=np.uint16):
    """Enlarge a coarse field of numbers from 0 upwards, rounded to 1 / scale, kept as `kind`."""
    steps = np.minimum(np.maximum(values * scale + 0.5, 0), np.iinfo(kind).max).astype(kind)
    return enlarge(steps, size) * np.float32(1 / scale)


@lru_cache(maxsize=1)
def _vessel_trees() -> np.ndarray:
    """Branching vessels around a hilum: path (cm) by 12 trees, 256 distances, 1024 directions."""
    rng = np.random.default_rng(1895)
    trees = np.zeros((12, 256, 1024), dtype=np.float32)
    for tree in trees:
        angle = (np.arange(11) * 93 + rng.integers(0, 93, size=11)).astype(np.float32)
        radius = np.float32(0.16) + rng.random(11, dtype=np.float32) * np.float32(0.16)
        drift = rng.random(11, dtype=np.float32) - np.float32(0.5)
        drawn = []
        for row in range(12, 256):
            if row % 34 == 0 and len(angle) < 200:  # every vessel forks
                split = (rng.random(len(angle), dtype=np.float32) * 2 + 1) / row * 50
                drift = np.concatenate([drift + split, drift - split])
                angle = np.concatenate([angle, angle])
                radius = np.concatenate([radius, radius * np.float32(0.8)]) * np.float32(0.78)
            drift = drift * np.float32(0.95) + (rng.random(len(drift), dtype=np.float32) - 0.5) / 3
            angle = angle + drift
            drawn.append((np.full(len(angle), row), angle, radius))
        row, angle, radius = (np.concatenate(part)[:, None] for part in zip(*drawn, strict=True))
        half = radius * (163 / (row * 14 / 256)).astype(np.float32)  # in columns
        columns = np.rint(angle).astype(int) + np.arange(-14, 15)
        away = (columns - angle).astype(np.float32) / half
        inside = np.abs(away) < 1
        path = (2 * radius * chord(away * away))[inside]
        np.maximum.at(tree.reshape(-1), (row * 1024 + columns % 1024)[inside], path)
    return trees


def cage_width(y, a):
    """Half the width of the lungs at height y: an ellipse with a blunt top."""
    up = np.minimum((y - 6.0) / (6.0 - a["apex"]), 0)
    square = np.minimum(up * up, 0.996)
    blunt = np.sqrt(np.sqrt(1 - square * square))
    return a["cage"] * (0.72 * np.sqrt(1 - square) + 0.28 * blunt)


def body_path(x, y, a):
    """Path through the body (cm), from front to back: trunk, shoulders, neck, arms, breasts."""
    side = np.abs(x)
    wall = a["cage"] + a["fat"] + a["taper"] * y + 0.8 * unit((-2 - y) / 6)
    trunk = a["thick"] * chord((x / wall) * (x / wall)) * unit((y + 17) / 7)
    slope = a["shoulder"] + np.maximum(side - 5, 0) * 0.34
    slope = slope + np.maximum(side - 15, 0) * np.maximum(side - 15, 0) * 0.10
    shoulder = 15 * np.sqrt(unit((y - slope) / 4)) * unit((1 - y) / 9)
    spread = unit((y + 19) / 7)
    neck = 12 * chord(x * x / (30 + 30 * spread * spread)) * unit((-8 - y) / 3)
    beside = (side - 18.5 - 0.3 * (y + 9)) / 4.2
    arm = 8.4 * chord(beside * beside) * unit((y + 12) / 4)
    body = np.maximum(np.maximum(trunk, shoulder), np.maximum(neck, arm))
    if a["woman"] > 0.5:
        over, below = (side - 7.6) / (4.5 + 1.5 * a["breast"]), (y - 4.5 - 2 * a["breast"])
        below = below / np.where(below > 0, 3.2, 6.5).astype(np.float32)
        body = body + (1 + 2.5 * a["breast"]) * chord(over * over + below * below)
    return body


def _heart(x, y, a):
    """Path through heart and great vessels (cm) where they lie between the lungs' air."""
    size, floor = a["heart"], a["dome"] + a["breath"]
    dx, dy = (x - 2.9 * size) / size, (y - floor + 3.0 * size) / size
    along, off = dx + dy * a["heart_tilt"], dy - dx * a["heart_tilt"]
    stretch = 1 + a["heart_tilt"] * a["heart_tilt"]
    left = 9.5 * chord((along * along / 45 + off * off / 20) / stretch)
    dx, dy = (x + 0.5 * size) / (3.6 * size), (y - floor + 4.2 * size) / (5.2 * size)
    right = 8.0 * chord(dx * dx + dy * dy)
    dx, dy = (x - 2.2) / a["knob"], (y + 5.6) / a["knob"]
    knob = 3.5 * chord(dx * dx + dy * dy)
    dx, dy = (x - 2.6) / 2.3, (y + 2.0) / 2.6
    trunk = 3.5 * chord(dx * dx + dy * dy)
    return np.maximum(np.maximum(left, right), np.maximum(knob, trunk)) * size


def air_path(x, y, a):
    """Path through aerated lung (cm), and the same above the diaphragm only, without heart."""
    side, left = np.abs(x), x > 0
    cage = cage_width(y, a)
    top = unit((a["apex"] + 3.5 - y) / 3.5)
    inner = a["mediastinum"] + 1.5 * top * top * top
    hull_top = unit((y - a["apex"]) / 1.5 + 0.2)
    across = np.maximum(cage - inner, 0.1)
    place = (2 * side - inner - cage) / across
    hull = a["thick"] * a["air"] * chord(place * place) * unit((cage - inner) * 2)
    hull = hull * (0.35 + 0.65 * unit((y - a["apex"]) / 11)) * np.sqrt(hull_top)
    floor = a["dome"] + a["breath"] + np.where(left, a["dome_left"], 0).astype(np.float32)
    bow = (side - 0.42 * a["cage"]) / a["cage"]
    outer = np.maximum(bow, 0) / 0.58
    floor = floor + a["angle"] * outer * outer * (0.5 + 0.5 * outer) + 3 * bow * bow
    above = unit((floor - y) / 0.5 + 0.5)
    behind = unit((floor + 4 - y) / 8) * 0.28  # the recess behind the dome
    heart = _heart(x, y, a)
    lungs = np.maximum(hull * (above * (1 - behind) + behind) - heart, 0)
    field = hull * above - 4 * heart
    return lungs, field


def vessel_path(x, y, a):
    """Path through pulmonary vessels (cm), fading from the hila to the periphery."""
    side, left = np.abs(x), x > 0
    dx, dy = side - 3.4, y + np.where(left, 2.2, 1.4).astype(np.float32)
    distance = np.sqrt(dx * dx + dy * dy)
    ahead = dy / (np.abs(dx) + np.abs(dy) + 1e-6)  # an angle without arctangent
    turn = np.where(dx > 0, ahead, 2 - ahead) + 1  # from 0 to 4, once around
    row = np.minimum(distance * (256 / 14), 255).astype(np.int32)
    column = (turn * 256).astype(np.int32) & 1023
    tree = np.where(left, a["tree_left"], a["tree_right"]).astype(np.int32)
    path = _vessel_trees().reshape(-1).take((tree * 256 + row) * 1024 + column)
    return path * unit(1.2 - distance / 16) + 0.7 * unit(1 - distance * distance / 7)


def cable_depth(x, y, rng):
    """Optical depth of the leads and electrodes that bedside patients wear."""
    total = np.zeros_like(x)
    for _ in range(int(rng.integers(0, 4))):
        u, v, slope, bend, end = (float(value) - 0.5 for value in rng.random(5))
        along = x - 16 * u
        away = y - 14 * v - 1.6 * slope * along - 0.16 * bend * along * along
        thin = 0.13 * np.sqrt(1 + 2.5 * slope * slope + 0.1 * bend * bend * along * along)
        total = total + 0.45 * unit(1.4 - np.abs(away) / thin) * (along * (end + 0.01) > 0)
        disc = along * along + (y - 14 * v) * (y - 14 * v)
        total = total + 0.35 * unit((0.9 - disc) * 3) * (0.6 + unit((0.16 - disc) * 12))
    return total
