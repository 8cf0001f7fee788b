"""PNG, JPEG and DICOM files -> grey uint8 images, and the on-disk array of decoded images.

Files come from strangers, so every header is read before a pixel is decoded.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from cxrlib.cohort import SIDE
from cxrlib.files import cache_folder

SMALLEST_SIDE = 32  # pixels; less than this shows no lung
MOST_PIXELS = 64_000_000  # three times the largest X-ray detector
FORMATS = ["", "PNG", "JPEG", "DICOM"]
VERSION = 1  # of the decoded arrays in the cache: raise it when reading or resizing changes
BLOCK = 128  # images between two saves, so that an interrupted run loses little


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


def decode(paths, folder=None, side=SIDE, workers=2, progress=True, keys=None) -> Decoded:
    """Decode files once into an array on disk, and open it memory-mapped.

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

    def work(row):
        try:
            image, kind = _read(paths[row])
        except ImageError as error:
            failures[int(row)] = str(error)
            return None
        return row, (FORMATS.index(kind), *image.shape), resize(image, side)

    bar = tqdm(total=len(rows), desc="decoding", unit="image", disable=None if progress else True)
    with bar, ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            good = [found for found in pool.map(work, block) if found]
            try:
                _write_rows(place / "images.npy", {row: image for row, _, image in good})
                _write_rows(place / "state.npy", {row: np.int32(what) for row, what, _ in good})
            except OSError as error:
                raise _no_room(place, len(paths), side, error) from error
            bar.update(len(block))
    state = np.load(place / "state.npy")
    images = np.load(place / "images.npy", mmap_mode="r") if paths else _nothing(side)
    formats = [FORMATS[number] for number in state[:, 0]]
    return Decoded(images, dict(sorted(failures.items())), state[:, 1:], formats)


def _read(path: Path) -> tuple[np.ndarray, str]:
    """Grey image and the name of its file format."""
    if not path.is_file():
        raise ImageError(f"{path}: there is no such file. Check the name and the folder.")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: the file is empty. Fetch or export it again.")
    try:
        with path.open("rb") as file:
            dicom = file.read(132)[128:] == b"DICM"
    except OSError as error:
        raise ImageError(f"{path}: it cannot be opened ({error.strerror}).") from error
    if dicom or path.suffix.lower() in {".dcm", ".dicom"}:
        from cxrlib.dicom import read_dicom

        image, kind = read_dicom(path), "DICOM"
    else:
        kind = _check_header(path)
        image = _decode_pixels(path, kind)
    check_size(path, *image.shape)
    return image, kind


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


def _check_header(path: Path) -> str:
    """Format of a PNG or JPEG file whose header is sound; no pixel is decoded."""
    too_large = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        with Image.open(path) as header:
            if getattr(header, "is_animated", False) and header.format != "MPO":
                raise ImageError(
                    f"{path}: it is animated or has several pages. Save one frame as PNG."
                )
            kind = "JPEG" if header.format == "MPO" else header.format
            if kind not in {"PNG", "JPEG"}:
                raise ImageError(f"{path}: {kind} is not read here. Save it as PNG.")
            check_size(path, header.height, header.width)
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
        raise ImageError(f"{path}: not an image. PNG, JPEG and DICOM are read.") from error
    except Exception as error:
        raise ImageError(f"{path}: truncated or damaged ({error}). Fetch it again.") from error
    return kind


def _decode_pixels(path: Path, kind: str) -> np.ndarray:
    content = path.read_bytes()
    # The last scan of a whole JPEG is followed by an end mark; OpenCV paints the rest grey.
    if kind == "JPEG" and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
        raise ImageError(f"{path}: truncated, the end of the image is missing. Fetch it again.")
    flag = cv2.IMREAD_GRAYSCALE if kind == "JPEG" else cv2.IMREAD_UNCHANGED
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    except cv2.error as error:
        raise ImageError(f"{path}: cannot be decoded ({error.err}).") from error
    if image is None:
        raise ImageError(f"{path}: damaged, or a rare kind of {kind}. Save it as PNG of 8 bits.")
    return _to_grey(image)


def _to_grey(image: np.ndarray) -> np.ndarray:
    """Blue, green, red (and opacity) of 8 or 16 bits -> grey uint8."""
    if image.ndim == 3 and image.shape[2] == 4:
        opaque = image[..., 3] / np.iinfo(image.dtype).max
        grey = cv2.cvtColor(image[..., :3].copy(), cv2.COLOR_BGR2GRAY)
        image = grey if opaque.min() == 1 else np.rint(grey * opaque).astype(image.dtype)
    elif image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    if image.dtype == np.uint8:
        return image
    bits = next(bits for bits in (8, 10, 12, 14, 16) if image.max() < 2**bits)
    return np.rint(image * (255 / (2**bits - 1))).astype(np.uint8)


def _key(path: Path) -> str:
    if not path.is_file():
        return f"{path.absolute()} is missing"
    status = path.stat()
    return f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"


def _nothing(side):
    return np.zeros((0, side, side), np.uint8)


def _reserve(place: Path, count: int, side: int) -> None:
    """Make the folder of an array of `count` images in one step: whole, or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(place.parent).free < count * side * side:
        raise _no_room(place, count, side)
    draft = place.with_name(f"{place.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        header = np.lib.format.header_data_from_array_1_0(_nothing(side))
        with (draft / "images.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header | {"shape": (count, side, side)})
            file.truncate(file.tell() + count * side * side)
        np.save(draft / "state.npy", np.zeros((count, 3), np.int32))
        draft.rename(place)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        if not place.exists():  # else another run was faster
            raise


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
            file.write(values.tobytes())
        file.flush()
        os.fsync(file.fileno())


def _no_room(place, count, side, error=None) -> OSError:
    needed = count * side * side / 1e6
    return OSError(
        f"{place.parent}: {error or 'the disk is full'}. Decoding {count} images takes "
        f"{needed:.0f} MB. Free some space, or set CXR_CACHE to a folder on another disk."
    )
