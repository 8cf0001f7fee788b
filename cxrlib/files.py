"""Where files live, how they are written whole, and what strangers' text and files may not do.

Kilobytes can ask for gigabytes, and a name can hold what a terminal or a spreadsheet obeys.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import io
import json
import os
import re
import secrets
import time
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path

import platformdirs

FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (*FULL, errno.EROFS, errno.EACCES, errno.EPERM)
ABANDONED = 86400  # seconds; a temporary file that nobody has written to for so long is removed
MOST_YAML = 250_000  # characters; ten times the course's longest file, and seconds to read
MOST_BRACKETS = 100  # of YAML, open at once; the time to read them grows with their square
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # what a spreadsheet reckons out
_UNSEEN = re.compile(  # what moves a cursor, turns the direction of writing, or is no text
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def cache_folder(*parts: str) -> Path:
    """Folder for what can be made or fetched again; ``CXR_CACHE`` moves it. It is created."""
    root = os.environ.get("CXR_CACHE") or platformdirs.user_cache_dir("cxrlib", appauthor=False)
    folder = Path(root).expanduser().joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        said = f"The cache folder {folder} cannot be made ({error.strerror})."
        raise OSError(f"{said} Set CXR_CACHE to a folder that you may write to.") from error
    return folder


def shipped(kind: str) -> Path:
    """Folder ``data`` or ``notebooks`` of the course: in the checkout, or in the wheel."""
    here = Path(__file__).resolve().parent
    beside = here.parent / kind
    return beside if (here.parent / "pyproject.toml").exists() else here / kind


@contextmanager
def whole_file(path: Path | str):
    """Give a temporary path beside `path`; move it there only if the ``with`` block succeeds.

    Readers see the old file or the new one; what a killed process leaves (``.*.part.*``, hidden)
    goes when the file is written a day later. Of a full disk, the OSError names the remedy.
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
    except OSError as error:
        about = (None, str(partial), str(path), *map(str, path.parents))
        if error.filename in about and error.errno in REFUSED:
            raise OSError(cannot_write(path, error)) from error
        raise
    finally:
        with suppress(OSError):
            partial.unlink()


def cannot_write(path: Path | str, error: OSError) -> str:
    """Word why a file cannot be written, and what to do."""
    why = f"{error.strerror}. Use a folder that you may write to"
    if error.errno in FULL:
        why = "the disk is full. Free some space, or use another disk"
    moves = "CXR_CACHE moves the cache, --out the results, CXR_RUN those of a notebook run by hand"
    return f"{path} cannot be written: {why} ({moves})."


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


class Sparing(io.BytesIO):
    """A stranger's file in memory: no header of a million parts keeps a parser busy for hours."""

    def __init__(self, content: bytes):
        super().__init__(content)
        self.left = 3000 + len(content) // 256
        self.bytes = 256_000_000 + len(content)  # a part of the file may be given as many parts

    def read(self, size=-1):
        """Read as any file does; a ValueError once it was read too often."""
        found = super().read(size)
        self.left, self.bytes = self.left - 1, self.bytes - len(found)
        if min(self.left, self.bytes) < 0:
            raise ValueError("its header has no end, or its parts are too many")
        return found


def parse_yaml(text: str):
    """Read YAML as plain values, but no alias in what another one names: such steps fill disks."""
    import yaml

    if len(text) > MOST_YAML:
        raise ValueError(f"its text is {len(text)} characters long; give {MOST_YAML} at most")

    class Loader(yaml.SafeLoader):
        named = 0  # of the values that are being read

        def fetch_flow_collection_start(self, token):
            if self.flow_level >= MOST_BRACKETS:
                raise RecursionError
            super().fetch_flow_collection_start(token)

        def compose_node(self, parent, index):
            if self.named and self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("an alias stands inside of what another alias names")
            has_name = self.peek_event().anchor is not None
            self.named += has_name
            node = super().compose_node(parent, index)
            self.named -= has_name
            return node

    try:
        value = yaml.load(text, Loader)
        repr(value)  # a number of more digits than Python words is none here
        return value
    except RecursionError:
        raise ValueError("its brackets stand too deep in each other") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:  # odd dates, numbers
        raise ValueError(str(error)[:500]) from error


def check_weights(path) -> None:
    """Raise a ValueError for an HDF5 file that leads elsewhere, or unpacks to gigabytes."""
    import h5py

    size = 0
    with h5py.File(path, "r") as file:
        names = []
        file.visit_links(names.append)
        for name in names:
            hard = isinstance(file.get(name, getlink=True), h5py.HardLink)
            found = file[name] if hard else None
            data = isinstance(found, h5py.Dataset)
            if not hard or (data and (found.is_virtual or found.external)):
                raise ValueError(f"{name!r} leads somewhere else")
            size += found.size * found.dtype.itemsize if data else 0
        if size > 20 * file.id.get_filesize() + (1 << 20):
            raise ValueError(f"it unpacks to {size / 1e9:.1f} GB")


def harmless(value):
    """Put an apostrophe before text that a spreadsheet takes for a formula (OWASP's advice)."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def original(value):
    """Take away what :func:`harmless` put there."""
    guarded = isinstance(value, str) and value[:1] == "'" and _FORMULA.match(value)
    return value[1:] if guarded else value


def printable(text) -> str:
    r"""Word a text for a terminal: what moves its cursor, or is no text, is shown as ``\x1b``."""
    return _UNSEEN.sub(lambda one: one[0].encode("unicode_escape").decode(), str(text))
