"""A teacher's or researcher's own images: one folder a label, or a CSV file."""

from __future__ import annotations

import hashlib
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib.cohort import COLUMNS
from cxrlib.dicom import patient_id
from cxrlib.sources import SourceError

READ = {".png", ".jpg", ".jpeg", ".dcm", ".dicom"}
REFUSED = {".gif", ".webp", ".bmp", ".tif", ".tiff"}  # listed, so that their error is seen
DICOM = {".dcm", ".dicom", ""}  # exports often have no ending
UNKNOWN = {"", "unknown", "nan", "none", "n/a", "na", "?"}  # words that say nothing
SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}
DRAWINGS = {"mask", "masks", "segmentation", "segmentations", "annotation", "annotations"}
ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"}
REMEDY = "Save it as CSV UTF-8, separated by commas (a choice of 'Save as' in a spreadsheet)."


def make_table(folder) -> tuple[pd.DataFrame, Path]:
    """Describe the images of a folder; no image is decoded.

    Parameters
    ----------
    folder : path-like
        A folder with one folder a label, searched in depth; where the upper folders are called
        train, test or alike (`SPLITS`), those below them are the labels. Or a CSV file with the
        columns ``image`` (path, relative to it) and ``label``, and any others of a cohort.

    Returns
    -------
    table : DataFrame
        The columns of a cohort, those that the CSV file has besides, and ``path`` relative to
        `root`; ``split`` where the upper folders name it. Text is stripped, and words that say
        nothing (`UNKNOWN`, in any case) are NaN, in every column but the image. The source is
        the folder's name if no row names one. A patient who is not named is the file's path
        without its ending (:func:`unnamed`); in a folder of labels, DICOM files give theirs as
        a pseudonym (:func:`read_patients`) if all have one.
    root : Path

    Warns
    -----
    UserWarning
        If labels differ only in case, or images were left out: those in folders called masks
        or alike (`DRAWINGS`), which are no films, and those beside the label folders of a split.
    """
    place = Path(folder).expanduser()
    if place.is_file():
        if place.suffix.lower() in ARCHIVES:
            raise SourceError(f"{place}: an archive is not read. Unpack it, and name its folder.")
        table, root = _from_csv(place), place.parent
    elif place.is_dir():
        table, root = _from_folders(place), place
    else:
        raise SourceError(f"{place}: there is no such folder or CSV file.")
    for column in table.columns.difference(["image", "path"]):
        table[column] = table[column].map(known).astype(object)
    for column in set(COLUMNS).difference(table):
        table[column] = pd.Series(np.nan, table.index, dtype=object)
    table["patient"] = table["patient"].where(table["patient"].notna(), _stems(table))
    if table["source"].isna().all():  # else a gap would become a hospital of its own
        table["source"] = root.resolve().name
    labels = pd.Series(table["label"].dropna().unique(), dtype=object)
    for _, alike in labels.groupby(labels.str.casefold()):
        if len(alike) > 1:
            told = f"{' and '.join(sorted(alike))} are {len(alike)} labels; write them alike."
            warnings.warn(told, stacklevel=2)
    others = [column for column in table if column not in COLUMNS]
    return table[[*COLUMNS, *others]], root


def unnamed(table: pd.DataFrame) -> pd.Series:
    """Tell which rows name no patient, so that :func:`make_table` took the file for one: bool."""
    return table["patient"] == _stems(table)


def _stems(table: pd.DataFrame) -> pd.Series:
    return table["path"].map(lambda path: Path(path).with_suffix("").as_posix())


def known(value):
    """Text without spaces around it, or NaN where it says nothing."""
    text = "" if pd.isna(value) else str(value).strip()
    return np.nan if text.lower() in UNKNOWN else text


def list_images(folder) -> list[Path]:
    """Find the image files of a folder, searched in depth; hidden ones are left out."""
    root = Path(folder).expanduser()
    found = [file for file in sorted(root.rglob("*")) if _is_image(root, file.relative_to(root))]
    if not found:
        raise SourceError(f"{root} holds no image ({', '.join(sorted(READ))}).")
    return found


def _from_folders(root: Path) -> pd.DataFrame:
    upper = sorted(each for each in root.iterdir() if each.is_dir())
    files = [file.relative_to(root) for each in upper for file in sorted(each.rglob("*"))]
    files = _without_drawings([file for file in files if _is_image(root, file)])
    labels, below = _label_folders(root), root
    splits = bool(labels) and all(each.name.lower() in SPLITS for each in labels)
    if splits:
        below = f"{labels[0]}, which is no label"
        labels = [each for split in labels for each in _label_folders(split)]
    if not labels:
        raise SourceError(
            f"{root}: no folder is in {below}. Make one folder a label, such as {root / 'covid'} "
            f"and {root / 'healthy'}, or name a CSV file with the columns image and label."
        )
    loose = [file for file in files if splits and len(file.parts) == 2]
    if loose:
        told = f"{len(loose)} images were left out: they lie beside the label folders of a split."
        warnings.warn(told, stacklevel=3)
        files = [file for file in files if file not in loose]
    rows = [(file.as_posix(), file.parts[int(splits)], file.parts[0]) for file in files]
    table = pd.DataFrame(rows, columns=["path", "label", "split"], dtype=object)
    for label in labels:
        if label.name not in set(table["label"]):
            raise SourceError(
                f"{label}: the class {label.name!r} has no image. "
                f"Put some there ({', '.join(sorted(READ))}), or remove the folder."
            )
    patients = read_patients([root / file for file in files])
    table = table.assign(image=table["path"], patient=pd.Series(patients, dtype=object))
    return table if splits else table.drop(columns="split")


def read_patients(paths) -> list[str | None]:
    """Read from the headers which DICOM files show the same patient, without telling who.

    The name is a pseudonym: the first 12 hexadecimal digits of the SHA-256 of PatientID. It
    keeps the number out of tables and pages, but whoever knows a number can make its pseudonym.
    None stands for other files, and for those that cannot be read. All are None if pydicom is
    missing, if a DICOM file has no PatientID or one that says nothing ('unknown', 'anonymous'),
    or if several files have one and the same: a stand-in, as a rule.
    """
    found = []
    for path in paths:
        number = patient_id(path) if path.suffix.lower() in DICOM else None
        if number is not None:
            words = number.lower()
            anonymous = words.startswith("anon") and not re.search(r"\d", words)
            if words in UNKNOWN or anonymous:
                return [None] * len(paths)
        found.append(number and hashlib.sha256(number.encode()).hexdigest()[:12])
    named = [pseudonym for pseudonym in found if pseudonym]
    return found if len(named) == 1 or len(set(named)) > 1 else [None] * len(paths)


def _label_folders(place: Path) -> list[Path]:
    found = sorted(each for each in place.iterdir() if each.is_dir() and each.name[0] != ".")
    return [each for each in found if not _is_drawing(each.name)]


def _is_drawing(folder: str) -> bool:
    return re.split(r"[\W_]+", folder.lower().strip())[-1] in DRAWINGS  # 'lung masks' too


def _without_drawings(files: list[Path]) -> list[Path]:
    drawn = {file for file in files if any(map(_is_drawing, file.parts[:-1]))}
    if drawn:
        places = sorted({file.parent.as_posix() for file in drawn})
        warnings.warn(
            f"{len(drawn)} images in folders of masks or annotations were left out, because they "
            f"are no films: {', '.join(places[:5])}{', ...' if len(places) > 5 else ''}.",
            stacklevel=4,
        )
    return [file for file in files if file not in drawn]


def _is_image(root: Path, file: Path) -> bool:
    if any(part[0] == "." for part in file.parts) or not (root / file).is_file():
        return False
    if file.suffix:
        return file.suffix.lower() in READ | REFUSED
    with (root / file).open("rb") as content:
        return content.read(132)[128:] == b"DICM"


def read_text_table(path: Path, **options) -> pd.DataFrame:
    """Read a CSV file as text; a ValueError where lines or columns don't fit together."""
    table = pd.read_csv(
        path, dtype=str, encoding="utf-8-sig", compression=None, header=None, **options
    )
    names = table.iloc[0].fillna("").str.strip()
    names = [name or f"column {number}" for number, name in enumerate(names, 1)]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"the column {min(twice)!r} stands twice")
    return table.iloc[1:].set_axis(names, axis=1).reset_index(drop=True)


def _from_csv(path: Path) -> pd.DataFrame:
    try:
        table = read_text_table(path, skipinitialspace=True)
    except (OSError, ValueError) as error:
        why = str(error).strip()
        what = "not separated by commas" if "Expected 1 fields" in why else "no CSV file in UTF-8"
        raise SourceError(f"{path}: {what} ({why}). {REMEDY}") from error
    missing = [column for column in ("image", "label") if column not in table]
    if missing and re.search(r"[;\t]", "".join(table)):
        raise SourceError(f"{path}: its columns are not separated by commas. {REMEDY}")
    if missing:
        has = ", ".join(table)
        raise SourceError(f"{path}: the column {missing[0]!r} is missing; it has {has}.")
    if table.empty:
        raise SourceError(f"{path}: it lists no image.")
    names = table["image"].fillna("").str.strip()
    wrongs = {
        "the column 'image' is empty": names == "",
        "the column 'image' holds no file's name": names.str.contains("\0")
        | (names.str.len() > 1000),
        "this image is listed more than once": names.duplicated(),
    }
    for what, rows in wrongs.items():
        if rows.any():
            raise SourceError(f"{path}, line {rows.argmax() + 2}: {what}.")
    return table.assign(image=names, path=names)
