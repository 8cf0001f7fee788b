"""The same work on one machine or on many: dask.distributed, where a scheduler is named.

Without ``DASK_SCHEDULER_ADDRESS`` in the environment everything runs here, in turn, and dask is
not even imported. With it, :func:`spread` sends tasks to the workers of that scheduler. A task
is a function of its arguments and nothing else, so it may run twice: when a worker dies, another
one does its tasks again.
"""

from __future__ import annotations

import os
import queue
import reprlib
import sys
import threading
import time
import uuid
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from itertools import islice

from cxrlib import __version__
from cxrlib.machine import collection_paused
from cxrlib.threads import cores

ADDRESS = "DASK_SCHEDULER_ADDRESS"
AHEAD = 3  # tasks for each thread of the workers: none waits, and none piles up anywhere
RETRIES = 2  # of a task that failed: storage on a network has bad moments
PATIENCE = 10  # seconds to find the scheduler
LONGEST = 300  # seconds without any worker

_clients = {}
_connecting = threading.Lock()
_here = threading.local()  # .busy: this thread runs a task of a cluster


class ClusterError(OSError):
    """A cluster that cannot be reached, or that could not do the work."""


def client():
    """Give the client of the cluster that ``DASK_SCHEDULER_ADDRESS`` names.

    There is one in a process. The first call connects, and prints how many workers there are
    and where the dashboard is.

    Returns
    -------
    distributed.Client or None
        None where no scheduler is named, and within a task: tasks don't spread their own work.

    Raises
    ------
    ClusterError
        If dask.distributed is not installed, or no scheduler answers within `PATIENCE`.
    """
    address = os.environ.get(ADDRESS, "").strip()
    if not address or on_worker():
        return None
    which = address, os.getpid()  # a forked process must not use its parent's connection
    with _connecting:
        if which not in _clients or _clients[which].status != "running":
            _clients[which] = _connect(address)
    return _clients[which]


def spread(function, tasks, what: str = "tasks", ahead: int = 1):
    """Call a function for each task, here or on the cluster; yield results as they come.

    Only a few tasks for each worker are under way at any time, so neither the scheduler's
    memory nor this process's grows with their number. Stop early, and the rest is cancelled.

    Parameters
    ----------
    function : callable
        At the top of a module that the workers have too. It depends on its arguments alone,
        and may be called twice for one task. Files that it writes must appear whole or not
        at all (:func:`cxrlib.files.whole_file`).
    tasks : iterable of tuple
        The arguments of each call. It is read as needed, so it may be long.
    what : str
        Names the tasks on the dashboard and in errors.
    ahead : int
        Calls under way at the same time where there is no cluster; above 1, in threads, except
        within a task of a cluster.

    Yields
    ------
    number : int
        Of the task, from 0. In order here; as they finish on a cluster.
    result : object

    Raises
    ------
    ClusterError
        If the scheduler is lost, no worker comes within `LONGEST` seconds, or a task brought
        down all workers that tried it.
    Exception
        What the function raises, with a note that names the task.
    """
    there = client()
    numbered = enumerate(tasks)
    if there:
        yield from _spread_over(there, function, numbered, what)
    elif ahead > 1 and not on_worker():  # a task keeps to its own thread, which knows its worker
        yield from _overlap(function, numbered, what, ahead)
    else:
        for number, task in numbered:
            with _named(what, number, task):
                found = function(*task)
            yield number, found


def collect(function, tasks, what: str = "tasks", progress: bool = True) -> list:
    """Call a function for each task, here or on the cluster; results in the tasks' order.

    Parameters
    ----------
    function, tasks, what
        As in :func:`spread`.
    progress : bool
        Show a progress bar on a terminal.
    """
    from tqdm import tqdm

    tasks = list(tasks)
    finished = spread(function, tasks, what)
    shown = tqdm(finished, total=len(tasks), desc=what, disable=None if progress else True)
    return [found for _, found in sorted(shown, key=lambda pair: pair[0])]


def on_worker() -> bool:
    """Tell whether this thread runs a task of a cluster."""
    return getattr(_here, "busy", False)


def threads() -> int:
    """Count the threads that a task may use: those of its worker, or all cores without one."""
    if on_worker():
        from distributed import get_worker

        return get_worker().state.nthreads
    return cores()


def _connect(address: str):
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterError(
            f"{ADDRESS} is set ({address}), but dask.distributed is not installed. Run: pip "
            f'install "cxrlib[cluster]". Or unset {ADDRESS} to work on this machine alone.'
        ) from error
    try:
        there = Client(address, timeout=PATIENCE, name="cxrlib", set_as_default=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ClusterError(
            f"No Dask scheduler answers at {address} ({reason}). Start one with 'dask "
            f"scheduler', mend {ADDRESS}, or unset it to work on this machine alone."
        ) from error
    link = None
    with suppress(Exception):  # a scheduler may do without a dashboard
        link = there.dashboard_link
    workers = len(there.nthreads())
    told = f"{workers} worker{'' if workers == 1 else 's'}"
    print(f"Cluster at {address}: {told}; dashboard: {link or 'none'}", file=sys.stderr)
    return there


def _overlap(function, numbered, what, ahead: int):
    """Call a function in threads, so that the end of one task and the start of the next overlap."""
    with ThreadPoolExecutor(ahead) as pool:
        running, more, error = deque(), True, None
        while more or running:
            try:
                number, task = next(numbered)
            except StopIteration:
                more = False
            except Exception as raised:  # what was begun before is not lost
                more, error = False, raised
            else:
                running.append((number, task, pool.submit(function, *task)))
            if running and (len(running) == ahead or not more):
                number, task, future = running.popleft()
                with _named(what, number, task):
                    found = future.result()
                yield number, found
    if error:
        raise error


def _spread_over(there, function, numbered, what):
    from distributed import Future

    run, done = uuid.uuid4().hex[:8], queue.SimpleQueue()
    running: dict[str, tuple[int, tuple, Future]] = {}
    size = _Size(there, what)
    try:
        while True:
            for number, task in islice(numbered, max(0, size.room() - len(running))):
                key = f"{what.replace(' ', '-')}-{run}-{number}"
                future = there.submit(
                    _call, _expected(), function, task, key=key, pure=False, retries=RETRIES
                )
                running[key] = number, task, future
                future.add_done_callback(done.put)
            if not running:
                return
            key = _next(done, size).key
            number, task, future = running.pop(key)
            with _named(what, number, task):
                found = _result(future, what, number)
            yield number, found
            del future, found  # the cluster keeps a result as long as somebody holds its future
    finally:
        with suppress(Exception):  # the scheduler may be gone
            there.cancel([future for _, _, future in running.values()])


class _Size:
    """How many threads the workers have together; asked every two seconds at most."""

    def __init__(self, there, what):
        self.there, self.what = there, what
        self.threads, self.asked, self.empty_since = 0, 0.0, None

    def room(self) -> int:
        """How many tasks may be under way; at least one, which then waits for a worker."""
        if time.monotonic() - self.asked > 2:
            self.look()
        return AHEAD * max(self.threads, 1)

    def look(self) -> None:
        if self.there.status != "running":
            raise _lost(self.what)
        try:
            self.threads = sum(self.there.nthreads().values())
        except OSError as error:
            raise _lost(self.what) from error
        self.asked = time.monotonic()
        if self.threads:
            self.empty_since = None
        elif self.empty_since is None:
            self.empty_since = self.asked
            address = self.there.scheduler.address
            print(f"Waiting for a worker. Start one with: dask worker {address}", file=sys.stderr)
        elif self.asked - self.empty_since > LONGEST:
            raise ClusterError(
                f"{self.what}: no worker for {LONGEST} s. What is done is kept; start workers "
                "and do the same again."
            )


def _next(done, size):
    """Wait for the next task that is finished, and look after the cluster meanwhile."""
    while True:
        try:
            return done.get(timeout=2)
        except queue.Empty:
            size.look()


def _result(future, what, number):
    from concurrent.futures import CancelledError

    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    try:
        return future.result()
    except KilledWorker as error:
        raise ClusterError(
            f"{what}: task {number} brought down every worker that tried it. Most often memory "
            "is short: give each worker more (--memory-limit), or start fewer on a machine."
        ) from error
    except (CancelledError, CommClosedError) as error:  # whichever is noticed first
        raise _lost(what) from error


def _lost(what) -> ClusterError:
    return ClusterError(
        f"{what}: the Dask scheduler is gone. What is done is kept; start it and its workers, and "
        "do the same again."
    )


@contextmanager
def _named(what, number, task):
    try:
        yield
    except Exception as error:
        error.add_note(f"This was task {number} of '{what}': {reprlib.repr(task)}")
        raise


def _expected() -> tuple[str, str | None]:
    """Say what a worker must have in common with this process: cxrlib, and Keras's backend."""
    keras = sys.modules.get("keras")
    return __version__, keras.config.backend() if keras else os.environ.get("KERAS_BACKEND")


def _call(expected, function, task):
    """Run one task; this happens on a worker."""
    _here.busy = True
    # With several threads the collector might never come to work: one of them is always busy
    alone = threads() == 1
    try:
        _settle(*expected)
        with collection_paused() if alone else nullcontext():
            return function(*task)
    finally:
        _here.busy = False


@cache
def _settle(version: str, backend: str | None) -> None:
    """Fit this worker to its client, once: versions, backend, and no more threads than it has."""
    if version != __version__:
        raise ClusterError(
            f"A worker has cxrlib {__version__}, you have {version}. Install the same on all."
        )
    count = str(threads())
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, count)
    import cv2

    cv2.setNumThreads(int(count))
    if backend and "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = backend
    elif backend and sys.modules["keras"].config.backend() != backend:
        raise ClusterError(
            f"A worker's Keras runs on {sys.modules['keras'].config.backend()}, yours on "
            f"{backend}. Start the workers again with KERAS_BACKEND={backend}."
        )
