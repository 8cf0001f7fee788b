"""An image file -> grey uint8; resizing; and the on-disk array of decoded images.

PNG and JPEG are read by Pillow, DICOM by :mod:`cxrlib.dicom`. Files come from strangers, and one
of a few kilobytes can ask its decoder for gigabytes, or keep it busy for hours: whatever the
format, a file, its header and its size are checked before a pixel is decoded.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from cxrlib.cohort import SIDE
from cxrlib.compute import ahead, cluster, share
from cxrlib.dicom import (
    MOST_DECODED,
    MOST_PIXELS,
    SMALLEST_SIDE,
    ImageError,
    check_scans,
    check_size,
    look_up,
    one_at_a_time,
    read_dicom,
)
from cxrlib.files import Sparing, cache_folder, cannot_write

__all__ = ["MOST_PIXELS", "SMALLEST_SIDE", "Decoded", "ImageError", "decode", "read_grey", "resize"]

MOST_BYTES = MOST_DECODED  # of a PNG or JPEG file: no more than its pixels may take
LARGE = MOST_PIXELS // 4  # so large images wait for each other, however many the cores
MOST_CHUNKS = 100  # of a PNG, besides those of pixels
STRIP = 4_000_000  # pixels of a coloured image that are turned grey at once
FORMATS = ["", "PNG", "JPEG", "DICOM"]  # as the array on disk counts them
VERSION = 3  # of the decoded arrays in the cache: raise it when reading or resizing changes
BLOCK = 128  # images between two saves, so that an interrupted run loses little


def read_grey(path) -> np.ndarray:
    """Read a radiograph as grey values.

    Colours become luminance, and transparent parts black. A file of 16 bits is scaled by the
    smallest of 8, 10, 12, 14 and 16 bits that holds its brightest pixel, because detectors
    of 12 bits store 0..4095 in 16. DICOM goes through its modality and VOI (window) tables,
    then its own darkest..brightest value becomes 0..255; MONOCHROME1 is inverted.

    Returns
    -------
    ndarray, shape (height, width), uint8
        0 is black (air), 255 is white (bone).

    Raises
    ------
    ImageError
        If the file is missing, empty, truncated, animated, larger than `MOST_PIXELS`, smaller
        than `SMALLEST_SIDE`, or no PNG, JPEG or DICOM image.
    """
    return read(Path(path))[0]


def read(path: Path, side: int | None = None) -> tuple[np.ndarray, str, tuple[int, int]]:
    """Grey image, the name of its file format, and height and width in the file.

    Where a `side` is given, the image may come smaller than in the file, but not than that.
    """
    content = _read_bytes(path)
    if not content:
        image = read_dicom(path)
        scale = shrinks_by(*image.shape, side) if side else 1
        return _shrink(Image.fromarray(image), scale), "DICOM", image.shape
    name, kind = _recognise(path, content)
    try:
        kind.check(content)
        with Image.open(Sparing(content), formats=[name]) as header:
            size = header.height, header.width
            check_size(path, *size)
            scale = shrinks_by(*size, side) if side else 1
            with one_at_a_time if size[0] * size[1] > LARGE else nullcontext():
                image = kind.decode(path, content, header, scale)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        check_size(path, MOST_PIXELS, 2)  # Pillow does not say how large it is
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"{path}: damaged, its header makes no sense. Fetch it again.") from error
    except Exception as error:  # Pillow raises many kinds
        raise ImageError(f"{path}: truncated or damaged ({error}). Fetch it again.") from error
    if image.shape != (-(-size[0] // scale), -(-size[1] // scale)):
        size = size[::-1]  # its EXIF data turns it
    return image, name, size


def _read_bytes(path: Path) -> bytes:
    """All of a file; nothing of a DICOM file, which pydicom reads.

    Threads wait for each other at each call of the system, so there are few.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError
        with path.open("rb", buffering=0) as file:
            content = file.read(min(status.st_size, MOST_BYTES))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(
            f"{path}: there is no such file. Check the name and the folder."
        ) from error
    except OSError as error:
        raise ImageError(f"{path}: it cannot be opened ({error.strerror}).") from error
    if not content:
        raise ImageError(f"{path}: the file is empty. Fetch or export it again.")
    if content[128:132] == b"DICM" or path.suffix.lower() in {".dcm", ".dicom"}:
        return b""
    if status.st_size > MOST_BYTES:
        raise ImageError(
            f"{path}: more than {MOST_BYTES // 10**6} MB is no radiograph. Save it as PNG."
        )
    return content


def shrinks_by(height: int, width: int, side: int) -> int:
    """Find the largest of 1, 2, 4, 8 by which an image may shrink before it is resized to `side`.

    It stays at least as large as `side`, so nothing aliases. Where a length is no multiple of
    the scale, the last block sticks out; by one pixel of the result at most.
    """
    for scale in (8, 4, 2):
        if all(
            length // scale >= side and -length % scale * side <= length
            for length in (height, width)
        ):
            return scale
    return 1


def _shrink(image: Image.Image, scale: int) -> np.ndarray:
    """Mean of each block of `scale` x `scale` grey pixels; the last ones may hold fewer."""
    return np.asarray(image.reduce(scale) if scale > 1 else image)


# --- one decoder for each format: (path, content, opened, scale) -> grey pixels, shrunk ----------


def _decode_jpeg(path: Path, content: bytes, image: Image.Image, scale: int) -> np.ndarray:
    """Grey pixels of a JPEG, which shrinks while it is decoded."""
    # The last scan of a whole JPEG is followed by an end mark; what follows could be filling.
    if content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
        raise ImageError(f"{path}: truncated, the end of the image is missing. Fetch it again.")
    image.draft("L", (image.width // scale, image.height // scale))
    return np.asarray(_turned(image).convert("L"))


def _turned(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF data says; where they are damaged, it stays as it is."""
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises many kinds
        return image


def _check_png(content: bytes) -> None:
    """Complain about a PNG of very many chunks. Those of pixels may be many, but not tiny."""
    others = 0
    for number, (kind, _) in enumerate(_chunks(content)):
        others += kind != b"IDAT"
        if others > MOST_CHUNKS or number > 1000 + len(content) // 1024:
            raise ValueError("its parts are too many")


def _chunks(content: bytes):
    """Give the kind and the data of each chunk of a PNG."""
    place, kind = 8, b""
    while place < len(content) and kind != b"IEND":
        length = int.from_bytes(content[place : place + 4], "big")
        kind = content[place + 4 : place + 8]
        yield kind, content[place + 8 : place + 8 + length]
        place += length + 12


def _check_surplus(content: bytes, size: int) -> None:
    """Complain about a PNG that holds more than `size` bytes of pixels: OpenCV unpacks them all."""
    inflate = zlib.decompressobj()
    for kind, rest in _chunks(content):
        while kind == b"IDAT" and rest:
            size -= len(inflate.decompress(rest, 1 << 20))
            rest = inflate.unconsumed_tail
            if size < 0:
                raise ValueError("it holds more than its pixels")


def _decode_png(path: Path, content: bytes, image: Image.Image, scale: int) -> np.ndarray:
    """Grey pixels of a PNG, shrunk.

    Pillow checks no sum of the pixels' chunks unless asked, and keeps 8 of a colour's 16 bits.
    """
    if image.is_animated:
        raise ImageError(f"{path}: it is animated. Save one frame as PNG.")
    with Image.open(Sparing(content), formats=["PNG"]) as again:
        again.verify()
    coloured = image.mode in {"P", "LA", "RGB", "RGBA"} or "transparency" in image.info
    deep = content[24] == 16
    if coloured and deep:
        bytes_each = 2 * len(image.getbands())
        check_size(path, image.height, image.width, bytes_each)
        _check_surplus(content, (image.width * bytes_each + 8) * image.height)
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise ImageError(f"{path}: damaged, or of a rare kind. Save it as PNG of 8 bits.")
        image = Image.fromarray(_to_grey(pixels))
    elif coloured:
        image = Image.fromarray(_grey_in_strips(image))
    elif deep:
        image = Image.fromarray(_to_grey(np.asarray(image).astype(np.uint16)))
    return _shrink(image if image.mode == "L" else image.convert("L"), scale)


def _grey_in_strips(image: Image.Image) -> np.ndarray:
    """Grey pixels of a coloured image, some rows at a time: copies of all take gigabytes."""
    grey, rows = np.empty(image.size[::-1], np.uint8), max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        grey[top : top + rows] = _to_grey(np.asarray(strip.convert("RGBA")), cv2.COLOR_RGBA2GRAY)
    return grey


def _to_grey(image: np.ndarray, code: int = cv2.COLOR_BGRA2GRAY) -> np.ndarray:
    """Blue, green, red (and opacity) of 8 or 16 bits -> grey uint8; another order has a code."""
    if image.ndim == 3 and image.shape[2] == 4:
        opacity, top = cv2.extractChannel(image, 3), np.iinfo(image.dtype).max
        image = cv2.cvtColor(image, code)
        if opacity.min() < top:
            image = cv2.multiply(image, opacity, scale=1 / top)
    elif image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    if image.dtype == np.uint8:
        return image
    bits = next(bits for bits in (8, 10, 12, 14, 16) if image.max() < 2**bits)
    table = np.rint(np.arange(2**bits) * (255 / (2**bits - 1))).astype(np.uint8)
    return look_up(table, image)


class Kind(NamedTuple):
    """A format that is told by how its files begin, whatever a file's name says.

    Attributes
    ----------
    begins : bytes, a regular expression
    check : callable or None, looks for what Pillow lets through before the header is parsed;
        a ValueError says what is wrong
    decode : callable or None, as those above; without one the format is refused by its name
    """

    begins: bytes
    check: Callable[[bytes], None] | None = None
    decode: Callable | None = None


KINDS = {
    "PNG": Kind(rb"\x89PNG\r\n\x1a\n", _check_png, _decode_png),
    "JPEG": Kind(rb"\xff\xd8\xff", check_scans, _decode_jpeg),
    "GIF": Kind(rb"GIF8"),
    "BMP": Kind(rb"BM"),
    "TIFF": Kind(rb"II[*+]\0|MM\0[*+]"),
    "WEBP": Kind(rb"RIFF....WEBP"),
}


def _recognise(path: Path, content: bytes) -> tuple[str, Kind]:
    """Name and properties of the format that a file has, if it can be read."""
    for name, kind in KINDS.items():
        if re.match(kind.begins, content, re.DOTALL):
            if kind.decode:
                return name, kind
            raise ImageError(
                f"{path}: {name} is not read here. Save it as PNG; if it is animated or has "
                "several pages, one of them."
            )
    raise ImageError(f"{path}: not an image. PNG, JPEG and DICOM are read.")


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


# --- the array on disk ---------------------------------------------------------------------------


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


def decode(paths, folder=None, side=SIDE, workers=None, progress=True, keys=None) -> Decoded:
    """Decode files once into an array on disk, and open it memory-mapped.

    A large image is first shrunk to a half, a quarter or an eighth, each pixel the mean of
    those it stands for, as long as that is no smaller than `side`: a JPEG is quicker to decode
    so, and all are quicker to resize.

    The array's folder is named by a hash of `keys`. Every block of images is on disk before it
    is marked as done, so a run that was killed goes on where it stopped. Two runs at once
    write the same bytes to the same places. Memory does not grow with the number of images:
    the map's pages are the file's, and the system takes them back when it needs them.

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
    blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    failures = {}
    with tqdm(total=len(rows), desc="decoding", unit="image", disable=not progress or None) as bar:
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
    images = np.load(place / "images.npy", mmap_mode="r" if paths else None)
    formats = [FORMATS[number] for number in state[:, 0]]
    return Decoded(images, dict(sorted(failures.items())), state[:, 1:], formats)


def _decoded(paths, blocks, side, workers):
    """Decode blocks of rows, in threads or on a cluster; yields each block and what is in it."""
    tasks = (([paths[row] for row in block], side) for block in blocks)
    if cluster.client():
        for number, found in cluster.spread(decode_block, tasks, "decoding"):
            yield blocks[number], found
        return
    workers = workers or cluster.threads()
    found = ahead(lambda task: decode_block(*task, workers), tasks)  # while a block is saved
    yield from zip(blocks, found, strict=True)


def decode_block(paths, side: int, workers: int = 1) -> list:
    """Decode files, here and now: a task for this machine or a worker.

    Returns
    -------
    list
        Of each file the numbers of its format, height and width, and the image, uint8
        (side, side); or a str that says what is wrong with it.
    """
    found = [None] * len(paths)

    def decode_one(number):
        try:
            image, kind, size = read(Path(paths[number]), side)
            found[number] = (FORMATS.index(kind), *size), resize(image, side)
        except ImageError as error:
            found[number] = str(error)

    share(decode_one, len(paths), workers)
    return found


def _key(path: Path) -> str:
    if not path.is_file():
        return f"{path.absolute()} is missing"
    status = path.stat()
    return f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"


def _reserve(place: Path, count: int, side: int) -> None:
    """Make the folder of an array of `count` images in one step: whole, or not at all."""
    draft = place.with_name(f"{place.name}.{secrets.token_hex(4)}")  # threads share a number
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
            raise _no_room(place, count, side, error) from error


def _write_rows(path: Path, rows: dict[int, np.ndarray]) -> None:
    """Put rows of an array file in their places; returns when they are on disk.

    A memory map would not do: on a full disk, writing to it kills the process.
    """
    if not rows:
        return
    start = np.load(path, mmap_mode="r").offset
    with path.open("r+b") as file:
        for row, values in rows.items():
            file.seek(start + int(row) * values.nbytes)
            file.write(values.tobytes())
        file.flush()
        os.fsync(file.fileno())


def _no_room(place: Path, count: int, side: int, error: OSError) -> OSError:
    needed = count * side * side / 1e6
    return OSError(
        f"{cannot_write(place.parent, error)} Decoding {count} images takes {needed:.0f} MB."
    )
