"""Pinned files: fetched several at a time, resumed, retried, and never taken unverified."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote

from cxrlib.pinned import Pinned, is_right, place, states

HOST = "https://raw.githubusercontent.com"
TIMEOUT = (10, 30)  # seconds to connect, and without a byte
LONGEST = 600  # seconds for one attempt at one file
ATTEMPTS = 4
LONGEST_WAIT = 60  # seconds, whatever the server's Retry-After asks for
LARGEST = 100_000_000  # bytes, for a file whose size is not known
PIECE = 1 << 14  # bytes; what a broken line can lose
MANY = 10  # files that failed, after which the rest is not tried


class DownloadError(ValueError):
    """Files that could not be fetched; the message says which, why, and what to do."""


class MissingError(DownloadError):
    """The server answers, but does not have the file."""


class WrongContentError(DownloadError):
    """What the server sends is not the pinned file."""


class ServerError(DownloadError):
    """The server answers, but not with the file, however often it is asked."""


class UnreachableError(DownloadError):
    """No server answers."""


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
    """Download what is not there yet.

    A broken download goes on where it stopped (its bytes stay in a ``.part`` file). A file
    that is there but damaged is fetched again. A file appears under its name only when its
    size and hash are right.

    Parameters
    ----------
    files : sequence of Pinned
    folder : path-like
        The files go to ``folder / pinned.path``.
    workers : int
        How many files at a time.

    Returns
    -------
    list of str
        For each file 'present', or 'missing' where the server does not have it.

    Raises
    ------
    DownloadError
        If nothing answers, the server sends something else or keeps failing, or the disk is
        full or read-only. What has arrived by then is kept.
    cxrlib.pinned.PathError
        If a path would leave the folder.
    """
    folder = Path(folder)
    found = states(folder, files)
    lacking = {row: files[row] for row, what in enumerate(found) if what != "present"}
    if not lacking:  # nothing is written then: the folder may be a read-only one
        return found
    with _alone(folder):
        for row, what in zip(lacking, states(folder, list(lacking.values())), strict=True):
            found[row] = what  # another process may have fetched it meanwhile
        lacking = {row: files[row] for row in lacking if found[row] != "present"}
        for pinned in lacking.values():
            place(folder, pinned.path).unlink(missing_ok=True)
        if lacking:
            needed = sum(pinned.bytes or 0 for pinned in lacking.values())
            if shutil.disk_usage(folder).free < needed:
                raise _no_room(folder, needed)
            fetcher = _Fetcher(folder, mirror(), needed)
            for row, what in _fetch_all(lacking, fetcher, workers, progress):
                found[row] = what
    return found


def _fetch_all(lacking: dict[int, Pinned], fetcher: _Fetcher, workers: int, progress: bool):
    """Yield (row, 'present' or 'missing') as files arrive; raise for those that failed."""
    from tqdm import tqdm

    failed = []
    pool = ThreadPoolExecutor(workers)
    bar = tqdm(total=len(lacking), desc="fetching", unit="file", disable=None if progress else True)
    try:
        jobs = {pool.submit(fetcher.fetch, pinned): row for row, pinned in lacking.items()}
        for job in as_completed(jobs):
            bar.update()
            try:
                job.result()
                yield jobs[job], "present"
            except MissingError:
                yield jobs[job], "missing"
            except (WrongContentError, ServerError) as error:
                failed.append(str(error))
            if len(failed) >= MANY:
                break
    finally:  # also when one job found no network or no room, and after Ctrl-C
        fetcher.stop.set()
        pool.shutdown(cancel_futures=True)
        bar.close()
    if failed:
        shown = "\n  ".join(failed)
        raise DownloadError(
            f"{len(failed)} file(s) could not be fetched from {fetcher.address}:\n  {shown}\n"
            "Try again later, or set CXR_MIRROR to another server with the same files."
        )


class _Fetcher:
    """Fetches one file after another; each thread keeps a connection of its own."""

    def __init__(self, folder: Path, address: str, needed: int):
        self.folder, self.address, self.needed = folder, address, needed
        self.stop = threading.Event()
        self.local = threading.local()

    def session(self):
        import requests

        if not hasattr(self.local, "session"):
            self.local.session = requests.Session()
            self.local.session.max_redirects = 5
        return self.local.session

    def fetch(self, pinned: Pinned) -> None:
        """Download, verify and move to its place one file; retry what may pass."""
        target = place(self.folder, pinned.path)
        part = target.with_name(target.name + ".part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            for attempt in range(ATTEMPTS):
                try:
                    self.attempt(pinned, part)
                    part.replace(target)
                    return
                except _TryAgainError as again:
                    if attempt == ATTEMPTS - 1 or self.stop.is_set():
                        raise again.reason from again
                    self.stop.wait(min(again.wait or 0.5 * 2**attempt, LONGEST_WAIT))
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                part.unlink(missing_ok=True)
                raise _no_room(self.folder, self.needed) from error
            raise _no_writing(target, error) from error

    def attempt(self, pinned: Pinned, part: Path) -> None:
        """Complete `part` by one request, and check it."""
        import requests
        from urllib3.exceptions import HTTPError

        have = part.stat().st_size if part.exists() else 0
        if have and have == pinned.bytes:
            return self.check(pinned, part, whole=True, retry=True)
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        url = f"{self.address}/{quote(pinned.path)}"
        try:
            with self.session().get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
                _check_status(answer, pinned.path)
                goes_on = answer.status_code == 206
                if answer.status_code != 416:  # 416: nothing follows the bytes we have
                    self.receive(answer, pinned, part, have if goes_on else 0)
        except requests.TooManyRedirects as error:
            raise ServerError(f"{pinned.path}: redirected without end") from error
        except (requests.RequestException, HTTPError) as error:
            raise _TryAgainError(_reason(error, pinned.path, self.address)) from error
        whole = answer.status_code == 416 or "Content-Length" in answer.headers
        return self.check(pinned, part, whole, retry=answer.status_code != 200)

    def receive(self, answer, pinned: Pinned, part: Path, have: int) -> None:
        """Append the body to the first `have` bytes of `part`; cut off what is too much."""
        limit = LARGEST if pinned.bytes is None else pinned.bytes
        deadline = time.monotonic() + LONGEST
        with part.open("ab" if have else "wb") as file:
            # not iter_content: it would wait for a whole piece, and a server that sends a byte
            # now and then could hold us for days
            while chunk := answer.raw.read1(PIECE, decode_content=True):
                have += len(chunk)
                if have > limit:
                    file.truncate(0)
                    kind = answer.headers.get("Content-Type", "no type given")
                    raise WrongContentError(
                        f"{pinned.path}: more than the pinned {limit} bytes come ({kind})"
                    )
                file.write(chunk)
                if self.stop.is_set() or time.monotonic() > deadline:
                    raise _TryAgainError(ServerError(f"{pinned.path}: too slow, or stopped"))

    def check(self, pinned: Pinned, part: Path, whole: bool, retry: bool) -> None:
        """Return if `part` is right. Else it goes, unless the server never said how long it is."""
        if is_right(part, pinned):
            return
        size = part.stat().st_size
        reason = WrongContentError(f"{pinned.path}: the {size} bytes that came are not the file")
        if not whole and size < (pinned.bytes or 0):
            raise _TryAgainError(reason)
        part.unlink()
        if retry:  # the bytes of an earlier attempt may be to blame: once more, from the start
            raise _TryAgainError(reason)
        raise reason


class _TryAgainError(Exception):
    """One attempt failed, the next may not; `reason` is raised after the last."""

    def __init__(self, reason: DownloadError, wait: float | None = None):
        super().__init__(str(reason))
        self.reason, self.wait = reason, wait


def _check_status(answer, path: str) -> None:
    """Raise unless the answer's body is (a part of) the file."""
    status = answer.status_code
    if status in {404, 410}:
        raise MissingError(f"{path}: the server does not have it")
    if status in {429, 500, 502, 503, 504}:
        reason = ServerError(f"{path}: the server is busy or fails (HTTP {status})")
        raise _TryAgainError(reason, _seconds(answer.headers.get("Retry-After")))
    if status not in {200, 206, 416}:
        raise ServerError(f"{path}: the server refuses (HTTP {status})")


def _seconds(retry_after: str | None) -> float | None:
    """Read a Retry-After header: seconds, or a date."""
    try:
        return max(0.0, float(retry_after))
    except (TypeError, ValueError):
        pass
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _reason(error, path: str, address: str) -> DownloadError:
    """Tell a server that nobody can reach from one that breaks off."""
    import requests
    from urllib3.exceptions import NewConnectionError

    cause = getattr(error.args[0], "reason", None) if error.args else None
    away = (requests.ConnectTimeout, requests.exceptions.ProxyError, requests.exceptions.SSLError)
    invalid = requests.exceptions.InvalidURL
    if isinstance(error, (*away, invalid)) or isinstance(cause, NewConnectionError):
        return UnreachableError(
            f"{address} cannot be reached ({type(cause or error).__name__}). Check the network "
            "and the proxy settings (HTTPS_PROXY), or set CXR_MIRROR to a server that has the "
            "files. Without any network, use the source 'phantom': it needs nothing."
        )
    return ServerError(f"{path}: the connection breaks ({type(error).__name__})")


def _no_room(folder: Path, needed: int) -> DownloadError:
    return DownloadError(
        f"The disk of {folder} is full: the files that are lacking take {needed} bytes. Free some "
        "space, or set CXR_CACHE to a folder on another disk. What was fetched is kept."
    )


def _no_writing(path: Path, error: OSError) -> DownloadError:
    return DownloadError(
        f"{path} cannot be written ({error.strerror}). Set CXR_CACHE to a folder that you may "
        "write to."
    )


@contextmanager
def _alone(folder: Path):
    """Let one process at a time fetch into a folder; the lock ends with the process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise _no_writing(folder, error) from error
    with lock:
        try:
            import fcntl

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                said = f"Another process is fetching into {folder}; waiting for it."
                print(said, file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
        except (ImportError, OSError):  # Windows, or a disk without locks: hashes still guard
            pass
        yield
