"""Measure how features of many images grow with their number on a Dask cluster; plans from it.

python benchmarks/scale.py [--sizes 2000 5000 10000 20000] [--rounds 5] [--write]

Makes that many synthetic films as JPEG files of 512 x 512 in a temporary folder (1.5 GB for
20,000), and extracts their features with a scheduler and two workers of one thread: time and
peak memory at each size; what the scheduler costs, against two plain processes; and how many
tasks a second it can hand out. `--write` puts it into docs/scale.md, with the plan for larger
collections that follows from it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import psutil
from rounds import ROOT, Peaks, machine, options, table, versions, write
from scaleplan import plan

from cxrlib import bulk, cluster, store

PAGE = ROOT / "docs" / "scale.md"
SIDE = 512  # pixels of the films
BODIES = 200  # phantoms that are rendered; the films are made from them
NETWORK = {"name": "MobileNetV2", "size": 96, "weights": "random"}
LARGE = {"name": "ResNet50", "size": 224, "weights": "random"}
SHARD = 256  # smaller than usual: more tasks, so that the scheduler's part shows
PACKAGES = ("distributed", "zarr", "keras", "tensorflow", "tensorflow-cpu", "openvino", "numpy")
LIMITS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


def render(number: int):
    """Render one of the bodies."""
    from cxrlib import phantom

    labels = ("healthy", "pneumonia", "covid")
    return phantom.render(labels[number % 3], seed=number, size=160).image


def make_film(folder: str, bodies, number: int) -> int:
    """Write a film that no other equals: a body, shifted, brightened, with noise; its bytes."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(number)
    image = cv2.resize(bodies[number % len(bodies)], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    image = np.roll(image, rng.integers(-20, 21, 2), (0, 1)).astype(np.int16)
    noise = np.roll(_noise(), rng.integers(0, SIDE, 2), (0, 1))
    image = np.clip(image + noise + int(rng.integers(-20, 21)), 0, 255).astype(np.uint8)
    path = Path(folder) / f"{number:06}.jpg"
    path.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])
    return path.stat().st_size


_kept = []


def _noise():
    import numpy as np

    if not _kept:
        _kept.append(np.rint(np.random.default_rng(0).normal(0, 4, (SIDE, SIDE))).astype(np.int16))
    return _kept[0]


def make_films(folder: Path, count: int) -> float:
    """Write `count` films; returns their mean size in bytes."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        bodies = pool.map(render, range(BODIES))
        sizes = pool.map(partial(make_film, str(folder), bodies), range(count), chunksize=500)
    return statistics.mean(sizes)


def films(folder: Path, count: int) -> list[str]:
    """Names of the first films."""
    return [str(folder / f"{number:06}.jpg") for number in range(count)]


@contextmanager
def two_workers(folder: Path):
    """Run a scheduler and two workers of one thread; gives the processes by name."""
    folder.mkdir()
    file = folder / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop(cluster.ADDRESS, None)
    with ExitStack() as stack:

        def start(module, *words):
            log = stack.enter_context((folder / "log").open("ab"))
            command = [sys.executable, "-m", f"distributed.cli.{module}", "--host", "127.0.0.1"]
            process = subprocess.Popen(
                [*command, *words, "--scheduler-file", str(file)],
                stdout=log, stderr=log, env=environment, cwd=folder,
            )  # fmt: skip
            stack.callback(process.wait, 20)
            stack.callback(process.kill)
            return process.pid

        found = {"scheduler": start("dask_scheduler", "--port", "0", "--dashboard-address", ":0")}
        while not file.exists():
            time.sleep(0.05)
        words = ["--nthreads", "1", "--no-nanny", "--no-dashboard"]
        for number in (1, 2):
            found[f"worker {number}"] = start("dask_worker", *words, "--local-directory", folder)
        yield json.loads(file.read_text())["address"], found


class Client:
    """A process that asks the cluster, so that its memory is seen apart."""

    def __init__(self, address: str, folder: Path):
        spawn = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_serve, args=(theirs, address), daemon=True)
        self.process.start()
        self.folder, self.pid = folder, self.process.pid

    def extract(self, paths: list[str], network: dict = NETWORK) -> float:
        """Extract features into a store that is thrown away; returns the seconds."""
        place = tempfile.mkdtemp(dir=self.folder)
        seconds = self.ask("extract", paths, place, network)
        shutil.rmtree(place)
        return seconds

    def ask(self, *what):
        """Let it do something; returns what it answers."""
        self.pipe.send(what)
        answer = self.pipe.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()


def _serve(pipe, address):
    os.environ[cluster.ADDRESS] = address
    while True:
        what, *given = pipe.recv()
        try:
            start = time.perf_counter()
            if what == "extract":
                paths, place, network = given
                bulk.extract(paths, place, **network, shard=SHARD)
            else:
                cluster.collect(abs, ((number,) for number in range(*given)), progress=False)
            pipe.send(time.perf_counter() - start)
        except Exception as error:
            pipe.send(error)


class PlainProcesses:
    """The same two workers without a scheduler: a pool of two processes of one thread."""

    def __init__(self, folder: Path):
        os.environ |= dict.fromkeys(LIMITS, "1")
        self.folder = folder
        self.pool = multiprocessing.get_context("spawn").Pool(2, _as_a_worker)

    def extract(self, paths: list[str]) -> float:
        """Do what Client.extract does; returns the seconds."""
        place = tempfile.mkdtemp(dir=self.folder)
        start = time.perf_counter()
        given = NETWORK["name"], NETWORK["size"], NETWORK["weights"]
        settings = bulk.settings_of(paths, self.pool.apply(bulk._facts, given), shard=SHARD)
        store.lay_out(place, settings)
        tasks = bulk.tasks_of(place, paths, settings, NETWORK["weights"])
        for _ in self.pool.imap_unordered(_write_shard, tasks):
            pass
        seconds = time.perf_counter() - start
        shutil.rmtree(place)
        return seconds


def _as_a_worker():
    import cv2

    cv2.setNumThreads(1)
    cluster.threads, cluster.on_worker = (lambda: 1), (lambda: True)


def _write_shard(task):
    return bulk.write_shard(*task)


def _time_large(paths: list[str]) -> tuple[float, float, str]:
    """Images a second from file to the large network's features, peak MB, and its engine."""
    import resource

    import numpy as np

    from cxrlib.cohort import SIDE as DECODED

    name, size, weights = LARGE.values()
    settings = bulk._facts(name, size, weights)
    compute = bulk._network(settings, weights, 16)
    started = None
    for _, block in bulk._read_blocks(paths, DECODED):
        compute(np.stack(block))
        started = started or time.perf_counter()  # the first block is to warm up
    speed = (len(paths) - bulk.BLOCK) / (time.perf_counter() - started)
    engine = f"{settings['engine']}, {settings['precision']}"
    return speed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, engine


def measure_size(work: Path, folder: Path, count: int) -> dict:
    """Time one size in a new cluster, and watch the memory of each process."""
    with two_workers(work / f"dask-{count}") as (address, processes):
        client = Client(address, work)
        start = time.perf_counter()
        client.extract(films(folder, 2 * SHARD))  # both workers load the network
        ready = time.perf_counter() - start
        there = processes | {"client": client.pid}
        watched = {name: psutil.Process(number) for name, number in there.items()}
        with Peaks(lambda: {n: p.memory_info().rss / 1e6 for n, p in watched.items()}) as peaks:
            seconds = client.extract(films(folder, count))
        client.end()
    row = {"images": count, "seconds": seconds, "ready": ready, **peaks.peak}
    print({name: round(value, 1) for name, value in row.items()}, flush=True)
    return row


def measure_overhead(work: Path, folder: Path, count: int, rounds: int) -> dict:
    """Compare the cluster with plain processes, in turn; and more facts of this cluster."""
    paths = films(folder, count)
    with two_workers(work / "dask") as (address, _):
        client, plain = Client(address, work), PlainProcesses(work)
        for each in (client, plain):
            each.extract(paths[: 2 * SHARD])
        found = {"dask": [], "plain": []}
        for _ in range(rounds):
            found["plain"].append(plain.extract(paths))
            found["dask"].append(client.extract(paths))
            print(".", end="", flush=True)
        print()
        client.ask("tasks", 100)
        found["tasks"] = 1000 / client.ask("tasks", 1000)
        client.end()
    # Both at once, as in a cluster: two cores share their memory's bandwidth
    halves = [paths[: 3 * bulk.BLOCK], paths[3 * bulk.BLOCK : 6 * bulk.BLOCK]]
    speeds, memories, engines = zip(*plain.pool.map(_time_large, halves, chunksize=1), strict=True)
    plain.pool.terminate()
    return found | {
        "large": statistics.mean(speeds), "worker": max(memories), "engine": engines[0],
    }  # fmt: skip


def measure_parts(work: Path, paths: list[str]) -> dict:
    """Time decoding alone on one core, and weigh what is stored of one image."""
    from cxrlib.cohort import SIDE as DECODED

    _as_a_worker()
    start = time.perf_counter()
    for _ in bulk._read_blocks(paths, DECODED):
        pass
    seconds = time.perf_counter() - start
    place = work / "weighed"
    channels = 2048  # of ResNet50
    facts = {"channels": channels}
    settings = bulk.settings_of(paths, facts, shard=SHARD)
    store.lay_out(str(place), settings)
    import numpy as np

    values = {"features": np.random.default_rng(0).random((len(paths), channels), np.float32)}
    store.write(str(place), 0, values, {"digest": "0" * 64, "failures": {}, "names": paths})
    objects = [path.stat().st_size for path in (place / "features" / "c").rglob("*")
               if path.is_file()]  # fmt: skip
    note = next((place / "shards").glob("0*.json")).stat().st_size
    return {
        "decoded": len(paths) / seconds,
        "row": sum(objects) / len(paths),
        "note": note / len(paths),
        "name": statistics.mean(map(sys.getsizeof, paths)) + 16,  # and its place in two lists
        "pixels": DECODED**2,
    }


def fit_line(rows: list[dict]) -> tuple[float, float, float]:
    """Fit seconds = fixed + each x images; returns fixed, each and R squared."""
    import numpy as np

    x, y = (np.array([row[name] for row in rows]) for name in ("images", "seconds"))
    each, fixed = np.polyfit(x, y, 1)
    left = ((y - fixed - each * x) ** 2).sum()
    return float(fixed), float(each), float(1 - left / ((y - y.mean()) ** 2).sum())


def report(rows: list[dict], overhead: dict, rounds: int) -> str:
    """Word what was measured."""
    names = [name for name in rows[0] if name not in ("images", "seconds", "ready")]
    lines = [
        [f"{row['images']:,}", f"{row['seconds']:.1f}", f"{row['images'] / row['seconds']:.1f}"]
        + [f"{row[name]:.0f}" for name in names]
        + [f"{sum(row[name] for name in names):.0f}"]
        for row in rows
    ]
    fixed, each, fit = fit_line(rows)
    ratio = {name: rows[-1][name] / rows[0][name] for name in names}
    whole = sum(rows[-1][n] for n in names) / sum(rows[0][n] for n in names)
    plain, dask = (statistics.median(overhead[name]) for name in ("plain", "dask"))
    extra = dask / plain - 1
    spread = [d / p - 1 for d, p in zip(overhead["dask"], overhead["plain"], strict=True)]
    return "\n\n".join([
        "Measured by `python benchmarks/scale.py --write` on "
        f"{machine()}; {versions(*PACKAGES)}.",
        f"Synthetic films (JPEG, {SIDE} x {SIDE}), {NETWORK['name']} at {NETWORK['size']} pixels "
        f"with random weights, shards of {SHARD} images; one scheduler, two workers of one thread "
        "and the client, all on this machine. One run at each size, in a new cluster that has "
        "the network loaded. Peak resident memory in MB (1,000,000 bytes), 20 samples a second.",
        table(["images", "seconds", "images/s", *(f"{name}, MB" for name in names), "all, MB"],
              lines),
        f"Time is {fixed:.1f} s + {1000 * each:.2f} ms an image (R² = {fit:.5f}). Memory at "
        f"{rows[-1]['images']:,} images is {whole:.2f} times that at {rows[0]['images']:,} "
        f"({', '.join(f'{name} {value:.2f}' for name, value in ratio.items())}); the goal is at "
        f"most 1.1{'' if whole <= 1.1 else ', which is missed'}.",
        f"The scheduler's part: {rows[0]['images']:,} images took {dask:.2f} s on the cluster and "
        f"{plain:.2f} s in two plain processes of one thread that run the same function (medians "
        f"of {rounds} rounds in turn): {extra:+.1%}, single rounds {min(spread):+.1%} to "
        f"{max(spread):+.1%}. The goal is under 5 %{'' if extra < 0.05 else ', which is missed'}.",
        f"Of tasks that do nothing, the scheduler hands out {overhead['tasks']:.0f} a second "
        "to these two workers.",
    ])  # fmt: skip


def main() -> None:
    """Measure, print and write."""
    parser = options(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 5000, 10000, 20000])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cxr-scale-") as name:
        work = Path(name)
        folder = work / "films"
        folder.mkdir()
        start = time.perf_counter()
        size = make_films(folder, max(given.sizes))
        print(f"{max(given.sizes)} films: {time.perf_counter() - start:.0f} s", flush=True)
        overhead = measure_overhead(work, folder, min(given.sizes), given.rounds)
        rows = [measure_size(work, folder, count) for count in sorted(given.sizes)]
        parts = measure_parts(work, films(folder, SHARD))
    fixed, each, _ = fit_line(rows)
    measured = parts | {
        "file": size, "each": each, "fixed": fixed, "tasks": overhead["tasks"],
        "large": overhead["large"], "ready": statistics.median(row["ready"] for row in rows),
        "worker": overhead["worker"], "engine": overhead["engine"], "film": SIDE,
    }  # fmt: skip
    told, planned = report(rows, overhead, given.rounds), plan(measured)
    print(told, planned, sep="\n\n")
    if given.write:
        write("measured", told, PAGE)
        write("plan", planned, PAGE)


if __name__ == "__main__":
    main()
