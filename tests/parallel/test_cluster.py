"""The cluster with a real scheduler and real workers, some of which are killed at work."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from clusters import ROOT, dask, kill_at_work, used
from cxrlib import backbone, bulk, images, shortcuts
from cxrlib.compute import Head, fit_heads
from cxrlib.parallel import cluster, disk
from cxrlib.phantom import make_cohort
from cxrlib.shortcuts import duplicates, leaks
from faults import wait_for

NETWORK = {"name": "MobileNet", "size": 32, "weights": "random"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One cluster for the tests that leave it in order."""
    with dask(tmp_path_factory.mktemp("dask"), CXR_ENGINE="keras") as made:
        yield made


@pytest.fixture
def two_workers(shared, monkeypatch):
    monkeypatch.setenv("CXR_ENGINE", "keras")  # as its workers have it
    with used(shared, monkeypatch) as made:
        yield made


def alone(monkeypatch, work, *given, **options):
    """Do some work without the cluster."""
    with monkeypatch.context() as without:
        without.delenv(cluster.ADDRESS)
        return work(*given, **options)


def square(number, seconds=0.0):
    time.sleep(seconds)
    return number**2, os.getpid()


def fail(number):
    if number == 3:
        raise ValueError("film 3 is poisoned")
    return number


def nested(number):
    """A task that spreads work of its own, as a function that calls another one may."""
    return sum(cluster.collect(square_only, [(number,), (number,)], progress=False))


def square_only(number):
    return number**2


def once_after_failing(folder):
    """Fail the first time, as storage on a network may."""
    mark = Path(folder) / "tried"
    if not mark.exists():
        mark.touch()
        raise OSError("stale file handle")
    return "done"


def die(number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_without_an_address_all_happens_here_in_order_and_dask_stays_unloaded():
    code = (
        "import sys; from cxrlib.parallel import cluster; "
        "print(list(cluster.spread(pow, [(2, 3), (3, 2)])), cluster.collect(pow, [(2, 5)])); "
        "print('distributed' in sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if k != cluster.ADDRESS}
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, text=True, capture_output=True
    )
    assert told.stdout.splitlines() == ["[(0, 8), (1, 9)] [32]", "False"], told.stderr


def test_an_error_names_its_task_here_too():
    with pytest.raises(ValueError, match="film 3") as caught:
        cluster.collect(fail, [(n,) for n in range(5)], "reading", progress=False)
    assert caught.value.__notes__ == ["This was task 3 of 'reading': (3,)"]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://here", "no-such-host:8786"])
def test_no_scheduler_is_told(address, monkeypatch):
    monkeypatch.setenv(cluster.ADDRESS, address)
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    with pytest.raises(cluster.ClusterError, match=f"No Dask scheduler answers at {address}"):
        cluster.collect(square_only, [(1,)])


def test_without_dask_the_remedy_is_named(monkeypatch):
    monkeypatch.setenv(cluster.ADDRESS, "tcp://127.0.0.1:8786")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(cluster.ClusterError, match=r'pip install "cxrlib\[cluster\]"'):
        cluster.client()


@pytest.mark.slow
def test_tasks_run_on_both_workers_and_the_dashboard_is_told_once(two_workers, capfd):
    found = cluster.collect(square, [(n, 0.02) for n in range(30)], progress=False)
    cluster.collect(square, [(1,)], progress=False)
    assert [value for value, _ in found] == [n**2 for n in range(30)]
    assert {number for _, number in found} == {worker.pid for worker in two_workers.workers}
    told = capfd.readouterr().err
    assert told.count(f"Cluster at {two_workers.address}: workers=2; dashboard: http://") == 1


@pytest.mark.slow
def test_few_tasks_are_under_way_at_a_time(two_workers):
    taken = []

    def tasks():
        for number in range(60):
            taken.append(number)
            yield (number,)

    ahead = []
    for finished, _ in enumerate(cluster.spread(square_only, tasks()), 1):
        ahead.append(len(taken) - finished)
    assert finished == 60
    assert max(ahead) <= 2 * cluster.AHEAD


@pytest.mark.slow
def test_the_rest_is_cancelled_when_nobody_wants_it(two_workers):
    finished = cluster.spread(square, ((n, 0.1) for n in range(1000)))
    next(finished)
    finished.close()
    there = cluster.client()
    wait_for(lambda: not any(there.processing().values()))


@pytest.mark.slow
def test_errors_come_through_and_retries_help(two_workers, tmp_path):
    with pytest.raises(ValueError, match="film 3 is poisoned") as caught:
        cluster.collect(fail, [(n,) for n in range(5)], "reading", progress=False)
    assert "This was task 3 of 'reading': (3,)" in caught.value.__notes__
    assert cluster.collect(once_after_failing, [(str(tmp_path),)], progress=False) == ["done"]


@pytest.mark.slow
def test_a_task_that_spreads_work_does_it_itself(two_workers):
    """Workers inherit the address too; a task that waited for other tasks would block them."""
    found = cluster.collect(nested, [(n,) for n in range(6)], progress=False)
    assert found == [2 * n**2 for n in range(6)]


@pytest.mark.slow
def test_a_worker_is_held_to_its_own_threads_and_to_the_client_s_keras(two_workers, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.delitem(sys.modules, "keras")
    assert cluster.collect(cluster.threads, [()], progress=False) == [1]
    assert cluster.threads() == os.cpu_count()
    monkeypatch.setattr(cluster, "__version__", "0.0.0")
    with pytest.raises(cluster.ClusterError, match=r"A worker has cxrlib .*, you have 0\.0\.0"):
        cluster.collect(square_only, [(1,)], progress=False)


@pytest.mark.slow
def test_workers_killed_at_work_lose_nothing(two_workers, record_property):
    killed = 0
    found = {}
    for number, (value, _) in cluster.spread(square, ((n, 0.05) for n in range(60))):
        found[number] = value
        if len(found) in (5, 35):
            two_workers.kill_worker()
            killed += 1
    record_property("tried", killed)
    assert found == {n: n**2 for n in range(60)}
    record_property("survived", killed)
    record_property("what", "a worker of a cluster killed with SIGKILL while it had tasks")


@pytest.mark.slow
def test_decoding_survives_a_killed_worker(two_workers, tmp_path, monkeypatch, record_property):
    rng, paths = np.random.default_rng(0), [tmp_path / f"{n:03}.png" for n in range(120)]
    for path in paths:
        cv2.imwrite(str(path), rng.integers(0, 256, (300, 300), np.uint8))
    paths[7].write_bytes(b"no film")
    monkeypatch.setattr(disk, "BLOCK", 8)
    given = {"side": 100, "progress": False}
    expected = alone(monkeypatch, images.decode, paths, tmp_path / "alone", **given)
    killed = kill_at_work(two_workers, monkeypatch)
    found = images.decode(paths, tmp_path / "cluster", **given)
    np.testing.assert_array_equal(found.images[:], expected.images[:])
    np.testing.assert_array_equal(found.sizes, expected.sizes)
    assert found.formats == expected.formats
    assert found.failures == expected.failures
    assert list(found.failures) == [7]
    record_property("tried", 1)
    record_property("survived", len(killed))
    record_property("what", "a worker killed with SIGKILL while it decoded; same results")
    assert killed


@pytest.mark.slow
def test_a_grid_with_seeds_is_the_same_on_a_cluster(two_workers, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 32)).astype(np.float32), rng.integers(0, 2, 200)
    grid = [Head(layers, neurons) for layers in (1, 2) for neurons in (8, 16)]
    given = ((x[:150], y[:150]), (x[150:], y[150:]), grid)
    options = {"epochs": 5, "seeds": range(4)}
    expected = alone(monkeypatch, fit_heads, *given, **options)
    found = fit_heads(*given, **options)
    pd.testing.assert_frame_equal(found.history, expected.history, check_exact=True)
    for key, weights in expected.weights.items():
        for one, other in zip(found.weights[key], weights, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_the_probes_of_an_audit_are_the_same_on_a_cluster(two_workers, monkeypatch):
    cohort = make_cohort(24, (2, 2), ("healthy", "covid"), size=64, seed=0)

    def probes():
        return (
            duplicates.near_duplicates(cohort, threshold=0.5),
            leaks.leakage(cohort, repeats=2),
            shortcuts.shortcuts(cohort, permutations=19),
        )

    expected = alone(monkeypatch, probes)
    for one, other in zip(probes(), expected, strict=True):
        pd.testing.assert_frame_equal(one, other)
        assert len(one)


EXTRACT = """
import sys
from cxrlib import bulk
bulk.CHUNK = 32
bulk.extract(sys.argv[2:], sys.argv[1], "MobileNet", 32, "random", shard=32)
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """400 films: their files, decoded, and their features as one process has them."""
    folder, rng = tmp_path_factory.mktemp("films"), np.random.default_rng(0)
    paths = [folder / f"{number:03}.png" for number in range(400)]
    for path in paths:
        cv2.imwrite(str(path), rng.integers(0, 256, (40, 40), np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_CACHE", str(folder / "cache"))
        patch.setenv("CXR_ENGINE", "keras")
        decoded = images.decode(paths, progress=False).images[:]
        return paths, decoded, backbone.features(decoded, **NETWORK, progress=False)


@pytest.mark.slow
def test_features_come_from_the_cluster_once(films, two_workers, monkeypatch):
    _, decoded, expected = films
    twice = np.concatenate([decoded, decoded[:10]])  # known by then, or under way
    found = backbone.features(twice, **NETWORK, progress=False)
    np.testing.assert_allclose(found[:-10], expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found[-10:], found[:10])
    monkeypatch.setattr(backbone, "compute_features", None)  # all is in the cache: none is asked
    np.testing.assert_array_equal(backbone.features(twice, **NETWORK, progress=False), found)


@pytest.mark.slow
def test_a_store_survives_a_killed_client_and_a_killed_worker(
    films, two_workers, tmp_path, monkeypatch, record_property
):
    """The client first; a second one goes on, and loses a worker that nobody replaces."""
    (paths, _, expected), place = films, tmp_path / "a.zarr"

    def done():
        return list((place / "shards").glob("[0-9]*.json"))

    command = [sys.executable, "-c", EXTRACT, str(place), *map(str, paths)]
    environment = two_workers.environment | {cluster.ADDRESS: two_workers.address}
    client = subprocess.Popen(command, cwd=ROOT, env=environment)
    wait_for(done)
    client.kill()
    client.wait(120)
    there = len(done())
    monkeypatch.setattr(bulk, "CHUNK", 32)
    killed = kill_at_work(two_workers, monkeypatch, after=there + 1, replace=False)
    found = bulk.extract(paths, place, **NETWORK, shard=32)
    np.testing.assert_allclose(found.features[:], expected, rtol=0, atol=1e-5)
    assert found.names() == list(map(str, paths))
    assert there < 13 == len(done())
    record_property("tried", 2)
    record_property("survived", 1 + len(killed))
    record_property("what", "client, then a worker, killed with SIGKILL while extracting features")
    assert killed


@pytest.mark.slow
def test_a_task_that_kills_its_workers_is_named_and_a_scheduler_that_dies_is_told(
    tmp_path, monkeypatch
):
    """A scheduler of its own; it gives up a task with the first worker that it kills."""
    allowed = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    with dask(tmp_path, **allowed) as made, used(made, monkeypatch):
        with pytest.raises(cluster.ClusterError, match="task 0 brought down every worker"):
            cluster.collect(die, [(1,)], "deadly", progress=False)
        found = cluster.spread(square, ((n, 0.1) for n in range(100)))
        assert next(found)[1][0] in {n**2 for n in range(100)}
        made.scheduler.kill()
        monkeypatch.setattr(cluster, "PATIENCE", 0.5)
        with pytest.raises(cluster.ClusterError, match="the Dask scheduler is gone"):
            list(found)
