"""The folder of a run: whose turn it is to write there, and which notebooks are done.

A run folder holds ``notebooks/`` (executed), ``results/``, ``predictions/``, ``models/``,
``failed/`` (notebooks that stopped with an error) and ``state/``. A notebook's state is written
last: what an interrupted run leaves is not taken for finished.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from cxrlib.course.lessons import CourseError
from cxrlib.files import remove_partials, sha256, write_json

DONE = "done"


def state_file(out: Path, name: str) -> Path:
    """File that says what became of a notebook."""
    return out / "state" / f"{name}.json"


def read_states(out: Path) -> dict[str, dict]:
    """Read what became of each notebook in a run folder; damaged files are left out."""
    paths = sorted((out / "state").glob("[!.]*.json"))
    return {path.stem: state for path in paths if (state := _read(path))}


def _read(path: Path) -> dict:
    """Read a JSON file of names and values; nothing, if it is damaged or not there."""
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def outputs(out: Path, name: str) -> dict[str, str]:
    """SHA-256 of the files that a notebook wrote, by their place in the run folder."""
    paths = [out / "results" / f"{name}.json", out / "predictions" / f"{name}.csv"]
    paths += sorted((out / "models" / name).glob("[!.]*"))
    return {path.relative_to(out).as_posix(): sha256(path) for path in paths if path.exists()}


def is_finished(out: Path, name: str, mark: str) -> bool:
    """Tell whether a notebook succeeded with this fingerprint, and its results still stand."""
    state = _read(state_file(out, name))
    if state.get("status") != DONE or state.get("fingerprint") != mark:
        return False
    whole = state.get("files", {}).items() <= outputs(out, name).items()
    return whole and (out / "notebooks" / f"{name}.ipynb").exists()


def forget(out: Path, name: str) -> None:
    """Remove what an earlier run left of a notebook, finished or not; its state first."""
    state = state_file(out, name)
    for path in (state, out / "results" / f"{name}.json", out / "predictions" / f"{name}.csv"):
        path.unlink(missing_ok=True)
        remove_partials(path)
    for path in (f"notebooks/{name}", f"notebooks/.{name}.part", f"failed/{name}"):
        (out / f"{path}.ipynb").unlink(missing_ok=True)
    shutil.rmtree(out / "models" / name, ignore_errors=True)


@contextmanager
def locked(out: Path):
    """Keep other runs out of a folder (CourseError); a process that died keeps none out."""
    from filelock import FileLock, Timeout

    lock = FileLock(out / ".lock", timeout=0)
    running = out / ".running.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with suppress(NotImplementedError):  # some file systems have no such lock
            lock.acquire()
    except Timeout as error:
        holder = _read(running).get("run", "of an unknown number")
        why = f"Another run (process {holder}) is writing to {out}. Wait for it to end"
        raise CourseError(f"{why}, or choose another folder with --out.") from error
    except OSError as error:
        raise OSError(
            f"{out} cannot be written to ({error.strerror}). Choose another folder with --out."
        ) from error
    try:
        for kernel in _read(running).get("kernels", []):
            if _end(kernel):
                click.echo("The last run was killed; ending a kernel that it left.")
        yield Kernels(running)
    finally:
        running.unlink(missing_ok=True)
        lock.release()


class Kernels:
    """The processes in which a run's notebooks run, noted in a file.

    A kernel looks after the process that started it, but only once a second: a cell might still
    run there when that was killed, and write results. So the next run ends those that are noted.
    """

    def __init__(self, path: Path):
        self.path, self.noted, self.ended = path, [], False
        self.turn = threading.Lock()
        self._write()

    def add(self, kernel: int) -> None:
        """Note a kernel's process before it is given anything to do; refuse it at the end."""
        import psutil

        with self.turn:
            if self.ended:
                raise RuntimeError("The run is being ended.")
            self.noted.append([kernel, psutil.Process(kernel).create_time()])
            self._write()

    def end(self) -> None:
        """End them all: what runs there stops with an error, and nothing else begins."""
        with self.turn:
            self.ended = True
        for kernel in self.noted:
            _end(kernel)

    def _write(self) -> None:
        write_json(self.path, {"run": os.getpid(), "kernels": self.noted})


def _end(kernel) -> bool:
    """End a noted kernel, if it still runs."""
    import psutil

    with suppress(psutil.NoSuchProcess, ValueError, TypeError):
        number, begun = kernel
        process = psutil.Process(number)
        # Numbers of processes are used again; the time tells two of the same number apart.
        if abs(process.create_time() - begun) < 1:
            process.kill()
            with suppress(psutil.TimeoutExpired):  # its parent, which may be busy, takes note
                process.wait(10)
            return True
    return False
