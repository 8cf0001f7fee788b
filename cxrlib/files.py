"""Where files live, and how they are written so that no half of one is ever taken for whole."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path

import platformdirs


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

    Examples
    --------
    >>> with whole_file("table.csv") as partial:  # doctest: +SKIP
    ...     table.to_csv(partial)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                f"{path} cannot be written: the disk is full. Free some space, or use another "
                "disk (CXR_CACHE moves the cache, --out the results)."
            ) from error
        raise


def write_json(path: Path | str, content) -> Path:
    """Write JSON (indented, sorted as given, no NaN) as a whole file."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return Path(path)


def sha256(path: Path | str) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
