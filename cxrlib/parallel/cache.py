"""Rows that cost much to compute, kept on disk by the content of the images they come from.

So an image that occurs in two splits, notebooks or runs is computed once. Rows are written shard
by shard as they are done: whatever was interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from cxrlib.files import whole_file
from cxrlib.parallel.threads import ahead, share


class RowCache:
    """The rows in a folder of shards; damaged shards are forgotten, and computed again."""

    def __init__(self, folder: Path):
        self.folder, self.rows = folder, {}
        for path in folder.glob("[!.]*.npz"):
            try:
                with np.load(path, allow_pickle=False) as shard:
                    keys = (key.tobytes() for key in shard["keys"])
                    self.rows |= zip(keys, shard["features"], strict=True)
            except Exception:  # NumPy and zipfile raise many kinds here
                path.unlink(missing_ok=True)

    def look_up(self, images, blocks, make, compute, tell) -> np.ndarray:
        """Give a row for each image, and compute those that nobody has computed before.

        Images, uint8 (n, height, width), are read a block, a slice, at once, the next while this
        one is worked on. `make` makes new ones ready, in a thread; `compute` gets an iterator of
        what it has made, and yields in any order the place of each in it and its rows, ndarray
        (m, ...). `tell` is told how many images more are done.
        """
        order, waiting, met = [], [], set(self.rows)

        def read(block):
            some = images[block]
            keys = [b""] * len(some)

            def name(place):
                pixels = np.ravel(some[place])
                keys[place] = hashlib.blake2b(pixels, digest_size=16).digest()

            share(name, len(some))
            new = {key: place for place, key in enumerate(keys) if key not in met}
            met.update(new)
            return keys, list(new), make(some[list(new.values())]) if new else None

        def batches():
            for keys, new, ready in ahead(read, blocks):
                order.extend(keys)
                if new:
                    waiting.append((new, len(keys)))
                    yield ready
                else:
                    tell(len(keys))

        def computed():
            for number, rows in compute(batches()):
                new, count = waiting[number]
                self.rows |= zip(new, rows, strict=True)
                tell(count)
                yield new, rows

        for _ in ahead(lambda shard: self._write(*shard), computed()):
            pass  # the next shard is computed while a disk takes its time
        return np.stack([self.rows[key] for key in order])

    def _write(self, keys: list[bytes], rows: np.ndarray) -> None:
        joined = b"".join(keys)
        name = hashlib.blake2b(joined, digest_size=16).hexdigest()
        with whole_file(self.folder / f"{name}.npz") as partial:
            np.savez(partial, keys=np.frombuffer(joined, dtype="V16"), features=rows)
