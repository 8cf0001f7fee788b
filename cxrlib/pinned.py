"""Files whose size and hash are known beforehand, and whether the local ones are the same."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CHUNK = 1 << 16  # bytes


class PathError(ValueError):
    """A path that would lead out of the folder it belongs to."""


@dataclass(frozen=True)
class Pinned:
    """A file whose content is known beforehand.

    Parameters
    ----------
    path : str
        Where it is, below the host and below the local folder alike, with ``/``.
    bytes : int or None
        Its size; None where it is not known.
    sha256 : str
        64 hexadecimal digits, or "" where it is not known.
    git_sha1 : str
        The git blob id: SHA-1 of ``blob <bytes>``, a zero byte, and the content. It is what
        counts where no SHA-256 is known.
    """

    path: str
    bytes: int | None = None
    sha256: str = ""
    git_sha1: str = ""

    def __post_init__(self):
        if not (self.sha256 or self.git_sha1):
            raise ValueError(f"{self.path}: no hash is known, so it could not be verified.")


def place(folder, path: str) -> Path:
    """Where a pinned file lies in `folder`; a path that would leave it raises PathError."""
    folder, parts = Path(folder).resolve(), PurePosixPath(path)
    target = folder.joinpath(parts)
    inside = target.resolve().is_relative_to(folder) and target.resolve() != folder
    if parts.is_absolute() or ".." in parts.parts or "\\" in path or not inside:
        raise PathError(f"{path!r} would be written outside {folder}. Refused.")
    return target


def state(folder, pinned: Pinned) -> str:
    """Compare the local file with what is pinned: 'present', 'missing' or 'damaged'."""
    file = place(folder, pinned.path)
    if not file.is_file():
        return "missing"
    return "present" if is_right(file, pinned) else "damaged"


def states(folder, files, workers: int = 4) -> list[str]:
    """:func:`state` of each of the files, in their order; several are read at a time."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda pinned: state(folder, pinned), files))


def is_right(file: Path, pinned: Pinned) -> bool:
    """Compare size and hash of a file with what is pinned."""
    size = file.stat().st_size
    if pinned.bytes is not None and size != pinned.bytes:
        return False
    digest = hashlib.sha256() if pinned.sha256 else hashlib.sha1(b"blob %d\0" % size)
    with file.open("rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == (pinned.sha256 or pinned.git_sha1)
