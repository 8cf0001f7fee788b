"""cxrlib.cluster with a real scheduler and real workers, some of which are killed at work."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from clusters import ROOT, Dask, dask, forget, kill_at_work
from cxrlib import backbone, cluster, duplicates, heads, images, leaks, shortcuts
from helpers import tiny_cohort


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One cluster for the tests that leave it in order."""
    folder = tmp_path_factory.mktemp("dask")
    with dask(folder) as made:
        yield made


@pytest.fixture
def two_workers(shared, monkeypatch, own_cache):
    monkeypatch.setenv(cluster.ADDRESS, shared.address)
    yield shared
    forget()


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


def whether_on_worker(_):
    return cluster.on_worker()


def nested_ahead(_):
    """A task that spreads work and asks for overlapping calls."""
    return [on for _, on in cluster.spread(whether_on_worker, [(1,), (2,)], ahead=2)]


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
        "import sys; from cxrlib import cluster; "
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


def test_calls_overlap_here_if_asked_in_order_and_nothing_begun_is_lost():
    both = threading.Barrier(2)  # opens when two calls are under way at once

    def meet(number):
        both.wait(10)
        return number

    assert list(cluster.spread(meet, [(n,) for n in range(4)], "t", 2)) == [
        (n, n) for n in range(4)
    ]
    assert list(cluster.spread(meet, [], "t", 2)) == []

    def tasks():
        yield 4, 2
        yield 9, 3
        raise OSError("unreadable")

    found = []
    with pytest.raises(OSError, match="unreadable"):
        for pair in cluster.spread(divmod, tasks(), "t", 3):
            found.append(pair)
    assert found == [(0, (2, 0)), (1, (3, 0))]
    with pytest.raises(ZeroDivisionError) as caught:
        list(cluster.spread(divmod, [(4, 2), (1, 0), (9, 3)], "division", 2))
    assert "task 1 of 'division': (1, 0)" in caught.value.__notes__[0]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://here", "no-such-host:8786"])
def test_no_scheduler_is_told_within_seconds(address, monkeypatch):
    monkeypatch.setenv(cluster.ADDRESS, address)
    monkeypatch.setattr(cluster, "PATIENCE", 2)
    start = time.monotonic()
    with pytest.raises(cluster.ClusterError, match=f"No Dask scheduler answers at {address}"):
        cluster.collect(square_only, [(1,)])
    assert time.monotonic() - start < 10


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
    assert told.count(f"Cluster at {two_workers.address}: 2 workers; dashboard: http://") == 1


@pytest.mark.slow
def test_garbage_is_not_collected_while_a_worker_of_one_thread_is_at_work(two_workers):
    found = [on for _, on in cluster.spread(gc.isenabled, [()] * 4)]
    assert found == [False] * 4 and gc.isenabled()
    assert set(cluster.client().run(gc.isenabled).values()) == {True}  # between tasks it works


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
    there, end = cluster.client(), time.monotonic() + 10
    while any(there.processing().values()) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(there.processing().values())


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
def test_calls_of_a_task_know_that_they_run_on_a_worker(two_workers):
    assert cluster.collect(nested_ahead, [(1,), (2,)], progress=False) == [[True, True]] * 2


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
        if len(found) in (5, 25, 45):
            two_workers.kill_worker()
            killed += 1
    record_property("tried", killed)
    assert found == {n: n**2 for n in range(60)}
    record_property("survived", killed)
    record_property("what", "a worker of a cluster killed with SIGKILL while it had tasks")


def survived(killed, what, record_property):
    record_property("tried", 1)
    record_property("survived", len(killed))
    record_property("what", f"a worker of a cluster killed with SIGKILL {what}; same results")


@pytest.mark.slow
def test_decoding_survives_a_killed_worker(two_workers, tmp_path, monkeypatch, record_property):
    rng, paths = np.random.default_rng(0), [tmp_path / f"{n:03}.png" for n in range(120)]
    for path in paths:
        cv2.imwrite(str(path), rng.integers(0, 256, (300, 300), np.uint8))
    paths[7].write_bytes(b"no film")
    monkeypatch.setattr(images, "BLOCK", 8)
    with monkeypatch.context() as alone:
        alone.delenv(cluster.ADDRESS)
        expected = images.decode(paths, tmp_path / "alone", side=100, progress=False)
    killed = kill_at_work(two_workers, monkeypatch)
    found = images.decode(paths, tmp_path / "cluster", side=100, progress=False)
    np.testing.assert_array_equal(found.images[:], expected.images[:])
    np.testing.assert_array_equal(found.sizes, expected.sizes)
    assert found.formats == expected.formats
    assert found.failures == expected.failures
    assert list(found.failures) == [7]
    survived(killed, "while it decoded", record_property)


@pytest.mark.slow
def test_features_survive_a_killed_worker(two_workers, monkeypatch, record_property):
    films = np.random.default_rng(0).integers(0, 256, (300, 40, 40), np.uint8)
    films[200:210] = films[:10]  # known by then, or under way
    given = (films, "MobileNet", 32, "random")
    monkeypatch.setattr(backbone, "BLOCK", 32)
    with monkeypatch.context() as alone:
        alone.delenv(cluster.ADDRESS)
        alone.setenv("CXR_CACHE", str(two_workers.folder / "alone"))
        expected = backbone.features(*given, progress=False)
    killed = kill_at_work(two_workers, monkeypatch)
    found = backbone.features(*given, progress=False)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    with monkeypatch.context() as unreachable:  # all is in the cache: nothing is asked for
        unreachable.setattr(backbone, "compute_features", None)
        np.testing.assert_array_equal(backbone.features(*given, progress=False), found)
    survived(killed, "while it extracted features", record_property)


@pytest.mark.slow
def test_a_grid_with_seeds_survives_a_killed_worker(two_workers, monkeypatch, record_property):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 32)).astype(np.float32), rng.integers(0, 2, 200)
    grid = [heads.Head(layers, neurons) for layers in (1, 2) for neurons in (8, 16)]
    given = ((x[:150], y[:150]), (x[150:], y[150:]), grid)
    with monkeypatch.context() as alone:
        alone.delenv(cluster.ADDRESS)
        expected = heads.fit_heads(*given, epochs=5, seeds=range(4), progress=False)
    killed = kill_at_work(two_workers, monkeypatch)
    found = heads.fit_heads(*given, epochs=5, seeds=range(4), progress=False)
    pd.testing.assert_frame_equal(found.history, expected.history, check_exact=True)
    for key, weights in expected.weights.items():
        for one, other in zip(found.weights[key], weights, strict=True):
            np.testing.assert_array_equal(one, other)
    survived(killed, "while it trained heads", record_property)


@pytest.mark.slow
def test_the_probes_of_an_audit_survive_a_killed_worker(two_workers, monkeypatch, record_property):
    cohort = tiny_cohort(patients=24)

    def probes():
        return (
            duplicates.near_duplicates(cohort, threshold=0.1),
            leaks.leakage(cohort, repeats=3),
            shortcuts.shortcuts(cohort, permutations=99),
        )

    with monkeypatch.context() as alone:
        alone.delenv(cluster.ADDRESS)
        expected = probes()
    killed = kill_at_work(two_workers, monkeypatch, after=2)
    for one, other in zip(probes(), expected, strict=True):
        pd.testing.assert_frame_equal(one, other)
        assert len(one)
    survived(killed, "during an audit", record_property)


@pytest.mark.slow
def test_a_task_that_kills_its_workers_is_named(tmp_path, monkeypatch):
    made = Dask(tmp_path)
    made.environment["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] = "0"
    with made.stack:
        made.start_scheduler()
        made.start_worker()
        monkeypatch.setenv(cluster.ADDRESS, made.address)
        with pytest.raises(cluster.ClusterError, match="task 0 brought down every worker"):
            cluster.collect(die, [(1,)], "deadly", progress=False)
        monkeypatch.setattr(cluster, "LONGEST", 2)
        with pytest.raises(cluster.ClusterError, match="no worker for 2 s"):
            cluster.collect(die, [(0,)], "deadly", progress=False)
        forget()


@pytest.mark.slow
def test_a_scheduler_that_dies_is_told(tmp_path, monkeypatch):
    made = Dask(tmp_path)
    with made.stack:
        scheduler = made.start_scheduler()
        made.start_worker()
        monkeypatch.setenv(cluster.ADDRESS, made.address)
        threading.Timer(2.0, scheduler.kill).start()
        with pytest.raises(cluster.ClusterError, match="the Dask scheduler is gone"):
            cluster.collect(square, [(n, 0.1) for n in range(100)], progress=False)
        forget()
