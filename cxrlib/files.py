"""Where files live, and how they are written so that no half of one is ever taken for whole."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import secrets
import time
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path

import platformdirs

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
ABANDONED = 86400  # seconds; a temporary file that nobody has written to for so long is removed


def cache_folder(*parts: str) -> Path:
    """Folder for what can be made or fetched again; ``CXR_CACHE`` moves it. It is created."""
    root = os.environ.get("CXR_CACHE") or platformdirs.user_cache_dir("cxrlib", appauthor=False)
    folder = Path(root).expanduser().joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"The cache folder {folder} cannot be made ({error.strerror}). "
            "Set CXR_CACHE to a folder that you may write to."
        ) from error
    return folder


def shipped(kind: str) -> Path:
    """Folder ``data`` or ``notebooks`` of the course: in the checkout, or in the wheel."""
    here = Path(__file__).resolve().parent
    beside = here.parent / kind
    return beside if (here.parent / "pyproject.toml").exists() else here / kind


@contextmanager
def whole_file(path: Path | str):
    """Give a temporary path beside `path`; move it there only if the block succeeds.

    Readers see the old file or the whole new one, also after ``kill -9`` or on a full disk.
    What a killed process leaves is a hidden ``.*.part.*`` beside it, which nobody reads; it goes
    when the same file is written a day later.

    Raises
    ------
    OSError
        If the disk is full or the folder is read-only; the message names file and remedy.

    Examples
    --------
    >>> with whole_file("table.csv") as partial:  # doctest: +SKIP
    ...     table.to_csv(partial)
    """
    path = Path(path)
    # Not the process number: threads share it, and machines on one network disk may.
    partial = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_partials(path, ABANDONED)
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink()
        about = (None, str(partial), str(path), *map(str, path.parents))
        mine = isinstance(error, OSError) and error.filename in about
        if mine and error.errno in FULL + FORBIDDEN:
            raise OSError(_cannot_write(path, error)) from error
        raise


def _cannot_write(path: Path, error: OSError) -> str:
    """Word why a file cannot be written, and what to do."""
    another = "(CXR_CACHE moves the cache, --out the results)"
    if error.errno in FULL:
        why = f"the disk is full. Free some space, or use another disk {another}."
    else:
        why = f"{error.strerror}. Use a folder that you may write to {another}."
    return f"{path} cannot be written: {why}"


def remove_partials(path: Path, age: float = 0) -> None:
    """Remove temporary files of :func:`whole_file` for `path` that are `age` seconds old."""
    for left in path.parent.glob(f".{glob.escape(path.stem)}.*.part{glob.escape(path.suffix)}"):
        with suppress(OSError):  # another process was faster
            if time.time() - left.stat().st_mtime >= age:
                left.unlink()


def write_json(path: Path | str, content) -> Path:
    """Write JSON (indented, sorted as given, no NaN) as a whole file."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return Path(path)


def sha256(path: Path | str) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def no_such(kind: str, name: str, there: list[str]) -> str:
    """Word the message on an unknown name, with the nearest known one."""
    near = get_close_matches(str(name), there, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"There is no {kind} {name!r}.{hint} There are: {', '.join(there) or 'none'}."


def short_path(path: Path | str) -> str:
    """Word a path from the current folder on, where it lies below it."""
    path, here = Path(path).resolve(), Path.cwd().resolve()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
