"""Measure how features of many images grow with their number on a Dask cluster; a plan from it.

python benchmarks/scale.py [--sizes 1000 2000 4000] [--rounds 3] [--write]

Makes that many synthetic films as JPEG files of 512 x 512 in a temporary folder, and extracts
their features with a scheduler and two workers of one thread: time and peak memory at each size,
and before that the smallest size in two plain processes. `--write` puts it into docs/scale.md,
with what larger collections would take. Three minutes by default; larger sizes show more.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path

import psutil
from rounds import ROOT, Peaks, machine, options, table, versions, write

from cxrlib import bulk
from cxrlib.parallel import cluster

PAGE = ROOT / "docs" / "scale.md"
SIDE = 512  # pixels of the films
BODIES = 60  # phantoms that are rendered; the films are made from them
NETWORK = {"name": "MobileNetV2", "size": 96, "weights": "random"}
LARGE = {"name": "ResNet50", "size": 224, "weights": "random"}
SHARD = 256  # smaller than usual: more tasks, so that the scheduler's part shows
PACKAGES = ("distributed", "zarr", "keras", "tensorflow", "tensorflow-cpu", "openvino", "numpy")
COLLECTIONS = {"CheXpert": 224_316, "ten million": 10_000_000}
CORES = (16, 64, 256)
PORT = 1.25e9  # bytes/s: a network port of 10 Gbit/s, an assumption


def render(number: int):
    """Render one of the bodies."""
    from cxrlib import phantom

    labels = ("healthy", "pneumonia", "covid")
    return phantom.render(labels[number % 3], seed=number, size=160).image


def make_film(folder: Path, bodies, number: int) -> int:
    """Write a film that no other equals: a body, shifted, brightened, with noise; its bytes."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(number)
    image = cv2.resize(bodies[number % len(bodies)], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    image = np.roll(image, rng.integers(-20, 21, 2), (0, 1)).astype(np.int16)
    noise = np.roll(_noise(), rng.integers(0, SIDE, 2), (0, 1))
    image = np.clip(image + noise + int(rng.integers(-20, 21)), 0, 255).astype(np.uint8)
    path = folder / f"{number:06}.jpg"
    path.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])
    return path.stat().st_size


@cache
def _noise():
    import numpy as np

    return np.rint(np.random.default_rng(0).normal(0, 4, (SIDE, SIDE))).astype(np.int16)


def make_films(folder: Path, count: int) -> tuple[list[str], float]:
    """Write `count` films; returns their names and mean size in bytes."""
    folder.mkdir()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        bodies = pool.map(render, range(BODIES))
        sizes = pool.map(partial(make_film, folder, bodies), range(count), chunksize=250)
    return [str(folder / f"{number:06}.jpg") for number in range(count)], statistics.mean(sizes)


@contextmanager
def two_workers(folder: Path):
    """Run a scheduler and two workers of one thread; gives its address, and processes by name."""
    folder.mkdir()
    file = folder / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with ExitStack() as stack:
        log = stack.enter_context((folder / "log").open("ab"))

        def start(module, *words):
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
        words = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", folder]
        found |= {f"worker {number}": start("dask_worker", *words) for number in (1, 2)}
        yield json.loads(file.read_text())["address"], found


def process(stack: ExitStack, address: str = "", core: int | None = None) -> ProcessPoolExecutor:
    """Start a process that asks a cluster, or works on a core of its own."""
    spawn = multiprocessing.get_context("spawn")
    made = ProcessPoolExecutor(1, spawn, initializer=_begin, initargs=(address, core))
    return stack.enter_context(made)


def _begin(address: str, core: int | None) -> None:
    if core is None:
        os.environ[cluster.ADDRESS] = address
    elif hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[core]})


def extract(folder: Path, paths: list[str]) -> float:
    """Extract features into a store that is thrown away; returns the seconds."""
    place = tempfile.mkdtemp(dir=folder)
    start = time.perf_counter()
    bulk.extract(paths, place, **NETWORK, shard=SHARD)
    seconds = time.perf_counter() - start
    shutil.rmtree(place)
    return seconds


def hand_out(count: int) -> float:
    """Let the cluster do tasks that do nothing; returns how many a second."""
    start = time.perf_counter()
    cluster.collect(abs, ((number,) for number in range(count)), progress=False)
    return count / (time.perf_counter() - start)


def run_large(paths: list[str]) -> tuple[float, str]:
    """Images a second from file to the large network's features on one core, and its engine."""
    import numpy as np

    from cxrlib import backbone, images
    from cxrlib.compute import engine

    name, size, weights = LARGE.values()
    found, chosen = backbone.find_weights(name, weights), engine.choose(size)
    for block in (paths[: bulk.BLOCK], paths):  # the first block is to warm up
        start = time.perf_counter()
        for first in range(0, len(block), bulk.BLOCK):
            decoded = images.decode_block(block[first : first + bulk.BLOCK], 300)
            films = np.stack([image for _, image in decoded])
            backbone.compute_features(films, name, size, found, chosen)
    speed = len(paths) / (time.perf_counter() - start)
    return speed, f"{chosen.name}, {chosen.precision}"


def measure_plain(work: Path, paths: list[str], rounds: int) -> dict:
    """Time two plain processes, half the films each; and the large network in both at once."""
    with ExitStack() as stack:
        both = [process(stack, core=number) for number in (0, 1)]

        def at_once(function, paths):
            half = len(paths) // 2
            halves = paths[:half], paths[half:]
            jobs = [one.submit(function, some) for one, some in zip(both, halves, strict=True)]
            return [job.result() for job in jobs]

        at_once(partial(extract, work), paths[: 2 * SHARD])  # both load the network
        seconds = [max(at_once(partial(extract, work), paths)) for _ in range(rounds)]
        speeds, engines = zip(*at_once(run_large, paths[: 6 * bulk.BLOCK]), strict=True)
    return {"seconds": statistics.median(seconds), "large": statistics.mean(speeds),
            "engine": engines[0]}  # fmt: skip


def measure_cluster(work: Path, paths: list[str], sizes: list[int], rounds: int) -> dict:
    """Time each size in one cluster, and watch the memory of each process."""
    with two_workers(work / "dask") as (address, pids), ExitStack() as stack:
        client = process(stack, address)
        pids["client"] = client.submit(os.getpid).result()
        client.submit(extract, work, paths[: 2 * SHARD]).result()  # both load the network
        there = {name: psutil.Process(number) for name, number in pids.items()}
        rows = []
        for count in sizes:
            with Peaks(lambda: {n: p.memory_info().rss / 1e6 for n, p in there.items()}) as peaks:
                jobs = [client.submit(extract, work, paths[:count]) for _ in range(rounds)]
                seconds = statistics.median(job.result() for job in jobs)
            rows.append({"images": count, "seconds": seconds, **peaks.peak})
            print({name: round(value, 1) for name, value in rows[-1].items()}, flush=True)
        client.submit(hand_out, 100).result()
        return {"rows": rows, "tasks": client.submit(hand_out, 1000).result()}


def report(found: dict, plain: dict, rounds: int) -> str:
    """Word what was measured."""
    rows, first = found["rows"], found["rows"][0]
    names = [name for name in first if name not in ("images", "seconds")]
    count = first["images"]
    lines = [[f"{count:,}, two plain processes", f"{plain['seconds']:.1f}",
              f"{count / plain['seconds']:.0f}", *[""] * (len(names) + 1)]]  # fmt: skip
    for row in rows:
        memory = [row[name] for name in names]
        lines.append([f"{row['images']:,}", f"{row['seconds']:.1f}",
                      f"{row['images'] / row['seconds']:.0f}",
                      *(f"{each:.0f}" for each in memory), f"{sum(memory):.0f}"])  # fmt: skip
    return "\n\n".join([
        f"Measured by `python benchmarks/scale.py --write` on {machine()}; {versions(*PACKAGES)}.",
        f"Synthetic films (JPEG, {SIDE} x {SIDE}), {NETWORK['name']} at {NETWORK['size']} pixels "
        f"with random weights, shards of {SHARD} images; one scheduler, two workers of one thread "
        f"and the client, all on this machine, with the network loaded. Medians of {rounds} "
        "rounds; peak resident memory in MB (1,000,000 bytes).",
        table(["images", "seconds", "images/s", *(f"{name}, MB" for name in names), "all, MB"],
              lines),
        f"The scheduler's part: {first['seconds'] / plain['seconds'] - 1:+.1%} against two plain "
        f"processes on a core each. Of tasks that do nothing it hands out {found['tasks']:.0f} a "
        "second to these two workers.",
    ])  # fmt: skip


def plan(size: float, large: float, engine: str, tasks: float) -> str:
    """Work out what larger collections would take.

    Parameters
    ----------
    size : float, bytes of a film's file
    large : float, images a second of one core with ResNet50, computed by `engine`
    tasks : float, that the scheduler hands out in a second
    """
    shard, counts = bulk.SHARD, list(COLLECTIONS.values())
    rows = [
        [f"shards of {shard:,} images", *(f"{math.ceil(n / shard):,}" for n in counts)],
        ["read over the network, GB", *(f"{n * size / 1e9:,.1f}" for n in counts)],
        ["features written, GB", *(f"{n * 2048 * 4 / 1e9:,.1f}" for n in counts)],
        ["hours of one core", *(f"{n / large / 3600:,.1f}" for n in counts)],
    ]
    for cores in CORES:  # they take turns, a shard each
        turns = [math.ceil(math.ceil(n / shard) / cores) for n in counts]
        rows.append([f"hours of {cores} cores", *(f"{n * shard / large / 3600:,.1f}"
                                                   for n in turns)])  # fmt: skip
    return "\n\n".join([
        f"These follow from two more measurements of that run: a film's file has {size:,.0f} "
        f"bytes, and one core takes {large:.1f} images a second from file to the features of "
        f"ResNet50 at 224 pixels ({engine}). Change one, and the rest follows.",
        table(["", *(f"{name} ({n:,})" for name, n in COLLECTIONS.items())], rows),
        "Where it stops: no more cores can work than there are shards (take smaller ones, such as "
        f"`shard=256`); a port of 10 Gbit/s feeds {PORT / size / large:,.0f} cores with files of "
        f"this size, and many times fewer with films in a detector's full size; the scheduler "
        f"keeps {tasks * shard / large:,.0f} cores busy.",
    ])  # fmt: skip


def main() -> None:
    """Measure, print and write."""
    parser = options(__doc__)
    parser.set_defaults(rounds=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 4000])
    given = parser.parse_args()
    sizes = sorted(given.sizes)
    os.environ.pop(cluster.ADDRESS, None)
    with tempfile.TemporaryDirectory(prefix="cxr-scale-") as name:
        work = Path(name)
        paths, size = make_films(work / "films", sizes[-1])
        plain = measure_plain(work, paths[: sizes[0]], given.rounds)
        found = measure_cluster(work, paths, sizes, given.rounds)
    texts = {
        "measured": report(found, plain, given.rounds),
        "plan": plan(size, plain["large"], plain["engine"], found["tasks"]),
    }
    for place, text in texts.items():
        print(text, end="\n\n")
        if given.write:
            write(place, text, PAGE)


if __name__ == "__main__":
    main()
