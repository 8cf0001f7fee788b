"""Arrays of very many rows in one Zarr store, which many workers write, shard by shard.

A shard is one object with checksums in each array, ``PLACE/NAME/...``, and then, last, a note
that it is done, ``PLACE/shards/000012.json``: what has no such note is not there. Two who write
the same shard at once do no harm. Any library reads it that knows Zarr version 3 with sharding.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

NOTE = "{}/shards/{:06}.json"  # place, number


class StoreError(ValueError):
    """A store that holds something else, or is none."""


def address(place) -> str:
    """Give the full name of a place: an absolute path, or an address of fsspec as it is."""
    try:
        import zarr  # noqa: F401
    except ImportError as error:
        raise StoreError('A store needs Zarr. Run: pip install "cxrlib[cluster]".') from error
    text = str(place).removeprefix("file://")
    return text.rstrip("/") if "://" in text else str(Path(text).expanduser().absolute())


def lay_out(place: str, arrays: dict, rows: int, shard: int, settings: dict) -> None:
    """Make a store of empty arrays; a StoreError if the place holds something else.

    Of each array's name `arrays` says its dtype, the shape of a row, how many rows a reader has
    to read at once (a chunk; divides `shard`), and the value of rows that nobody has written.
    There are so many rows, and `shard` of them in an object; `settings`, kept with each array,
    say what they are.
    """
    import zarr
    from zarr.codecs import Crc32cCodec

    group = zarr.open_group(place, mode="a")
    group.require_group("shards")
    for name, (kind, shape, chunk, empty) in arrays.items():
        if name not in group:
            group.create_array(
                name,
                shape=(rows, *shape),
                shards=(shard, *shape),
                chunks=(chunk, *shape),
                dtype=kind,
                fill_value=empty,
                compressors=[Crc32cCodec()],
                attributes=settings,
            )
    there = dict(open_array(place, name).attrs)  # where the last one is there, all are
    for key, wanted in settings.items():
        if there.get(key) != wanted:
            raise StoreError(
                f"{place} holds something else: its {key} is {there.get(key)!r}, not {wanted!r}. "
                "Choose another place, or delete it."
            )


def open_array(place: str, name: str, mode: str = "r"):
    """Open an array, zarr.Array; an OSError or a ValueError if there is none."""
    import zarr

    return zarr.open_array(f"{place}/{name}", mode=mode)


@dataclass(frozen=True)
class Store:
    """A store that is open for reading; slices of its arrays are read when asked for."""

    place: str  # a folder or an address such as s3://bucket/chexpert.zarr
    settings: dict  # what the features are: backbone, size, weights, number of images
    features: object  # zarr.Array, shape (n, channels), float32; NaN of unreadable files

    @property
    def images(self):
        """The decoded images, zarr.Array, shape (n, side, side), uint8, if they were kept."""
        return open_array(self.place, "images") if self.settings["pixels"] else None

    def names(self) -> list[str]:
        """Names of the files, row by row."""
        return [name for note in self._notes() for name in note["names"]]

    def failures(self) -> dict[int, str]:
        """Say what is wrong with each file that could not be read, by row."""
        return {int(row): why for note in self._notes() for row, why in note["failures"].items()}

    def _notes(self):
        for number in range(-(-self.settings["images"] // self.settings["shard"])):
            note = read_note(self.place, number)
            if note is None:
                raise StoreError(f"{self.place}: shard {number} is not done. Extract again.")
            yield note


def write_shard(place: str, number: int, values: dict, note: dict) -> None:
    """Write a shard of some arrays, ndarrays by name, and that it is done."""
    for name, content in values.items():
        array = open_array(place, name, "r+")
        system, path = _object(place, name, array, number)
        if system.exists(path):  # Zarr would read it first, and it may be damaged
            system.rm_file(path)
        array[_rows(array, number)] = content
    system, path = _file(NOTE.format(place, number))
    system.pipe_file(path, json.dumps(note).encode())  # half of it is no JSON, so it is none


def is_done(place: str, number: int, names, digest: str) -> bool:
    """Tell whether a shard has a note with this ``digest``, and reads as it was written."""
    note = read_note(place, number)
    if note is None or note["digest"] != digest:
        return False
    try:
        for name in names:
            array = open_array(place, name)
            system, path = _object(place, name, array, number)
            if not system.size(path):  # else Zarr gives its rows as if nobody had written them
                return False
            array[_rows(array, number)]
    except (OSError, ValueError):  # it is missing, or a checksum failed
        return False
    return True


def read_note(place: str, number: int) -> dict | None:
    """Read the note of a shard; None if it is not done."""
    system, path = _file(NOTE.format(place, number))
    try:
        return json.loads(system.cat_file(path))
    except (FileNotFoundError, ValueError):
        return None


def _rows(array, number: int) -> slice:
    shard = array.shards[0]
    return slice(number * shard, min((number + 1) * shard, array.shape[0]))


def _object(place: str, name: str, array, number: int):
    key = array.metadata.encode_chunk_key((number, *[0] * (array.ndim - 1)))
    return _file(f"{place}/{name}/{key}")


def _file(name: str):
    """Where a file is: a file system of fsspec, and the path in it."""
    import fsspec

    return fsspec.core.url_to_fs(name)
