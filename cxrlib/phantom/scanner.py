"""X-ray machines of the phantom: from what the body absorbs to the grey values of a file.

A machine turns optical depth (the line integral of attenuation along each ray) into a picture.
Machines look distinct on purpose: that is how a scanner can give a label away. Every step is an
element-wise IEEE operation, integer arithmetic, or a look-up in a table that was rounded to
integers: a seed means the same bits on every processor, with any number of threads; ``exp``,
``log`` and ordinary image filters would not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

DEPTH_STEPS = 4096  # table entries for each unit of optical depth; 16 units fit in 16 bits
DEPTH_LEVELS = 256  # entries of the display scale for each unit of optical depth
DOSE = 60000.0  # X-ray quanta that reach a pixel through nothing, at 300 x 300 and noise 1

GLYPHS = {  # 5 x 7 letters, one number a row, highest bit left
    "L": (16, 16, 16, 16, 16, 16, 31),
    "R": (30, 17, 17, 30, 20, 18, 17),
    "A": (14, 17, 17, 31, 17, 17, 17),
    "P": (30, 17, 17, 30, 16, 16, 16),
    "o": (0, 14, 31, 31, 31, 14, 0),
    " ": (0, 0, 0, 0, 0, 0, 0),
}


@dataclass(frozen=True)
class Scanner:
    """One machine: how it sees, how it shows, and what file it writes.

    Attributes
    ----------
    format, height, width : str, int, int
        The file as it would leave the machine. Images are squeezed to a square afterwards,
        as the paper does it, so height and width also set how far the thorax is distorted.
    centre, latitude : float
        Optical depth shown as middle grey, and the range (in units of optical depth) that
        the tone curve spreads between `black` and `white` (grey values, 0 to 255).
    sharpness : float
        Above 0 edges are enhanced, below 0 blurred.
    noise, scatter : float
        Quantum noise relative to `DOSE`; scattered share of the radiation.
    portable : bool
        A bedside machine: antero-posterior view, patient often in bed.
    border : str
        Collimation: "none", "black" (left and right), "frame" (white), "skew" (black, tilted).
    marker, corner, plate : str, str, bool
        The lead letters, "left" or "right" upper corner, and whether they stand on a plate.
    print_lines : int
        Lines of small print that are burned into the lower corner.
    """

    format: str
    height: int
    width: int
    centre: float
    latitude: float
    black: int = 0
    white: int = 255
    sharpness: float = 0.0
    noise: float = 1.0
    scatter: float = 0.25
    portable: bool = False
    border: str = "none"
    marker: str = "L"
    corner: str = "right"
    plate: bool = False
    print_lines: int = 0

    @property
    def view(self) -> str:
        """How the rays pass: antero-posterior at the bedside, else postero-anterior."""
        return "AP" if self.portable else "PA"


SCANNERS = {
    "digital": Scanner("PNG", 1024, 1024, 2.7, 3.3, 4, 250, 0.5, marker="oL"),
    "computed": Scanner(
        "JPEG", 1760, 2140, 2.7, 2.6, 0, 255, 0.2, 1.2,
        border="black", marker="R", corner="left", plate=True,
    ),
    "film": Scanner(
        "JPEG", 848, 720, 2.6, 3.8, 24, 228, -0.4, 1.6, 0.35, border="frame", marker="R",
        corner="left",
    ),
    "portable": Scanner(
        "PNG", 1140, 1390, 2.7, 3.5, 10, 240, 0.2, 2.2, 0.4, portable=True,
        marker="AP", corner="left", print_lines=3,
    ),
    "enhanced": Scanner(
        "DICOM", 2544, 2192, 2.5, 3.4, 0, 250, 1.4, 0.8, border="skew", marker="L",
        print_lines=2,
    ),
}  # fmt: skip


@lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make exp(-depth) in 1/65535, the display scale -log(signal), normal quantiles."""
    decay = [round(65535 * math.exp(-step / DEPTH_STEPS)) for step in range(65536)]
    scale = [round(-DEPTH_LEVELS * math.log(max(count, 1) / 65535)) for count in range(65536)]
    normal = NormalDist()
    quantile = [round(1000 * normal.inv_cdf((step + 0.5) / 4096)) for step in range(4096)]
    return (
        np.array(decay, dtype=np.uint16),
        np.array(scale, dtype=np.int16),
        np.array(quantile, dtype=np.float32) / 1000,
    )


def transmission(depth) -> np.ndarray:
    """Share of the X-rays that gets through: I / I0 = exp(-depth) (Beer-Lambert).

    `depth`, optical depth, is the attenuation coefficient (1/cm) times the path (cm), summed over
    tissues; beyond 0 to 16 it is clipped. uint16, in units of 1/65535.
    """
    steps = np.minimum(np.maximum(depth, 0) * DEPTH_STEPS + 0.5, 65535)
    return _tables()[0].take(steps.astype(np.uint16))


@lru_cache(maxsize=32)
def _curve(scanner: Scanner) -> np.ndarray:
    """Tone curve: grey value for each level of the display scale (a logistic, rounded)."""
    levels = range(12 * DEPTH_LEVELS)
    place = [(level / DEPTH_LEVELS - scanner.centre) / scanner.latitude for level in levels]
    span = scanner.white - scanner.black
    grey = [scanner.black + round(span / (1 + math.exp(-4.4 * z))) for z in place]
    return np.array(grey, dtype=np.uint8)


def box_mean(image: np.ndarray, side: int) -> np.ndarray:
    """Mean over a square around each pixel, from exact integer sums; float32."""
    import cv2

    total = cv2.boxFilter(
        image, cv2.CV_32S, (side, side), normalize=False, borderType=cv2.BORDER_REFLECT_101
    )
    return total.astype(np.float32) * np.float32(1 / (side * side))


def expose(depth, coarse, scanner: Scanner, shift: float, rng) -> np.ndarray:
    """Take the picture: uint8, before collimation and markers.

    `depth`, shape (size, size), is the optical depth of everything in the beam; `coarse` the same
    on a coarser grid, without the fine structures: enough for scatter; `shift`, the exposure,
    moves the display window, in units of optical depth.
    """
    _, scale, quantile = _tables()
    size = len(depth)
    stray = box_mean(transmission(coarse), max(3, len(coarse) // 10 | 1)) * scanner.scatter
    signal = transmission(depth).astype(np.float32) + enlarge(stray.astype(np.uint16), size)
    draw = quantile.take(rng.integers(0, 4096, size=(size, size), dtype=np.uint16))
    # Poisson noise of N quanta is close to normal with standard deviation sqrt(N); smaller
    # images have larger pixels, which collect more quanta.
    grain = scanner.noise * math.sqrt(65535 / DOSE) * size / 300
    signal = signal + draw * np.sqrt(signal) * np.float32(grain)
    level = scale.take(np.minimum(np.maximum(signal, 1), 65535).astype(np.uint16))
    shown = level.astype(np.float32)
    if scanner.sharpness:
        near = box_mean(level, max(3, size // 90 | 1))
        shown = shown + (shown - near) * np.float32(scanner.sharpness)
    shown = shown - np.float32(shift * DEPTH_LEVELS)
    return _curve(scanner).take(np.minimum(np.maximum(shown, 0), 12 * DEPTH_LEVELS - 1).astype(int))


def enlarge(field: np.ndarray, size: int) -> np.ndarray:
    """Resize an integer field with OpenCV's bit-exact bilinear interpolation."""
    import cv2

    if field.shape == (size, size):
        return field
    return cv2.resize(field, (size, size), interpolation=cv2.INTER_LINEAR_EXACT)


def _stamp(image, text, corner, plate, rng) -> None:
    """Write lead letters into an upper corner."""
    rows = [[(line >> (4 - bit)) & 1 for bit in range(5)] for line in range(32)]
    letters = [np.pad([rows[line] for line in GLYPHS[letter]], 1) for letter in text]
    height = max(1, len(image) // int(rng.integers(100, 150)))
    glyphs = np.kron(np.hstack(letters), np.ones((height, height), dtype=np.uint8)) > 0
    away = int(rng.integers(2, 8)) * len(image) // 200
    down = int(rng.integers(4, 16)) * len(image) // 200
    left = away if corner == "left" else len(image) - away - glyphs.shape[1]
    place = image[down : down + glyphs.shape[0], left : left + glyphs.shape[1]]
    if plate:
        place[:] = 8
    place[glyphs] = 250


def finish(image: np.ndarray, scanner: Scanner, rng) -> np.ndarray:
    """Add what the machine leaves on its pictures: collimation, markers, small print."""
    size = len(image)
    edges = rng.integers(1, 13, size=4) * size // 200  # up to 6 % of the side
    if scanner.border in ("black", "frame"):
        value = 0 if scanner.border == "black" else 236
        image[:, : edges[0]] = value
        image[:, size - edges[1] :] = value
        if scanner.border == "frame":
            image[: edges[2] // 2] = value
            image[size - edges[3] // 2 :] = value
    elif scanner.border == "skew":
        slope = int(rng.integers(-12, 13))
        column = np.arange(size)[:, None] * slope // 400 + edges[0] // 2
        row = np.arange(size)[None, :] * -slope // 400 + edges[2] // 2
        across, down = np.arange(size)[None, :], np.arange(size)[:, None]
        outside = (across < column) | (across >= column + size - edges[1]) | (down < row)
        image[outside] = 3
    _stamp(image, scanner.marker, scanner.corner, scanner.plate, rng)
    for line in range(scanner.print_lines):
        letters = rng.integers(0, 2, size=(1, size // int(rng.integers(8, 14)))) > 0
        row = size - (2 + 3 * line) * max(1, size // 150) - size // 100
        strip = image[row : row + max(1, size // 150), size // 60 :][:, : letters.shape[1]]
        strip[np.broadcast_to(letters, strip.shape)] = 225
    return image
