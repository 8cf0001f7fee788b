"""A Zarr store by shards: what is done is told from what is missing, damaged or of other files."""

import numpy as np
import pytest

from cxrlib import bulk as store

pytest.importorskip("zarr")
ARRAYS = {"films": ("uint8", (3, 3), 2, 0), "rows": ("float32", (5,), 4, float("nan"))}
SETTINGS = {"what": "test", "size": 3}
ROWS, SHARD = 10, 4


@pytest.fixture(params=["a folder", "memory://bucket/b.zarr"])
def place(request, tmp_path):
    """Two ways to the same; memory:// goes the way that s3:// goes, through fsspec."""
    import fsspec

    yield store.address(tmp_path / "a.zarr" if request.param == "a folder" else request.param)
    memory = fsspec.filesystem("memory")
    if memory.exists("/bucket"):
        memory.rm("/bucket", recursive=True)


def write(place, number, digest="x"):
    rng, count = np.random.default_rng(number), min(SHARD, ROWS - number * SHARD)
    values = {
        "films": rng.integers(0, 256, (count, 3, 3), np.uint8),
        "rows": rng.random((count, 5), np.float32),
    }
    store.write_shard(place, number, values, {"digest": digest, "names": ["a"] * count})
    return values


def test_shards_are_written_noted_and_read(place):
    store.lay_out(place, ARRAYS, ROWS, SHARD, SETTINGS)
    assert not store.is_done(place, 0, ARRAYS, "x")
    written = [write(place, number) for number in range(3)]
    for name in ARRAYS:
        expected = np.concatenate([values[name] for values in written])
        found = store.open_array(place, name)
        assert dict(found.attrs) == SETTINGS
        np.testing.assert_array_equal(found[:], expected)
    assert store.read_note(place, 2) == {"digest": "x", "names": ["a", "a"]}
    assert store.read_note(place, 3) is None
    assert all(store.is_done(place, number, ARRAYS, "x") for number in range(3))
    assert not store.is_done(place, 1, ARRAYS, "y")  # of other files
    store.lay_out(place, ARRAYS, ROWS, SHARD, SETTINGS)  # changes nothing
    assert store.is_done(place, 1, ARRAYS, "x")


def test_damaged_and_missing_objects_are_not_done_and_can_be_written_again(tmp_path):
    place = store.address(tmp_path / "a.zarr")
    store.lay_out(place, ARRAYS, ROWS, SHARD, SETTINGS)
    write(place, 2)
    last = tmp_path / "a.zarr" / "rows" / "c" / "2" / "0"
    whole = last.read_bytes()
    flipped = bytearray(whole)
    flipped[10] ^= 1
    for damaged in (bytes(flipped), b"", whole[:20], None):
        last.unlink() if damaged is None else last.write_bytes(damaged)
        assert not store.is_done(place, 2, ARRAYS, "x")
        write(place, 2)
        assert store.is_done(place, 2, ARRAYS, "x")
    (tmp_path / "a.zarr" / "shards" / "000002.json").write_text('{"digest": ')
    assert not store.is_done(place, 2, ARRAYS, "x")


def test_a_store_of_something_else_is_left_alone(place):
    store.lay_out(place, ARRAYS, ROWS, SHARD, SETTINGS)
    with pytest.raises(store.StoreError, match="its size is 3, not 4"):
        store.lay_out(place, ARRAYS, ROWS, SHARD, SETTINGS | {"size": 4})
