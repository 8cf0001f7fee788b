"""Measure which changed copies of a film the search for near-duplicates finds.

python docs/audit/copies.py                   (some three minutes on two cores; prints)
python docs/audit/copies.py --table FILMS.csv --images FOLDER   (also films of one's own)
python docs/audit/copies.py --write           (also into README.md, beside this file)

Thirty films, each of another patient, get a changed copy under another name and patient; the
cohort with these copies is searched, for each kind of change anew.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm
from written import write

from cxrlib import shortcuts, sources
from cxrlib.augment import augment
from cxrlib.cohort import Cohort

MARK = "<!-- copies -->"
COPIES, PATIENTS, SIZES = 30, 500, (300, 150)


def frame(share: float, shrink: bool):
    """Make a change: a black frame, drawn over the film or put around it."""

    def change(film, rng):
        wide = round(len(film) * share)
        inner = film if shrink else film[wide:-wide, wide:-wide]
        edges = [wide] * 4
        framed = cv2.copyMakeBorder(inner, *edges, cv2.BORDER_CONSTANT, value=0)
        return cv2.resize(framed, film.shape[::-1], interpolation=cv2.INTER_AREA)

    return change


def stamp(film, rng):
    """Print a white field with letters on it, a third of the width and of the height."""
    film, side = film.copy(), len(film) // 3
    top, left = rng.integers(0, len(film) - side, 2)
    film[top : top + side, left : left + side] = 255
    place = int(left), int(top + side // 2)
    cv2.putText(film, "COPY", place, cv2.FONT_HERSHEY_SIMPLEX, side / 80, 0, 2)
    return film


def jpeg(film, rng):
    """Compress with JPEG, quality 10."""
    packed = cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, 10])[1]
    return cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE)


def brighten(film, rng):
    """Add brightness and contrast; the whitest parts are cut off."""
    return np.clip(film * 1.3 + 20, 0, 255).astype(np.uint8)


CHANGES = {
    "black frame of 3 %, drawn over": frame(0.03, shrink=False),
    "black frame of 3 %, put around": frame(0.03, shrink=True),
    "black frame of 8 %, drawn over": frame(0.08, shrink=False),
    "black frame of 8 %, put around": frame(0.08, shrink=True),
    "inverted": lambda film, rng: 255 - film,
    "mirrored": lambda film, rng: cv2.flip(film, 1),
    "CLAHE (clip limit 4)": lambda film, rng: cv2.createCLAHE(4.0, (8, 8)).apply(film),
    "stamp on a ninth of the film": stamp,
    "brighter (1.3 x + 20)": brighten,
    "JPEG, quality 10": jpeg,
    "the course's augmentation": augment,
}


def planted(cohort, change, seed: int) -> Cohort:
    """Add changed copies of films of 30 patients, under other names and patients."""
    rng = np.random.default_rng(seed)
    first = np.flatnonzero(~cohort.table["patient"].duplicated())
    chosen = np.sort(rng.permutation(first)[:COPIES])
    copies = np.stack([change(np.ascontiguousarray(cohort.images[n]), rng) for n in chosen])
    rows = cohort.table.iloc[chosen].assign(origin=pd.NA)
    rows["image"] = [f"copy of {name}" for name in rows["image"]]
    rows["patient"] = [f"somebody else {n}" for n in range(len(rows))]
    table = pd.concat([cohort.table, rows], ignore_index=True)
    return Cohort(table, np.concatenate([cohort.images[:], copies]), cohort.name)


def measure(cohort, seed: int) -> pd.DataFrame:
    """Count the copies found of each kind, and the pairs of two patients that are no copies."""
    rows, patient = [], cohort.table.set_index("image")["patient"]
    for name, change in tqdm(CHANGES.items(), desc=cohort.name):
        pairs = shortcuts.near_duplicates(planted(cohort, change, seed))
        right = "copy of " + pairs["image"] == pairs["other"]
        right |= "copy of " + pairs["other"] == pairs["image"]
        ends = (pairs[end].str.removeprefix("copy of ").map(patient) for end in ("image", "other"))
        strangers = int((next(ends).to_numpy() != next(ends).to_numpy()).sum())
        rows.append((name, int(right.sum()), strangers))
    return pd.DataFrame(rows, columns=["change", "found", "strangers"]).set_index("change")


def main() -> None:
    """Measure, print a table, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", help="a table of films, as cxr audit takes it, beside phantoms")
    parser.add_argument("--images", help="the folder with these films")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write the table into README.md")
    given = parser.parse_args()
    made = {"patients": PATIENTS, "seed": given.seed, "progress": False}
    cohorts = {f"phantoms, {n} x {n}": sources.load("phantom", size=n, **made) for n in SIZES}
    if given.table:
        films = {"folder": given.table, "images": given.images, "progress": False}
        cohorts["real films, 300 x 300"] = sources.load("folder", **films)
    found = {name: measure(cohort, given.seed) for name, cohort in cohorts.items()}
    lines = [f"| change | {' | '.join(found)} |", "| --- |" + " --- |" * len(found)]
    for name in CHANGES:
        counts = (f"{table['found'][name]} of {COPIES}" for table in found.values())
        lines.append(f"| {name} | {' | '.join(counts)} |")
    most = (str(table["strangers"].max()) for table in found.values())
    lines.append(f"| **pairs of two patients, no copies** | {' | '.join(most)} |")
    print("\n".join(lines))
    if given.write:
        write(MARK, lines)


if __name__ == "__main__":
    main()
