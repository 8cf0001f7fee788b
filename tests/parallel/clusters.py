"""A Dask cluster for tests: a scheduler and workers, each a process of its own, on loopback."""

import itertools
import json
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from cxrlib.parallel import cluster
from faults import wait_for

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


class Dask:
    """Processes in ``stack``, which ends them all; ``environment`` is theirs."""

    def __init__(self, folder, **environment):
        self.folder, self.file, self.workers = folder, folder / "scheduler.json", []
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, [ROOT, HERE, ROOT / "tests" / "support"])),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "False",
        }
        self.environment.pop(cluster.ADDRESS, None)
        self.environment |= environment
        self.stack = ExitStack()

    def start(self, module, *words):
        log = self.stack.enter_context((self.folder / f"{module}.log").open("ab"))
        command = [sys.executable, "-m", f"distributed.cli.{module}", "--host", "127.0.0.1"]
        process = subprocess.Popen(
            [*command, *words, "--scheduler-file", str(self.file)],
            stdout=log, stderr=log, env=self.environment, cwd=self.folder,
        )  # fmt: skip
        self.stack.callback(process.wait, 120)
        self.stack.callback(process.kill)
        return process

    def start_worker(self):
        """Start a worker without a nanny: killed, it stays dead."""
        words = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory"]
        self.workers.append(self.start("dask_worker", *words, str(self.folder)))

    def kill_worker(self, replace=True):
        """SIGKILL a worker, and start another in its place."""
        worker = self.workers.pop(0)
        worker.kill()
        worker.wait(120)
        if replace:
            self.start_worker()


@contextmanager
def dask(folder, workers=2, **environment):
    """Run a scheduler, at ``address``, and workers."""
    from distributed import Client

    made = Dask(folder, **environment)
    with made.stack:
        made.scheduler = made.start("dask_scheduler", "--port", "0", "--dashboard-address", ":0")
        wait_for(made.file.exists)
        made.address = json.loads(made.file.read_text())["address"]
        for _ in range(workers):
            made.start_worker()
        with Client(made.address, set_as_default=False) as there:
            there.wait_for_workers(workers, timeout=120)
        yield made


@contextmanager
def used(made, monkeypatch):
    """Let this process use a cluster, and leave it afterwards."""
    monkeypatch.setenv(cluster.ADDRESS, made.address)
    yield made
    with suppress(cluster.ClusterError):
        cluster.client().close(timeout=5)


def kill_at_work(made, monkeypatch, after=1, replace=True):
    """Kill a worker once so many tasks of some work are done; gives the list of those killed."""
    spread, killed, done = cluster.spread, [], itertools.count(1)

    def spread_and_kill(*given):
        for found in spread(*given):
            yield found
            if next(done) == after:
                killed.append(made.workers[0].pid)
                made.kill_worker(replace)

    monkeypatch.setattr(cluster, "spread", spread_and_kill)
    return killed
