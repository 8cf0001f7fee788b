"""For tests that hurt the course: commands to be killed, and disks that fill up."""

import hashlib
import os
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from cxrlib.sources import pinned

ROOT = Path(__file__).resolve().parents[2]
CONTENT = bytes(range(256)) * 2000  # of a file to fetch
PRELOADED = ["pandas", "papermill", "requests"]
PRELOADED += [
    "cxrlib.course.runs",
    "cxrlib.plots",
    "cxrlib.course.report",
    "cxrlib.sources.catalogue",
]


@pytest.fixture(autouse=True)
def fault(request, record_property, monkeypatch):
    """Put a test's docstring into the JUnit file; docs/reliability.md counts those that have one.

    A test that tries several faults records how many as ``tried`` and ``survived``; else it is 1.
    Processes that it starts, kernels too, run this package, whichever is installed.
    """
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    if request.function.__doc__:
        record_property("what", request.function.__doc__.splitlines()[0].rstrip("."))


def pin(path, content, size=True, sha256=True) -> pinned.Pinned:
    """Pin a file by its content, with or without what some manifests lack."""
    return pinned.Pinned(
        path,
        len(content) if size else None,
        hashlib.sha256(content).hexdigest() if sha256 else "",
        hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
    )


def cxr(words, log, surroundings, data=None):
    """Run the command ``cxr`` in this process, which is there for nothing else.

    Parameters
    ----------
    words : list of str
    log : path of a file that takes what it prints
    surroundings : dict of environment variables
    data : path, optional
        Folder of the manifests, in place of the course's own.
    """
    os.environ.update(surroundings)
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from cxrlib import cli

    manifests = mock.patch("cxrlib.sources.catalogue.shipped", lambda _: Path(data))
    with manifests if data else nullcontext():
        cli.main(words)


def start_cxr(*given):
    """Start :func:`cxr` in a process whose imports are done, so that a kill hits the work."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=cxr, args=given)
    process.start()
    return process


def at_once(*works):
    """Do several works, each a function of this module and what it is given, at the same moment.

    Each has a process of its own; gives their exit codes.
    """
    context = get_context("spawn")
    barrier = context.Barrier(len(works))
    processes = [context.Process(target=_after, args=(barrier, *work)) for work in works]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def _after(barrier, work, *given):
    barrier.wait()
    work(*given)


def decode_films(films, folder):
    """Decode a folder's films into a cache."""
    from cxrlib import images

    assert not images.decode(sorted(films.glob("*.png")), folder, 300, 2, False).failures


def extract_features(cache, into):
    """Extract features of a few pictures into a file, with a cache."""
    os.environ["CXR_CACHE"] = str(cache)
    from cxrlib import backbone
    from helpers import tiny_cohort

    pictures = tiny_cohort(30, side=40).images[:]
    np.save(into, backbone.features(pictures, "MobileNet", 32, "random", progress=False))


def kill(process, family=False) -> None:
    """SIGKILL to a process; with `family` also to its kernels and their children."""
    import psutil

    members = []
    with suppress(psutil.Error):
        members = psutil.Process(process.pid).children(recursive=True) if family else []
    process.kill()
    process.join()
    for member in members:
        with suppress(psutil.Error):
            member.kill()


def wait_for(condition, seconds=120):
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def _unshared() -> list[str] | None:
    """Command that gives a process mounts of its own, or None where that is not permitted."""
    probe = ["sh", "-c", 'mount -t tmpfs -o size=1m none "$0"', "/mnt"]
    for command in (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"]):
        with suppress(OSError):
            if subprocess.run([*command, *probe], capture_output=True).returncode == 0:
                return command
    return None


class Disk:
    """A folder that becomes a small disk (in memory), for the processes started here only.

    What they leave on it is gone when they end: a script does all its checks itself.
    """

    def __init__(self, place: Path):
        self.place, self.unshared = place, _unshared()
        place.mkdir()
        if not self.unshared:
            pytest.skip("mounting a small disk is not permitted here")

    def run(self, script: str, *words, size="4m", read_only=False, before="", **surroundings):
        """Run a Python script with the disk's folder in ``disk``; give the ended process.

        Parameters
        ----------
        before : str
            Python that prepares the disk before it becomes read-only.
        """
        head = "import sys; from pathlib import Path; disk = Path(sys.argv[1])\n"
        steps = [f'mount -t tmpfs -o size={size} none "$1"']
        if read_only:
            steps += ['"$2" -c "$3" "$1"', 'mount -o remount,ro "$1"']
        steps += ['disk="$1" python="$2" script="$4"; shift 4']
        steps += ['exec "$python" -c "$script" "$disk" "$@"']
        shell = ["sh", "-ec", "\n".join(steps), "sh", self.place, sys.executable]
        command = [*self.unshared, *shell, head + before, head + script, *words]
        return subprocess.run(
            [str(part) for part in command],
            env=os.environ | surroundings,
            cwd=self.place.parent,
            capture_output=True,
            text=True,
            timeout=120,
        )
