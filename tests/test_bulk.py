"""cxrlib.bulk and cxrlib.store: features of many files in a sharded store, whatever is killed."""

import os
import shutil
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from clusters import ROOT, dask, forget, kill_at_work
from cxrlib import backbone, bulk, cluster, images, store
from cxrlib.cli import main

NETWORK = {"name": "MobileNet", "size": 32, "weights": "random", "side": 64}
BAD = (3, 300)  # rows whose files cannot be read


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """600 films of 64 x 64, two of them cut off."""
    folder, rng = tmp_path_factory.mktemp("films"), np.random.default_rng(0)
    found = []
    for number in range(600):
        film = cv2.resize(rng.integers(0, 256, (8, 8), np.uint8), (64, 64))
        found.append(folder / f"{number:03}.png")
        cv2.imwrite(str(found[-1]), film)
    for row in BAD:
        found[row].write_bytes(found[row].read_bytes()[:200])
    return found


@pytest.fixture(scope="module")
def expected(paths, tmp_path_factory):
    """What the course's own way gives: decode all, then extract all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_CACHE", str(tmp_path_factory.mktemp("cache")))
        decoded = images.decode(paths, side=64, progress=False)
        found = backbone.features(decoded.images, "MobileNet", 32, "random", progress=False)
    found[list(BAD)] = np.nan
    return found


def agrees(found, expected):
    np.testing.assert_allclose(found.features[:], expected, rtol=0, atol=1e-5)
    assert set(found.failures()) == set(BAD)
    assert not found.missing()
    return True


@pytest.mark.slow
def test_store_holds_what_decode_and_features_give(paths, expected, tmp_path):
    found = bulk.extract(paths, tmp_path / "a.zarr", **NETWORK, pixels=True, shard=256)
    assert agrees(found, expected)
    assert found.count == 3
    assert found.names() == [str(path) for path in paths]
    assert str(paths[3]) in found.failures()[3]
    assert not found.images[3].any()
    np.testing.assert_array_equal(found.images[599], cv2.imread(str(paths[599]), 0))
    assert found.settings["weights_are"] == "random"
    assert found.damaged() == []
    assert agrees(store.open_store(tmp_path / "a.zarr"), expected)


@pytest.mark.slow
def test_only_what_is_missing_changed_or_damaged_is_done_again(
    paths, expected, tmp_path, monkeypatch
):
    place, done = tmp_path / "a.zarr", []
    network = bulk._network
    monkeypatch.setattr(bulk, "_network", lambda *given: done.append(1) or network(*given))

    def again():
        done.clear()
        assert agrees(bulk.extract(paths, place, **NETWORK, shard=256), expected)
        return len(done)

    assert again() == 3
    assert again() == 0
    (place / "shards" / "000001.json").unlink()
    assert store.open_store(place).missing() == [1]
    with pytest.raises(store.StoreError, match="shard 1 is not done"):
        store.open_store(place).failures()
    assert again() == 1
    shard = place / "features" / "c" / "2" / "0"
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)
    assert store.open_store(place).damaged() == [2]
    assert again() == 1
    for stump in (b"", bytes(content[:100])):
        shard.write_bytes(stump)
        assert again() == 1
    shard.unlink()
    assert again() == 1
    (place / "shards" / "000000.json").write_text('{"digest": ')
    assert again() == 1
    os.utime(paths[0])
    assert again() == 1


@pytest.mark.slow
def test_an_address_works_as_a_folder_does(paths, tmp_path):
    """memory:// goes the way that s3:// goes, through fsspec."""
    address = "memory://bucket/b.zarr"
    one = bulk.extract(paths[:40], tmp_path / "a.zarr", **NETWORK)
    other = bulk.extract(paths[:40], address, **NETWORK)
    np.testing.assert_array_equal(one.features[:], other.features[:])
    assert one.failures() == other.failures()
    assert store.open_store(address).damaged() == []
    fsspec = pytest.importorskip("fsspec")
    there = fsspec.filesystem("memory")
    there.pipe_file("/bucket/b.zarr/features/c/0/0", b"damaged")
    assert store.open_store(address).damaged() == [0]
    other = bulk.extract(paths[:40], address, **NETWORK)
    np.testing.assert_array_equal(one.features[:], other.features[:])
    there.rm("/bucket", recursive=True)


@pytest.mark.slow
def test_a_store_of_something_else_is_left_alone(paths, tmp_path):
    place = tmp_path / "a.zarr"
    bulk.extract(paths[:40], place, **NETWORK)
    for change, told in (({"size": 64}, "its size is 32, not 64"), ({"pixels": True}, "pixels")):
        with pytest.raises(store.StoreError, match=told):
            bulk.extract(paths[:40], place, **NETWORK | change)
    with pytest.raises(store.StoreError, match="its images is 40, not 41"):
        bulk.extract(paths[:41], place, **NETWORK)
    with pytest.raises(store.StoreError, match="no store of features"):
        store.open_store(tmp_path / "nothing.zarr")
    with pytest.raises(store.StoreError, match="no file"):
        bulk.extract([], tmp_path / "b.zarr", **NETWORK)


@pytest.mark.slow
def test_workers_and_client_killed_at_work_lose_nothing(
    paths, expected, tmp_path, monkeypatch, record_property
):
    """The client first; a second run goes on, and loses a worker; all is as one process has it."""
    place = tmp_path / "a.zarr"
    code = "import sys; from cxrlib import bulk, store; store.CHUNK = 64; "
    code += f"bulk.extract(sys.argv[2:], sys.argv[1], **{NETWORK}, shard=64)"

    with dask(tmp_path) as there:
        environment = there.environment | {cluster.ADDRESS: there.address}
        command = [sys.executable, "-c", code, str(place), *map(str, paths)]
        client = subprocess.Popen(command, cwd=ROOT, env=environment)
        while not list((place / "shards").glob("[0-9]*.json")):
            assert client.poll() is None
            time.sleep(0.01)
        client.kill()
        client.wait(10)
        assert len(store.open_store(place).missing()) > 4  # there is enough left to do
        monkeypatch.setenv(cluster.ADDRESS, there.address)
        monkeypatch.setattr(store, "CHUNK", 64)
        killed = kill_at_work(there, monkeypatch, after=3)
        found = bulk.extract(paths, place, **NETWORK, shard=64)
        assert agrees(found, expected)
        assert found.count == 10
        assert found.damaged() == []
        forget()
    record_property("tried", 2)
    record_property("survived", 1 + len(killed))
    record_property("what", "client, then a worker, killed with SIGKILL while extracting features")


def test_command_writes_a_store_and_names_what_it_could_not_read(paths, tmp_path):
    few, place = tmp_path / "few", tmp_path / "a.zarr"
    few.mkdir()
    for path in paths[:5]:
        shutil.copy(path, few)
    options = ["--backbone", "MobileNet", "--size", "32", "--weights", "random"]
    done = CliRunner().invoke(main, ["features", str(few), str(place), *options])
    assert done.exit_code == 1, done.output
    assert "5 images, 1,024 features each" in done.output
    assert "random weights" in done.output
    assert "1 of the images could not be read" in done.output
    assert "003.png" in done.output
    found = store.open_store(place)
    np.testing.assert_allclose(found.features[:3], wanted(paths[:3]), atol=1e-5)
    # The same images by a list, relative to it
    listed = few / "list.txt"
    listed.write_text("000.png\n002.png\n\n", encoding="utf-8")
    done = CliRunner().invoke(main, ["features", str(listed), str(tmp_path / "b.zarr"), *options])
    assert done.exit_code == 0, done.output
    again = store.open_store(tmp_path / "b.zarr").features[:]
    np.testing.assert_array_equal(again, found.features[[0, 2]])


def wanted(paths):
    """Features of films at the size that the course brings all films to."""
    films = images.decode(paths, progress=False).images
    return backbone.features(films, "MobileNet", 32, "random", progress=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "holds no image"), (b"", "is empty"), (b"\x89PNG\xff\xfe", "is no text")],
)
def test_command_names_files_that_hold_no_image(tmp_path, content, message):
    place = tmp_path / "films"
    place.mkdir() if content is None else place.write_bytes(content)
    done = CliRunner().invoke(main, ["features", str(place), str(tmp_path / "a.zarr")])
    assert done.exit_code == 1
    assert "Error:" in done.output
    assert message in done.output
    assert not (tmp_path / "a.zarr").exists()
