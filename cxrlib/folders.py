"""A teacher's or researcher's own images: one folder a label, or a CSV file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib.cohort import COLUMNS

READ = {".png", ".jpg", ".jpeg", ".dcm", ".dicom"}
REFUSED = {".gif", ".webp", ".bmp", ".tif", ".tiff"}  # listed, so that their error is seen
UNKNOWN = {"", "unknown", "nan", "none", "n/a", "na", "?"}  # labels that say nothing


class FolderError(ValueError):
    """A folder or CSV file that does not describe images and their labels."""


def make_table(folder) -> tuple[pd.DataFrame, Path]:
    """Describe the images of a folder; no image is opened.

    Parameters
    ----------
    folder : path-like
        A folder with one folder a label, searched in depth; or a CSV file with the columns
        ``image`` (path, relative to the CSV file) and ``label``, and any of ``patient``,
        ``view``, ``source``, ``licence``.

    Returns
    -------
    table : DataFrame
        The columns of a cohort, and ``path`` relative to `root`. The patient is the
        file's path without its ending where no other is given; empty labels and 'unknown' are NaN.
    root : Path

    Raises
    ------
    FolderError
        If there is no such folder, no image, a label without images, or a column is missing.
    """
    place = Path(folder).expanduser()
    if place.is_file():
        table, root = _from_csv(place), place.parent
    elif place.is_dir():
        table, root = _from_folders(place), place
    else:
        raise FolderError(f"{place}: there is no such folder or CSV file.")
    stem = table["path"].map(lambda path: Path(path).with_suffix("").as_posix())
    defaults = {"patient": stem, "view": np.nan, "source": root.resolve().name, "licence": np.nan}
    for column, default in defaults.items():
        given = table[column] if column in table else pd.Series(np.nan, table.index, dtype=object)
        table[column] = given.where(given.notna(), default)
    text = table["label"].astype(object).where(table["label"].notna(), "").astype(str).str.strip()
    table["label"] = text.where(~text.str.lower().isin(UNKNOWN), np.nan)
    others = [column for column in table if column not in COLUMNS]
    return table[[*COLUMNS, *others]], root


def _from_folders(root: Path) -> pd.DataFrame:
    labels = sorted(each for each in root.iterdir() if each.is_dir() and each.name[0] != ".")
    if not labels:
        raise FolderError(
            f"{root}: no folder is in it. Make one folder a label, such as {root / 'covid'} and "
            f"{root / 'healthy'}, or name a CSV file with the columns image and label."
        )
    rows = []
    for label in labels:
        files = sorted(file for file in label.rglob("*") if _is_image(file))
        if not files:
            raise FolderError(
                f"{label}: the class {label.name!r} has no image. "
                f"Put some there ({', '.join(sorted(READ))}), or remove the folder."
            )
        rows += [(file.relative_to(root).as_posix(), label.name) for file in files]
    table = pd.DataFrame(rows, columns=["path", "label"])
    return table.assign(image=table["path"])


def _is_image(file: Path) -> bool:
    if file.name.startswith(".") or not file.is_file():
        return False
    if file.suffix:
        return file.suffix.lower() in READ | REFUSED
    with file.open("rb") as content:  # DICOM exports often have no ending
        return content.read(132)[128:] == b"DICM"


def _from_csv(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, skipinitialspace=True, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise FolderError(f"{path}: no CSV file in UTF-8 ({error}).") from error
    missing = [column for column in ("image", "label") if column not in table]
    if missing:
        raise FolderError(
            f"{path}: the column {missing[0]!r} is missing; it has {', '.join(table)}."
        )
    if table["image"].isna().any():
        line = int(np.flatnonzero(table["image"].isna())[0]) + 2
        raise FolderError(f"{path}, line {line}: the column 'image' is empty.")
    if table.empty:
        raise FolderError(f"{path}: it lists no image.")
    if table["image"].duplicated().any():
        twice = table.loc[table["image"].duplicated(), "image"].iloc[0]
        raise FolderError(f"{path}: {twice!r} is listed more than once.")
    table["path"] = table["image"]
    return table
