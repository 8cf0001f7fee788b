"""DICOM files -> grey uint8. Needs pydicom, the optional extra ``cxrlib[dicom]``."""

from __future__ import annotations

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
