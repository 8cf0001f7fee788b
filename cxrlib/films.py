"""PNG, JPEG and DICOM files -> grey uint8 images.

Files come from strangers, so every header is read before a pixel is decoded.
"""

from __future__ import annotations

import stat
import threading
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cxrlib import guards

SMALLEST_SIDE = 32  # pixels; less than this shows no lung
MOST_PIXELS = 64_000_000  # three times the largest X-ray detector
MOST_BYTES = guards.MOST_DECODED  # of a PNG or JPEG file: no more than its pixels may take
LARGE = MOST_PIXELS // 4  # so large images wait for each other, however many the cores
STRIP = 4_000_000  # pixels of a coloured image that are turned grey at once
one_at_a_time = threading.Lock()  # for large images, and for DICOM of any size
ANIMATED = "it is animated or has several pages. Save one frame as PNG."
NO_IMAGE = "not an image. PNG, JPEG and DICOM are read."
FORMATS = ["", "PNG", "JPEG", "DICOM"]
SCALES = {  # by which a JPEG can shrink while it is decoded
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


class ImageError(ValueError):
    """A file that cannot be used as a radiograph; the message names it and the remedy."""


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
        from cxrlib.dicom import read_dicom

        image = read_dicom(path)
        check_size(path, *image.shape)
        scale = _scale(*image.shape, side) if side else 1
        return _shrink(Image.fromarray(image), scale), "DICOM", image.shape
    kind, size = _check_header(path, content)
    scale = _scale(*size, side) if side else 1
    large = size[0] * size[1] > LARGE
    with one_at_a_time if large else nullcontext():
        image = _decode_pixels(path, content, kind, scale)
    if image.shape != (-(-size[0] // scale), -(-size[1] // scale)):
        size = size[::-1]  # its EXIF data turns it
    return image, kind, size


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


def _scale(height: int, width: int, side: int) -> int:
    """Find the largest scale by which an image may shrink before it is resized to `side`.

    It stays at least as large as `side`, so nothing aliases. Where a length is no multiple of
    the scale, the last block sticks out; by one pixel of the result at most.
    """
    for scale in sorted(SCALES, reverse=True):
        if all(
            length // scale >= side and -length % scale * side <= length
            for length in (height, width)
        ):
            return scale
    return 1


def _shrink(image: Image.Image, scale: int) -> np.ndarray:
    """Mean of each block of `scale` x `scale` grey pixels; the last ones may hold fewer."""
    return np.asarray(image.reduce(scale) if scale > 1 else image)


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
        return _decode_png(path, content, scale)
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


def _decode_png(path: Path, content: bytes, scale: int) -> np.ndarray:
    """Grey pixels of a PNG, shrunk.

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
                pixels = _decode_with_opencv(path, content, cv2.IMREAD_UNCHANGED)
            elif coloured or clear or image.mode == "P":
                return _shrink(Image.fromarray(_grey_in_strips(image)), scale)
            elif deep:
                pixels = np.asarray(image).astype(np.uint16)
            else:
                return _shrink(image if image.mode == "L" else image.convert("L"), scale)
            return _shrink(Image.fromarray(_to_grey(pixels)), scale)
    except ImageError:
        raise
    except Exception as error:  # Pillow raises many kinds
        raise ImageError(f"{path}: truncated or damaged ({error}). Fetch it again.") from error


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
