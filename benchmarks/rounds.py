"""Time several ways of doing the same work, in turn, each in a process of its own.

A benchmark gives each competitor as a function without arguments. It is called once, in a new
process: it imports what it needs, prepares, and returns a function ``once()`` that does the
work. :func:`race` then asks each competitor in turn for one round, and again, so that a noisy
minute hurts all alike. Imports and preparation are not timed, unless ``once`` does them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import re
import statistics
import threading
import time
import traceback
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"


@dataclass
class Row:
    """What was measured of one competitor.

    Attributes
    ----------
    seconds : list of float, one a round; empty where it could not run
    peak : float, MB (1,000,000 bytes): the greatest resident memory of its process, imports,
        preparation and lasting child processes included
    said : object, what the last ``once()`` returned, such as a count or a loss
    problem : str, why it could not run, "" where it could
    """

    name: str
    seconds: list[float] = field(default_factory=list)
    peak: float = 0.0
    said: object = None
    problem: str = ""

    @property
    def median(self) -> float:
        """Median seconds of a round; NaN where it could not run."""
        return statistics.median(self.seconds) if self.seconds else float("nan")


class Peaks:
    """The greatest values of a measure while a ``with`` block runs, such as resident memory.

    `measure` gives a dict of names and values; a thread calls it every `seconds`. Read ``peak``.
    """

    def __init__(self, measure, seconds: float = 0.05):
        self.measure, self.seconds = measure, seconds
        self.peak: dict[str, float] = {}
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Peaks:
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.stopped.set()
        self.thread.join()

    def _sample(self) -> None:
        while not self.stopped.wait(self.seconds):
            for name, value in self.measure().items():
                self.peak[name] = max(self.peak.get(name, 0.0), value)


def race(competitors: dict, rounds: int = 3, warm_up: int = 1) -> list[Row]:
    """Let competitors do their work in turn; a row each, in the order given.

    Parameters
    ----------
    competitors : dict of str to function
        Functions at the top of a module (or ``functools.partial`` of such), since they are
        sent to a new process.
    rounds : int
        Timed rounds of each.
    warm_up : int
        Rounds before them that are not timed.
    """
    started = {name: _start(setup) for name, setup in competitors.items()}
    rows = {name: Row(name) for name in competitors}
    for _, pipe in started.values():
        pipe.send("prepare")  # all at once: it is not timed
    for name, (process, pipe) in started.items():
        _receive(rows[name], process, pipe)
    for number in range(warm_up + rounds):
        for name, (process, pipe) in started.items():
            if not rows[name].problem:
                pipe.send("once")
                seconds = _receive(rows[name], process, pipe)
                if number >= warm_up and seconds is not None:
                    rows[name].seconds.append(seconds)
        print(".", end="", flush=True)
    print()
    for process, pipe in started.values():
        pipe.close()
        process.join(10)
        process.kill()
    return list(rows.values())


def _start(setup):
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(setup, theirs))
    process.start()
    theirs.close()
    return process, ours


def _serve(setup, pipe):
    once = None
    while True:
        try:
            what = pipe.recv()
        except EOFError:
            return
        try:
            start = time.perf_counter()
            if what == "prepare":
                once, said = setup(), None
            else:
                said = once()
            pipe.send(("", time.perf_counter() - start, said))
        except BaseException as error:
            last = traceback.format_exc().splitlines()[-1]
            missing = isinstance(error, ImportError)
            pipe.send((f"not installed ({error.name})" if missing else last[:150], None, None))


def _receive(row: Row, process, pipe) -> float | None:
    try:
        row.problem, seconds, said = pipe.recv()
    except (EOFError, OSError):
        row.problem = f"its process ended ({process.exitcode})"
        return None
    row.peak = max(row.peak, _memory(process.pid))
    row.said = said
    return seconds


def _memory(number: int) -> float:
    """Greatest resident memory so far, in MB, of a process and of its children that still run.

    Linux keeps count of it, so nothing has to watch while the competitors work.
    """
    import psutil

    try:
        process = psutil.Process(number)
        family = [process, *process.children(recursive=True)]
        texts = [Path(f"/proc/{each.pid}/status").read_text() for each in family]
        return sum(1024 * int(re.search(r"VmHWM:\s*(\d+) kB", text)[1]) for text in texts) / 1e6
    except (psutil.Error, OSError, TypeError):  # another system, or one has just ended
        return 0.0


def sgemm_ceiling() -> float:
    """GFLOP/s of single-precision matrix products here and now (NumPy's BLAS, all threads)."""
    import numpy as np

    a = np.ones((2048, 2048), np.float32)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * 2048**3 / best / 1e9


def versions(*packages: str) -> str:
    """'numpy 2.4.6, keras 3.15.1', of those that are installed."""
    found = []
    for name in packages:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def machine() -> str:
    """Processor, cores and Python, in words."""
    from cxrlib.machine import processor

    cores = os.cpu_count()
    return f"{processor()}, {cores} cores, {platform.system()}, Python {platform.python_version()}"


def table(header: list[str], rows: list[list]) -> str:
    """Make a Markdown table; all columns but the first are right-aligned."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write(name: str, text: str, page: Path = PAGE) -> None:
    """Put a text between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` of a page."""
    whole = page.read_text(encoding="utf-8")
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(whole):
        raise SystemExit(f"{page} has no place for {name}: add {begin} and {end}.")
    new = f"{begin}\n{text.strip()}\n{end}"
    page.write_text(pattern.sub(lambda _: new, whole), encoding="utf-8")


def options(description: str) -> argparse.ArgumentParser:
    """Options that all benchmarks share: --rounds and --write."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of each (3)")
    parser.add_argument("--write", action="store_true", help=f"put it into {PAGE.name}")
    return parser
