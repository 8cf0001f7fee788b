"""Measure how many films made odd on purpose are found, and how many good ones are named.

python benchmarks/odd.py [--films FOLDER] [--sets 10] [--write]

In every set one film in twenty is made odd, in one way, at places drawn by chance. The sets are
phantoms, and draws of 221 films from a FOLDER of real ones with one folder a label.
"""

from __future__ import annotations

import argparse
import time
import warnings

import cv2
import numpy as np
import pandas as pd
from rounds import ROOT, machine, table, write

from cxrlib import sources
from cxrlib.cohort import Cohort
from cxrlib.shortcuts import odd_films

PAGE = ROOT / "docs" / "audit" / "README.md"
SHARE, DRAWN, PATIENTS = 0.05, 221, 116


def slice_like(film, rng):
    """Draw an axial slice: a bright oval body in the dark, with dark lungs; a third cropped."""
    side = len(film)
    y, x = np.mgrid[0:side, 0:side] / side - 0.5 + rng.normal(0, 0.02, (2, 1, 1))
    wide, tall = rng.uniform(0.36, 0.5), rng.uniform(0.26, 0.42)

    def oval(across, down, width, height):
        return ((x - across) / width) ** 2 + ((y - down) / height) ** 2 < 1

    lung_window = rng.random() < 0.5
    body, air = (235, rng.uniform(40, 90)) if lung_window else rng.uniform([110, 3], [180, 25])
    image = np.full((side, side), rng.uniform(0, 10))
    image[oval(0, 0, wide, tall)] = 0.8 * body
    image[oval(0, 0, 0.93 * wide, 0.9 * tall)] = body
    heights = rng.uniform(0.55, 0.72, 2) * tall
    lungs = oval(-wide / 2, 0, 0.36 * wide, heights[0]) | oval(wide / 2, 0, 0.36 * wide, heights[1])
    heart = oval(0.12 * wide, -0.15 * tall, rng.uniform(0.25, 0.38) * wide, 0.4 * tall)
    image[lungs & ~heart] = air
    for _ in range(60):
        vessel = oval(*rng.uniform(-1, 1, 2) * (wide, tall), *[rng.uniform(0.004, 0.012)] * 2)
        image[vessel & lungs] = rng.uniform(0.5, 1) * body
    image[oval(0, 0.62 * tall, 0.1 * wide, 0.14 * tall)] = 255  # a vertebra
    shown = image > 60
    if rng.random() < 1 / 3:
        rows, columns = (np.flatnonzero(shown.any(axis=axis)) for axis in (1, 0))
        image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def photograph(film, rng):
    """Show a film on a screen: askew, in a dark room, with a lamp's glare and stripes."""
    side = len(film)
    corners = np.float32([[0, 0], [1, 0], [1, 1], [0, 1]]) * side
    inwards = np.float32([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * side
    askew = corners + inwards * rng.uniform(0.05, 0.22, (4, 2)).astype(np.float32)
    move = cv2.getPerspectiveTransform(corners, askew.astype(np.float32))
    room = float(rng.uniform(10, 40))
    image = cv2.warpPerspective(film.astype(np.float32), move, (side, side), borderValue=room)
    y, x = np.mgrid[0:side, 0:side] / side
    left, top = rng.uniform(0.2, 0.8, 2)
    glare = np.exp(-((x - left) ** 2 + (y - top) ** 2) / 2 / rng.uniform(0.08, 0.2) ** 2)
    stripes = 1 + 0.08 * np.sin(2 * np.pi * (rng.uniform(20, 50) * x + rng.uniform(20, 50) * y))
    image = (0.85 * image + rng.uniform(80, 160) * glare) * stripes + rng.normal(0, 3, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def framed(film, rng):
    """Leave a quarter to a half of the area to the film, the rest black or white."""
    side = len(film)
    height, width = (rng.uniform(0.5, 0.75, 2) * side).astype(int)
    image = np.full_like(film, rng.choice([0, 255]))
    top, left = rng.integers(0, side - height + 1), rng.integers(0, side - width + 1)
    small = cv2.resize(film, (width, height), interpolation=cv2.INTER_AREA)
    image[top : top + height, left : left + width] = small
    return image


WAYS = {
    "inverted": lambda film, rng: 255 - film,
    "turned by 90°": lambda film, rng: np.rot90(film, rng.choice([1, 3])),
    "CT-like (drawn)": slice_like,
    "upside down": lambda film, rng: np.rot90(film, 2),
    "photograph of a screen": photograph,
    "nearly black": lambda film, rng: (rng.uniform(0.02, 0.1) * film).astype(np.uint8),
    "blank borders": framed,
    "mirrored": lambda film, rng: film[:, ::-1],
}
COPIED = "mirrored copy of another film"  # the only way that looks at two films


def spoil(cohort, way: str, rng) -> tuple[Cohort, np.ndarray]:
    """Make one film in twenty odd; also gives which, as a mask."""
    images = np.array(cohort.images[:])
    chosen, *others = np.split(rng.permutation(len(images)), [round(SHARE * len(images))])
    for row, other in zip(chosen, others[0], strict=False):
        images[row] = images[other][:, ::-1] if way == COPIED else WAYS[way](images[row], rng)
    return Cohort(cohort.table, images, way), np.isin(np.arange(len(images)), chosen)


def measure(load, sets: int) -> tuple[dict, float]:
    """Films named odd by way: (hits, odd, false alarms, good); and the most seconds of a set.

    `load` makes the cohort of a seed.
    """
    counts, longest = {}, 0.0
    for seed in range(sets):
        cohort = load(seed)
        for number, way in enumerate(["nothing", *WAYS, COPIED]):
            made, is_odd = cohort, np.zeros(len(cohort), dtype=bool)
            if number:
                made, is_odd = spoil(cohort, way, np.random.default_rng([seed, number]))
            start = time.process_time()
            named = made.table["image"].isin(odd_films(made)["image"]).to_numpy()
            longest = max(longest, time.process_time() - start)
            found = np.array([(named & is_odd).sum(), is_odd.sum(), (named & ~is_odd).sum()])
            counts[way] = counts.get(way, 0) + np.append(found, (~is_odd).sum())
    return counts, longest


def phantoms(seed: int):
    """Make some 221 films of 116 synthetic patients, whose scanner says nothing of the label."""
    return sources.load("phantom", patients=PATIENTS, confounding=0.0, seed=seed)


def main() -> None:
    """Measure, print, and perhaps write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--films", help="a folder of real films, one folder a label")
    parser.add_argument("--sets", type=int, default=10, help="sets of each kind (10)")
    parser.add_argument("--write", action="store_true", help=f"put it into {PAGE.name}")
    given = parser.parse_args()
    loaders = {"phantoms": phantoms}
    if given.films:
        with warnings.catch_warnings(action="ignore"):  # no patient is named
            real = sources.load("folder", folder=given.films)

        def draw(seed):
            return real.take(np.random.default_rng(seed).permutation(len(real))[:DRAWN])

        loaders["real films"] = draw
    columns, seconds = {}, {}
    for name, load in loaders.items():
        counts, seconds[name] = measure(load, given.sets)
        for way, (hits, odd, wrong, good) in counts.items():
            found = f"{hits} of {odd} ({hits / odd:.0%})" if odd else "–"
            cells = {f"{name}: found": found, f"{name}: good ones named": f"{wrong / good:.1%}"}
            columns.setdefault(way, {}).update(cells)
    found = pd.DataFrame(columns).T
    rows = [[way, *cells] for way, cells in zip(found.index, found.to_numpy(), strict=True)]
    spent = ", ".join(f"{name} {most:.1f} s" for name, most in seconds.items())
    command = "python benchmarks/odd.py" + (" --films FOLDER" if given.films else "")
    text = f"""{table(["made odd, one film in twenty", *found.columns], rows)}

`{command} --write`, {given.sets} sets of each kind (seeds 0 to {given.sets - 1}) of about \
{DRAWN} films of 300 x 300. Processor time of a set, at most: {spent} ({machine()})."""
    print(text)
    if given.write:
        write("odd", text, PAGE)


if __name__ == "__main__":
    main()
