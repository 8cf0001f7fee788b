"""The same work on one machine or on many: dask.distributed, where a scheduler is named.

Without ``DASK_SCHEDULER_ADDRESS`` in the environment everything runs here, in turn, and dask is
not even imported. With it, :func:`spread` sends tasks to the workers of that scheduler. A task
is a function of its arguments and nothing else, so it may run twice: when a worker dies, another
one does its tasks again.
"""

from __future__ import annotations

import os
import reprlib
import sys
import threading
import uuid
from contextlib import contextmanager, suppress
from functools import cache
from itertools import islice

from cxrlib import __version__
from cxrlib.compute.threads import cores

ADDRESS = "DASK_SCHEDULER_ADDRESS"
AHEAD = 3  # tasks for each thread of the workers: none waits, and none piles up anywhere
RETRIES = 2  # of a task that failed: storage on a network has bad moments
PATIENCE = 10  # seconds to find the scheduler

_clients = {}
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
    if address not in _clients or _clients[address].status != "running":
        _clients[address] = _connect(address)
    return _clients[address]


def spread(function, tasks, what: str = "tasks"):
    """Call a function for each task, here or on the cluster; yield results as they come.

    Only a few tasks for each worker are under way at any time, so neither the scheduler's
    memory nor this process's grows with their number. Stop early, and the rest is cancelled.
    Where the cluster has no worker, it waits for one.

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

    Yields
    ------
    number : int
        Of the task, from 0. In order here; as they finish on a cluster.
    result : object

    Raises
    ------
    ClusterError
        If the scheduler is lost, or a task brought down all workers that tried it.
    Exception
        What the function raises, with a note that names the task.
    """
    there = client()
    if there:
        yield from _spread_over(there, function, enumerate(tasks), what)
        return
    for number, task in enumerate(tasks):
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
    more = "" if workers else f". Start one with: dask worker {address}"
    print(f"Cluster at {address}: {told}; dashboard: {link or 'none'}{more}", file=sys.stderr)
    return there


def _spread_over(there, function, numbered, what):
    from distributed import as_completed

    run, running, finished = uuid.uuid4().hex[:8], {}, as_completed(loop=there.loop)

    def submit_some():
        for number, task in islice(numbered, max(0, _room(there, what) - len(running))):
            key = f"{what.replace(' ', '-')}-{run}-{number}"
            given = _expected(), function, task
            future = there.submit(_call, *given, key=key, pure=False, retries=RETRIES)
            running[key] = number, task, future
            finished.add(future)

    try:
        submit_some()
        for future in finished:
            number, task, _ = running.pop(future.key)
            with _named(what, number, task):
                found = _result(future, what, number)
            submit_some()
            yield number, found
            del future, found  # the cluster keeps a result as long as somebody holds its future
    finally:
        with suppress(Exception):  # the scheduler may be gone
            there.cancel([future for _, _, future in running.values()])


def _room(there, what) -> int:
    """How many tasks may be under way; at least some, which then wait for a worker."""
    try:
        return AHEAD * max(1, sum(there.nthreads().values()))
    except OSError as error:
        raise _lost(what) from error


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
    try:
        _settle(*expected)
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
