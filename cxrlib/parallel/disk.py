"""An array of images on disk, filled block by block; a killed run goes on where it stopped."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from pathlib import Path

import numpy as np

from cxrlib.files import cannot_write
from cxrlib.parallel import cluster
from cxrlib.parallel.threads import ahead

BLOCK = 128  # images between two saves, so that an interrupted run loses little


def fill(
    place: Path,
    items: list,
    side: int,
    make,
    threads: int | None,
    progress: bool,
    what: str = "decoding",
):
    """Fill what is not yet done of the array in the folder `place`, and open it memory-mapped.

    A block is on disk before it is marked as done, and two runs at once write the same bytes to
    the same places. Memory does not grow with the images: the map's pages are the file's, and
    the system takes them back when it needs them. On a full disk, an OSError names the folder
    and the space needed.

    Parameters
    ----------
    items : list
        What each row is made from.
    make : callable, at the top of a module, for it may run on a cluster
        ``make(items, side, threads=1)`` gives for each item three numbers, of which the first is
        not 0, and the image, uint8 (side, side); or a str that says what is wrong.
    what : str
        What is done to them, for the bar and for errors.

    Returns
    -------
    images : memory map, shape (n, side, side), uint8; a row that failed is black
    numbers : ndarray, shape (n, 3), int32; 0 where it failed
    failures : dict of int to str, by row
    """
    from tqdm import tqdm

    if not place.exists():
        _reserve(place, len(items), side, what)
    rows = np.flatnonzero(np.load(place / "state.npy")[:, 0] == 0)
    blocks = [rows[start : start + BLOCK].tolist() for start in range(0, len(rows), BLOCK)]
    tasks = (([items[row] for row in block], side) for block in blocks)
    if cluster.client():
        made = cluster.spread(make, tasks, what)
    else:
        threads = threads or cluster.threads()
        made = enumerate(ahead(lambda task: make(*task, threads), tasks))  # while a block is saved
    failures = {}
    with tqdm(total=len(rows), desc=what, unit="image", disable=not progress or None) as bar:
        for number, found in made:
            images, numbers = {}, {}
            for row, one in zip(blocks[number], found, strict=True):
                if isinstance(one, str):
                    failures[row] = one
                else:
                    numbers[row], images[row] = np.int32(one[0]), one[1]
            try:
                _write_rows(place / "images.npy", images)
                _write_rows(place / "state.npy", numbers)
            except OSError as error:
                raise _no_room(place, len(items), side, what, error) from error
            bar.update(len(found))
    images = np.load(place / "images.npy", mmap_mode="r" if items else None)
    return images, np.load(place / "state.npy"), dict(sorted(failures.items()))


def _reserve(place: Path, count: int, side: int, what: str) -> None:
    """Make the folder of an array of `count` images in one step: whole, or not at all."""
    draft = place.with_name(f"{place.name}.{secrets.token_hex(4)}")
    try:
        draft.mkdir(parents=True)
        if shutil.disk_usage(draft).free < count * side * side:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # 'w+' makes a file of zeros that takes no room until rows are written
        np.lib.format.open_memmap(draft / "images.npy", "w+", np.uint8, (count, side, side))
        np.save(draft / "state.npy", np.zeros((count, 3), np.int32))
        draft.rename(place)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        if not place.exists():  # else another run was faster
            raise _no_room(place, count, side, what, error) from error


def _write_rows(path: Path, rows: dict[int, np.ndarray]) -> None:
    """Put rows in their places: not through a map, or a full disk would kill the process."""
    if not rows:
        return
    start = np.load(path, mmap_mode="r").offset
    with path.open("r+b") as file:
        for row, values in rows.items():
            file.seek(start + row * values.nbytes)
            file.write(values.tobytes())
        file.flush()
        os.fsync(file.fileno())


def _no_room(place: Path, count: int, side: int, what: str, error: OSError) -> OSError:
    needed = count * side * side / 1e6
    told = f"{what.capitalize()} {count} images takes {needed:.0f} MB."
    return OSError(f"{cannot_write(place.parent, error)} {told}")
