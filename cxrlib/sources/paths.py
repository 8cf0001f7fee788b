"""Where the films of a table are: written paths, and the files that fit them."""

from __future__ import annotations

import os
import re
import warnings
from collections import defaultdict
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd

from cxrlib.sources import SourceError

ENDINGS = "bmp", "dcm", "dicom", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp"
FILM = re.compile(rf"\.({'|'.join(ENDINGS)})$", re.I)
DRAWINGS = {"mask", "masks", "segmentation", "segmentations", "annotation", "annotations"}
DEEPEST = 4  # folders and a name, to tell files of one name apart
SHOWN = 10  # names in a message; the rest is counted


def is_drawing(folder: str) -> bool:
    """Tell folders of masks and annotations, 'lung masks' too."""
    return re.split(r"[\W_]+", folder.lower().strip())[-1] in DRAWINGS


def some(names, shown: int = SHOWN) -> str:
    """Word a list: so many names, and how many more there are."""
    names = list(map(str, names))
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def many(count: int, thing: str) -> str:
    """Word a count of things."""
    return f"{count:,} {thing}{'s' * (count != 1)}"


def find_patients(paths: pd.Series, pattern: str) -> pd.Series:
    """Take patients from paths: what the first group matches, or the whole pattern; else NaN."""
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        told = f"patient_from: {pattern!r} is no regular expression ({error})."
        raise SourceError(rf"{told} Of p12_a.png, p(\d+)_ takes 12.") from error
    found = [wanted.search(path) for path in paths]
    names = [(one and one[min(wanted.groups, 1)]) or np.nan for one in found]
    return pd.Series(names, paths.index, dtype=object)


class Index:
    """The files in a folder and below, by the last parts of their paths; hidden ones are not."""

    def __init__(self, root: Path):
        self.paths, self.tails = set(), defaultdict(list)
        links = {os.path.realpath(root)}
        for folder, inner, files in os.walk(root, followlinks=True):
            place = Path(folder)
            if place != root and place.is_symlink():  # one that leads back would have no end
                real = os.path.realpath(folder)
                inner[:] = inner if real not in links else []
                links.add(real)
            inner[:] = sorted(one for one in inner if one[0] != "." and not is_drawing(one))
            above = place.relative_to(root).parts
            for file in sorted(files):
                path = "/".join((*above, file))
                self.paths.add(path)
                for tail in _tails(path):
                    self.tails[tail].append(path)

    def find(self, written: str, tail: int) -> tuple[int, list[str]]:
        """Find the files that share most of the last parts of a written path, and how many."""
        if "://" in written:  # where the film was downloaded from
            written = unquote(urlsplit(written).path)
        tails, last = _tails(written.replace("\\", "/")), re.split(r"[\\/]", written)[-1]
        for count in range(len(tails), tail - 1, -1):
            fit = self.tails.get(tails[count - 1], [])
            for way in str.casefold, str:  # of several endings the one that is written, and so on
                fit = [one for one in fit if way(one.split("/")[-1]) == way(last)] or fit
            if fit:
                return count, fit
        return 0, []


def _tails(path: str) -> list[str]:
    """Last part of a path, last two and so on, in small letters and without the file's ending."""
    parts = FILM.sub("", path.casefold()).split("/")[-DEEPEST:]
    return ["/".join(parts[-count:]) for count in range(1, len(parts) + 1)]


def find_files(table: str, names, root: Path, tail: int = 1, known: bool = False):
    """Find the files that a table names, in a folder and all below it.

    A file that is not where it is written is taken if it alone fits: its case, its ending, its
    slashes or its folders may differ, but for its last `tail` parts. Of a `known` set, it is no
    news that folders do. Gives the paths below `root`, as written where there is no such file, and
    which there are (ndarray of bool).
    """
    paths = list(names)
    if all(map(os.path.isfile, map(f"{root}{os.sep}".__add__, paths))):
        return paths, np.ones(len(paths), bool)
    index, news, claims, several = Index(root), [], defaultdict(list), {}
    for row, name in enumerate(paths):
        away = (name[0] == "/" or ".." in name) and (root / name).is_file()
        sure = away or name in index.paths
        score, fit = (DEEPEST + 1, [name]) if sure else index.find(name, tail)
        if len(fit) > 1:
            several[name] = fit
        elif fit:
            claims[fit[0]].append((score, row))
    for name, fit in several.items():
        fit = [path for path in fit if path not in claims]
        if len(fit) > 1:
            raise SourceError(
                f"{table}: several files fit {name}: {some(fit)}. Name the folder that is meant "
                "(--images DIR; in Python images=...), or write whole paths."
            )
    there = np.zeros(len(paths), bool)
    for path, rows in claims.items():
        best = max(rows)[0]
        winners = [row for score, row in rows if score == best]
        if len(winners) > 1:
            told = f"{some(paths[row] for row in winners)}: each may be {path}, and none was taken"
            warnings.warn(f"{table}: {told}.", stacklevel=5)
            continue
        (row,) = winners
        written, there[row] = paths[row].removeprefix("./"), True
        same = FILM.search(written) and written.split("/")[-1] == path.split("/")[-1]
        usual = known and (same or not FILM.search(written))  # folders, and an ending to add
        if not usual and not f"/{path}".endswith(f"/{written}"):
            news.append(f"{written}: {path}")
        paths[row] = path
    if news:
        told = f"{table}: {many(len(news), 'film')} found although the path is written otherwise"
        warnings.warn(f"{told} (case, ending, slashes or folder), such as {news[0]}.", stacklevel=5)
    return paths, there
