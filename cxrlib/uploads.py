"""Films that a browser hands over: any content, any name, of ipywidgets 7 and 8."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

FORMATS = ".png,.jpg,.jpeg,.dcm,.dicom"
MOST_BYTES = 8_000_000  # Jupyter's server takes messages of 10 MB at most


class UploadError(ValueError):
    """A file that cannot be taken; the message names it and the remedy."""


def read_upload(value) -> tuple[str, np.ndarray]:
    """Read what a FileUpload holds, of ipywidgets 7 (a dict by name) or 8 (a tuple of dicts).

    Returns
    -------
    name : str
        As the browser gave it: escape it before it is shown.
    image : ndarray, shape (height, width), uint8

    Raises
    ------
    UploadError
        If the file is too large, or no usable image.
    """
    from cxrlib import images

    if isinstance(value, dict):
        name, entry = list(value.items())[-1]
    else:
        entry = value[-1]
        name = entry["name"]
    content = bytes(entry["content"])
    if len(content) > MOST_BYTES:
        raise UploadError(
            f"{name}: {len(content) / 1e6:.1f} MB is more than {MOST_BYTES // 10**6} MB. "
            "Save it smaller, or as PNG."
        )
    suffix = ".dcm" if Path(name).suffix.lower() in {".dcm", ".dicom"} else ".film"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"film{suffix}"  # never the browser's name
        path.write_bytes(content)
        try:
            return name, images.read_grey(path)
        except images.ImageError as error:
            raise UploadError(str(error).replace(str(path), name)) from error
        except Exception as error:  # a decoder's own bug is no reason to show a traceback
            raise UploadError(f"{name}: it cannot be read. Save it as PNG.") from error
