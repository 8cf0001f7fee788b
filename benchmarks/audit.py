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
import psutil
from rounds import ROOT, Peaks, machine, table, write

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
            kinds = ("healthy", "covid")
            cohort = phantom.make_cohort(BLOCK // 2, (2, 2), kinds, 0.5, seed=block)
            films = cohort.table[["image", "label", "patient", "scanner"]].copy()
            films["image"] = [f"films/{block:03}-{row:02}.png" for row in range(BLOCK)]
            for name, image in zip(films["image"], cohort.images[:], strict=True):
                cv2.imwrite(str(folder / name), image)
            films.to_csv(place, index=False)
        parts.append(pd.read_csv(place))
    return pd.concat(parts).head(count)


def cxr_audit(place: Path, work: Path, *options: str) -> tuple[float, dict[str, float]]:
    """Run `cxr audit` with an empty cache: seconds, and peak MiB with and without files' pages."""
    environment = {**os.environ, "CXR_CACHE": str(work / "cache"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cxrlib.cli", "audit", str(place), *options]
    start = time.monotonic()
    command += ["--out", str(work / "page.html")]
    with (
        (work / "said").open("w") as said,
        subprocess.Popen(command, env=environment, stdout=said, stderr=said) as process,
    ):
        watched = psutil.Process(process.pid)

        def memory():
            try:
                found = [each.memory_info() for each in (watched, *watched.children(True))]
            except psutil.Error:  # one has just ended
                return {}
            resident = sum(one.rss for one in found)
            own = resident - sum(one.shared for one in found)
            return {"resident": resident / 2**20, "own": own / 2**20}

        with Peaks(memory) as peaks:
            process.wait()
    if process.returncode:
        raise SystemExit((work / "said").read_text())
    return time.monotonic() - start, peaks.peak


def files(counts: list[int], folder: Path) -> str:
    """Measure the command on so many files; the table."""
    rows, first = [], None
    for count in counts:
        films = make_films(folder, count)
        films.to_csv(folder / "table.csv", index=False)
        with tempfile.TemporaryDirectory(prefix="cxr-audit-") as work:
            seconds, peak = cxr_audit(folder / "table.csv", Path(work), "--by", "scanner")
        first = first or peak
        both = [[f"{peak[name]:,.0f}", f"{peak[name] / first[name]:.2f}"] for name in sorted(peak)]
        rows.append([f"{count:,}", f"{seconds:.0f}", *both[0], *both[1]])
        print(rows[-1], flush=True)
    header = ["films", "seconds", "memory, MiB", "ratio", "with pages of files, MiB", "ratio"]
    return f"""{table(header, rows)}

`python benchmarks/audit.py --files {" ".join(map(str, counts))} --write`: synthetic films as PNG \
files of 300 x 300, two of each patient, audited by `cxr audit TABLE --by scanner` with an empty \
cache; peak resident memory of its processes. The decoded films are a file that is mapped into \
memory, whose pages the system takes back when it needs them: the last two columns count them. \
{machine()}."""


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
