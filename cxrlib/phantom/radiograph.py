"""Synthetic chest radiographs ("phantoms") whose lungs, lesions and scanner are known.

A thorax of some forty measures (:mod:`cxrlib.phantom.thorax`, :mod:`cxrlib.phantom.skeleton`) is
projected: for every pixel the path through each tissue is written down in closed form, multiplied
by the tissue's attenuation coefficient and summed. A finding (:mod:`cxrlib.phantom.findings`)
replaces air by fluid. A machine (:mod:`cxrlib.phantom.scanner`) makes a radiograph of the sum.
Synthetic images: not for clinical use.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib.cohort import SIDE, Cohort
from cxrlib.files import cache_folder, whole_file
from cxrlib.parallel import disk, share
from cxrlib.phantom import thorax
from cxrlib.phantom.findings import LABELS, lesion_depth
from cxrlib.phantom.scanner import DEPTH_STEPS, SCANNERS, expose, finish
from cxrlib.phantom.skeleton import bone_path, rib_path
from cxrlib.phantom.thorax import BONE, LUNG, PATIENT, POSE, TISSUE, chord, unit

SMALLEST = 32  # pixels: below this no lesion can be told from a rib
LARGE = 10**9  # bytes of images and masks above which a cohort's images lie on disk
MASKS = ("lungs", "lesions")
SMALL, KEPT = 96, 1000  # pixels up to which films are kept once drawn, and how many (30 MB)
MANY = 50  # larger films from which they are kept in the cache folder: more than a second


class PhantomError(ValueError):
    """A phantom that cannot be made as asked."""


@dataclass(frozen=True)
class Phantom:
    """One synthetic radiograph and the truth about it: images of shape (size, size).

    `image` (uint8); `lungs` (bool), the lung fields that a radiologist would outline: above the
    diaphragm, without heart and mediastinum; `lesions` (bool), where an opacity adds attenuation:
    part of `lungs`, empty when healthy; `anatomy`, the measures drawn from `PATIENT` and `POSE`.
    """

    image: np.ndarray
    lungs: np.ndarray
    lesions: np.ndarray
    label: str
    scanner: str
    view: str
    anatomy: dict = field(repr=False)


def _project(label, severity, scanner, size, a, rng, disease):
    """Optical depth on the fine and the coarse grid, and the two masks."""
    x, y = thorax.coordinates((size + 1) // 2, scanner, a)  # smooth things: coarsely, enlarged
    x = x - a["turn"] * unit(1.2 - np.abs(x) / a["cage"])
    cloud, grain = thorax.clouds(len(y), rng), thorax.clouds(size, rng)
    body = thorax.body_path(x, y, a)
    air, lungs = thorax.air_path(x, y, a)
    air = np.minimum(air, np.maximum(body - 4, 0))
    dx, dy = (x - 6.2) / 3.2, (y - a["dome"] - a["breath"] - a["dome_left"] - 2.6) / 1.5
    gas = max(a["gas"], 0) * 6 * chord(dx * dx + dy * dy)
    windpipe = (x - 0.1) * (x - 0.1) / 0.85
    gas = gas + 2.4 * chord(windpipe) * unit(-3.4 - y) * unit((y + 19) / 2)
    added = lesion_depth(label, severity, x, y, air, cloud, a, disease)
    covered = np.minimum(body / 6, 1)

    soft = TISSUE * np.maximum(body - air - gas, 0) + LUNG * air + added
    soft = soft + (BONE - TISSUE) * covered * bone_path(x, y, a)
    soft = soft + np.minimum(air * 0.12, 1) * thorax.vessel_path(x, y, a) * (TISSUE * a["vessels"])
    soft = soft + covered * cloud * 0.05
    if scanner.portable:
        soft = soft + thorax.cable_depth(x, y, rng)
    depth = thorax.refine(soft, DEPTH_STEPS, size)
    depth = depth + (BONE - TISSUE) * 1.7 * rib_path(x, y, size, a, rng) * (depth > 0.4)
    depth = depth + grain * 0.035 * (depth > 0.4)
    inside = thorax.refine(lungs, 40, size, np.uint8) > 1.5
    ill = inside & (thorax.refine(added, DEPTH_STEPS, size) > 0.05)
    return depth, soft, inside, ill


def _anatomy(seed, image, portable, rng):
    """Draw a patient's measures and the pose of one image."""
    a = thorax.draw(PATIENT, rng)
    a |= {"tree_left": int(rng.integers(0, 12)), "tree_right": int(rng.integers(0, 12))}
    a |= thorax.draw(POSE, np.random.default_rng([2, *seed, image]))
    if portable:  # lying patients breathe in less, and the heart is nearer to the tube
        a["breath"] -= 1.6
        a["heart"] *= 1.14
        a["clavicle"] -= 1.0
        a["scapula"] -= 2.0
        a["tilt"] *= 1.6
    return a


def _check(label, scanner, size):
    if label not in LABELS:
        raise PhantomError(f"There is no finding {label!r}: choose from {list(LABELS)}.")
    if scanner not in SCANNERS:
        raise PhantomError(f"There is no scanner {scanner!r}: choose from {list(SCANNERS)}.")
    if not SMALLEST <= size <= 2048 or size != int(size):
        raise PhantomError(f"Phantoms are {SMALLEST} to 2048 whole pixels wide, not {size}.")


def render(label="healthy", scanner="digital", seed=0, size=SIDE, severity=0.7, image=0) -> Phantom:
    """Make one radiograph; PhantomError if a parameter is unknown or out of range.

    Parameters
    ----------
    label, scanner : str
        One of `LABELS`, one of `SCANNERS`.
    seed : int or sequence of int
        The patient: the same seed is the same body with the same disease, and another label
        is the same body with another disease.
    size : int
        Side of the square image in pixels.
    severity : float
        From above 0 (subtle) to 1 (dense): how much air a finding replaces.
    image : int
        Which of the patient's images: pose, inspiration, exposure and noise differ.
    """
    _check(label, scanner, size)
    if not 0 < severity <= 1:
        raise PhantomError(f"severity is above 0 and at most 1, not {severity}.")
    seed = [int(part) for part in np.atleast_1d(seed)]
    if min(seed) < 0 or image < 0:
        raise PhantomError(f"seed and image are 0 or above, not {seed} and {image}.")
    machine = SCANNERS[scanner]
    body = np.random.default_rng([1, *seed])
    a = _anatomy(seed, image, machine.portable, body)
    # With a generator of its own, a disease changes nothing else of the patient.
    disease, dense = np.random.default_rng([6, *seed]), severity * a["severity"]
    depth, soft, lungs, lesions = _project(label, dense, machine, size, a, body, disease)
    # Machines set the exposure from the patient's thickness, more or less well.
    shift = a["exposure"] + 0.16 * (a["thick"] - 23)
    chance = np.random.default_rng([3, *seed, image])
    picture = finish(expose(depth, soft, machine, shift, chance), machine, chance)
    return Phantom(picture, lungs, lesions, label, scanner, machine.view, a)


def _plan(index, labels, confounding, scanners, seed):
    """Choose label and scanner of a patient, whoever else there is."""
    block = np.random.default_rng([4, seed, index // len(labels)])
    number = int(block.permutation(len(labels))[index % len(labels)])
    chance = np.random.default_rng([5, seed, index])
    anyone = int(chance.integers(0, len(scanners)))
    told = float(chance.random()) < confounding
    severity = 0.45 + 0.55 * float(chance.random())
    share = float(chance.random())  # sets how many images the patient has
    return labels[number], scanners[number if told else anyone], severity, share


def _check_cohort(patients, images_per_patient, labels, confounding, scanners, size, seed):
    for label in labels:
        _check(label, "digital", size)
    for scanner in scanners:
        _check(LABELS[0], scanner, size)
    if not labels or len(set(labels)) < len(labels) or len(set(scanners)) < len(scanners):
        raise PhantomError(f"Name each label and scanner once, not {labels} and {scanners}.")
    if not 0 <= confounding <= 1:
        raise PhantomError(f"confounding is a number from 0 to 1, not {confounding}.")
    if not scanners or (confounding > 0 and len(scanners) < len(labels)):
        raise PhantomError(
            f"{len(scanners)} scanner(s) cannot give away {len(labels)} labels: "
            "name a scanner for each label, or set confounding to 0."
        )
    if patients < len(labels):
        raise PhantomError(f"{patients} patients are too few for {len(labels)} labels.")
    few_most = images_per_patient
    if np.shape(few_most) != (2,) or not 1 <= few_most[0] <= few_most[1]:
        raise PhantomError(f"images_per_patient is (fewest, most) from 1, not {few_most}.")
    if seed < 0:
        raise PhantomError(f"seed is 0 or above, not {seed}.")


def make_cohort(
    patients=90,
    images_per_patient=(1, 3),
    labels=LABELS,
    confounding=0.0,
    scanners=None,
    size=SIDE,
    seed=0,
    progress=False,
) -> Cohort:
    """Make a cohort of synthetic patients, each with one finding, one scanner, some images.

    A patient depends on `seed` and the patient's number alone, not on how many there are. The
    cohort has the further columns scanner, format, height, width (the file that the scanner would
    have written) and severity, and the masks ``lungs`` and ``lesions``. PhantomError if a
    parameter is unknown or out of range.

    Parameters
    ----------
    patients : int
        Labels are balanced over patients, in a shuffled order.
    images_per_patient : (int, int)
        Fewest and most; all numbers between are equally likely.
    labels, scanners : sequence of str
        Some of `LABELS`; some of `SCANNERS`, all of them by default.
    confounding : float
        How far the scanner gives the label away. 0: the scanner says nothing about the label.
        1: label number k is always seen by scanner number k. Between: that share of patients.
        The patients' bodies are the same at every setting.
    size : int
        Side of the images in pixels.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Cohort
        Above `LARGE` bytes, its images are written to the cache folder as they are made, once, and
        read from there; a killed run goes on where it stopped (:func:`cxrlib.parallel.disk.fill`,
        whose OSError says that the disk is full). Its masks are then rendered when they are read.
    """
    labels, scanners = list(labels), list(SCANNERS if scanners is None else scanners)
    _check_cohort(patients, images_per_patient, labels, confounding, scanners, size, seed)
    fewest, most = images_per_patient
    rows, plans = [], []
    for index in range(patients):
        label, scanner, severity, many = _plan(index, labels, confounding, scanners, seed)
        machine = SCANNERS[scanner]
        for image in range(fewest + int(many * (most - fewest + 1))):
            plans.append((label, scanner, (seed, index), size, severity, image))
            row = {
                "image": f"phantom/s{seed}/p{index + 1:04}-{image + 1}",
                "label": label,
                "patient": f"phantom-s{seed}-p{index + 1:04}",
                "source": "phantom",
                "view": machine.view,
                "licence": "CC0-1.0 (synthetic)",
                "scanner": scanner,
                "format": machine.format,
                "height": machine.height,
                "width": machine.width,
                "severity": 0.0 if label == "healthy" else severity,
            }
            rows.append(row)
    name = f"phantom (synthetic, confounding {confounding:g})"
    pictures = _drawn_once if size > SMALL and len(plans) >= MANY else _in_memory
    pictures = _on_disk if 3 * len(plans) * size**2 > LARGE else pictures
    return Cohort(pd.DataFrame(rows), *pictures(plans, size, progress, name))


def _drawn_once(plans, size, progress, name):
    """Draw films, or read them from the cache folder: several lessons want the same."""
    try:
        with np.load(_place(plans).with_suffix(".npz"), allow_pickle=False) as kept:
            masks = np.unpackbits(kept["masks"], axis=-1, count=size).astype(bool)
            return kept["images"], name, dict(zip(MASKS, masks, strict=True))
    except Exception:  # NumPy and zipfile raise many kinds; what is damaged is drawn again
        images, _, masks = _in_memory(plans, size, progress, name)
    # A full disk, or none to write on, costs only time
    with suppress(OSError), whole_file(_place(plans).with_suffix(".npz")) as partial:
        packed = np.packbits(np.stack(list(masks.values())), axis=-1)
        np.savez(partial, images=images, masks=packed)
    return images, name, masks


def _in_memory(plans, size, progress, name):
    from tqdm.auto import tqdm

    images = np.empty((len(plans), size, size), dtype=np.uint8)
    lungs, lesions = np.empty_like(images, dtype=bool), np.empty_like(images, dtype=bool)
    bar = tqdm(total=len(plans), desc="phantoms", unit="image", disable=not progress)
    make = _kept if size <= SMALL else render

    def draw(number):
        phantom = make(*plans[number])
        images[number], lungs[number] = phantom.image, phantom.lungs
        lesions[number] = phantom.lesions
        bar.update()

    with bar:
        share(draw, len(plans))
    return images, name, {"lungs": lungs, "lesions": lesions}


@lru_cache(KEPT)
def _kept(*plan) -> Phantom:
    """Draw a film, or give it again: cohorts of other confounding share most of theirs."""
    return render(*plan)


def _place(plans) -> Path:
    """Name a place in the cache folder by all that films are made from, this code included."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return cache_folder("phantoms") / hashlib.sha256(code + repr(plans).encode()).hexdigest()[:20]


def _on_disk(plans, size, progress, name):
    """Keep many images in the cache folder, and draw their masks when they are asked for."""
    place = _place(plans)
    images, *_ = disk.fill(place, plans, size, draw_block, None, progress, "making")
    return images, name, {mask: Drawn(plans, size, mask) for mask in MASKS}


def draw_block(plans, size: int, threads: int = 1) -> list:
    """Render images for :func:`cxrlib.parallel.disk.fill`; `plans` are arguments of `render`."""
    found = [None] * len(plans)

    def draw(number):
        found[number] = (1, size, size), render(*plans[number]).image

    share(draw, len(plans), threads)
    return found


class Drawn:
    """A mask of many phantoms, rendered again when read. Behaves as a read-only array."""

    def __init__(self, plans: list, size: int, mask: str):
        self.plans, self.mask = plans, mask
        self.shape, self.dtype = (len(plans), size, size), np.dtype(bool)

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, key) -> np.ndarray:
        numbers = np.arange(len(self))[key]
        found = np.empty((numbers.size, *self.shape[1:]), self.dtype)

        def draw(place):
            found[place] = getattr(render(*self.plans[numbers.flat[place]]), self.mask)

        share(draw, numbers.size)
        return found.reshape(*numbers.shape, *self.shape[1:])
