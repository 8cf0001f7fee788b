"""Resizing, and the on-disk array of decoded images."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from cxrlib import cluster, films
from cxrlib.cohort import SIDE
from cxrlib.files import cache_folder
from cxrlib.films import FORMATS, ImageError

VERSION = 3  # of the decoded arrays in the cache: raise it when reading or resizing changes
BLOCK = 128  # images between two saves, so that an interrupted run loses little
TASK = 4  # images that a thread takes at a time


class Decoded(NamedTuple):
    """What :func:`decode` gives: row i belongs to the path i.

    Attributes
    ----------
    images : memory map, shape (n, side, side), uint8; a row that failed is black
    failures : dict of int to str, what is wrong with each row that could not be read
    sizes : ndarray, shape (n, 2), int32, height and width in the file; 0 where it failed
    formats : list of str, "PNG", "JPEG", "DICOM", or "" where it failed
    """

    images: np.ndarray
    failures: dict[int, str]
    sizes: np.ndarray
    formats: list[str]


class StoredImages(np.memmap):
    """A memory map of an array on disk that reads images asked for by number from the file.

    Through the map, every image that was ever looked at would count as memory of this process,
    and a file that was cut short would kill it. Other selections are views into the map, and
    so is everything where the system cannot read at a place (Windows).
    """

    file = None  # number of the open file; views have none, since their rows are others

    @classmethod
    def open(cls, path: Path) -> StoredImages:
        """Open a ``.npy`` file of shape (n, height, width)."""
        found = np.load(path, mmap_mode="r").view(cls)
        if hasattr(os, "preadv"):
            found.file = os.open(path, os.O_RDONLY)
            weakref.finalize(found, os.close, found.file)
        return found

    def __getitem__(self, key):
        rows = np.asarray(None if isinstance(key, tuple) else key)
        if self.file is None or rows.dtype.kind not in "iu" or rows.ndim > 1:
            return super().__getitem__(key)
        stack = np.empty((rows.size, *self.shape[1:]), self.dtype)
        size = self.strides[0]
        for image, row in zip(stack, np.atleast_1d(rows), strict=True):
            if os.preadv(self.file, [image], self.offset + range(len(self))[row] * size) < size:
                raise OSError(f"{self.filename} was cut short. Delete it.")
        return stack if rows.ndim else stack[0]


def resize(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Squeeze or stretch an image to `side` x `side`, as the paper does (section IV.A).

    Every pixel of the original counts when shrinking (area interpolation), so that fine
    structure does not turn into moiré.
    """
    height, width = image.shape[:2]
    shrunk = (min(width, side), min(height, side))
    image = cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA)
    if shrunk == (side, side):
        return image
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)


def decode(paths, folder=None, side=SIDE, workers=None, progress=True, keys=None) -> Decoded:
    """Decode files once into an array on disk, and open it memory-mapped.

    A large image is first shrunk to a half, a quarter or an eighth, each pixel the mean of
    those it stands for, as long as that is no smaller than `side`: a JPEG is quicker to decode
    so, and all are quicker to resize.

    The array's folder is named by a hash of `keys`. Every block of images is on disk before it
    is marked as done, so a run that was killed goes on where it stopped. Two runs at once
    write the same bytes to the same places. Memory does not grow with the number of images.

    Parameters
    ----------
    paths : sequence of path-like
    folder : path-like, optional
        Where the arrays are kept: ``decoded`` in the cache folder.
    side : int
        Height and width of the decoded images.
    workers : int, optional
        Threads; as many as there are cores by default.
    keys : sequence of str, optional
        What identifies the content of each file, such as its hash. Path, size and time of the
        last change by default.
    progress : bool
        Show a progress bar, where there is a terminal to show it on.

    Returns
    -------
    Decoded
        Files that cannot be read are listed in ``failures``; they don't stop the others.

    Raises
    ------
    OSError
        If the disk is full; the message names the folder and the space needed.
    """
    from tqdm import tqdm

    paths = [Path(path) for path in paths]
    keys = [_key(path) for path in paths] if keys is None else [str(key) for key in keys]
    digest = hashlib.sha256("\n".join([f"v{VERSION} {side}", *keys]).encode()).hexdigest()[:20]
    place = Path(folder or cache_folder("decoded")) / digest
    if not place.exists():
        _reserve(place, len(paths), side)
    state = np.load(place / "state.npy")  # a row a file: format (0 is not done), height, width
    rows = np.flatnonzero(state[:, 0] == 0)
    failures = {}

    bar = tqdm(total=len(rows), desc="decoding", unit="image", disable=None if progress else True)
    blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    with bar:
        for block, found in _decoded(paths, blocks, side, workers):
            found = list(zip(block, found, strict=True))
            failures |= {int(row): one for row, one in found if isinstance(one, str)}
            good = [(row, *one) for row, one in found if not isinstance(one, str)]
            try:
                _write_rows(place / "images.npy", {row: image for row, _, image in good})
                _write_rows(place / "state.npy", {row: np.int32(what) for row, what, _ in good})
            except OSError as error:
                raise _no_room(place, len(paths), side, error) from error
            bar.update(len(block))
    state = np.load(place / "state.npy")
    images = _nothing(side)
    if paths:
        images = StoredImages.open(place / "images.npy")
    formats = [FORMATS[number] for number in state[:, 0]]
    return Decoded(images, dict(sorted(failures.items())), state[:, 1:], formats)


def _decoded(paths, blocks, side, workers):
    """Decode blocks of rows, in threads or on a cluster; yields each block and what is in it."""
    tasks = (([paths[row] for row in block], side) for block in blocks)
    if cluster.client():
        for number, found in cluster.spread(_decode_all, tasks, "decoding"):
            yield blocks[number], found
        return
    with ThreadPoolExecutor(workers or cluster.threads()) as pool:
        started = (pool.map(_decode_all, _batched(some), repeat(side)) for some, _ in tasks)
        ahead = next(started, None)
        for block in blocks:
            now, ahead = ahead, next(started, None)  # decoded while this block is saved
            yield block, chain.from_iterable(now)


def _batched(paths):
    return (paths[start : start + TASK] for start in range(0, len(paths), TASK))


def _decode_all(paths: list[Path], side: int) -> list:
    return [_decode_one(path, side) for path in paths]


def _decode_one(path: Path, side: int):
    """Format number, height and width in the file, and the image; or what is wrong with it."""
    try:
        image, kind, size = films.read(path, side)
    except ImageError as error:
        return str(error)
    return (FORMATS.index(kind), *size), resize(image, side)


def _key(path: Path) -> str:
    if not path.is_file():
        return f"{path.absolute()} is missing"
    status = path.stat()
    return f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"


def _nothing(side):
    return np.zeros((0, side, side), np.uint8)


def _reserve(place: Path, count: int, side: int) -> None:
    """Make the folder of an array of `count` images in one step: whole, or not at all."""
    draft = place.with_name(f"{place.name}.{secrets.token_hex(4)}")  # threads share a number
    try:
        draft.mkdir(parents=True)
        if shutil.disk_usage(draft).free < count * side * side:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        header = np.lib.format.header_data_from_array_1_0(_nothing(side))
        with (draft / "images.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header | {"shape": (count, side, side)})
            file.truncate(file.tell() + count * side * side)
        np.save(draft / "state.npy", np.zeros((count, 3), np.int32))
        draft.rename(place)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        if not place.exists():  # else another run was faster
            raise _no_room(place, count, side, error) from error


def _write_rows(path: Path, rows: dict[int, np.ndarray]) -> None:
    """Put rows of an array file in their places; returns when they are on disk.

    A memory map would not do: on a full disk, writing to it kills the process.
    """
    if not rows:
        return
    with path.open("r+b") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        start = file.tell()
        after = None
        for row, values in rows.items():
            if row != after:
                file.seek(start + int(row) * values.nbytes)
            file.write(np.ascontiguousarray(values))
            after = row + 1
        file.flush()
        os.fsync(file.fileno())


def _no_room(place, count, side, error) -> OSError:
    needed = count * side * side / 1e6
    return OSError(
        f"{place.parent}: {error.strerror or error}. Decoding {count} images takes "
        f"{needed:.0f} MB. Free some space, or set CXR_CACHE to another folder of yours."
    )
