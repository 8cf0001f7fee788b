"""Work shared by the cores of this machine, and work done ahead of time."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def share(work, count: int, threads: int | None = None) -> None:
    """Call ``work(0)`` to ``work(count - 1)``, here and in other threads, and wait for all.

    It pays where the work is NumPy's or OpenCV's, which let other threads run meanwhile. Each
    call must write to a place of its own. By default there is a thread for each core.
    """
    numbers = iter(range(count))  # whoever is free takes the next

    def some():
        for number in numbers:
            work(number)

    others = min(threads or cores(), count) - 1
    helpers = [_helpers().submit(some) for _ in range(others)]
    try:
        some()
    finally:  # those that have not begun have nothing left to do
        helpers = [helper for helper in helpers if not helper.cancel()]
        wait(helpers)
    for helper in helpers:
        helper.result()  # raises what it has raised


def ahead(make, arguments):
    """Yield ``make(argument)`` of each argument; the next is made in a thread meanwhile.

    So images are read while a network works on those before them; at most one result waits, and
    what `make` raises comes in its turn. The arguments are read in the thread that asks.
    """
    with ThreadPoolExecutor(1) as thread:
        coming = None
        for argument in arguments:
            made = coming and coming.result()  # its error comes before anything else is begun
            first, coming = coming is None, thread.submit(make, argument)
            if not first:
                yield made
        if coming:
            yield coming.result()


@cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores())


if hasattr(os, "register_at_fork"):  # threads do not live on in a forked process
    os.register_at_fork(after_in_child=_helpers.cache_clear)
