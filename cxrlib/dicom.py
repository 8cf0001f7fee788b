"""DICOM files -> grey uint8, and the limits of what any file may ask of a decoder.

DICOM needs pydicom, the extra ``cxrlib[dicom]``. Headers name people: no message quotes them.
"""

from __future__ import annotations

import logging
import threading
import warnings
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cxrlib.files import Sparing

SMALLEST_SIDE = 32  # pixels; less than this shows no lung
MOST_PIXELS = 64_000_000  # three times the largest X-ray detector
MOST_DECODED = 256_000_000  # bytes of an image's pixels, as they lie in memory
MOST_SCANS = 50  # of a progressive JPEG, which usually has 10; each passes over all pixels
one_at_a_time = threading.Lock()  # for large images, and for DICOM of any size
SHAPE = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated")
LOOK = (
    *("PlanarConfiguration", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PhotometricInterpretation", "PixelPaddingValue", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable"),
)


class ImageError(ValueError):
    """A file that cannot be used as a radiograph; the message names it and the remedy."""


def check_size(path, height: int, width: int, bytes_each: float = 1) -> None:
    """Raise an ImageError for an image that is too large to decode, or too small to be one."""
    if height * width > MOST_PIXELS:
        raise ImageError(
            f"{path}: {width} x {height} pixels is more than {MOST_PIXELS // 10**6} megapixels. "
            "Export it at the size of the detector, or scale it down."
        )
    if height * width * bytes_each > MOST_DECODED:
        raise ImageError(
            f"{path}: its pixels take {height * width * bytes_each / 1e6:.0f} MB, more than "
            f"{MOST_DECODED // 10**6} MB. Save it as grey values, or scale it down."
        )
    if min(height, width) < SMALLEST_SIDE:
        raise ImageError(
            f"{path}: {width} x {height} pixels is too small to be a radiograph "
            f"(at least {SMALLEST_SIDE} on each side). Take the original file."
        )


def check_scans(content: bytes) -> None:
    """Raise a ValueError for a JPEG that would keep its decoder busy for hours."""
    if content.count(b"\xff\xda") > MOST_SCANS:
        raise ValueError(f"it has more than {MOST_SCANS} scans")


def look_up(table: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Replace the numbers of an image, uint8 or uint16, by what a table (m,), uint8, says."""
    return _in_strips(image, table.__getitem__)


def _in_strips(image: np.ndarray, work) -> np.ndarray:
    """Make grey uint8 of an image."""
    return np.concatenate([work(rows).astype(np.uint8, copy=False) for rows in _strips(image)])


def _strips(image: np.ndarray) -> list[np.ndarray]:
    """Take some rows at a time: NumPy takes 8 bytes for each number that it looks up or weighs."""
    return np.array_split(image, -(-len(image) // 256))


class _OddError(ValueError):
    """What is wrong with a file, in words that quote nothing of it."""


def read_dicom(path: Path) -> np.ndarray:
    """Read the one frame of a DICOM file as a viewer would show it, (Rows, Columns) uint8.

    As in :func:`cxrlib.images.read_grey`; of several VOI tables, the first one is applied.
    """
    try:
        import pydicom
    except ImportError as error:
        install = 'pip install "cxrlib[dicom]"'
        raise ImageError(f"{path}: DICOM needs pydicom. Install it with: {install}") from error
    with _discreet():
        try:
            if not _is_deflated(path):  # else this would unpack it once more
                header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(SHAPE))
                _check_shape(path, header)
            whole = pydicom.dcmread(path, specific_tags=[*SHAPE, *LOOK])
            _check_shape(path, whole)
            return _as_shown(whole)
        except ImageError:
            raise
        except Exception as error:  # pydicom raises many kinds, and so do its decoders
            reason = str(error) if isinstance(error, _OddError) else "it is damaged"
    # Not 'from error': its text, and all that a traceback shows, could name the patient
    raise ImageError(
        f"{path}: this DICOM file cannot be read ({reason}). Export it as PNG, or as DICOM "
        "without compression (JPEG 2000 needs: pip install pylibjpeg pylibjpeg-openjpeg)."
    )


@contextmanager
def _discreet():
    """Keep pydicom's warnings to ourselves, on the error stream and in logs: they quote headers."""
    logger = logging.getLogger("pydicom")
    with one_at_a_time, warnings.catch_warnings():  # which are the same for all threads
        warnings.simplefilter("ignore")
        before, logger.disabled = logger.disabled, True
        try:
            yield
        finally:
            logger.disabled = before


def _is_deflated(path: Path) -> bool:
    """Tell deflated files; refuse one that grows without limit, for pydicom unpacks it all."""
    from pydicom.filereader import read_dataset, read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    if read_file_meta_info(path).get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return False
    with path.open("rb") as file:
        file.seek(132)  # behind the preamble and the letters DICM
        read_dataset(file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
        inflate, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while part := file.read(1 << 14):  # which becomes a thousandfold at most
            size += len(inflate.decompress(part))
            if size > MOST_DECODED:
                raise _OddError(f"deflated from more than {MOST_DECODED // 10**6} MB")
    return True


def _check_shape(path: Path, header) -> None:
    """Refuse what would take too much memory, before a pixel is read."""
    if header.get("Rows") is None or header.get("Columns") is None:
        raise _OddError("it holds no image")
    if (frames := int(header.get("NumberOfFrames") or 1)) > 1:
        raise ImageError(f"{path}: it has {frames} frames. Export the one radiograph you mean.")
    bits = int(header.get("BitsAllocated") or 8)
    bits = 3 * 64 if bits > 16 else bits  # to apply their tables takes three arrays of float64
    samples = int(header.get("SamplesPerPixel") or 1)
    check_size(path, int(header.Rows), int(header.Columns), samples * bits / 8)


def _check_frame(dataset) -> None:
    """Refuse a compressed image that is larger inside than the header says."""
    from PIL import Image, UnidentifiedImageError
    from pydicom.encaps import get_frame
    from pydicom.pixels import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    if not get_decoder(syntax).is_available:
        raise _OddError(f"nothing installed here undoes its compression, {syntax.name}")
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if frame.startswith(b"\xff\xd8"):
        check_scans(frame)
    try:
        with Image.open(Sparing(frame), formats=["JPEG", "JPEG2000"]) as inside:
            size = inside.size
    except UnidentifiedImageError:  # of another kind, whose decoder knows its size beforehand
        return
    if size != (dataset.Columns, dataset.Rows):
        raise _OddError(f"{size[0]} x {size[1]} pixels are in it, its header says otherwise")


def patient_id(path: Path) -> str | None:
    """PatientID of a file's header; "" where it has none, None if damaged or without pydicom."""
    try:
        import pydicom

        with _discreet():
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
            return str(header.get("PatientID") or "").strip()
    except Exception:  # pydicom raises many kinds
        return None


def _as_shown(dataset) -> np.ndarray:
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        _check_frame(dataset)
    pixels = dataset.pixel_array
    dataset.pop("PixelData", None)  # the same once more
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        raise _OddError("its pixels are numbers of colours, not grey values")
    if pixels.ndim == 3:
        weights, top = np.array([0.299, 0.587, 0.114]), 2.0**dataset.BitsStored - 1
        return _in_strips(pixels, lambda rows: np.rint(rows @ weights * (255 / top)))
    if pixels.dtype.kind in "iu" and pixels.itemsize <= 2:  # each value once: 65,536 at most
        raw = pixels.view(f"u{pixels.itemsize}")  # of negative numbers the same bits
        seen = np.zeros(2 ** (8 * pixels.itemsize), bool)
        for rows in _strips(raw):
            seen[rows] = True
        numbers = np.flatnonzero(seen).astype(raw.dtype)
        table = np.zeros(len(seen), np.uint8)
        table[numbers] = _stretched(numbers.view(pixels.dtype), dataset)
        grey = look_up(table, raw)
    else:
        grey = _stretched(pixels, dataset)
    return 255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey


def _stretched(values: np.ndarray, dataset) -> np.ndarray:
    """Apply the file's tables, and bring the darkest..brightest value to 0..255."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    padding = dataset.get("PixelPaddingValue")
    if padding is not None and (values != padding).any():  # what fills the film's edge
        values = np.where(values == padding, values[values != padding].min(), values)
    shown = apply_voi_lut(apply_modality_lut(values, dataset), dataset, index=0)
    shown = shown.astype(np.float64) - shown.min()
    if not np.isfinite(shown).all():
        raise _OddError("its tables give values that are no numbers")
    return np.rint(shown * (255 / (shown.max() or 1))).astype(np.uint8)
