"""DICOM files -> grey uint8. Needs pydicom, the optional extra ``cxrlib[dicom]``."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np

from cxrlib.images import ImageError, check_size


def read_dicom(path: Path) -> np.ndarray:
    """Read the one frame of a DICOM file as a viewer would show it.

    The modality table and the first VOI (window) table are applied, the darkest..brightest
    value becomes 0..255, and MONOCHROME1, whose low values are bright, is inverted.

    Returns
    -------
    ndarray, shape (Rows, Columns), uint8

    Raises
    ------
    ImageError
        If pydicom is missing, or the file has several frames, no pixels, a size that cannot
        be right or a compression that pydicom cannot undo here.
    """
    try:
        import pydicom
    except ImportError as error:
        raise ImageError(
            f'{path}: DICOM needs pydicom. Install it with: pip install "cxrlib[dicom]"'
        ) from error
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        frames = int(header.get("NumberOfFrames") or 1)
        if frames > 1:
            raise ImageError(f"{path}: it has {frames} frames. Export the one radiograph you mean.")
        check_size(path, int(header.Rows), int(header.Columns))
        return _as_shown(pydicom.dcmread(path))
    except ImageError:
        raise
    except Exception as error:  # pydicom raises many kinds, and so do its decoders
        raise ImageError(
            f"{path}: this DICOM file cannot be read ({error}). Export it as PNG, or as DICOM "
            "without compression (JPEG 2000 needs: pip install pylibjpeg pylibjpeg-openjpeg)."
        ) from error


def read_patients(paths) -> list[str | None]:
    """Read from the headers which DICOM files show the same patient, without telling who.

    The name is a pseudonym: the first 12 hexadecimal digits of the SHA-256 of PatientID. It
    keeps the number out of tables and pages, but whoever knows a number can make its pseudonym.

    Parameters
    ----------
    paths : sequence of pathlib.Path
        DICOM is what ends in .dcm, .dicom or nothing.

    Returns
    -------
    list of str or None
        None for other files, and for those that cannot be read. None for all if pydicom is
        missing, if a DICOM file has no PatientID or one that says nothing ('unknown',
        'anonymous'), or if several files have one and the same: a stand-in, as a rule.
    """
    found = []
    for path in paths:
        number = _patient_id(path) if path.suffix.lower() in {".dcm", ".dicom", ""} else None
        if number is not None and _says_nothing(number):
            return [None] * len(paths)
        found.append(number and hashlib.sha256(number.encode()).hexdigest()[:12])
    named = [pseudonym for pseudonym in found if pseudonym]
    return found if len(named) == 1 or len(set(named)) > 1 else [None] * len(paths)


def _patient_id(path: Path) -> str | None:
    try:
        import pydicom

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one could quote the PatientID
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
            return str(header.get("PatientID") or "").strip()
    except Exception:  # no pydicom, or damaged: told when the image is read
        return None


def _says_nothing(number: str) -> bool:
    from cxrlib.folders import UNKNOWN

    words = number.lower()
    return words in UNKNOWN or (words.startswith("anon") and not any(map(str.isdigit, words)))


def _as_shown(dataset) -> np.ndarray:
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    pixels = dataset.pixel_array
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        raise ValueError("its pixels are numbers of colours, not grey values")
    if pixels.ndim == 3:
        grey = pixels @ np.array([0.299, 0.587, 0.114]) * (255 / (2.0**dataset.BitsStored - 1))
        return np.rint(grey).astype(np.uint8)
    padding = dataset.get("PixelPaddingValue")
    if padding is not None and (pixels != padding).any():
        pixels = np.where(pixels == padding, pixels[pixels != padding].min(), pixels)
    values = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset, index=0)
    values = values.astype(np.float64) - values.min()
    grey = np.rint(values * (255 / (values.max() or 1))).astype(np.uint8)
    return 255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey
