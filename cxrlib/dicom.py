"""DICOM files -> grey uint8, and the limits of what any file may ask of a decoder.

DICOM needs pydicom, the extra ``cxrlib[dicom]``. Headers name people: no message quotes them.
"""

from __future__ import annotations

import ctypes
import io
import logging
import re
import subprocess
import sys
import threading
import warnings
import zlib
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np

from cxrlib.files import Sparing

SMALLEST_SIDE = 32  # pixels; less than this shows no lung
MOST_PIXELS = 64_000_000  # three times the largest X-ray detector
LARGE = MOST_PIXELS // 4  # so large images wait for each other, however many the cores
MOST_DECODED = 256_000_000  # bytes of an image's pixels, as they lie in memory
MOST_SCANS = 50  # of a progressive JPEG, which usually has 10; each passes over all pixels
one_at_a_time = threading.Lock()  # for large images, and for DICOM of any size
SHAPE = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated")
LOOK = (
    *("PlanarConfiguration", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PhotometricInterpretation", "PixelPaddingValue", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("PresentationLUTShape", "Modality", "ViewPosition", "ViewCodeSequence"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable"),
)
GDCM = """import io, sys, numpy, pydicom
data, out = pydicom.dcmread(sys.argv[1], force=True), io.BytesIO()
data.pixel_array_options(decoding_plugin="gdcm")
numpy.save(out, data.pixel_array)
sys.stdout.buffer.write(out.getbuffer())"""
RARE = 0.001  # of the pixels may lie beyond what sets the grey levels, on each side
LATERAL = "a lateral view"


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
            f"{MOST_DECODED // 10**6} MB. Save it as a PNG of grey values, or scale it down."
        )
    if min(height, width) < SMALLEST_SIDE:
        raise ImageError(
            f"{path}: {width} x {height} pixels is too small to be a radiograph "
            f"(at least {SMALLEST_SIDE} on each side). Take the original file."
        )


def give_back(large: bool) -> None:
    """Return what was freed to the system: glibc keeps hundreds of megabytes for each thread."""
    if large:
        with suppress(OSError, AttributeError, TypeError):  # on another system
            ctypes.CDLL(None).malloc_trim(0)


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


def read_dicom(path: Path) -> tuple[np.ndarray, list[str]]:
    """Read the one frame of a DICOM file as a viewer would show it, (Rows, Columns) uint8.

    As in :func:`cxrlib.images.read_grey`; of several VOI tables, the first one is applied. Some
    of `NOTES` say what is odd about the film.
    """
    install = 'pip install "cxrlib[dicom]"'
    try:
        import pydicom
    except ImportError as error:
        raise ImageError(f"{path}: DICOM needs pydicom. Install it with: {install}") from error
    with _discreet():
        try:
            if not _is_deflated(path):  # else this would unpack it once more
                _check_shape(path, _open(path, stop_before_pixels=True, specific_tags=list(SHAPE)))
            whole = _open(path, specific_tags=[*SHAPE, *LOOK])
            _check_shape(path, whole)
            notes = _about(whole)
            return _as_shown(_decode(whole, path), whole, notes), notes
        except ImageError:
            raise
        except pydicom.errors.InvalidDicomError:
            reason = "the letters DICM are not where they have to be"
        except Exception as error:  # pydicom raises many kinds, and so do its decoders
            reason = str(error) if isinstance(error, _OddError) else "it is damaged"
    # Not 'from error': its text, and all that a traceback shows, could name the patient
    raise ImageError(
        f"{path}: this DICOM file cannot be read ({reason}). Export it as PNG, or as DICOM without "
        f"compression, for instance with gdcmconv --raw (most kinds of it need: {install})."
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


def _is_bare(path: Path) -> bool:
    """Tell files that begin with their first element: old ones have no preamble before it."""
    with path.open("rb") as file:
        head = file.read(132)
    return head[:2] in (b"\2\0", b"\x08\0") and head[128:] != b"DICM"


def _open(path: Path, **options):
    """Read a file; one that does not tell how it is encoded is encoded as pydicom found out."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    data = pydicom.dcmread(path, force=_is_bare(path), **options)
    found = ImplicitVRLittleEndian if data.original_encoding[0] else ExplicitVRLittleEndian
    data.file_meta.TransferSyntaxUID = data.file_meta.get("TransferSyntaxUID", found)
    return data


def _is_deflated(path: Path) -> bool:
    """Tell deflated files; refuse one that grows without limit, for pydicom unpacks it all."""
    from pydicom.filereader import read_dataset
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    with path.open("rb") as file:
        file.seek(0 if _is_bare(path) else 132)  # behind the preamble and the letters DICM
        meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
        if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return False
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


def _decode(dataset, path: Path) -> np.ndarray:
    """Pixels as they are stored."""
    from pydicom.pixels import get_decoder

    syntax, plugins = dataset.file_meta.TransferSyntaxUID, []
    give_back(dataset.Rows * dataset.Columns > LARGE)
    if not syntax.is_transfer_syntax:
        known = syntax if syntax.is_valid else "a name that is none"
        raise _OddError(f"nothing here knows its compression, {known}; its maker's software may")
    if not syntax.is_compressed:
        return dataset.pixel_array
    with suppress(NotImplementedError):  # a compression of films that move, for instance
        plugins = sorted(get_decoder(syntax).available_plugins, key="gdcm".__eq__)
    if plugins:
        _check_frame(dataset)
    for plugin in plugins:
        with suppress(Exception):
            if plugin == "gdcm":  # last, and aside, for a damaged file can bring its process down
                words = [sys.executable, "-P", "-c", GDCM, path.absolute()]
                told = subprocess.run(words, capture_output=True, timeout=60, check=True)
                return np.load(io.BytesIO(told.stdout))
            dataset.pixel_array_options(decoding_plugin=plugin)
            return dataset.pixel_array
    raise _OddError(f"nothing installed here undoes its compression, {syntax.name}")


def _check_frame(dataset) -> None:
    """Refuse a compressed image that is larger inside than the header says."""
    from PIL import Image, UnidentifiedImageError
    from pydicom.encaps import get_frame

    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if frame.startswith(b"\xff\xd8"):
        check_scans(frame)
    try:
        with Image.open(Sparing(frame), formats=["JPEG", "JPEG2000"]) as inside:
            size = inside.size
    except UnidentifiedImageError:  # JPEG-LS, or another whose decoder knows its size beforehand
        lossless = re.search(rb"\xff\xf7...(..)(..)", frame, re.S)
        size = lossless and tuple(int.from_bytes(one, "big") for one in lossless.groups()[::-1])
    if size and size != (dataset.Columns, dataset.Rows):
        raise _OddError(f"{size[0]} x {size[1]} pixels are in it, its header says otherwise")


def patient_id(path: Path) -> str | None:
    """PatientID of a file's header; "" where it has none, None if damaged or without pydicom."""
    try:
        with _discreet():
            header = _open(path, stop_before_pixels=True, specific_tags=["PatientID"])
            return str(header.get("PatientID") or "").strip()
    except Exception:  # pydicom raises many kinds
        return None


def _about(dataset) -> list[str]:
    """Tell whether a film is a radiograph from the front; nothing is quoted but known words."""
    views = [one.get("CodeMeaning") for one in dataset.get("ViewCodeSequence") or ()]
    views = " ".join(map(str, [*views, dataset.get("ViewPosition")]))
    lateral = re.search(r"\b(?<!postero[- ])([LR]L|[LR]?LAT|lateral)\b(?! decub)", views, re.I)
    found = {f"modality {dataset.get('Modality')}, no radiograph", lateral and LATERAL}
    return [note for note in NOTES if note in found]


def _as_shown(pixels, dataset, notes: list[str]) -> np.ndarray:
    dataset.pop("PixelData", None)  # the same once more
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        raise _OddError("its pixels are numbers of colours, not grey values")
    if pixels.ndim == 3:
        weights, top = np.array([0.299, 0.587, 0.114]), 2.0**dataset.BitsStored - 1
        return _in_strips(pixels, lambda rows: np.rint(rows @ weights * (255 / top)))
    if pixels.dtype.kind in "iu" and pixels.itemsize <= 2:  # each value once: 65,536 at most
        raw = pixels.view(f"u{pixels.itemsize}")  # of negative numbers the same bits
        counts = sum(np.bincount(rows.ravel(), minlength=1 << 16) for rows in _strips(raw))
        numbers = np.flatnonzero(counts).astype(raw.dtype)
        table = np.zeros(len(counts), np.uint8)
        table[numbers] = _show(numbers.view(pixels.dtype), dataset, notes, counts[numbers])
        grey = look_up(table, raw)
    else:
        grey = _show(pixels, dataset, notes)
    negative = dataset.PhotometricInterpretation == "MONOCHROME1"  # it comes with INVERSE as a rule
    return 255 - grey if negative or dataset.get("PresentationLUTShape") == "INVERSE" else grey


def _show(values, dataset, notes: list[str], counts=None) -> np.ndarray:
    """Apply the file's tables to values, of which there are `counts` pixels, and stretch them."""
    padding = dataset.get("PixelPaddingValue")
    if padding is not None and (values != padding).any():  # what fills the film's edge
        values = np.where(values == padding, values[values != padding].min(), values)
    measured = _apply(MODALITY, values, dataset, notes)
    values = values if measured is None else measured
    for name in ("ModalityLUTSequence", "RescaleSlope"):  # or windows turn with a negative slope
        dataset.pop(name, None)
    shown = _apply(VIEW, values, dataset, notes)
    return stretch(values, counts) if shown is None else stretch(shown, rare=0)


def _apply(tables: dict, values, dataset, notes: list[str]):
    """Apply the first of some tables that makes sense, and note those that don't; else None."""
    for note, apply in tables.items():
        with suppress(Exception):  # pydicom raises many kinds
            found = apply(values, dataset)
            if found is None:
                continue
            if np.isfinite(found).all() and (np.ptp(found) > 0 or np.ptp(values) == 0):
                return found
        notes.append(note)
    return None


def _look_up(sequence: str, values, dataset):
    """Look values up in a table of the file, which fits its descriptor (PS3.3 C.11.1.1)."""
    if not dataset.get(sequence):
        return None
    (count, first, bits), entries = dataset[sequence][0].LUTDescriptor, dataset[sequence][0].LUTData
    if isinstance(entries, bytes):
        little = dataset.file_meta.TransferSyntaxUID.is_little_endian
        entries = np.frombuffer(entries, "<u2" if little else ">u2")
    entries = np.atleast_1d(entries)
    if len(entries) != (count or 1 << 16) or entries.max() >> bits:
        raise ValueError
    return entries[np.clip(values.astype(np.float64) - first, 0, len(entries) - 1).astype(int)]


def _rescale(values, dataset):
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    return None if slope is None or intercept is None else values * float(slope) + float(intercept)


def _window(values, dataset):
    """Apply the first window (PS3.3 C.11.2.1.2)."""
    from pydicom.pixels import apply_windowing

    lacks = None in (dataset.get("WindowCenter"), dataset.get("WindowWidth"))
    return None if lacks else apply_windowing(values, dataset)


MODALITY = {  # what is noted where it makes no sense, and what applies it
    "modality table contradicts its descriptor, left out": partial(_look_up, "ModalityLUTSequence"),
    "rescale slope makes no sense, left out": _rescale,
}
VIEW = {
    "VOI table contradicts its descriptor, left out": partial(_look_up, "VOILUTSequence"),
    "window narrower than 1 or without any contrast, left out": _window,
}
OTHERS = ("CT", "MR", "US", "NM", "PT", "MG", "XA", "RF", "XC", "RTIMAGE")
NOTES = (LATERAL, *MODALITY, *VIEW, *(f"modality {one}, no radiograph" for one in OTHERS))


def stretch(values: np.ndarray, counts=None, rare: float = RARE) -> np.ndarray:
    """Bring values to 0..255, uint8: the darkest..brightest, but for `rare` defective pixels.

    There are `counts` pixels of each value, 1 by default. Beyond the quantiles that leave out so
    many, a fortieth of the range between them is still shown, which is enough for sound films.
    """
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise _OddError("some of its values are no numbers")
    low, high = values.min(), values.max()
    cut = [rare, 1 - rare]
    inner = np.quantile(values, cut, weights=counts, method="inverted_cdf") if rare else (low, high)
    if inner[0] < inner[1]:
        more = (inner[1] - inner[0]) / 40
        low, high = max(low, inner[0] - more), min(high, inner[1] + more)
    values.clip(low, high, out=values)  # in place, for there may be many
    values -= low
    values *= 255 / ((high - low) or 1)
    return np.rint(values, out=values).astype(np.uint8)
