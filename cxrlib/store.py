"""Features of a large collection in a sharded Zarr store, on a disk or in an object store.

A shard is some thousand images: one object for each array, written once, and then, last, a note
that it is done. What has no such note is not there (:mod:`cxrlib.bulk` writes them).

``PLACE/zarr.json``                  Zarr version 3; any library that knows sharding reads it
``PLACE/features/...``               float32 (n, channels); a row that failed is NaN
``PLACE/images/...``                 uint8 (n, side, side), where asked for
``PLACE/shards/000012.json``         names of the files, what is wrong with some, checksums
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxrlib import cluster

CHUNK = 256  # images that a reader has to read at once


class StoreError(ValueError):
    """A store that holds something else, is damaged, or is none."""


@dataclass(frozen=True)
class Store:
    """A store that is open for reading.

    Attributes
    ----------
    place : str, a folder or an address such as ``s3://bucket/chexpert.zarr``
    settings : dict, what the features are: backbone, size, weights, number of images
    features : zarr.Array, shape (n, channels), float32; slices of it are read when asked for
    """

    place: str
    settings: dict
    features: object

    @property
    def images(self):
        """The decoded images, zarr.Array, shape (n, side, side), uint8, if they were kept."""
        return _array(self.place, "images") if self.settings["pixels"] else None

    @property
    def count(self) -> int:
        """How many shards there are when all are done."""
        return -(-self.settings["images"] // self.settings["shard"])

    def names(self) -> list[str]:
        """Names of the files, row by row."""
        return [name for note in self._notes() for name in note["names"]]

    def failures(self) -> dict[int, str]:
        """Say what is wrong with each file that could not be read, by row."""
        return {int(row): why for note in self._notes() for row, why in note["failures"].items()}

    def missing(self) -> list[int]:
        """Numbers of the shards that are not done."""
        return [number for number in range(self.count) if _note(self.place, number) is None]

    def damaged(self) -> list[int]:
        """Numbers of the shards whose data are not what was written; all of it is read."""
        found = cluster.spread(is_sound, ((self.place, n) for n in range(self.count)), "checking")
        return sorted(number for number, sound in found if not sound)

    def _notes(self):
        for number in range(self.count):
            note = _note(self.place, number)
            if note is None:
                raise StoreError(f"{self.place}: shard {number} is not done. Extract again.")
            yield note


def open_store(place) -> Store:
    """Open a store for reading.

    Raises
    ------
    StoreError
        If there is none.
    """
    check_zarr()
    place = address(place)
    try:
        features = _array(place, "features")
    except (OSError, ValueError) as error:
        raise StoreError(f"{place}: there is no store of features ({error}).") from error
    return Store(place, dict(features.attrs), features)


def lay_out(place: str, settings: dict) -> None:
    """Make the empty arrays, or make sure that those which are there are for this."""
    import zarr
    from zarr.codecs import Crc32cCodec
    from zarr.errors import ContainsArrayError

    rows, side = settings["images"], settings["side"]
    shapes = {"features": (settings["channels"],), "images": (side, side)}
    chunks = {"features": CHUNK, "images": 16}
    group = zarr.open_group(place, mode="a")
    group.require_group("shards")
    for name in ["images", "features"] if settings["pixels"] else ["features"]:
        more = {"attributes": settings} if name == "features" else {}
        try:
            if name not in group:
                group.create_array(
                    name,
                    shape=(rows, *shapes[name]),
                    shards=(settings["shard"], *shapes[name]),
                    chunks=(chunks[name], *shapes[name]),
                    dtype="float32" if name == "features" else "uint8",
                    fill_value=np.nan if name == "features" else 0,
                    compressors=[Crc32cCodec()],  # damage is seen by whoever reads it
                    **more,
                )
        except ContainsArrayError:
            pass  # another run was faster
    there = dict(_array(place, "features").attrs)
    for key, wanted in settings.items():
        if there.get(key) != wanted:
            raise StoreError(
                f"{place} holds something else: its {key} is {there.get(key)!r}, not {wanted!r}. "
                "Choose another place, or delete it."
            )


def write(place: str, number: int, values: dict[str, np.ndarray], note: dict) -> None:
    """Write the arrays of a shard by name, and then the note that it is done."""
    rows = _rows(place, number)
    for name, content in values.items():
        array = _array(place, name, "r+")
        try:
            array[rows] = content
        except (OSError, ValueError):  # Zarr reads the last shard first, and it may be damaged
            key = array.metadata.encode_chunk_key((number, *[0] * (array.ndim - 1)))
            _remove(f"{place}/{name}/{key}")
            array[rows] = content
    sums = {name: _checksum(content) for name, content in values.items()}
    _put(_note_name(place, number), note | {"checksums": sums})


def is_sound(place: str, number: int, digest: str | None = None) -> bool:
    """Tell whether a shard is done (for these files), and its data are those that were written."""
    note = _note(place, number)
    if note is None or digest not in (None, note["digest"]):
        return False
    rows = _rows(place, number)
    try:
        return all(
            _checksum(_array(place, name)[rows]) == wanted
            for name, wanted in note["checksums"].items()
        )
    except (OSError, ValueError):  # Zarr's own checksum failed
        return False


def _rows(place: str, number: int) -> slice:
    settings = _array(place, "features").attrs
    start = number * settings["shard"]
    return slice(start, min(start + settings["shard"], settings["images"]))


def _remove(name: str) -> None:
    import fsspec

    system, path = fsspec.core.url_to_fs(name)
    system.rm_file(path)


def _checksum(values: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(values), digest_size=16).hexdigest()


def address(place) -> str:
    """Give the full name of a place: an absolute path, or the address as it is."""
    text = str(place).removeprefix("file://")
    return text.rstrip("/") if "://" in text else str(Path(text).expanduser().absolute())


def _array(place: str, name: str, mode: str = "r"):
    import zarr

    return zarr.open_array(f"{place}/{name}", mode=mode)


def _note_name(place: str, number: int) -> str:
    return f"{place}/shards/{number:06}.json"


def _note(place: str, number: int) -> dict | None:
    """Read what was noted when a shard was done; None if it is not."""
    import fsspec

    try:
        with fsspec.open(_note_name(place, number)) as file:
            return json.loads(file.read())
    except (FileNotFoundError, ValueError):
        return None


def _put(name: str, content: dict) -> None:
    """Write JSON whole or not at all; an object store does so by itself."""
    import fsspec

    from cxrlib.files import write_json

    if "://" in name:
        system, path = fsspec.core.url_to_fs(name)
        system.pipe_file(path, json.dumps(content).encode())
    else:
        write_json(name, content)


def check_zarr() -> None:
    """Name the remedy where Zarr is not installed."""
    try:
        import zarr  # noqa: F401
    except ImportError as error:
        raise StoreError('A store needs Zarr. Run: pip install "cxrlib[cluster]".') from error
