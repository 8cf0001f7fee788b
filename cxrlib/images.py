"""An image file -> grey uint8; resizing; and the on-disk array of decoded images.

DICOM is read by :mod:`cxrlib.dicom`, all else by Pillow. A stranger's file of kilobytes can ask a
decoder for gigabytes or hours: it, its header and size are checked before a pixel is decoded.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import warnings
from contextlib import closing, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from cxrlib import dicom
from cxrlib.cohort import SIDE
from cxrlib.dicom import LARGE, MOST_DECODED, MOST_PIXELS, SMALLEST_SIDE, ImageError, check_size
from cxrlib.files import Sparing, cache_folder, shipped
from cxrlib.parallel import disk, share

WIDE = {"I", "F"}  # 32 bits
MOST_PARTS = 1 << 16  # of a TIFF, which Pillow lists beforehand
STRIP = 4_000_000  # pixels of a coloured image that are turned grey at once
FORMATS = ["", "PNG", "JPEG", "DICOM", "GIF", "BMP", "TIFF", "WEBP"]  # numbers in the array on disk
VERSION = 5  # of the decoded arrays in the cache: raise it when reading or resizing changes
FIRST = "the first of several frames or pages"
NOTES = (FIRST, *dicom.NOTES)  # what may be odd about a film; a bit each in the array on disk


def read_grey(path) -> np.ndarray:
    """Read a radiograph as grey values, shape (height, width), uint8: 0 is black, 255 white (bone).

    Colours become luminance, transparent parts black. A file of 16 bits is scaled by the smallest
    of 8, 10, 12, 14, 16 bits that holds its brightest pixel: detectors of 12 bits store 0..4095.
    DICOM goes through its modality and VOI (window) tables, then its own darkest..brightest value
    becomes 0..255, without defective pixels (:func:`cxrlib.dicom.stretch`) where no window shuts
    them out; MONOCHROME1 is inverted. A TIFF of 32 bits is stretched, too. An ImageError says what
    is wrong, and what to do; a UserWarning, what is odd about a film (`NOTES`).
    """
    grey, *_, notes = read(Path(path))
    for note in notes:
        warnings.warn(f"{path}: {note}.", stacklevel=2)
    return grey


def read(path: Path, side: int | None = None) -> tuple[np.ndarray, str, tuple[int, int], list[str]]:
    """Grey image, the name of its file format, height and width in the file, and some `NOTES`.

    Where a `side` is given, the image may come smaller than in the file, but not than that.
    """
    name, content = _recognise(path)
    if name == "DICOM":
        image, notes = dicom.read_dicom(path)
        dicom.give_back(image.size > LARGE)
        shrunk = Image.fromarray(image).reduce(shrinks_by(*image.shape, side))
        return np.asarray(shrunk), name, image.shape, notes
    try:
        if name == "JPEG":
            dicom.check_scans(content)
        elif name == "TIFF":
            _check_parts(path, content)
        with _open(name, content) as header:
            size = header.height, header.width
            _check_header(path, name, header)
            several = name != "JPEG" and getattr(header, "is_animated", False)
        scale = shrinks_by(*size, side)
        large = size[0] * size[1] * (4 if name == "WEBP" else 1) > LARGE
        with dicom.one_at_a_time if large else nullcontext():
            dicom.give_back(large)
            decode_it = _jpeg if name == "JPEG" else _raster
            image = decode_it(path, name, content, scale)
            dicom.give_back(large)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        check_size(path, MOST_PIXELS, 2)  # Pillow does not say how large it is
    except Exception as error:  # Pillow raises many kinds
        odd = f"its header makes no sense, or it is a {name} of a kind that is not read here"
        reason = odd if isinstance(error, UnidentifiedImageError) else error
        remedy = "Fetch it again, or save it as PNG."
        raise ImageError(f"{path}: truncated or damaged ({reason}). {remedy}") from error
    if image.shape != (-(-size[0] // scale), -(-size[1] // scale)):
        size = size[::-1]  # its EXIF data turns it
    return image, name, size, [FIRST] * several


def _recognise(path: Path) -> tuple[str, bytes]:
    """Name the format that a file begins like; give all but DICOM, which pydicom reads."""
    if not path.is_file():
        raise ImageError(f"{path}: there is no such file. Check the name and the folder.")
    try:
        if path.stat().st_size > MOST_DECODED:  # no more than its pixels may take
            most = f"{MOST_DECODED // 10**6} MB"
            raise ImageError(f"{path}: more than {most} is no radiograph. Save it as PNG.")
        with path.open("rb") as file:
            head = file.read(1000)
            name, remedy = kind_of(head)["is"], kind_of(head)["remedy"]
            if not remedy and name != "DICOM":
                return name, head + file.read()
    except OSError as error:
        raise ImageError(f"{path}: it cannot be opened ({error.strerror}).") from error
    if name == "DICOM" or (name == "not an image" and path.suffix.lower() in {".dcm", ".dicom"}):
        return "DICOM", b""  # pydicom knows better what is wrong with it
    raise ImageError(f"{path}: {name}. {remedy}.")


@cache
def _kinds() -> list[dict[str, str]]:
    """How files begin that are read, and how what else lies about under an image's name."""
    text = (shipped("data") / "kinds_of_files.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def kind_of(head: bytes) -> dict[str, str]:
    """Tell by its first 1,000 bytes what a file "is", and the "remedy" if it is no image."""
    text = head.decode("latin-1")
    return next(kind for kind in _kinds() if re.match(kind["begins"], text, re.S))


def _open(name: str, content: bytes) -> Image.Image:
    # Run lengths of BMP are read one by one; its header has no parts that could be many
    return Image.open((io.BytesIO if name == "BMP" else Sparing)(content), formats=[name])


def _is_deep(image: Image.Image) -> bool:
    """Tell, before it is loaded, whether its values have 16 bits; of colours, Pillow keeps 8."""
    return ";16" in str(image.tile[:1])


def _check_parts(path: Path, content: bytes) -> None:
    """Refuse a TIFF whose strips are very many, or whose tiles are larger than an image may be."""
    with Sparing(content) as file:
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8 + 8 * (content[2] == 43)))
        file.seek(tags.next)
        tags.load(file)
    if max(len(tags.get(tag, ())) for tag in (273, 324)) > MOST_PARTS:
        raise ValueError("its parts are too many")
    check_size(path, *(max(tags.get(tag, 0), SMALLEST_SIDE) for tag in (323, 322)))


def _check_header(path: Path, name: str, image: Image.Image) -> None:
    """Check how much an image asks of its decoder, before a pixel is decoded."""
    each = 12 if name == "WEBP" else len(image.getbands()) * (1 + _is_deep(image))  # of five copies
    if name == "TIFF" and image.mode in WIDE:
        each = 24  # to stretch them, as in DICOM
    elif name == "BMP" and image.info.get("compression") in {1, 2}:
        check_size(path, 256, image.width)  # so many rows may be left out at once
    check_size(path, image.height, image.width, each)


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


def _jpeg(path: Path, name: str, content: bytes, scale: int) -> np.ndarray:
    """Grey pixels of a JPEG, which shrinks while it is decoded, and is turned as its EXIF says."""
    # The last scan of a whole JPEG is followed by an end mark; what follows could be filling.
    if content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
        raise ImageError(f"{path}: truncated, the end of the image is missing. Fetch it again.")
    with _open(name, content) as image:
        image.draft("L", (image.width // scale, image.height // scale))
        image.load()
    with suppress(Exception):  # where the EXIF data are damaged, it stays as it is
        ImageOps.exif_transpose(image, in_place=True)
    return np.asarray(image if image.mode == "L" else image.convert("L"))


def _raster(path: Path, name: str, content: bytes, scale: int) -> np.ndarray:
    """Grey pixels of any other image, or of its first frame, shrunk."""
    with closing(_open(name, content)) as image:  # whose references go in circles
        tags, grey = getattr(image, "tag_v2", {}), _read_greys(path, name, image, content)
    if grey.dtype == np.uint16:
        top = next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if grey.max() < 2**bits)
        table = np.rint(np.arange(top + 1) * (255 / top)).astype(np.uint8)
        grey = dicom.look_up(table, grey)
    if tags.get(262) == 0 and image.mode not in {"1", "L"}:  # white is 0; those Pillow turns
        grey = 255 - grey
    return np.asarray(Image.fromarray(grey).reduce(scale))  # each block's mean; the last is smaller


def _read_greys(path: Path, name: str, image: Image.Image, content: bytes) -> np.ndarray:
    """Grey pixels as stored, uint8 or uint16."""
    if name == "PNG":
        with _open(name, content) as again:
            again.verify()  # the check sums, which are not looked at else
    deep = _is_deep(image)
    image.load()  # a TIFF may be turned by this
    if name == "TIFF" and image.mode in WIDE:
        return dicom.stretch(np.asarray(image))
    coloured = image.mode[0] not in "1LI" or image.mode == "LA" or "transparency" in image.info
    grey = _greys(image, coloured)
    if not coloured or not deep or grey.max() >= 64:
        return grey
    if name != "PNG" or content[25] not in {2, 6}:
        raise ImageError(f"{path}: its greys have few of 16 bits. Save it without opacity.")
    with _open(name, content) as low:  # Pillow keeps 8 of a colour's 16 bits: the other 8
        low.tile = [low.tile[0]._replace(args=f"{image.mode};16L")]
        return _greys(image, coloured, low)


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
    formats: list[str]  # of `FORMATS`, "" where it failed
    notes: dict[str, list[int]]  # which rows each of `NOTES` is true of


def decode(paths, folder=None, side=SIDE, workers=None, progress=True, keys=None) -> Decoded:
    """Decode files once into an array on disk, and open it memory-mapped.

    They lie in `folder` (``decoded`` in the cache folder). A large image is first shrunk as
    :func:`shrinks_by` says, each pixel the mean of those it stands for. What a killed run has done
    is kept (:func:`cxrlib.parallel.disk.fill`). Files that cannot be read don't stop the others; on
    a full disk, an OSError names the folder and the space needed. `workers` are threads, one a core
    by default. `keys` (str) identify the contents, as hashes do; by default it is path, size, time.
    """
    paths = [Path(path) for path in paths]
    keys = map(_key, paths) if keys is None else map(str, keys)
    text = "\n".join([f"v{VERSION} {side}", *keys])
    # A file's name may hold bytes that are no text
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:20]
    place = Path(folder or cache_folder("decoded")) / digest
    images, numbers, failures = disk.fill(place, paths, side, decode_block, workers, progress)
    kinds, bits = numbers[:, 0] & 255, numbers[:, 0] >> 8
    rows = {note: np.flatnonzero(bits >> bit & 1).tolist() for bit, note in enumerate(NOTES)}
    notes = {note: found for note, found in rows.items() if found}
    return Decoded(images, failures, numbers[:, 1:], [FORMATS[kind] for kind in kinds], notes)


def decode_block(paths, side: int, workers: int = 1) -> list:
    """Decode files now: of each its format and notes, height, width, and the image (side, side).

    The image is uint8, format and notes are one number. Of a file that cannot be read, a str says
    what is wrong with it.
    """
    found = [None] * len(paths)

    def decode_one(number):
        try:
            image, kind, size, notes = read(Path(paths[number]), side)
            bits = sum(1 << 8 + NOTES.index(note) for note in notes)
            found[number] = (FORMATS.index(kind) + bits, *size), resize(image, side)
        except ImageError as error:
            found[number] = str(error)

    share(decode_one, len(paths), workers)
    return found


def _key(path: Path) -> str:
    if not path.is_file():
        return f"{path.absolute()} is missing"
    status = path.stat()
    return f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"
