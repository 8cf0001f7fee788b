"""A teacher's or researcher's own images: one folder a label, or a table that names them."""

from __future__ import annotations

import hashlib
import re
import warnings
from pathlib import Path

import pandas as pd

from cxrlib.cohort import COLUMNS
from cxrlib.dicom import patient_id
from cxrlib.sources import SourceError, labels, tables
from cxrlib.sources.labels import UNKNOWN, each_value, known
from cxrlib.sources.paths import ENDINGS, FILM, find_patients, is_drawing, many, some

DICOM = {".dcm", ".dicom", ""}  # exports often have no ending
SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}
HIDDEN = re.compile(r"\.|__MACOSX$")  # the latter holds what macOS puts beside files, in archives
ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"}


def make_table(
    folder, classes=None, patient_from=None, allow_missing=None, **columns
) -> tuple[pd.DataFrame, Path]:
    """Describe the images of a folder or a table; no image is decoded.

    Parameters
    ----------
    folder : path-like
        A folder with one folder a label, searched in depth; where the upper folders are called
        train, test or alike (`SPLITS`), those below them are the labels. Or a table.
    classes : dict of str to list of str, optional
        The findings, or folders, that make a class (:func:`cxrlib.sources.labels.choose`). Films
        of none or of two are left out. By default a film's label is its only finding.
    patient_from : str, optional
        A regular expression that finds the patient in a path: its first group, or all of it.
    allow_missing, **columns
        Of a table, those of :func:`cxrlib.sources.tables.read`.

    Returns
    -------
    table : DataFrame
        The columns of a cohort, those that the table has besides, and ``path`` relative to
        `root`; ``split`` where the upper folders name it. Text is stripped, and words that say
        nothing (`UNKNOWN`, in any case) are NaN, in every column but the image. The source is
        the set's or the folder's name if no row names one. A patient who is not named is the
        file's path without its ending; in a folder of labels, DICOM files give theirs as a
        pseudonym (:func:`read_patients`) if all have one.
    root : Path

    It warns where films were left out or found elsewhere, labels differ only in case, or patients
    are not known.
    """
    place = Path(folder).expanduser()
    given = [name for name, value in columns.items() if value and name != "labelled"]
    if place.is_file():
        if place.suffix.lower() in ARCHIVES and not tables.PACKED.search(place.name):
            raise SourceError(f"{place}: an archive is not read. Unpack it, and name its folder.")
        table, said, words, root = tables.read(place, allow_missing=allow_missing, **columns)
    elif place.is_dir() and given:
        raise SourceError(f"{place} is a folder: {given[0]} describes a table. Name a CSV file.")
    elif place.is_dir():
        table, root = _from_folders(place), place
        said, words = labels.findings(table["label"], {"name": place})
    else:
        raise SourceError(f"{place}: there is no such folder or CSV file.")
    table["label"], part = labels.choose(table["image"], said, words, classes, place.name)
    table = table[part].reset_index(drop=True)
    others = [column for column in table if column not in COLUMNS]
    table = table.reindex(columns=[*COLUMNS, *others])
    for column in table.columns.difference(["image", "path"]):
        table[column] = each_value(table[column], known)
    if "age" in table:
        table["age"] = table["age"].astype(float)
    if patient_from:
        _take_patients(table, patient_from)
    _tell_unnamed(table)
    stems = table["path"].map(lambda path: Path(path).with_suffix("").as_posix())
    table["patient"] = table["patient"].where(table["patient"].notna(), stems)
    if table["source"].isna().all():  # else a gap would become a hospital of its own
        table["source"] = root.resolve().name
    names = pd.Series(table["label"].dropna().unique(), dtype=object)
    for _, alike in names.groupby(names.str.casefold()):
        if len(alike) > 1:
            told = f"{' and '.join(sorted(alike))} are {len(alike)} labels; write them alike."
            warnings.warn(told, stacklevel=2)
    return table, root


def _take_patients(table: pd.DataFrame, pattern: str) -> None:
    """Take patients from the paths, and say which ones name none."""
    found = find_patients(table["path"], pattern)
    lacking = table["path"][found.isna()]
    told = f"patient_from: {pattern!r} finds no patient in {len(lacking):,} of {len(table):,} paths"
    if len(lacking) == len(table):
        raise SourceError(f"{told}: {some(lacking, 3)}. Of p12_a.png, p(\\d+)_ takes 12.")
    if len(lacking):
        warnings.warn(f"{told}: {some(lacking)}.", stacklevel=3)
    table["patient"] = found.where(found.notna(), table["patient"])


def _tell_unnamed(table: pd.DataFrame) -> None:
    """Warn of films whose patient nobody named; those without a label don't count."""
    films = table[table["label"].notna()]
    count = int(films["patient"].isna().sum())
    if count:
        warnings.warn(
            f"{count} of {len(films)} image{'s' * (len(films) > 1)} name{'s' * (count == 1)} no "
            "patient. Each of these files counts as a patient of its own. If some patients have "
            "several images, scores look better than they are, and leaks between patients stay "
            "hidden. Remedy: a column that names them (--patient-column), or a part of their "
            "files' paths (--patient-from; in Python patient_from=...).",
            stacklevel=3,
        )


def list_images(folder, **options) -> list[Path]:
    """Find the image files of a folder, searched in depth; hidden ones are left out.

    Of a table, find those that it names, with the options of :func:`make_table`.
    """
    root = Path(folder).expanduser()
    if root.is_file() or options:
        table, root = make_table(root, labelled="classes" in options, **options)
        return [root / path for path in table["path"]]
    found = [file for file in sorted(root.rglob("*")) if _is_image(root, file.relative_to(root))]
    if not found:
        raise SourceError(f"{root} holds no image ({', '.join(ENDINGS)}).")
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
                f"Put some there ({', '.join(ENDINGS)}), or remove the folder."
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
        if number is not None and (number.lower() in UNKNOWN or re.match(r"(?i)anon\D*$", number)):
            return [None] * len(paths)
        found.append(number and hashlib.sha256(number.encode()).hexdigest()[:12])
    named = [pseudonym for pseudonym in found if pseudonym]
    return found if len(named) == 1 or len(set(named)) > 1 else [None] * len(paths)


def _label_folders(place: Path) -> list[Path]:
    found = sorted(each for each in place.iterdir() if each.is_dir())
    return [each for each in found if not (is_drawing(each.name) or HIDDEN.match(each.name))]


def _without_drawings(files: list[Path]) -> list[Path]:
    drawn = {file for file in files if any(map(is_drawing, file.parts[:-1]))}
    if drawn:
        places = sorted({file.parent.as_posix() for file in drawn})
        told = f"{many(len(drawn), 'image')} in folders of masks or annotations left out, because"
        warnings.warn(f"{told} they are no films: {some(places, 5)}.", stacklevel=4)
    return [file for file in files if file not in drawn]


def _is_image(root: Path, file: Path) -> bool:
    if any(map(HIDDEN.match, file.parts)) or not (root / file).is_file():
        return False
    if FILM.search(file.name):
        return True
    from cxrlib.images import kind_of

    with (root / file).open("rb") as content:
        return not kind_of(content.read(1000))["remedy"]
