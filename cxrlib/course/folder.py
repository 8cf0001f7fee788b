"""The folder of a run: whose turn it is to write there, and which notebooks are done.

A run folder holds ``notebooks/`` (executed), ``results/``, ``predictions/``, ``models/``,
``failed/`` (notebooks that stopped with an error) and ``state/``. A notebook's state is written
last: what an interrupted run leaves is not taken for finished.
"""

from __future__ import annotations

import json
import os
import shutil
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
        _end_kernel_left(_read(running))
        note_running(out)
        yield
    finally:
        running.unlink(missing_ok=True)
        lock.release()


def note_running(out: Path, kernel: int | None = None) -> None:
    """Note this process, and its kernel before that is given anything to do."""
    import psutil

    begun = psutil.Process(kernel).create_time() if kernel else None
    write_json(out / ".running.json", {"run": os.getpid(), "kernel": kernel, "begun": begun})


def _end_kernel_left(noted: dict) -> None:
    """End the kernel of a run that was killed: a cell might still run there, and write results.

    A kernel looks after the process that started it, but only once a second.
    """
    import psutil

    with suppress(psutil.NoSuchProcess, KeyError, TypeError):
        kernel = psutil.Process(noted["kernel"])
        # Numbers of processes are used again; the time tells two of the same number apart.
        if noted["kernel"] and abs(kernel.create_time() - noted["begun"]) < 1:
            click.echo("The last run was killed; ending the kernel that it left.")
            kernel.kill()
            kernel.wait()
