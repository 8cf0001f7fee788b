"""Rows by content: computed once, kept by shard, damage forgotten; no network is needed."""

import threading

import numpy as np
import pytest

from cxrlib.parallel import RowCache

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4), np.uint8)
BLOCKS = [slice(start, start + 4) for start in range(0, 24, 4)]


def rows_of(folder, images, computed, stop=None):
    """Row means, as the cache has or computes them; `computed` gets the sizes of the batches."""

    def compute(batches):
        for number, batch in enumerate(batches):
            if number == stop:
                raise KeyboardInterrupt
            computed.append(len(batch))
            yield number, batch.mean(axis=2)

    told = []
    found = RowCache(folder).look_up(images, BLOCKS, lambda new: new / 1, compute, told.append)
    assert sum(told) == len(images)
    return found


def test_each_image_is_computed_once(tmp_path):
    computed = []
    np.testing.assert_array_equal(rows_of(tmp_path, IMAGES[:6], computed), IMAGES[:6].mean(axis=2))
    twice = np.concatenate([IMAGES[:9], IMAGES[:9]])
    np.testing.assert_array_equal(rows_of(tmp_path, twice, computed), twice.mean(axis=2))
    assert computed == [4, 2, 2, 1]  # known ones and those under way are left out


def test_what_is_done_survives_an_interruption(tmp_path):
    computed = []
    with pytest.raises(KeyboardInterrupt):
        rows_of(tmp_path, IMAGES, computed, stop=2)
    np.testing.assert_array_equal(rows_of(tmp_path, IMAGES, computed), IMAGES.mean(axis=2))
    assert computed == [4, 4, 4]


def test_damaged_shards_are_computed_again(tmp_path):
    computed = []
    rows_of(tmp_path, IMAGES, computed)
    one, other, _ = tmp_path.glob("*.npz")
    one.write_bytes(one.read_bytes()[:100])
    other.write_bytes(b"")
    np.testing.assert_array_equal(rows_of(tmp_path, IMAGES, computed), IMAGES.mean(axis=2))
    assert computed == [4] * 5


def test_while_a_block_is_computed_the_next_is_read_and_the_last_is_written(tmp_path):
    read, computing = ([threading.Event() for _ in range(3)] for _ in range(2))
    numbers, written = iter(range(3)), []

    def make(new):
        read[next(numbers)].set()
        return new

    class Slow(RowCache):
        def _write(self, keys, rows):
            assert len(written) == 2 or computing[len(written) + 1].wait(300)
            written.append(len(keys))
            super()._write(keys, rows)

    def compute(batches):
        for number, batch in enumerate(batches):
            computing[number].set()
            assert number == 2 or read[number + 1].wait(300)
            yield number, batch.mean(axis=2)

    found = Slow(tmp_path).look_up(IMAGES, BLOCKS, make, compute, lambda count: None)
    np.testing.assert_array_equal(found, IMAGES.mean(axis=2))
    assert written == [4, 4, 4]
