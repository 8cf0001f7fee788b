"""Time an audit of synthetic films, step by step, and what `cxr audit` takes on files.

python benchmarks/audit.py [IMAGES]     (1,000 by default)
python benchmarks/audit.py --files 1000 10000 [--folder FOLDER] [--write]

`--files` makes so many phantoms as PNG files, 300 x 300, two of each patient, in a FOLDER that
is kept (by default one that is not), and measures the command on tables of the first of them.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import cv2
import pandas as pd
from rounds import ROOT, machine, table, write

from cxrlib import audit, phantom
from cxrlib.machine import environment

PAGE = ROOT / "docs" / "audit" / "README.md"
BLOCK = 100  # films made at once


def steps(images: int) -> None:
    """Make about so many phantoms, audit them, and say how long each step took."""
    start = time.perf_counter()
    cohort = phantom.make_cohort(images // 2, (1, 3), ("healthy", "covid"), 0.5)
    ends = [("(making the phantoms, not counted)", start)]

    def note(number, total, name):
        ends.append((name, time.perf_counter()))

    audit.run(cohort, by="scanner", progress=note)
    ends.append(("end", time.perf_counter()))
    rows = [(name, later - at) for (name, at), (_, later) in pairwise(ends)]
    table = pd.DataFrame(rows, columns=["step", "seconds"])
    print(table.to_string(index=False, float_format="{:.2f}".format))
    there = environment()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"\n{len(cohort)} images of {cohort.table['patient'].nunique()} patients, 300 x 300: "
        f"{table['seconds'][1:].sum():.1f} s; peak memory {memory:.0f} MiB; {there['device']}, "
        f"{there['cores']} cores, Python {there['python']}"
    )


def make_films(folder: Path, count: int) -> pd.DataFrame:
    """Write the films that are not there yet; a table of the first `count`."""
    parts = []
    for block in range(-(-count // BLOCK)):
        place = folder / f"films-{block:03}.csv"
        if not place.exists():
            (folder / "films").mkdir(parents=True, exist_ok=True)
            labels = ("healthy", "covid")
            cohort = phantom.make_cohort(BLOCK // 2, (2, 2), labels, 0.5, seed=block)
            films = cohort.table[["label", "patient", "scanner"]]
            films = films.assign(image=[f"films/{block:03}-{row:02}.png" for row in range(BLOCK)])
            for name, image in zip(films["image"], cohort.images, strict=True):
                cv2.imwrite(str(folder / name), image)
            films.to_csv(place, index=False)
        parts.append(pd.read_csv(place))
    return pd.concat(parts).head(count)


def cxr_audit(place: Path, work: Path, *options: str) -> tuple[float, float]:
    """Run `cxr audit` with an empty cache; seconds, and its greatest resident memory in MiB."""
    environment = {**os.environ, "CXR_CACHE": str(work / "cache"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cxrlib.cli", "audit", str(place), *options]
    command += ["--out", str(work / "page.html")]
    start = time.monotonic()
    with (work / "said").open("w") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        _, process.returncode, used = os.wait4(process.pid, 0)
    if process.returncode:
        raise SystemExit((work / "said").read_text())
    return time.monotonic() - start, used.ru_maxrss / 1024


def files(counts: list[int], folder: Path) -> str:
    """Measure the command on so many files; the table, in words."""
    rows, peaks = [], []
    for count in counts:
        make_films(folder, count).to_csv(folder / "table.csv", index=False)
        with tempfile.TemporaryDirectory(prefix="cxr-audit-") as work:
            seconds, peak = cxr_audit(folder / "table.csv", Path(work), "--by", "scanner")
        peaks.append(peak)
        rows.append([f"{count:,}", f"{seconds:.0f}", f"{peak:,.0f}", f"{peak / peaks[0]:.2f}"])
    return f"""{table(["synthetic films", "seconds", "memory, MiB", "ratio"], rows)}

`python benchmarks/audit.py --files {" ".join(map(str, counts))} --write`: PNG files of 300 x 300, \
two of each synthetic patient, audited by `cxr audit TABLE --by scanner` with an empty cache; the \
greatest resident memory of the process. {machine()}."""


def main() -> None:
    """Measure the steps, or the command on files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=int, nargs="?", default=1000)
    parser.add_argument("--files", type=int, nargs="+", metavar="N", help="so many files")
    parser.add_argument("--folder", type=Path, help="keep the films here")
    parser.add_argument("--write", action="store_true", help=f"put it into {PAGE.name}")
    given = parser.parse_args()
    if not given.files:
        return steps(given.images)
    with tempfile.TemporaryDirectory(prefix="cxr-films-") as folder:
        text = files(given.files, given.folder or Path(folder))
    print(text)
    if given.write:
        write("files", text, PAGE)


if __name__ == "__main__":
    main()
