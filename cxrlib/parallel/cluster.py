"""The same work on one machine or on many: dask.distributed, where a scheduler is named.

Without ``DASK_SCHEDULER_ADDRESS`` in the environment everything runs here, in turn. With it,
:func:`spread` sends tasks to the workers of that scheduler. A task depends on its arguments and
nothing else, so it may run twice: when a worker dies, another one does its tasks again.
"""

from __future__ import annotations

import os
import reprlib
import sys
import threading
import uuid
from contextlib import suppress
from functools import cache
from itertools import islice

from cxrlib import __version__
from cxrlib.parallel.threads import cores

ADDRESS = "DASK_SCHEDULER_ADDRESS"
AHEAD = 3  # tasks for each thread of the workers: none waits, and none piles up anywhere
RETRIES = 2  # of a task that failed: storage on a network has bad moments
PATIENCE = 10  # seconds to find the scheduler
GONE = "{}: the Dask scheduler is gone. What is done is kept; start it, and do the same again."

_clients = {}
_here = threading.local()  # .busy: this thread runs a task of a cluster


class ClusterError(OSError):
    """A cluster that cannot be reached, or that could not do the work."""


def client():
    """Give the distributed.Client of the cluster that ``DASK_SCHEDULER_ADDRESS`` names.

    The first call connects, and prints where the dashboard is. None where no scheduler is named,
    and within a task: tasks don't spread their own work. A ClusterError if none answers.
    """
    address = os.environ.get(ADDRESS, "").strip()
    if not address or on_worker():
        return None
    if address not in _clients or _clients[address].status != "running":
        _clients[address] = _connect(address)
    return _clients[address]


def spread(function, tasks, what: str = "tasks"):
    """Call a function for each task, here or on the cluster; yield (number, result) as they come.

    `function` stands at the top of a module that the workers have too; files that it writes must
    appear whole or not at all (:func:`cxrlib.files.whole_file`). `tasks` are tuples of its
    arguments, and read as needed: only a few for each worker are under way, so no memory grows
    with their number. Stop early, and the rest is cancelled. `what` names them on the dashboard
    and in errors. What the function raises comes with a note that names its task; a ClusterError
    says that the scheduler is lost, or that a task brought down all workers that tried it.
    """
    there, numbered = client(), enumerate(tasks)
    if there:
        yield from _spread_over(there, function, numbered, what)
        return
    for number, task in numbered:
        yield number, _call(function, number, task, what)


def collect(function, tasks, what: str = "tasks", progress: bool = True) -> list:
    """Call :func:`spread`, and give its results in the tasks' order; with a bar on a terminal."""
    from tqdm import tqdm

    total = len(tasks) if hasattr(tasks, "__len__") else None
    quiet = None if progress else True
    shown = tqdm(spread(function, tasks, what), total=total, desc=what, disable=quiet)
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
    link, workers = None, len(there.nthreads())
    with suppress(Exception):  # a scheduler may do without a dashboard
        link = there.dashboard_link
    more = "" if workers else f". Start one with: dask worker {address}"
    print(f"Cluster at {address}: {workers=}; dashboard: {link}{more}", file=sys.stderr)
    return there


def _spread_over(there, function, numbered, what):
    from distributed import as_completed

    keras = sys.modules.get("keras")
    backend = keras.config.backend() if keras else os.environ.get("KERAS_BACKEND")
    run, running, finished = uuid.uuid4().hex[:8], {}, as_completed(loop=there.loop)

    def submit_some():
        try:  # where there is no worker, some tasks wait for one
            room = AHEAD * max(1, sum(there.nthreads().values())) - len(running)
        except OSError as error:
            raise ClusterError(GONE.format(what)) from error
        for number, task in islice(numbered, max(0, room)):
            given = function, number, task, what, (__version__, backend)
            key = f"{what.replace(' ', '-')}-{run}-{number}"
            future = there.submit(_call, *given, key=key, pure=False, retries=RETRIES)
            running[key] = number, future
            finished.add(future)

    try:
        submit_some()
        for future in finished:
            number, _ = running.pop(future.key)
            found = _result(future, what, number)
            submit_some()
            yield number, found
            del future, found  # the cluster keeps a result as long as somebody holds its future
    finally:
        with suppress(Exception):  # the scheduler may be gone
            there.cancel([future for _, future in running.values()])


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
        raise ClusterError(GONE.format(what)) from error


def _call(function, number, task, what, expected=None):
    """Run one task; `expected` is what a worker must have in common with its client."""
    before = getattr(_here, "busy", False)
    _here.busy = before or expected is not None
    try:
        if expected:
            _settle(*expected)
        return function(*task)
    except Exception as error:
        error.add_note(f"This was task {number} of '{what}': {reprlib.repr(task)}")
        raise
    finally:
        _here.busy = before


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
