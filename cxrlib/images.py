"""An image file -> grey uint8; resizing; and the on-disk array of decoded images.

PNG and JPEG are read by Pillow, DICOM by :mod:`cxrlib.dicom`. A stranger's file of kilobytes can
ask a decoder for gigabytes or hours: it, its header and size are checked before a pixel is decoded.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cxrlib import dicom
from cxrlib.cohort import SIDE
from cxrlib.compute import disk, share
from cxrlib.dicom import MOST_DECODED, MOST_PIXELS, ImageError, check_size
from cxrlib.files import Sparing, cache_folder

LARGE = MOST_PIXELS // 4  # so large images wait for each other, however many the cores
STRIP = 4_000_000  # pixels of a coloured image that are turned grey at once
FORMATS = ["", "PNG", "JPEG", "DICOM"]  # as the array on disk counts them
VERSION = 3  # of the decoded arrays in the cache: raise it when reading or resizing changes
BEGINS = {  # how files of a format begin, whatever their names say
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "JPEG": rb"\xff\xd8\xff",
    "GIF": rb"GIF8",
    "BMP": rb"BM",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "WEBP": rb"RIFF....WEBP",
}


def read_grey(path) -> np.ndarray:
    """Read a radiograph as grey values, shape (height, width), uint8: 0 is black, 255 white (bone).

    Colours become luminance, transparent parts black. A file of 16 bits is scaled by the smallest
    of 8, 10, 12, 14, 16 bits that holds its brightest pixel: detectors of 12 bits store 0..4095.
    DICOM goes through its modality and VOI (window) tables, then its own darkest..brightest value
    becomes 0..255; MONOCHROME1 is inverted. An ImageError says what is wrong, and what to do.
    """
    return read(Path(path))[0]


def read(path: Path, side: int | None = None) -> tuple[np.ndarray, str, tuple[int, int]]:
    """Grey image, the name of its file format, and height and width in the file.

    Where a `side` is given, the image may come smaller than in the file, but not than that.
    """
    content = _read_bytes(path)
    if not content:
        image = dicom.read_dicom(path)
        shrunk = Image.fromarray(image).reduce(shrinks_by(*image.shape, side))
        return np.asarray(shrunk), "DICOM", image.shape
    name = _recognise(path, content)
    try:
        if name == "JPEG":
            dicom.check_scans(content)
        with Image.open(Sparing(content), formats=[name]) as header:
            size = header.height, header.width
            check_size(path, *size)
        scale = shrinks_by(*size, side)
        with dicom.one_at_a_time if size[0] * size[1] > LARGE else nullcontext():
            image = (_jpeg if name == "JPEG" else _png)(path, content, scale)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        check_size(path, MOST_PIXELS, 2)  # Pillow does not say how large it is
    except Exception as error:  # Pillow raises many kinds
        odd = isinstance(error, UnidentifiedImageError)
        reason = "its header makes no sense" if odd else error
        raise ImageError(f"{path}: truncated or damaged ({reason}). Fetch it again.") from error
    if image.shape != (-(-size[0] // scale), -(-size[1] // scale)):
        size = size[::-1]  # its EXIF data turns it
    return image, name, size


def _read_bytes(path: Path) -> bytes:
    """All of a file; nothing of a DICOM file, which pydicom reads."""
    if not path.is_file():
        raise ImageError(f"{path}: there is no such file. Check the name and the folder.")
    try:
        if path.stat().st_size > MOST_DECODED:  # no more than its pixels may take
            most = f"{MOST_DECODED // 10**6} MB"
            raise ImageError(f"{path}: more than {most} is no radiograph. Save it as PNG.")
        with path.open("rb") as file:
            head = file.read(132)
            if not head:
                raise ImageError(f"{path}: the file is empty. Fetch or export it again.")
            if head[128:] == b"DICM" or path.suffix.lower() in {".dcm", ".dicom"}:
                return b""
            return head + file.read()
    except OSError as error:
        raise ImageError(f"{path}: it cannot be opened ({error.strerror}).") from error


def _recognise(path: Path, content: bytes) -> str:
    """Name the format that a file has, if it can be read."""
    name = next((one for one, begins in BEGINS.items() if re.match(begins, content, re.S)), None)
    if not name:
        raise ImageError(f"{path}: not an image. PNG, JPEG and DICOM are read.")
    if name not in FORMATS:
        one = "if it is animated or has several pages, one of them."
        raise ImageError(f"{path}: {name} is not read here. Save it as PNG; {one}")
    return name


def shrinks_by(height: int, width: int, side: int | None) -> int:
    """Find the largest of 1, 2, 4, 8 by which an image may shrink before it is resized to `side`.

    It stays at least as large as `side`, so nothing aliases; and where a length is no multiple,
    the last block sticks out by one pixel of the result at most.
    """
    lengths = np.array([height, width])
    for scale in (8, 4, 2) if side else ():
        if (lengths // scale >= side).all() and (-lengths % scale * side <= lengths).all():
            return scale
    return 1


def _jpeg(path: Path, content: bytes, scale: int) -> np.ndarray:
    """Grey pixels of a JPEG, which shrinks while it is decoded, and is turned as its EXIF says."""
    # The last scan of a whole JPEG is followed by an end mark; what follows could be filling.
    if content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
        raise ImageError(f"{path}: truncated, the end of the image is missing. Fetch it again.")
    with Image.open(Sparing(content), formats=["JPEG"]) as image:
        image.draft("L", (image.width // scale, image.height // scale))
        image.load()
    with suppress(Exception):  # where the EXIF data are damaged, it stays as it is
        ImageOps.exif_transpose(image, in_place=True)
    return np.asarray(image if image.mode == "L" else image.convert("L"))


def _png(path: Path, content: bytes, scale: int) -> np.ndarray:
    """Grey pixels of a PNG, shrunk."""
    image = Image.open(Sparing(content), formats=["PNG"])
    if image.is_animated:
        raise ImageError(f"{path}: it is animated. Save one frame as PNG.")
    deep = content[24] == 16
    check_size(path, image.height, image.width, len(image.getbands()) * (1 + deep))
    with Image.open(Sparing(content), formats=["PNG"]) as again:
        again.verify()  # the check sums, which are not looked at else
    coloured = image.mode in {"P", "LA", "RGB", "RGBA"} or "transparency" in image.info
    grey = _greys(image, coloured)
    if coloured and deep and grey.max() < 64:  # Pillow keeps 8 of a colour's 16 bits
        if content[25] not in {2, 6}:
            raise ImageError(f"{path}: its greys have few of 16 bits. Save it without opacity.")
        with Image.open(Sparing(content), formats=["PNG"]) as low:  # and here the other 8
            low.tile = [low.tile[0]._replace(args=f"{image.mode};16L")]
            grey = _greys(image, coloured, low)
    if grey.dtype == np.uint16:
        top = next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if grey.max() < 2**bits)
        table = np.rint(np.arange(top + 1) * (255 / top)).astype(np.uint8)
        grey = dicom.look_up(table, grey)
    return np.asarray(Image.fromarray(grey).reduce(scale))  # each block's mean; the last is smaller


def _greys(image: Image.Image, coloured: bool, low: Image.Image | None = None) -> np.ndarray:
    """Grey pixels, some rows at a time: copies of all take gigabytes."""
    depth = np.dtype(np.uint16 if low or image.mode[0] == "I" else np.uint8)
    grey, rows = np.empty(image.size[::-1], depth), max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        part = (0, top, image.width, min(top + rows, image.height))
        shown = image.crop(part)
        if image.mode == "1":
            shown = shown.convert("L")
        if coloured:
            shown = np.asarray(shown.convert("RGBA"))
            if low:  # it has the lower bytes of 16 bits
                shown = shown.astype(depth) * 256 + np.asarray(low.crop(part).convert("RGBA"))
            opacity = cv2.extractChannel(shown, 3)
            shown = cv2.cvtColor(shown, cv2.COLOR_RGBA2GRAY)
            shown = cv2.multiply(shown, opacity, scale=1 / np.iinfo(depth).max)
        grey[top : top + rows] = shown
    return grey


def resize(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Squeeze or stretch an image to `side` x `side`, as the paper does (section IV.A).

    Shrinking counts every pixel (area interpolation), so fine structure makes no moiré.
    """
    height, width = image.shape[:2]
    shrunk = (min(width, side), min(height, side))
    image = cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)


class Decoded(NamedTuple):
    """What :func:`decode` gives: row i belongs to the path i."""

    images: np.ndarray  # memory map, (n, side, side) uint8; a row that failed is black
    failures: dict[int, str]  # what is wrong with each row that could not be read
    sizes: np.ndarray  # (n, 2) int32, height and width in the file; 0 where it failed
    formats: list[str]  # "PNG", "JPEG", "DICOM", or "" where it failed


def decode(paths, folder=None, side=SIDE, workers=None, progress=True, keys=None) -> Decoded:
    """Decode files once into an array on disk, and open it memory-mapped.

    They lie in `folder` (``decoded`` in the cache folder). A large image is first shrunk as
    :func:`shrinks_by` says, each pixel the mean of those it stands for. What a killed run has done
    is kept (:func:`cxrlib.compute.disk.fill`). Files that cannot be read don't stop the others; on
    a full disk, an OSError names the folder and the space needed. `workers` are threads, one a core
    by default. `keys` (str) identify the contents, as hashes do; by default it is path, size, time.
    """
    paths = [Path(path) for path in paths]
    keys = map(_key, paths) if keys is None else map(str, keys)
    digest = hashlib.sha256("\n".join([f"v{VERSION} {side}", *keys]).encode()).hexdigest()[:20]
    place = Path(folder or cache_folder("decoded")) / digest
    images, numbers, failures = disk.fill(place, paths, side, decode_block, workers, progress)
    return Decoded(images, failures, numbers[:, 1:], [FORMATS[one] for one in numbers[:, 0]])


def decode_block(paths, side: int, workers: int = 1) -> list:
    """Decode files now: of each its format's number, height, width, and the image (side, side).

    The image is uint8; of a file that cannot be read, a str says what is wrong with it.
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
