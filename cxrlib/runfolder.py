"""The folder of a run: whose turn it is to write there, and which notebooks are done.

A run folder holds ``notebooks/`` (executed), ``results/``, ``predictions/``, ``models/``,
``failed/`` (notebooks that stopped with an error) and ``state/``. A notebook's state is written
last: what an interrupted run leaves is not taken for finished.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from cxrlib.files import remove_partials, sha256
from cxrlib.lessons import CourseError

DONE = "done"
ORPHAN = 20  # seconds; a kernel notices within one or two that its run was killed


class RunIsBusyError(CourseError):
    """Another run is writing to the same folder."""


def state_file(out: Path, name: str) -> Path:
    """File that says what became of a notebook."""
    return out / "state" / f"{name}.json"


def read_states(out: Path | str) -> dict[str, dict]:
    """Read what became of each notebook in a run folder; damaged files are left out."""
    found = {}
    for path in sorted((Path(out) / "state").glob("[!.]*.json")):
        with suppress(ValueError):
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict):
                found[path.stem] = content
    return found


def outputs(out: Path, name: str) -> list[str]:
    """Files that a notebook wrote, from the run folder on."""
    paths = [Path("results") / f"{name}.json", Path("predictions") / f"{name}.csv"]
    paths += [path.relative_to(out) for path in sorted((out / "models" / name).glob("[!.]*"))]
    return [path.as_posix() for path in paths if (out / path).exists()]


def is_finished(out: Path, name: str, mark: str) -> bool:
    """Tell whether a notebook succeeded with this fingerprint, and its results still stand."""
    state = read_states(out).get(name, {})
    if state.get("status") != DONE or state.get("fingerprint") != mark:
        return False
    whole = all(
        (out / path).exists() and sha256(out / path) == digest
        for path, digest in state.get("files", {}).items()
    )
    return whole and (out / "notebooks" / f"{name}.ipynb").exists()


def forget(out: Path, name: str) -> None:
    """Remove what an earlier run left of a notebook, finished or not; its state first."""
    state_file(out, name).unlink(missing_ok=True)
    for path in outputs(out, name):
        (out / path).unlink()
    for kind in ("state/.json", "results/.json", "predictions/.csv"):
        remove_partials(out / kind.replace("/", f"/{name}"))
    for path in (f"notebooks/{name}", f"notebooks/.{name}.part", f"failed/{name}"):
        (out / f"{path}.ipynb").unlink(missing_ok=True)
    shutil.rmtree(out / "models" / name, ignore_errors=True)


@contextmanager
def locked(out: Path):
    """Keep other runs out of a folder; gives the number of the open lock file.

    The lock of a process that died is free at once. Kernels inherit it, so that after a run was
    killed, the next one waits for the end of a kernel that might still write results.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise OSError(
            f"{out} cannot be written to ({error.strerror}). Choose another folder with --out."
        ) from error
    with file:
        with suppress(ImportError, OSError):  # Windows and some file systems have no such lock
            _take(file, out)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


def _take(file, out: Path) -> None:
    """Lock a file that nobody else holds; wait for the kernels of a run that was killed."""
    import fcntl

    end = None
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip()
            if _lives(holder):
                why = f"Another run (process {holder}) is writing to {out}. Wait for it to end"
                raise RunIsBusyError(f"{why}, or choose another folder with --out.") from error
            if end is None:
                click.echo("The last run was killed; waiting for its kernel to end.")
                end = time.monotonic() + ORPHAN
            if time.monotonic() > end:
                raise RunIsBusyError(
                    f"The last run in {out} was killed, but a kernel of it still runs. End it "
                    f"('fuser {out / '.lock'}' names it), or choose another folder with --out."
                ) from error
        time.sleep(0.05)


def _lives(process: str) -> bool:
    """Tell whether there is a process of this number."""
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:  # another user's
        return True
    return True
