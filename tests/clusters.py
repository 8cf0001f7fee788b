"""A Dask cluster for tests: a scheduler and workers, each a process of its own, on loopback."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cxrlib import cluster

ROOT = Path(__file__).parent.parent


class Dask:
    """Processes in ``stack``, which ends them all; ``environment`` is theirs."""

    def __init__(self, folder):
        self.folder, self.file, self.workers = folder, folder / "scheduler.json", []
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "False",
        }
        self.environment.pop(cluster.ADDRESS, None)
        self.stack = ExitStack()

    def start(self, module, *words):
        log = self.stack.enter_context((self.folder / f"{module}.log").open("ab"))
        command = [sys.executable, "-m", f"distributed.cli.{module}", "--host", "127.0.0.1"]
        process = subprocess.Popen(
            [*command, *words, "--scheduler-file", str(self.file)],
            stdout=log, stderr=log, env=self.environment, cwd=self.folder,
        )  # fmt: skip
        self.stack.callback(process.wait, 20)
        self.stack.callback(process.kill)
        return process

    def start_scheduler(self):
        scheduler = self.start("dask_scheduler", "--port", "0", "--dashboard-address", ":0")
        while not self.file.exists():
            assert scheduler.poll() is None, (self.folder / "dask_scheduler.log").read_text()
            time.sleep(0.05)
        self.address = json.loads(self.file.read_text())["address"]
        return scheduler

    def start_worker(self):
        """Start a worker without a nanny: killed, it stays dead."""
        words = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--death-timeout", "60"]
        self.workers.append(
            self.start("dask_worker", *words, "--local-directory", str(self.folder))
        )

    def wait_for(self, workers):
        from distributed import Client

        with Client(self.address, set_as_default=False) as there:
            there.wait_for_workers(workers, timeout=60)

    def kill_worker(self):
        """SIGKILL a worker, and start another in its place."""
        worker = self.workers.pop(0)
        worker.send_signal(signal.SIGKILL)
        worker.wait(10)
        self.start_worker()


@contextmanager
def dask(folder, workers=2):
    made = Dask(folder)
    with made.stack:
        made.start_scheduler()
        for _ in range(workers):
            made.start_worker()
        made.wait_for(workers)
        yield made


def forget():
    """Close this process's connections."""
    while cluster._clients:
        cluster._clients.popitem()[1].close(timeout=5)


def kill_at_work(made, monkeypatch, after=1):
    """Kill a worker once so many tasks of some work are done; gives the list of those killed."""
    spread, killed, done = cluster.spread, [], itertools.count(1)

    def spread_and_kill(*given):
        for found in spread(*given):
            yield found
            if next(done) == after:
                killed.append(made.workers[0].pid)
                made.kill_worker()

    monkeypatch.setattr(cluster, "spread", spread_and_kill)
    return killed
