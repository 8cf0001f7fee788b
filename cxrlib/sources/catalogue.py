"""The named cohorts of the course: phantom, open, external, chexpert and folder.

>>> cohort = load("phantom", patients=30)  # doctest: +SKIP
"""

from __future__ import annotations

import inspect
import re
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from cxrlib.cohort import SIDE, Cohort
from cxrlib.dicom import LATERAL
from cxrlib.files import cache_folder, no_such, printable, shipped, whole_file
from cxrlib.sources import SourceError, chexpert, folders, pinned
from cxrlib.sources.command import FOR_TABLES
from cxrlib.sources.paths import SHOWN, many, some


@dataclass(frozen=True)
class Source:
    """What a reader should know about a source before using it."""

    story: str
    licence: str
    size: str
    download: bool = False


SOURCES = {
    "phantom": Source(
        "Synthetic radiographs made on the spot by simulated X-ray projection: the lungs, the "
        "lesions and the scanner of every image are known. Needs nothing.",
        "CC0-1.0: synthetic, made by this course",
        "nothing to download",
    ),
    "open": Source(
        "Real images: COVID-19 of the Italian society of radiology (SIRM; 61 frontal images of "
        "50 patients; the paper chose 58 from the same collection), and 500 healthy and 500 "
        "pneumonia images of NIH ChestX-ray14. 21 NIH patients stand in both control classes, "
        "with different images. Label and hospital are one and the same here: a model can learn "
        "the hospital instead.",
        "none stated: linked, never redistributed",
        "1,061 files, about 410 MB",
        download=True,
    ),
    "external": Source(
        "For testing only: COVID-19 of another hospital (Hannover Medical School; 243 images of "
        "71 patients), and 100 healthy and 16 pneumonia images of NIH patients who are not in "
        "'open', one each.",
        "Hannover: CC BY 3.0; NIH: none stated",
        "359 files, 99 MB",
        download=True,
    ),
    "chexpert": Source(
        "Your own copy of CheXpert (Stanford; 223,414 images of 64,540 patients), for the first "
        "training stage of Model 1 and for Fig. 2. Name its folder: folder=PATH. Register at "
        "https://stanfordmlgroup.github.io/competitions/chexpert/",
        "Stanford University Dataset Research Use Agreement",
        "your own copy (11 GB in its small version)",
    ),
    "folder": Source(
        "Your own images (PNG, JPEG, DICOM): folder=PATH, with one folder a label, or a table "
        "with the columns image and label, and if you have them patient, view, source, licence; "
        "or the table of a known set, such as NIH ChestX-ray14, with images=PATH.",
        "yours",
        "your own copy",
    ),
}


def load(name: str, **options) -> Cohort:
    """Make a cohort from a source.

    Parameters
    ----------
    name : str
        A key of :data:`SOURCES`.
    **options
        phantom: those of :func:`cxrlib.phantom.radiograph.make_cohort`.
        open, external, chexpert, folder: ``allow_missing`` (False: every image must be there
        and readable; True: go on without those that are not), ``limit`` (at most so many images
        a label, chosen by ``seed``), ``side`` (pixels), ``progress``.
        open, external: ``download`` (False: nothing is fetched; see :func:`fetch`).
        chexpert: ``folder``, ``view``, ``uncertain`` (:func:`cxrlib.sources.chexpert.make_table`).
        folder: ``folder`` (a folder of folders, or a table), ``classes``, ``patient_from``
        (:func:`cxrlib.sources.folders.make_table`); of a table also ``images``, ``image_column``
        and so on (:func:`cxrlib.sources.tables.read`).

    Returns
    -------
    Cohort
        The table of a source made of files has also the columns path, bytes, height, width
        (of the file, in pixels) and format.

    Raises
    ------
    SourceError
        If the source or an option does not exist, or files are missing, damaged or unreadable.
    """
    from cxrlib.phantom import make_cohort

    story = _source(name).story
    own = {"phantom": make_cohort, "chexpert": _load_chexpert, "folder": _load_folder}
    loader = own.get(name) or partial(_load_pinned, name)
    known = {**inspect.signature(loader).parameters}
    if known.pop("described", None):
        known |= FOR_TABLES
    unknown = [option for option in options if option not in known]
    if unknown:
        raise SourceError(f"{name} has no option {unknown[0]!r}; it has {', '.join(known)}.")
    if "folder" in known and not options.get("folder"):
        raise SourceError(f"{name} needs folder=PATH. {story}")
    return loader(**options)


def manifest(name: str) -> pd.DataFrame:
    """List the pinned files of ``open`` or ``external``, one row a file.

    Columns: image, label, patient, source, view, sex, age (years), licence (NaN: none stated),
    cohort, repo, commit, path, bytes, git_sha1, sha256, height, width, origin_url. What is not
    known is NaN.
    """
    if not _source(name).download:
        others = [other for other, source in SOURCES.items() if source.download]
        raise SourceError(f"{name} has no files to download; {' and '.join(others)} have.")
    texts = dict.fromkeys(["patient", "licence", "view", "commit", "git_sha1", "sha256"], str)
    path = shipped("data") / f"{name}.csv"
    try:
        table = pd.read_csv(path, dtype={**texts, "bytes": "Int64"}, index_col=False)
        for file in _pinned(table):
            pinned.place(cache_folder("files"), file.path)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SourceError(f"{path.name} is no list of pinned files: {error}") from error
    return table


def fetch(name, allow_missing=False, workers=8, progress=True, limit=None, seed=0) -> pd.DataFrame:
    """Download what is lacking of ``open`` or ``external`` into the cache, and verify it.

    Parameters
    ----------
    allow_missing : bool
        Go on without the files that the server does not have; else SourceError counts them by
        cohort and label, after all others were fetched.
    workers : int
        How many files at a time.
    limit, seed : int
        As in :func:`load`.

    Returns
    -------
    DataFrame
        The manifest with the column ``state``: 'present' or 'missing'.
    """
    table = _at_most(manifest(name), limit, seed)
    table["state"] = pinned.fetch(_pinned(table), cache_folder("files"), workers, progress)
    missing = table[table["state"] == "missing"]
    if len(missing) and not allow_missing:
        raise SourceError(
            f"{pinned.mirror()} lacks {len(missing)} of {len(table)} files of {name}:\n"
            f"{_counts(missing)}\nThe others are fetched. Name another server in CXR_MIRROR, or "
            "go on without them: --allow-missing (in Python allow_missing=True)."
        )
    return table


def verify(name: str) -> pd.DataFrame:
    """Compare size and hash of every file of ``open`` or ``external`` with the manifest.

    Gives the manifest with the column ``state``: 'present', 'missing' or 'damaged'. The next
    :func:`fetch` replaces damaged files.
    """
    table = manifest(name)
    table["state"] = pinned.states(cache_folder("files"), _pinned(table))
    return table


def _load_pinned(
    name, allow_missing=False, download=False, limit=None, seed=0, side=SIDE, progress=True
) -> Cohort:
    if download:
        fetch(name, allow_missing, progress=progress, limit=limit, seed=seed)
    table, folder = manifest(name), cache_folder("files")
    if not allow_missing:
        table = _at_most(table, limit, seed)
    files = _pinned(table)
    table = table.assign(state=pinned.states(folder, files), path=[file.path for file in files])
    lacking = table[table["state"] != "present"]
    if len(lacking) and (not allow_missing or len(lacking) == len(table)):
        raise SourceError(
            f"{name}: {len(lacking)} of {len(table)} files are missing or damaged in {folder}:"
            f"\n{_counts(lacking)}\nFetch them: cxr data fetch {name} (in Python "
            f"sources.fetch({name!r})), or go on without them: allow_missing=True."
        )
    gone = sorted(set(lacking["label"]) - set(table.loc[table["state"] == "present", "label"]))
    if gone:
        warnings.warn(f"{name}: no image at all of {', '.join(gone)}.", stacklevel=3)
    table = _at_most(table[table["state"] == "present"], limit, seed)
    table = table.drop(columns=["repo", "commit", "state"])
    return _decode(name, table, folder, allow_missing, side, progress, keys=table["git_sha1"])


def _load_chexpert(
    *, folder, view="frontal", uncertain="ignore", allow_missing=False, limit=None, seed=0,
    side=SIDE, progress=True,
) -> Cohort:  # fmt: skip
    root = Path(folder).expanduser()
    table = _at_most(chexpert.make_table(root, view, uncertain), limit, seed)
    return _decode("chexpert", table, root, allow_missing, side, progress)


def _load_folder(
    *, folder, allow_missing=False, limit=None, seed=0, side=SIDE, progress=True, **described
) -> Cohort:  # fmt: skip
    table, root = folders.make_table(folder, allow_missing=allow_missing, **described)
    table = _at_most(table, limit, seed)
    return _decode(root.name or "folder", table, root, allow_missing, side, progress)


def _decode(name, table, root: Path, allow_missing, side, progress, keys=None) -> Cohort:
    """Decode the files ``root / table.path`` and join them with their table."""
    from cxrlib import images

    table = table.reset_index(drop=True)
    paths = [root / path for path in table["path"]]
    found = images.decode(paths, side=side, progress=progress, keys=keys)
    if found.failures:
        reasons = list(found.failures.values())
        message = f"{name}: {len(reasons)} of {len(table)} images cannot be used:\n  "
        message += "\n  ".join(reasons[:SHOWN])
        if len(reasons) > SHOWN:
            listed = cache_folder("unreadable") / (re.sub(r"[^\w.-]+", "-", name)[:100] + ".txt")
            text = "".join(f"{printable(one)}\n" for one in reasons)
            with whole_file(listed) as part:
                part.write_text(text, encoding="utf-8")
            message += f"\n  and {len(reasons) - SHOWN} more, all listed in {listed}"
        if not allow_missing or len(reasons) == len(table):
            raise SourceError(f"{message}\nMend them, or go on without them: allow_missing=True.")
        warnings.warn(message, stacklevel=4)
    for note, rows in found.notes.items():
        names = some((paths[row].name for row in rows), 3)
        warnings.warn(f"{name}: {many(len(rows), 'film')}: {note} ({names}).", stacklevel=4)
        if note == LATERAL:
            table.loc[rows, "view"] = table.loc[rows, "view"].fillna("lateral")
        elif told := re.match(r"modality (\w+)", note):
            table.loc[rows, "modality"] = told[1]
    table["height"], table["width"] = found.sizes.T
    table["format"], table["bytes"] = found.formats, 0
    good = table.index.difference(list(found.failures))
    table.loc[good, "bytes"] = [paths[row].stat().st_size for row in good]
    return Cohort(table, found.images, name).take(good.to_numpy())


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise SourceError(no_such("source", name, list(SOURCES)))
    return SOURCES[name]


def _pinned(table: pd.DataFrame) -> list[pinned.Pinned]:
    rows = table.astype(object).where(table.notna(), None).itertuples()
    return [
        pinned.Pinned(f"{row.repo}/{row.commit}/{row.path}", row.bytes, row.sha256, row.git_sha1)
        for row in rows
    ]


def _at_most(table: pd.DataFrame, limit: int | None, seed: int) -> pd.DataFrame:
    """Keep at most `limit` rows a label: the same rows for the same seed, in the old order."""
    if limit is None:
        return table
    if limit < 1:
        raise SourceError(f"limit={limit}: at least 1 image a label, or None for all.")
    shuffled = table.sample(frac=1, random_state=seed)
    return shuffled.groupby("label", dropna=False).head(limit).sort_index()


def _counts(table: pd.DataFrame) -> str:
    return table.groupby(["cohort", "label", "state"]).size().rename("files").to_string()
