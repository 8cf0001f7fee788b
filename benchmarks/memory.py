"""Measure the memory that each notebook of the course takes; writes a table.

python benchmarks/memory.py [--only NN ...] [--profile quick] [--write docs/measured/memory.md]

Binder promises 1 GB and stops a session at 2 GB. Ten times a second this adds up the resident
memory of the notebook's kernel and of all that the kernel has started. Every notebook starts
with an empty cache, as on Binder, but finds the results of those before it. Exit code 1 if one
takes more than the limit, or fails.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import psutil
from rounds import Peaks

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ("ipykernel", "cxrlib.kernel")  # what Jupyter and `cxr run` start
LIMIT = 1800  # MB (1,000,000 bytes): Binder's 2 GB less JupyterLab's own server
VERSIONS = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "opencv-python-headless")


def kernels_memory() -> dict[str, float]:
    """Resident memory, in MB, of all kernels below this process and of what they started.

    Memory that processes share counts once for each, so the true figure is this or less.
    """
    seen: dict[int, int] = {}
    for child in psutil.Process().children(recursive=True):
        try:
            if any(name in " ".join(child.cmdline()) for name in KERNELS):
                for each in (child, *child.children(recursive=True)):
                    seen[each.pid] = each.memory_info().rss
        except psutil.Error:  # it ended while we looked
            continue
    return {"kernels": sum(seen.values()) / 1e6}


def measure(name: str, profile: str, out: Path) -> dict:
    """Run one notebook with ``cxr run``; returns a row of the table."""
    with tempfile.TemporaryDirectory(prefix="cxr-cache-") as cache:
        command = [sys.executable, "-m", "cxrlib.cli", "run", "--profile", profile]
        command += ["--only", name, "--out", str(out), "--force"]
        environment = {**os.environ, "CXR_CACHE": cache, "PYTHONPATH": str(ROOT)}
        start = time.monotonic()
        with Peaks(kernels_memory, 0.1) as peaks:
            ended = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
            )
        seconds = time.monotonic() - start
    if ended.returncode:
        print(ended.stdout[-2000:] + ended.stderr[-2000:], file=sys.stderr)
    peak = peaks.peak.get("kernels", 0.0)
    row = {"notebook": name, "seconds": seconds, "peak": peak, "ok": not ended.returncode}
    print(f"{name:30} {seconds:6.0f} s {peak:6.0f} MB", "" if row["ok"] else "FAILED")
    return row


def page(rows: list[dict], profile: str, machine: dict) -> str:
    """Word the table as a page of the docs."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    highest = max(rows, key=lambda row: row["peak"])
    lines = [
        "# Memory of the notebooks",
        "",
        "<!-- written by benchmarks/memory.py -->",
        "",
        f"The greatest resident memory of each notebook's kernel (with all that it starts) in the "
        f"`{profile}` profile, sampled ten times a second, with an empty cache. "
        f"The limit is {LIMIT:,} MB: Binder stops a session at 2 GB, and JupyterLab needs some.",
        "",
        "| notebook | seconds | peak, MB | share of the limit |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['notebook']} | {row['seconds']:.0f} | {row['peak']:,.0f} "
        f"| {row['peak'] / LIMIT:.0%} |"
        for row in rows
    ]
    lines += [
        "",
        f"Most: {highest['notebook']}. Seconds include the start of the kernel, on a machine that "
        "did other things too: they say how long to wait, not how fast the code is.",
        "",
        f"Measured on {machine['device']}, {machine['cores']} cores, "
        f"Python {machine['python']}, {versions}. Command: "
        f"`python benchmarks/memory.py`.",
    ]
    return "\n".join(lines) + "\n"


def machine_facts() -> dict:
    """Say what this was measured on."""
    from cxrlib.machine import environment

    there = environment()
    found = {dist.name.lower().replace("_", "-"): dist.version for dist in metadata.distributions()}
    versions = {name: found[name] for name in VERSIONS if name in found}
    return {**{name: there[name] for name in ("device", "cores", "python")}, "versions": versions}


def main() -> int:
    """Measure, print and write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", metavar="NN", help="these lessons (default: all)")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--write", type=Path, help="the page to write")
    options = parser.parse_args()
    names = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if options.only:
        names = [name for name in names if name.split("_")[0] in options.only]
    with tempfile.TemporaryDirectory(prefix="cxr-memory-") as out:
        rows = [measure(name, options.profile, Path(out)) for name in names]
    over = [row["notebook"] for row in rows if row["peak"] > LIMIT]
    failed = [row["notebook"] for row in rows if not row["ok"]]
    if options.write and not failed:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(page(rows, options.profile, machine_facts()), encoding="utf-8")
    for what, those in (("Over the limit", over), ("Failed", failed)):
        if those:
            print(f"{what}: {', '.join(those)}")
    return 1 if over or failed else 0


if __name__ == "__main__":
    sys.exit(main())
