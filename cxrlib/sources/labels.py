"""From findings to labels: a film can have several findings, but is of one class."""

from __future__ import annotations

import re
import warnings
from collections import Counter

import numpy as np
import pandas as pd

from cxrlib.files import no_such
from cxrlib.sources import SourceError
from cxrlib.sources.paths import many, some

UNKNOWN = {"", "unknown", "nan", "none", "n/a", "na", "?"}  # words that say nothing
OLDEST = 120  # years
JOINT = "\x1f"  # between findings that were put together from several columns or rows


def known(value):
    """Text without spaces around it, or NaN where it says nothing."""
    text = "" if pd.isna(value) else str(value).strip()
    return np.nan if text.lower() in UNKNOWN else text


def sex(text: str):
    """Give F or M of 'f', 'Male' and the like; NaN of other words: nobody guesses what 1 is."""
    return {"f": "F", "female": "F", "m": "M", "male": "M"}.get(text.strip().lower(), np.nan)


def years(text: str) -> float:
    """Give the years of '58', '058Y', '58 years', '18M', '3W' or '30D'; NaN of other words.

    Also of ages that nobody reaches: NIH's table has some such as 414.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:([YMWD])[A-Z]*)?", text.strip().upper())
    age = float(found[1]) / {"M": 12, "W": 52.18, "D": 365.25}.get(found[2], 1) if found else np.nan
    return age if age <= OLDEST else np.nan


def each_value(column: pd.Series, function) -> pd.Series:
    """Apply a function to each value of a column that differs, once; what is missing stays NaN."""
    codes, values = pd.factorize(column.astype(object))
    found = np.empty(len(values) + 1, dtype=object)
    found[:] = [*map(function, values), np.nan]
    return pd.Series(found[codes], column.index, dtype=object)


def findings(cells: pd.Series, layout: dict) -> tuple[list[tuple[str, ...]], dict[str, set[str]]]:
    """Find the findings that each cell names, and what else each of them is called.

    The second value holds for each finding its names in small letters: that in the table, of a
    path of findings the whole and the last part, which it goes by, of unknown tables also the
    parts between commas and semicolons.
    """
    marks = layout.get("between", "" if "name" in layout else "|")
    values, words = layout.get("values", {}), {}

    def one(part: str) -> str | None:
        name = known(values.get(part, values.get("*", part)))
        if not isinstance(name, str):
            return None
        short = name.rsplit(layout["path"], 1)[-1].strip() if "path" in layout else name
        also = {short, name, *(part,) * (part in values)}
        also |= set() if "name" in layout else set(map(str.strip, re.split("[,;]", name)))
        words.setdefault(short, set()).update(map(str.casefold, also))
        return short

    def split(cell: str) -> tuple[str, ...]:
        between = "," if cell.startswith("[") else marks  # a list, as Python writes it
        parts = re.split(f"[{JOINT}{re.escape(between)}]", cell.strip("[]"))
        found = list(dict.fromkeys(filter(None, (one(part.strip(" '\"")) for part in parts))))
        if len(found) > 1 and layout.get("normal") in found:
            found.remove(layout["normal"])
        return tuple(found)

    return [said if isinstance(said, tuple) else () for said in each_value(cells, split)], words


def choose(names, said, words, classes, place: str):
    """Give each film its label.

    Without `classes` (a dict of lists of findings) it is a film's only finding. With them it is
    the class that one of its findings is listed for; case and spaces around them don't count.

    Returns
    -------
    labels : list of str or NaN
    part : ndarray of bool
        Which films take part: with `classes`, those that are of just one.
    """
    said = list(said)
    if classes is None:
        _tell_several(names, said, place)
        return [one[0] if len(one) == 1 else np.nan for one in said], np.ones(len(said), bool)
    wanted = _wanted(classes, words, said, place)
    of = {name: {wanted[word] for word in words[name] if word in wanted} for name in words}
    found = [set().union(*(of[name] for name in one)) for one in said]
    rest = [one for one, hits in zip(said, found, strict=True) if not hits]
    counts = Counter(name for one in rest for name in one or ["no finding is named"])
    if rest:
        shown = some(f"{name} {count:,}" for name, count in counts.most_common())
        _tell(place, f"left out: {many(len(rest), 'film')} of no class ({shown}).")
    two = [name for name, hits in zip(names, found, strict=True) if len(hits) > 1]
    if two:
        _tell(place, f"left out: {many(len(two), 'film')} of two classes ({some(two)}).")
    part = np.array([len(hits) == 1 for hits in found], bool)
    if not part.any():
        raise SourceError(f"{place}: no film is of just one of the classes {', '.join(classes)}.")
    return [next(iter(hits)) if len(hits) == 1 else np.nan for hits in found], part


def _tell(place: str, text: str) -> None:
    warnings.warn(f"{place}: {text}", stacklevel=5)


def _tell_several(names, said, place: str) -> None:
    several = [(name, one) for name, one in zip(names, said, strict=True) if len(one) > 1]
    if several:
        shown = some((f"{name} ({', '.join(one)})" for name, one in several), 3)
        first = several[0][1][0]
        _tell(
            place,
            f"no label for {many(len(several), 'film')} with several findings: {shown}. Say which "
            f'findings make a class, such as --class {first}="{first}" (in Python classes='
            f"{{{first!r}: [{first!r}]}}).",
        )


def _wanted(classes, words, said, place: str) -> dict[str, str]:
    """Map the values of all classes to their class; complain about values that don't exist."""
    wrong = not isinstance(classes, dict) or len(classes) < 1
    if wrong or not all(isinstance(values, (str, list, tuple)) for values in classes.values()):
        raise SourceError(f"classes={classes!r}: give a dict of lists, NAME: [FINDING, ...].")
    counts = Counter(name for one in said for name in one)
    there, wanted = set().union(*(words[name] for name in counts)), {}
    for name, values in classes.items():
        values = values.split("|") if isinstance(values, str) else values
        values = [str(value).strip() for value in values]
        for value in values:
            if wanted.setdefault(value.casefold(), name) != name:
                raise SourceError(f"{value!r} stands in two classes; leave it in one.")
        lacking = [value for value in values if value.casefold() not in there]
        if len(lacking) == len(values):
            often = [finding for finding, _ in counts.most_common(30)]
            told = no_such("finding", "|".join(lacking), often)
            raise SourceError(f"{place}: the class {name!r} has no film. {told}")
        if lacking:
            _tell(place, f"no film has the finding {some(lacking)} of the class {name}.")
    return wanted
