"""Measure the memory that each notebook of the course takes; writes a table.

python benchmarks/memory.py [--only NN ...] [--profile quick] [--write docs/measured/memory.md]
python benchmarks/memory.py --phantoms     the paper's number of films, as phantoms on disk
python benchmarks/memory.py --make 3000 33750     only make so many phantoms, and read them

Binder promises 1 GB and stops a session at 2 GB. Ten times a second this adds up the resident
memory of the notebook's kernel and of all that the kernel has started. Every notebook starts
with an empty cache, as on Binder, but finds the results of those before it. Exit code 1 if one
takes more than the limit, or fails.

With --phantoms the profile is `paper` with 33,750 films for stage 1 and 33,750 with copies for the
others, 300 x 300 (benchmarks/gpu.py --full), and the limit is Colab's. What takes time on a
processor, and no memory for each film, is made small (QUICKLY). The cache is kept from one notebook
to the next: the films are made once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psutil
from gpu import KNOB, settings, words
from rounds import ROOT, Peaks, machine, table, versions

LIMIT = 1800  # MB (1,000,000 bytes): Binder's 2 GB less JupyterLab's own server
COLAB = 12885  # MB: 12 GiB
QUICKLY = {"backbone_name": "MobileNet", "probe_backbone": "MobileNet", "image_size": 32}
QUICKLY |= {"weights": "random", "search_draws": 1, "leak_repeats": 10, "fine_tuning": False}
QUICKLY |= {f"{what}_epochs": 1 for what in ("stage1", "stage2", "grid", "head")}


def kernels_memory() -> dict[str, float]:
    """Resident memory, in MB, of all kernels below this process and of what they started.

    Memory that processes share counts once for each, so the true figure is this or less.
    """
    seen: dict[int, int] = {}
    for child in psutil.Process().children(recursive=True):
        try:
            if "ipykernel" in " ".join(child.cmdline()):
                for each in (child, *child.children(recursive=True)):
                    seen[each.pid] = each.memory_info().rss
        except psutil.Error:  # it ended while we looked
            continue
    return {"kernels": sum(seen.values()) / 1e6}


def measure(lesson, out: Path, cache: Path, profile: str, given: dict) -> tuple:
    """Run one notebook with ``cxr run``; seconds, greatest memory in MB, whether it succeeded."""
    command = [sys.executable, "-m", "cxrlib.cli", "run", "--out", str(out), "--force"]
    command += words(lesson, given, profile)
    environment = {**os.environ, "CXR_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    start = time.monotonic()
    with Peaks(kernels_memory, 0.1) as peaks:
        ended = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    return time.monotonic() - start, peaks.peak.get("kernels", 0.0), not ended.returncode


def make(count: int) -> list:
    """Make phantoms and read them as lesson 3 does; a row: seconds of both, peak in MB."""
    from cxrlib import augment, split, training
    from cxrlib.phantom import make_cohort

    start = time.monotonic()
    stage1 = make_cohort(count, (1, 1), ["healthy", "pneumonia"], seed=1000)
    made = time.monotonic() - start
    parts = split.by_patient(stage1)
    whole = augment.expand(stage1.take(range(count // 4)), 3)  # as many again, with copies
    split.folds(whole)
    for films in (*(part.images for part in parts), whole.images):
        data = training.batches(films, 150)
        for number in range(len(data)):
            data[number]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # kB on Linux
    return [f"{count:,}", f"{made:.0f}", f"{time.monotonic() - start - made:.0f}", f"{peak:,.0f}"]


def growth(counts: list[int], cache: Path) -> str:
    """Let a process of its own make and read each number of phantoms; the table."""
    spawn, rows = multiprocessing.get_context("spawn"), []
    os.environ["CXR_CACHE"] = str(cache)
    for count in counts:
        with ProcessPoolExecutor(1, mp_context=spawn) as process:
            rows.append(process.submit(make, count).result())
            print(rows[-1], flush=True)
    return table(["phantoms of 300 x 300", "s to make", "s to read twice", "peak, MB"], rows)


def page(rows: list[list], profile: str) -> str:
    """Word the table as a page of the docs."""
    header = ["notebook", "seconds", "peak, MB", "share of the limit"]
    cells = [
        [name, f"{seconds:.0f}", f"{peak:,.0f}", f"{peak / LIMIT:.0%}"]
        for name, seconds, peak in rows
    ]
    used = versions("tensorflow", "tensorflow-cpu", "keras", "numpy", "opencv-python-headless")
    return f"""# Memory of the notebooks

<!-- written by benchmarks/memory.py -->

The greatest resident memory of each notebook's kernel (with all that it starts) in the \
`{profile}` profile, sampled ten times a second, with an empty cache. The limit is {LIMIT:,} MB: \
Binder stops a session at 2 GB, and JupyterLab needs some.

{table(header, cells)}

Most: {max(rows, key=lambda row: row[2])[0]}. Seconds include the start of the kernel, on a \
machine that did other things too: they say how long to wait, not how fast the code is.

Measured on {machine()}, {used}. Command: `python benchmarks/memory.py`.
"""


def main() -> int:
    """Measure, print and write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", metavar="NN", help="these lessons (default: all)")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--write", type=Path, help="the page to write")
    parser.add_argument("--phantoms", action="store_true", help="the paper's number of films")
    parser.add_argument("--make", nargs="*", type=int, metavar="N", help="only make so many")
    parser.add_argument("--cache", type=Path, help="keep their films here")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from cxrlib.course import lessons

    limit, profile, given = LIMIT, options.profile, {}
    if options.phantoms:
        limit, profile = COLAB, "paper"
        given = settings(full=True) | {"knob_options": KNOB} | QUICKLY
    rows, wrong = [], []
    with tempfile.TemporaryDirectory(prefix="cxr-memory-") as folder:
        films = (options.cache or Path(folder, "cache")).resolve()
        if options.make:
            print(growth(options.make, films))
            return 0
        for lesson in lessons.find(ROOT / "notebooks"):
            name = lesson.name
            if options.only and name.split("_")[0] not in options.only:
                continue
            cache = films if options.phantoms else Path(folder, f"cache {name}")
            seconds, peak, right = measure(lesson, Path(folder) / "run", cache, profile, given)
            rows.append([name, seconds, peak])
            print(f"{name}: {seconds:.0f} s, {peak:.0f} MB", flush=True)
            wrong += [] if right else [f"{name} failed"]
            wrong += [f"{name} is over the limit"] if peak > limit else []
    if options.write and not any("failed" in one for one in wrong):
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(page(rows, options.profile), encoding="utf-8")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
