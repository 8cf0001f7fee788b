"""Pinned files: their hash is known beforehand. Fetched several at a time, never unverified."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from cxrlib.files import whole_file

HOST = "https://raw.githubusercontent.com"
TIMEOUT = (10, 30)  # seconds to connect, and without a byte
LONGEST = 600  # seconds for one attempt at one file
ATTEMPTS = 4
LONGEST_WAIT = 60  # seconds, whatever the server's Retry-After asks for
LARGEST = 100_000_000  # bytes, for a file whose size is not known
CHUNK = 1 << 16  # bytes
MANY = 10  # files that failed, after which the rest is not tried


class PathError(ValueError):
    """A path that would lead out of the folder it belongs to."""


class DownloadError(ValueError):
    """Files that could not be fetched; the message says which, why, and what to do."""


class UnreachableError(DownloadError):
    """No server answers, so that no other file needs to be tried."""


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
    return "present" if _is_right(file, pinned) else "damaged"


def states(folder, files, workers: int = 4) -> list[str]:
    """:func:`state` of each of the files, in their order; several are read at a time."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda pinned: state(folder, pinned), files))


def mirror() -> str:
    """Address that files are fetched from: ``CXR_MIRROR``, or GitHub's own."""
    address = os.environ.get("CXR_MIRROR", "").strip().rstrip("/") or HOST
    if not address.startswith(("http://", "https://")):
        raise DownloadError(
            f"CXR_MIRROR is {address!r}; it has to begin with http:// or https://, "
            "for example http://127.0.0.1:8000"
        )
    return address


def fetch(files, folder, workers: int = 8, progress: bool = True) -> list[str]:
    """Download what is not there yet, and what is there but damaged.

    A file appears under its name only when its size and hash are right; it is asked for
    `ATTEMPTS` times. :class:`pooch.HTTPDownloader` downloads.

    Parameters
    ----------
    files : sequence of Pinned
    folder : path-like
        The files go to ``folder / pinned.path``.
    workers : int
        How many files at a time.
    progress : bool
        Show a progress bar on a terminal.

    Returns
    -------
    list of str
        For each file 'present', or 'missing' where the server does not have it.

    Raises
    ------
    DownloadError
        If nothing answers, or the server sends something else or keeps failing. What has
        arrived by then is kept.
    OSError
        If the disk is full or read-only.
    PathError
        If a path would leave the folder.
    """
    from tqdm import tqdm

    folder, failed, stop = Path(folder), [], threading.Event()
    found = states(folder, files)
    lacking = {row: files[row] for row, what in enumerate(found) if what != "present"}
    if not lacking:  # nothing is written then: the folder may be a read-only one
        return found
    address = mirror()
    _check_room(folder, sum(pinned.bytes or 0 for pinned in lacking.values()))
    bar = tqdm(total=len(lacking), desc="fetching", unit="file", disable=None if progress else True)
    with bar, ThreadPoolExecutor(workers) as pool:
        try:
            jobs = {
                pool.submit(_fetch_one, pinned, folder, address, stop): row
                for row, pinned in lacking.items()
            }
            for job in as_completed(jobs):
                bar.update()
                try:
                    found[jobs[job]] = job.result()
                except UnreachableError:
                    raise
                except DownloadError as error:
                    failed.append(str(error))
                if len(failed) >= MANY:
                    break
        finally:  # also when one job found no network or no room, and after Ctrl-C
            stop.set()
            pool.shutdown(cancel_futures=True)
    if failed:
        shown = "\n  ".join(failed)
        raise DownloadError(
            f"{len(failed)} file(s) could not be fetched from {address}:\n  {shown}\n"
            "Try again later, or set CXR_MIRROR to another server with the same files."
        )
    return found


def _fetch_one(pinned: Pinned, folder: Path, address: str, stop: threading.Event) -> str:
    """Download, verify and move to its place one file; retry what may pass."""
    import pooch
    import requests

    url, target = f"{address}/{quote(pinned.path)}", place(folder, pinned.path)
    download = pooch.HTTPDownloader(
        chunk_size=CHUNK, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"}
    )
    for attempt in range(1, ATTEMPTS + 1):
        status, asked = None, ""
        try:
            with whole_file(target) as partial:
                with partial.open("wb") as file:
                    download(url, _Limited(file, pinned, stop), None)
                if not _is_right(partial, pinned):
                    size = partial.stat().st_size
                    raise DownloadError(
                        f"{pinned.path}: the {size} bytes that came are not the file"
                    )
            return "present"
        except DownloadError as error:
            reason = error
        except requests.RequestException as error:
            if error.response is not None:  # a response that tells of an error is false
                status = error.response.status_code
                asked = error.response.headers.get("Retry-After", "")
            reason = _reason(error, status, pinned.path, address)
        if status in {404, 410}:
            return "missing"
        may_pass = status is None or status == 429 or status >= 500
        if attempt == ATTEMPTS or not may_pass or stop.is_set():
            raise reason
        stop.wait(min(float(asked) if asked.isdecimal() else 2**attempt / 4, LONGEST_WAIT))


class _Limited:
    """A file that takes no more than is pinned, and for no longer than `LONGEST`."""

    def __init__(self, file, pinned: Pinned, stop: threading.Event):
        self.file, self.path, self.stop = file, pinned.path, stop
        self.left = self.limit = LARGEST if pinned.bytes is None else pinned.bytes
        self.deadline = time.monotonic() + LONGEST

    def write(self, chunk: bytes) -> None:
        self.left -= len(chunk)
        if self.left < 0:
            raise DownloadError(f"{self.path}: more than the pinned {self.limit} bytes come")
        if self.stop.is_set() or time.monotonic() > self.deadline:
            raise DownloadError(f"{self.path}: too slow, or stopped")
        self.file.write(chunk)

    def flush(self) -> None:
        self.file.flush()


def _reason(error, status: int | None, path: str, address: str) -> DownloadError:
    """Tell a server that refuses from one that nobody can reach, and one that breaks off."""
    import requests

    if status is not None:
        return DownloadError(f"{path}: the server refuses, is busy or fails (HTTP {status})")
    if isinstance(error, (requests.ConnectionError, requests.exceptions.InvalidURL)):
        return UnreachableError(
            f"{address} cannot be reached ({type(error).__name__}). Check the network "
            "and the proxy settings (HTTPS_PROXY), or set CXR_MIRROR to a server that has the "
            "files. Without any network, use the source 'phantom': it needs nothing."
        )
    return DownloadError(f"{path}: the connection breaks ({type(error).__name__})")


def _check_room(folder: Path, needed: int) -> None:
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if shutil.disk_usage(there).free < needed:
        raise DownloadError(
            f"The disk of {folder} is full: the files that are lacking take {needed} bytes. Free "
            "some space, or set CXR_CACHE to a folder on another disk."
        )


def _is_right(file: Path, pinned: Pinned) -> bool:
    size = file.stat().st_size
    if pinned.bytes is not None and size != pinned.bytes:
        return False
    digest = hashlib.sha256() if pinned.sha256 else hashlib.sha1(b"blob %d\0" % size)
    with file.open("rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == (pinned.sha256 or pinned.git_sha1)
