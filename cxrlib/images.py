"""PNG, JPEG and DICOM files -> grey uint8 images, and the on-disk array of decoded images.

Files come from strangers, so every header is read before a pixel is decoded.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from io import BytesIO
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from cxrlib import cluster, guards
from cxrlib.cohort import SIDE
from cxrlib.files import cache_folder

SMALLEST_SIDE = 32  # pixels; less than this shows no lung
MOST_PIXELS = 64_000_000  # three times the largest X-ray detector
MOST_BYTES = guards.MOST_DECODED  # of a PNG or JPEG file: no more than its pixels may take
LARGE = MOST_PIXELS // 4  # so large images are decoded one at a time, however many the cores
_one_at_a_time = threading.Lock()
ANIMATED = "it is animated or has several pages. Save one frame as PNG."
NO_IMAGE = "not an image. PNG, JPEG and DICOM are read."
FORMATS = ["", "PNG", "JPEG", "DICOM"]
VERSION = 2  # of the decoded arrays in the cache: raise it when reading or resizing changes
BLOCK = 128  # images between two saves, so that an interrupted run loses little
SCALES = {  # by which a JPEG can shrink while it is decoded
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


class ImageError(ValueError):
    """A file that cannot be used as a radiograph; the message names it and the remedy."""


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
    and a file that was cut short would kill it. Other selections are views into the map.
    """

    whole = False  # views of it have other rows than the file

    @classmethod
    def open(cls, path: Path) -> StoredImages:
        """Open a ``.npy`` file of shape (n, height, width)."""
        found = np.load(path, mmap_mode="r").view(cls)
        found.whole = True
        return found

    def __getitem__(self, key):
        rows = np.asarray(None if isinstance(key, tuple) else key)
        if not self.whole or rows.dtype.kind not in "iu" or rows.ndim > 1:
            return super().__getitem__(key)
        stack = np.empty((rows.size, *self.shape[1:]), self.dtype)
        try:
            with Path(self.filename).open("rb", buffering=0) as file:
                for place, row in enumerate(np.atleast_1d(rows)):
                    file.seek(self.offset + range(len(self))[row] * self.strides[0])
                    if file.readinto(stack[place]) < self.strides[0]:
                        raise OSError(f"{self.filename} was cut short. Delete it.")
        except FileNotFoundError:  # deleted meanwhile; the map still holds it
            return super().__getitem__(key)
        return stack if rows.ndim else stack[0]


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
    return _read(Path(path))[0]


def resize(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Squeeze or stretch an image to `side` x `side`, as the paper does (section IV.A).

    Every pixel of the original counts when shrinking (area interpolation), so that fine
    structure does not turn into moiré.
    """
    height, width = image.shape[:2]
    shrunk = (min(width, side), min(height, side))
    image = cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def share(work, count: int, threads: int | None = None) -> None:
    """Call ``work(0)`` to ``work(count - 1)`` in threads, and wait for all of them.

    It pays where the work is NumPy's or OpenCV's, which let other threads run meanwhile.

    Parameters
    ----------
    work : callable
        Each call must write to a place of its own.
    threads : int, optional
        As many as there are cores by default.
    """
    threads = max(1, min(threads or cores(), count))

    def some(first):
        for number in range(first, count, threads):
            work(number)

    if threads == 1:
        return some(0)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, range(threads)))  # the list raises what a thread has raised


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
    with ThreadPoolExecutor(workers or cores()) as pool:
        started = (pool.map(_decode_one, some, repeat(side)) for some, _ in tasks)
        ahead = next(started, None)
        for block in blocks:
            now, ahead = ahead, next(started, None)  # decoded while this block is saved
            yield block, now


def _decode_all(paths: list[Path], side: int) -> list:
    return [_decode_one(path, side) for path in paths]


def _decode_one(path: Path, side: int):
    """Format number, height and width in the file, and the image; or what is wrong with it."""
    try:
        image, kind, size = _read(path, side)
    except ImageError as error:
        return str(error)
    return (FORMATS.index(kind), *size), resize(image, side)


def _read(path: Path, side: int | None = None) -> tuple[np.ndarray, str, tuple[int, int]]:
    """Grey image, the name of its file format, and height and width in the file.

    Where a `side` is given, the image may come smaller than in the file, but not than that.
    """
    if not path.is_file():
        raise ImageError(f"{path}: there is no such file. Check the name and the folder.")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: the file is empty. Fetch or export it again.")
    try:
        with path.open("rb") as file:
            dicom = file.read(132)[128:] == b"DICM"
        dicom = dicom or path.suffix.lower() in {".dcm", ".dicom"}
        content = b"" if dicom else _read_bytes(path)
    except OSError as error:
        raise ImageError(f"{path}: it cannot be opened ({error.strerror}).") from error
    if dicom:
        from cxrlib.dicom import read_dicom

        image, kind = read_dicom(path), "DICOM"
        size = image.shape
    else:
        kind, size = _check_header(path, content)
        scale = _scale(*size, side) if side and kind == "JPEG" else 1
        large = size[0] * size[1] > LARGE
        with _one_at_a_time if large else nullcontext():
            image = _decode_pixels(path, content, kind, scale)
        if scale == 1:
            size = image.shape
        elif image.shape != (-(-size[0] // scale), -(-size[1] // scale)):
            size = size[::-1]  # its EXIF data turns it
    check_size(path, *size)
    if side and kind != "JPEG":
        image = _block_means(image, _scale(*size, side))
    return image, kind, size


def _read_bytes(path: Path) -> bytes:
    """All of a file, unless it is larger than any PNG or JPEG that is read here."""
    if path.stat().st_size > MOST_BYTES:
        raise ImageError(
            f"{path}: more than {MOST_BYTES // 10**6} MB is no radiograph. Save it as PNG."
        )
    return path.read_bytes()


def _scale(height: int, width: int, side: int) -> int:
    """Find the largest scale by which an image may shrink before it is resized to `side`.

    It stays at least as large as `side`, so nothing aliases. Where a length is no multiple of
    the scale, the last block sticks out; by a third of a pixel of the result at most.
    """
    for scale in sorted(SCALES, reverse=True):
        if all(
            length // scale >= side and 3 * (-length % scale) * side <= length
            for length in (height, width)
        ):
            return scale
    return 1


def _block_means(image: np.ndarray, scale: int) -> np.ndarray:
    """Mean of each block of `scale` x `scale` pixels; the edge is repeated to fill the last."""
    height, width = -(-image.shape[0] // scale), -(-image.shape[1] // scale)
    below, right = height * scale - image.shape[0], width * scale - image.shape[1]
    image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def check_size(path, height: int, width: int) -> None:
    """Raise an ImageError for an image that is too large to decode, or too small to be one."""
    if height * width > MOST_PIXELS:
        raise ImageError(
            f"{path}: {width} x {height} pixels is more than {MOST_PIXELS // 10**6} megapixels. "
            "Export it at the size of the detector, or scale it down."
        )
    if min(height, width) < SMALLEST_SIDE:
        raise ImageError(
            f"{path}: {width} x {height} pixels is too small to be a radiograph "
            f"(at least {SMALLEST_SIDE} on each side). Take the original file."
        )


def _check_header(path: Path, content: bytes) -> tuple[str, tuple[int, int]]:
    """Format, height and width of a PNG or JPEG whose header is sound; no pixel is decoded."""
    too_large = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    kind = guards.kind_of(content)
    if kind not in {"PNG", "JPEG"}:
        raise ImageError(f"{path}: {_why_not_read(content, kind)}")
    try:
        (guards.check_chunks if kind == "PNG" else guards.check_markers)(content)
        with Image.open(BytesIO(content), formats=[kind]) as header:
            if kind == "PNG" and getattr(header, "is_animated", False):
                raise ImageError(f"{path}: {ANIMATED}")
            size = header.height, header.width
            check_size(path, *size)
            if kind == "PNG":
                header.verify()  # OpenCV fills what is cut off or damaged without a word
    except ImageError:
        raise
    except too_large as error:
        raise ImageError(
            f"{path}: more than {MOST_PIXELS // 10**6} megapixels. "
            "Export it at the size of the detector, or scale it down."
        ) from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"{path}: damaged, its header makes no sense. Fetch it again.") from error
    except Exception as error:
        raise ImageError(f"{path}: truncated or damaged ({error}). Fetch it again.") from error
    return kind, size


def _why_not_read(content: bytes, kind: str) -> str:
    """Word why a file that is neither PNG nor JPEG is no film, and the remedy."""
    animated = kind == "WEBP" and guards.is_animated_webp(content)
    if kind == "GIF":
        try:  # the beginning tells: a second frame, if there is one, is not far
            with Image.open(BytesIO(content[: 1 << 22]), formats=["GIF"]) as header:
                animated = header.is_animated
        except Exception:  # damaged; but it is not read in any case
            animated = False
    if animated:
        return ANIMATED
    return f"{kind} is not read here. Save it as PNG." if kind else NO_IMAGE


def _decode_pixels(path: Path, content: bytes, kind: str, scale: int) -> np.ndarray:
    if kind == "PNG":
        return _to_grey(_decode_png(path, content))
    # The last scan of a whole JPEG is followed by an end mark; OpenCV paints the rest grey.
    whole = content.endswith(b"\xff\xd9")
    if not whole and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
        raise ImageError(f"{path}: truncated, the end of the image is missing. Fetch it again.")
    return _to_grey(_decode_with_opencv(path, content, SCALES[scale]))


def _decode_with_opencv(path: Path, content: bytes, flag: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    except cv2.error as error:
        raise ImageError(f"{path}: cannot be decoded ({error.err}).") from error
    if image is None:
        raise ImageError(f"{path}: damaged, or of a rare kind. Save it as PNG of 8 bits.")
    return image


def _decode_png(path: Path, content: bytes) -> np.ndarray:
    """Pixels of a PNG: grey, or blue, green, red and opacity, of 8 or 16 bits.

    Pillow is as quick as OpenCV and stops after the last pixel. OpenCV unpacks all that follows,
    which may be gigabytes; but Pillow keeps only 8 of a colour's 16 bits.
    """
    deep, coloured = content[24] == 16, content[25] in {2, 4, 6}
    try:
        size = guards.png_size(content)
        with Image.open(BytesIO(content), formats=["PNG"]) as image:
            clear = "transparency" in image.info
            if deep and (coloured or clear):
                guards.check_surplus(content, size + 8 * image.height)
                return _decode_with_opencv(path, content, cv2.IMREAD_UNCHANGED)
            if coloured or clear or image.mode == "P":
                return cv2.cvtColor(np.asarray(image.convert("RGBA")), cv2.COLOR_RGBA2BGRA)
            if deep:
                return np.asarray(image).astype(np.uint16)
            return np.asarray(image if image.mode == "L" else image.convert("L"))
    except ImageError:
        raise
    except Exception as error:  # Pillow raises many kinds
        raise ImageError(f"{path}: truncated or damaged ({error}). Fetch it again.") from error


def _to_grey(image: np.ndarray) -> np.ndarray:
    """Blue, green, red (and opacity) of 8 or 16 bits -> grey uint8."""
    if image.ndim == 3 and image.shape[2] == 4:
        opacity, top = cv2.extractChannel(image, 3), np.iinfo(image.dtype).max
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2GRAY)
        if opacity.min() < top:
            image = cv2.multiply(image, opacity, scale=1 / top)
    elif image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    if image.dtype == np.uint8:
        return image
    bits = next(bits for bits in (8, 10, 12, 14, 16) if image.max() < 2**bits)
    table = np.rint(np.arange(2**bits) * (255 / (2**bits - 1))).astype(np.uint8)
    return look_up(table, image)


def look_up(table: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Replace whole numbers by what the table says, some rows at a time: NumPy takes 8 bytes each.

    Parameters
    ----------
    table : ndarray, shape (m,), uint8
    image : ndarray, shape (height, width), uint8 or uint16
    """
    found = np.empty(image.shape, np.uint8)
    for start in range(0, len(image), 256):
        rows = slice(start, start + 256)
        np.take(table, image[rows], out=found[rows], mode="clip")
    return found


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
        for row, values in rows.items():
            file.seek(start + int(row) * values.nbytes)
            file.write(np.ascontiguousarray(values))
        file.flush()
        os.fsync(file.fileno())


def _no_room(place, count, side, error) -> OSError:
    needed = count * side * side / 1e6
    return OSError(
        f"{place.parent}: {error.strerror or error}. Decoding {count} images takes "
        f"{needed:.0f} MB. Free some space, or set CXR_CACHE to another folder of yours."
    )
