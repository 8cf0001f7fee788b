"""Pinned files: their hash is known beforehand. Fetched several at a time, never unverified."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from cxrlib.files import whole_file
from cxrlib.sources import SourceError

HOST = "https://raw.githubusercontent.com"
TIMEOUT = (10, 30)  # seconds to connect, and without a byte
LONGEST = 600  # seconds for one attempt at one file
ATTEMPTS = 4
LONGEST_WAIT = 60  # seconds, whatever the server's Retry-After asks for
LARGEST = 100_000_000  # bytes, for a file whose size is not known
CHUNK = 1 << 16  # bytes
PROXIES, BUNDLES = "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY", ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
MANY = 10  # files that failed, after which the rest is not tried


@dataclass(frozen=True)
class Pinned:
    """A file known beforehand: its path (below the host and a local folder), size and hash.

    Hashes are hexadecimal, or "" where not known. Git's blob id, the SHA-1 of ``blob <bytes>``,
    a zero byte and the content, counts where no SHA-256 is known.
    """

    path: str
    bytes: int | None = None
    sha256: str = ""
    git_sha1: str = ""

    def __post_init__(self):
        if not (self.sha256 or self.git_sha1):
            raise SourceError(f"{self.path}: no hash is known, so it could not be verified.")


def place(folder, path: str) -> Path:
    """Where a pinned file lies in `folder`; a path that would leave it raises SourceError."""
    folder, parts = Path(folder).resolve(), PurePosixPath(path)
    target = folder.joinpath(parts)
    inside = target.resolve().is_relative_to(folder) and target.resolve() != folder
    if parts.is_absolute() or ".." in parts.parts or "\\" in path or not inside:
        raise SourceError(f"{path!r} would be written outside {folder}. Refused.")
    return target


def state(folder, pinned: Pinned) -> str:
    """Compare the local file with what is pinned: 'present', 'missing' or 'damaged'."""
    file = place(folder, pinned.path)
    if not file.is_file():
        return "missing"
    return "present" if _is_right(file, pinned) else "damaged"


def states(folder, files) -> list[str]:
    """:func:`state` of each of the files, in their order; several are read at a time."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(partial(state, folder), files))


def mirror() -> str:
    """Address that files are fetched from: ``CXR_MIRROR``, or GitHub's own."""
    address = os.environ.get("CXR_MIRROR", "").strip().rstrip("/") or HOST
    if not address.startswith(("http://", "https://")):
        raise SourceError(
            f"CXR_MIRROR is {address!r}; it has to begin with http:// or https://, "
            "for example http://127.0.0.1:8000"
        )
    return address


def fetch(files, folder, workers: int = 8, progress: bool = True) -> list[str]:
    """Download what is not there yet, and what is there but damaged, `workers` at a time.

    A file appears as ``folder / pinned.path`` only when its size and hash are right. The list
    says for each 'present', or 'missing' where the server does not have it.

    Raises
    ------
    SourceError
        If nothing answers, the server sends something else or keeps failing, or a path would leave
        the folder. What has arrived by then is kept.
    OSError
        If the disk is full or read-only, or a setting of this machine keeps all requests back.
    """
    from tqdm import tqdm

    folder, failed, stop = Path(folder), [], threading.Event()
    found = states(folder, files)
    lacking = {row: files[row] for row, what in enumerate(found) if what != "present"}
    if not lacking:  # nothing is written then: the folder may be a read-only one
        return found
    address = mirror()
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
                except (SourceError, ConnectionError) as error:
                    failed.append(str(error))
                    if len(failed) == MANY or isinstance(error, ConnectionError):
                        break
        finally:  # also when the disk is full, and after Ctrl-C
            stop.set()
            pool.shutdown(cancel_futures=True)
    if failed:
        shown = "\n  ".join(failed)
        raise SourceError(
            f"{len(failed)} file(s) could not be fetched from {address}:\n  {shown}\n"
            "Try again later, check the network and the proxy settings (HTTPS_PROXY), or set "
            "CXR_MIRROR to another server with the same files. Without any network, use the "
            "source 'phantom': it needs nothing."
        )
    return found


def _fetch_one(pinned: Pinned, folder: Path, address: str, stop: threading.Event) -> str:
    """Fetch one file; 'present' or 'missing'. ConnectionError: nor would others be answered."""
    import pooch
    import requests

    url, target = f"{address}/{quote(pinned.path)}", place(folder, pinned.path)
    as_it_is = {"Accept-Encoding": "identity"}
    download = pooch.HTTPDownloader(chunk_size=CHUNK, timeout=TIMEOUT, headers=as_it_is)
    for attempt in range(1, ATTEMPTS + 1):
        pause, failure, may_pass = "", SourceError, True
        try:
            with whole_file(target) as file:
                with _Limited(file, pinned, stop) as limited:
                    download(url, limited, None)
                if _is_right(file, pinned):
                    return "present"
                raise SourceError(f"the {file.stat().st_size} bytes that came are not the file")
        except SourceError as error:
            why = str(error)
        except OSError as error:
            if told := _setting_at_fault(error):
                raise OSError(f"Nothing can be fetched from {address}: {told}") from error
            if not isinstance(error, requests.RequestException):
                raise
            if error.response is None:
                why = f"the connection breaks, or there is none ({type(error).__name__})"
                nobody = (requests.ConnectionError, requests.exceptions.InvalidURL)
                failure = ConnectionError if isinstance(error, nobody) else SourceError
            else:
                status = error.response.status_code
                pause = error.response.headers.get("Retry-After", "")
                why = f"the server refuses, is busy or fails (HTTP {status})"
                may_pass = status == 429 or status >= 500
                if status in {404, 410}:
                    return "missing"
        if attempt == ATTEMPTS or not may_pass or stop.is_set():
            break
        stop.wait(min(int(pause) if pause.isdecimal() else 2**attempt / 4, LONGEST_WAIT))
    raise failure(f"{pinned.path}: {why}")


def _setting_at_fault(error: OSError) -> str:
    """Say which setting of this machine stops every request, and the remedy; "" if none does."""
    from requests.exceptions import InvalidProxyURL, InvalidSchema

    said = str(error)
    if isinstance(error, InvalidSchema) and "SOCKS" in said:
        return (
            f"a proxy that speaks SOCKS ({PROXIES}) needs a package. Install it: "
            "pip install 'requests[socks]'; or unset the variable."
        )
    if isinstance(error, (InvalidSchema, InvalidProxyURL)):
        return f"{said} Mend or unset {PROXIES}."
    if "CA certificate bundle" in said:
        named = [name for name in BUNDLES if os.environ.get(name, "-") in said]
        named = " and ".join(named) or "REQUESTS_CA_BUNDLE"
        return f"{said}. Set {named} to a file that is there, or unset it."
    if "CERTIFICATE_VERIFY_FAILED" in said:
        now = os.environ.get("REQUESTS_CA_BUNDLE", "not set")
        return (
            "its certificate is unknown here. Where a firewall reads along, set REQUESTS_CA_BUNDLE "
            f"(now: {now}) to a file with the firewall's; else look at this machine's clock."
        )
    return ""


class _Limited(io.BufferedWriter):
    """A file that takes no more than is pinned, and for no longer than `LONGEST`."""

    def __init__(self, path: Path, pinned: Pinned, stop: threading.Event):
        super().__init__(io.FileIO(path, "wb"))
        self.stop, self.deadline = stop, time.monotonic() + LONGEST
        self.left = self.limit = LARGEST if pinned.bytes is None else pinned.bytes

    def write(self, chunk: bytes) -> None:
        self.left -= len(chunk)
        if self.left < 0:
            raise SourceError(f"more than the pinned {self.limit} bytes come")
        if self.stop.is_set() or time.monotonic() > self.deadline:
            raise SourceError("too slow, or stopped")
        super().write(chunk)


def _is_right(file: Path, pinned: Pinned) -> bool:
    size = file.stat().st_size
    if pinned.bytes not in (None, size):
        return False
    digest = hashlib.sha256 if pinned.sha256 else partial(hashlib.sha1, b"blob %d\0" % size)
    with file.open("rb") as content:
        found = hashlib.file_digest(content, digest).hexdigest()
    return found == (pinned.sha256 or pinned.git_sha1)
