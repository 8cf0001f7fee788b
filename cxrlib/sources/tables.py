"""Tables of films as people have them: known sets by their header, and any other table.

What is known of others' tables stands in ``data/tables.yml``; to add a set is to add an entry.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import warnings
import zipfile
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib.files import no_such, parse_yaml, shipped
from cxrlib.sources import SourceError
from cxrlib.sources.labels import JOINT, each_value, findings, known, sex, years
from cxrlib.sources.paths import FILM, find_files, find_patients, many, some

MARKS = (",", ";", "\t", "|", r"\s+")  # between columns
PACKED = re.compile(r"\.(csv|tsv|txt)\.(gz|zip)$", re.I)
REMEDY = "Save it as CSV UTF-8, separated by commas (a choice of 'Save as' in a spreadsheet)."
YES_OR_NO = {"true": "1", "yes": "1", "false": "0", "no": "0", "": "0"}


def read(path: Path, images=None, labelled=True, allow_missing=None, **asked):
    """Read a table of films: text in UTF-8, UTF-16 or Latin-1, also as .csv.gz or .csv.zip.

    Parameters
    ----------
    path : Path
    images : path-like, optional
        The folder that holds the films, at any depth. By default the table's own.
    labelled : bool
        False: the table need not have labels.
    allow_missing : bool, optional
        False: all films must be there. True: those that are not are left out. None: they stay,
        with the path that is written.
    image_column, label_column, patient_column, view_column, ... : str, optional
        Names of columns (all: ``cxrlib.sources.command.FOR_TABLES``); several of `label_column`
        (a list) are one finding each. By default they are those of a known set, or those that
        ``data/tables.yml`` has words for.

    Returns
    -------
    table : DataFrame
        A row a film: image (as written), path (below the root), patient, view, split, sex, age,
        date, source and licence where known, and the table's other columns.
    said, words
        The films' findings, and their names (:func:`cxrlib.sources.labels.findings`).
    root : Path

    SourceError if it is no table, lacks a column, contradicts itself, several files fit a film,
    or films are missing.
    """
    asked = {role.split("_")[0]: _listed(names) for role, names in asked.items() if names}
    frame, layout = _frame(path, [name for names in asked.values() for name in names])
    layout = _as_asked(path, frame, layout, asked)
    table = _films(path, _roles(path, frame, layout, labelled), layout)
    root = Path(images).expanduser() if images else path.parent
    if not root.is_dir():
        raise SourceError(f"{root}: there is no such folder of images.")
    tail = layout.get("tail", 1)
    table["path"], there = find_files(path.name, table["image"], root, tail, "name" in layout)
    if "patient" not in table and "patient_from" in layout:
        table["patient"] = find_patients(table["path"], layout["patient_from"])
    if allow_missing is not None and not there.all():
        gone = table["image"][~there]
        told = f"{path}: {len(gone):,} of {len(table):,} images cannot be used: {root} lacks them"
        if not allow_missing or not there.any():
            raise SourceError(
                f"{told}.\n  {gone.iloc[0]}: there is no such file, nor below. Name the folder "
                "that holds them (--images DIR; in Python images=...), or go on without them: "
                "allow_missing=True."
            )
        warnings.warn(f"{told}, and they were left out: {some(gone, 3)}.", stacklevel=4)
        table = table[there].reset_index(drop=True)
    return table, *findings(table.pop("cell"), layout), root


# --- from a file to columns ----------------------------------------------------------------------


def _content(path: Path) -> bytes:
    if not PACKED.search(path.name):
        return path.read_bytes()
    with path.open("rb") as packed:
        if path.suffix.lower() == ".gz":
            file = gzip.GzipFile(fileobj=packed)
        else:
            archive = zipfile.ZipFile(packed)
            (name,) = [one for one in archive.namelist() if not one.startswith("__MACOSX")]
            file = archive.open(name)
        for _ in range(2 + (100 * path.stat().st_size >> 20)):
            if not file.read(1 << 20):
                file.seek(0)
                return file.read()
    raise ValueError("it grows a hundredfold")  # kilobytes can unpack to gigabytes


def _text(path: Path) -> str:
    from cxrlib import images

    try:
        content = _content(path)
    except (OSError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        told = f"{path}: an archive is not read if it is no single table ({error})."
        raise SourceError(f"{told} Unpack it, and name its folder.") from error
    kind = images.kind_of(content[:1000])
    if "not an image" not in kind["is"] and content[:4] != b"PK\3\4":
        remedy = kind["remedy"] or "Name a table of films, or their folder"
        raise SourceError(f"{path}: {kind['is']}, no table. {remedy}.")
    codes = ["utf-8-sig", *(["latin-1"] * (0 not in content))]
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        codes = ["utf-16"]
    elif 0 in content[:2]:
        codes = ["utf-16-le" if content[0] else "utf-16-be"]
    why = "a spreadsheet's own kind of file"
    for code in codes if content[:4] != b"PK\3\4" else ():
        try:
            return re.sub(r"\Asep=.\s+", "", content.decode(code))  # a line that Excel wants
        except UnicodeDecodeError as error:
            why = error
    raise SourceError(f"{path}: no CSV file in UTF-8 ({why}). {REMEDY}")


def _rows(text: str, mark: str, rows: int | None = None) -> pd.DataFrame:
    options = {"dtype": str, "header": None, "skipinitialspace": True, "nrows": rows}
    return pd.read_csv(io.StringIO(text), sep=mark, **options)


def _listed(names) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def plain(name) -> str:
    """Name of a column without case, spaces and underscores."""
    return re.sub(r"[\s_]+", "", str(name)).casefold()


@cache
def knowledge() -> dict:
    """Read ``data/tables.yml``: words, views and sets."""
    return parse_yaml((shipped("data") / "tables.yml").read_text(encoding="utf-8"))


def _known_set(cells: list[str]) -> dict | None:
    """Recognise a set by the first row of its table."""
    there, by_number = set(map(plain, cells)), dict(enumerate(cells, 1))

    def fits(one: dict) -> bool:
        first = one.get("first", {}).items()  # of lists without a header
        return there.issuperset(map(plain, one.get("header", ()))) and all(
            re.search(rule, by_number.get(int(column.split()[1]), "")) for column, rule in first
        )

    fit = [{"columns": {}, **one} for one in knowledge()["sets"] if fits(one)]
    return max(fit, key=lambda one: len(one.get("header", ())), default=None)


def _by_words(names) -> dict[str, list[str]]:
    """Find out which column is what, by its name."""
    there = {plain(name): name for name in names}
    words = {role: map(plain, words) for role, words in knowledge()["words"].items()}
    fit = {role: [there[word] for word in all_ if word in there] for role, all_ in words.items()}
    return {role: names[:1] for role, names in fit.items() if names}


def _frame(path: Path, asked: list[str]) -> tuple[pd.DataFrame, dict]:
    """Split a table into columns, at what makes the most sense of its first row.

    Gives text, the index being the line, and what is known of the table. Of a known set, the
    columns are called as ``data/tables.yml`` calls them.
    """
    text, firsts = _text(path), {}
    for mark in MARKS:
        try:
            cells = _rows(text[:100_000], mark, 1).iloc[0].fillna("").str.strip().to_list()
        except (ValueError, IndexError):
            continue
        sense = len(set(map(plain, asked)) & set(map(plain, cells))) + len(_by_words(cells))
        layout = _known_set(cells)
        rank = layout is not None, sense, 0 if sense else len(cells)
        firsts[mark] = rank, layout, cells
    try:
        mark = max(firsts, key=lambda one: firsts[one][0], default=",")
        frame = _rows(text, mark)
    except ValueError as error:
        raise SourceError(f"{path}: no CSV file ({str(error).strip()}). {REMEDY}") from error
    (_, sense, _), layout, names = firsts[mark]
    headless = "first" in layout if layout else not sense and any(map(FILM.search, names))
    numbers = [f"column {number}" for number in range(1, len(names) + 1)]
    names = [name if name and not headless else n for name, n in zip(names, numbers, strict=True)]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        told = f"{path}: the column {min(twice)!r} stands twice"
        raise SourceError(f"{told}. Give each column a name of its own.")
    frame = frame.iloc[0 if headless else 1 :].set_axis(names, axis=1)
    frame.index += 1
    if frame.empty:
        raise SourceError(f"{path}: it lists no image. Write a line for each below the header.")
    if layout is None:
        return frame, _guess(frame)
    own = [*layout.get("header", ()), *layout.get("findings", ()), *_placeholders(layout)]
    spelled = {plain(name): name for name in sum(map(_listed, layout["columns"].values()), own)}
    frame = frame.rename(columns=lambda name: spelled.get(plain(name), name))
    return _joined(path, frame, layout), layout


def _guess(frame: pd.DataFrame) -> dict:
    """Describe a table of no known set, by the names of its columns and what they hold."""
    columns, first = _by_words(frame), frame.head(20)
    image = columns.pop("image", None) or [
        name for name in frame if all(FILM.search(str(value).strip()) for value in first[name])
    ]
    rest = [name for name in frame if name not in sum(columns.values(), image)]
    held = {name: set(map(_number, frame[name].dropna().unique())) for name in rest}
    ones = [name for name in rest if set() < held[name] <= {0, 1, -1}]
    found = {"image": image[0] if image else None, "columns": columns}
    return found | ({"findings": ones} if "label" not in columns and len(ones) > 1 else {})


def _number(text: str) -> float:
    text = str(text).strip().lower()
    return pd.to_numeric(YES_OR_NO.get(text, text), errors="coerce")


def _placeholders(layout: dict) -> list[str]:
    return re.findall(r"{([^:}]+)", layout["image"])


def _joined(path: Path, frame: pd.DataFrame, layout: dict) -> pd.DataFrame:
    """Join the tables of the set that lie beside this one."""
    for name in layout.get("beside", ()):
        for other in sorted(path.parent.glob(f"{name}*"))[:1]:  # as it is, or packed
            right = _rows(_text(other), ",")
            right = right.iloc[1:].set_axis(right.iloc[0].str.strip(), axis=1)
            frame = frame.merge(right)  # on the columns that both have
    needed = [*_placeholders(layout), *layout.get("findings", ())[:1]]
    lacking = [column for column in needed if column not in frame]
    if "beside" in layout and lacking:
        raise SourceError(
            f"{path}: this table of {layout['name']} does not tell {lacking[0]}. Put the others "
            f"of the set beside it: {', '.join(layout['beside'])}."
        )
    return frame


def _as_asked(path: Path, frame: pd.DataFrame, layout: dict, asked: dict) -> dict:
    """Describe a table as the user does, where the user says something."""
    there, layout = {plain(name): name for name in frame}, {**layout}
    columns = layout["columns"] = {**layout["columns"]}
    for role, names in asked.items():
        for name in names:
            if plain(name) not in there:
                raise SourceError(f"{path}: {no_such('column', name, list(frame))}")
        columns[role] = [there[plain(name)] for name in names]
    if "label" in asked:
        several = len(asked["label"]) > 1
        layout |= {"findings": columns.pop("label") if several else (), "values": {}}
    layout["image"] = columns.pop("image", [layout["image"]])[0]
    return layout


# --- from columns to films -----------------------------------------------------------------------


def _roles(path: Path, frame: pd.DataFrame, layout: dict, labelled: bool) -> pd.DataFrame:
    """Take what a cohort wants to know from a table's columns; 'cell' holds the findings."""
    for column, value in layout.get("only", {}).items():
        other = frame.index[frame[column].str.strip() != value] if column in frame else []
        if len(other):
            told = f"{path.name}: left out: {many(len(other), 'row')} whose {column} is not {value}"
            warnings.warn(f"{told}.", stacklevel=5)
        frame = frame.drop(index=other)
    columns, ones = layout["columns"], layout.get("findings", ())
    lacks = {"image": not layout["image"], "label": labelled and not (ones or "label" in columns)}
    for role in (role for role in lacks if lacks[role]):
        raise SourceError(
            f"{path}: the column {role!r} is missing; it has {', '.join(frame)}. Name the one "
            f"that it is: --{role}-column NAME (in Python {role}_column=...)."
        )
    own = {*knowledge()["words"], "path", "cell"}
    table = frame[[name for name in frame if plain(name) not in own]]
    table = table.assign(image=_composed(frame, layout), cell=np.nan)
    for role, names in columns.items():
        table["cell" if role == "label" else role] = _first_said(frame, _listed(names))
    if ones:
        table["cell"] = _ones(path, frame, [name for name in ones if name in frame])
        none = table["image"][table["cell"].isna()]
        if len(none) and "name" not in layout:
            told = f"{path.name}: no label for {many(len(none), 'row')} without 1 in {some(ones)}"
            warnings.warn(f"{told}: {some(none)}.", stacklevel=5)
    views = {plain(word): name for name, all_ in knowledge()["views"].items() for word in all_}
    alike = {
        "view": lambda view: views.get(plain(view), view),
        "split": str.casefold,
        "sex": sex,
        "age": years,
        "patient": lambda number: re.sub(r"^(\d+)\.0$", r"\1", number),  # a gap makes them floats
    }
    for role in table.columns.intersection(alike):
        table[role] = each_value(table[role], alike[role])
    for role, text in ("source", layout.get("name")), ("licence", layout.get("licence")):
        if text and role not in table:
            table[role] = text
    names = table["image"]
    odd = names.str.contains("\0") | (names.str.len() > 1000)
    for what, rows in ("is empty", names == ""), ("holds no file's name", odd):
        if rows.any():
            raise SourceError(f"{path}, line {rows.idxmax()}: the column 'image' {what}.")
    return table


def _composed(frame: pd.DataFrame, layout: dict) -> pd.Series:
    """Take the films' paths from a column, or make them by the set's rule."""
    names = [name for name in _placeholders(layout) if name in frame]
    if layout["image"] in frame or not names:
        return frame[layout["image"]].fillna("").astype(object).str.strip()
    rows = frame[names].fillna("").to_dict("records")
    paths = [layout["image"].format(**row).strip().lstrip("/") for row in rows]
    return pd.Series(paths, frame.index, dtype=object)


def _first_said(frame: pd.DataFrame, names) -> pd.Series:
    """Take from each row the first of some columns that says something."""
    found = pd.Series(np.nan, frame.index, dtype=object)
    for name in filter(frame.columns.__contains__, names):
        found = found.where(found.notna(), each_value(frame[name], known))
    return found


def _ones(path: Path, frame: pd.DataFrame, names: list[str]) -> pd.Series:
    """Put together the names of the columns that hold 1, row by row."""
    cells = pd.Series("", frame.index, dtype=object)
    for name in names:
        values = each_value(frame[name], _number)
        odd = frame[name].notna() & ~values.isin([0, 1, -1])
        if odd.any():
            raise SourceError(
                f"{path}, line {odd.idxmax()}: {name} is {frame[name][odd].iloc[0]!r}; it has to "
                "be 1 (yes), 0 (no), -1 (uncertain) or blank."
            )
        cells = cells.where(values != 1, cells + JOINT + name)
    return cells.str.strip(JOINT).replace("", np.nan)


def _films(path: Path, table: pd.DataFrame, layout: dict) -> pd.DataFrame:
    """Merge the rows of each film: boxes or readers, or rows that say the same."""
    keys = table["image"].str.replace("\\", "/", regex=False).str.removeprefix("./")
    twice, films = keys[keys.duplicated()], table.groupby(keys, sort=False)
    if twice.empty:
        return table.reset_index(drop=True)
    if "rows" in layout:
        said = table["cell"].dropna().groupby(keys).agg(lambda all_: JOINT.join(all_.unique()))
        return films.first().assign(cell=said).reset_index(drop=True)
    for column in table.columns.intersection(["cell", "patient", "split", "view"]):
        odd = films[column].nunique() > 1
        if odd.any():
            rows = table.loc[keys == odd.idxmax(), column].dropna().str.replace(JOINT, "|")
            one, other = rows.unique()[:2]
            raise SourceError(
                f"{path}: {odd.idxmax()} is listed more than once, and its "
                f"{column.replace('cell', 'label')} is {one!r} in line {rows.index[0]} and "
                f"{other!r} below. Correct the wrong row, or take both out."
            )
    told = f"{path.name}: counted once: {many(len(twice), 'row')} of a film that stands above"
    warnings.warn(f"{told} already: {some(twice.unique(), 3)}.", stacklevel=5)
    return films.first().reset_index(drop=True)
