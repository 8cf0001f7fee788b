"""Every figure that the paper prints, as data: ``data/claims.yml``.

The paper: Hernandez, Pereira, Georgieva (2021), "COVID-19 detection through X-Ray chest images".
What a measured result says about one of them is a :func:`cxrlib.paper.verdicts.verdict`.
"""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path

import pandas as pd

from cxrlib.files import parse_yaml, shipped

NUMBERS = ("count", "n", "patients")
COLUMNS = ("id", "place", "model", "metric", "value", "printed", *NUMBERS, "other_n", "how", "note")
NEEDED = ("id", "place", "metric", "printed", "value")
TEXTS = ("id", "place", "model", "metric", "how", "note")
NETWORKS = ("Custom CNN", "ResNet50+", "VGG16+", "DenseNet121+")
MODELS = [f"Model {number} ({network})" for number, network in enumerate(NETWORKS, 1)]


class PaperError(ValueError):
    """Claims, measurements or printed figures that make no sense; the message says why."""


def load(path: Path | str | None = None) -> pd.DataFrame:
    """Read and check the claims, the course's or another file's: a row each, in the paper's order.

    Columns: ``id``, ``place``, ``model`` (as Table I names it, or None), ``metric``, ``value`` (a
    number, percentages as fractions of 1; a list of numbers; or words), ``printed`` (str),
    ``count``, ``n`` and ``patients`` (Int64, <NA> where not known), ``other_n`` (other n that fit:
    a list, or None), ``how`` (whether they are printed or inferred), ``note``. PaperError if the
    file is no list of claims, or a claim lacks a field, has an unknown one or one of the wrong
    kind, stands twice, or its value or count is not what is printed.
    """
    path = Path(path or shipped("data") / "claims.yml")
    try:
        claims = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PaperError(f"The claims cannot be read from {path.name}: {error}") from error
    if not isinstance(claims, list) or not all(isinstance(claim, dict) for claim in claims):
        raise PaperError(f"{path.name} must be a list of claims, each with an id.")
    seen = set()
    for number, claim in enumerate(claims, 1):
        name = claim["id"] if isinstance(claim.get("id"), str) else f"number {number}"
        wrong = "the id stands twice." if name in seen else _what_is_wrong(claim)
        if wrong:
            raise PaperError(f"Claim {name}: {wrong} ({path.name})")
        seen.add(name)
    table = pd.DataFrame(claims, columns=list(COLUMNS))
    texts = ["model", "other_n", "how", "note"]
    table[texts] = table[texts].astype(object).where(table[texts].notna(), None)
    return table.astype(dict.fromkeys(NUMBERS, "Int64"))


def claim(name: str) -> pd.Series:
    """One claim with all its fields, as a row of :func:`load`; PaperError if there is none."""
    claims = _shipped_claims()
    if name not in claims.index:
        raise PaperError(f"No claim is called {name!r}. There are: {', '.join(claims.index)}.")
    return claims.loc[name]


def value(name: str):
    """Value of one claim: a number, a list of numbers, or words."""
    return claim(name)["value"]


def printed(name: str) -> str:
    """One claim exactly as the paper prints it."""
    return claim(name)["printed"]


def table1() -> pd.DataFrame:
    """Table I: a row for each model; accuracy, precision, recall and f1 as fractions of 1."""
    rows = _of_place("Table I")
    table = rows.pivot(index="model", columns="metric", values="value").astype(float)
    table = table.loc[rows["model"].unique(), ["accuracy", "precision", "recall", "f1"]]
    return table.rename_axis(index="model", columns=None)


def table2(counts: bool = False) -> pd.DataFrame:
    """Table II: a row for each actual class, laid out by :func:`cxrlib.metrics.scores.row_percent`.

    With `counts`, the inferred confusion matrix (int), as `metrics.confusion` gives it.
    """
    rows = _of_place("Table II")
    rows[["actual", "predicted"]] = rows["id"].str.split(".", expand=True)[[1, 2]]
    classes = list(rows["actual"].unique())
    cells = rows[rows["predicted"] != "images"]
    wanted = "count" if counts else "value"
    table = cells.pivot(index="actual", columns="predicted", values=wanted).loc[classes, classes]
    if counts:
        return table.astype(int)
    table = (100 * table.astype(float)).round(1)
    images = rows[rows["predicted"] == "images"].set_index("actual")["value"].astype(int)
    table.insert(0, "number of images", images)
    return table


def figure2() -> pd.DataFrame:
    """Fig. 2: a row for each finding that CheXpert labels.

    ``positive``, ``uncertain`` and ``negative`` studies (int); ``positive %`` and so on as printed.
    """
    rows = _of_place("Fig. 2")
    rows[["finding", "answer"]] = rows["metric"].str.split(": ", expand=True)
    answers, findings = rows["answer"].unique(), rows["finding"].unique()
    counts = rows.pivot(index="finding", columns="answer", values="count").astype(int)
    percent = rows.pivot(index="finding", columns="answer", values="value").astype(float)
    percent = (100 * percent).round(2).add_suffix(" %")
    table = counts[answers].join(percent[[f"{answer} %" for answer in answers]])
    return table.loc[findings].rename_axis(index="finding", columns=None)


@cache
def _shipped_claims() -> pd.DataFrame:
    return load().set_index("id")


def _of_place(place: str) -> pd.DataFrame:
    claims = _shipped_claims().reset_index()
    return claims[claims["place"] == place].copy()


def _what_is_wrong(claim: dict) -> str:
    """Say what is wrong with a claim; nothing if it is sound."""
    missing = [key for key in NEEDED if claim.get(key) is None]
    if missing:
        return f"it lacks {', '.join(missing)}."
    unknown = sorted(map(str, set(claim) - set(COLUMNS)))
    if unknown:
        return f"unknown field {unknown[0]!r}; known are {', '.join(COLUMNS)}."
    if not isinstance(claim["printed"], str):
        return f"printed must be text in quotes, so that {claim['printed']} keeps its zeros."
    for key in TEXTS:
        if key in claim and not (isinstance(claim[key], str) and claim[key].strip()):
            return f"{key} must be text, not {claim[key]!r}."
    if "model" in claim and claim["model"] not in MODELS:
        return f"there is no model {claim['model']!r}; there are {', '.join(MODELS)}."
    number = re.search(r"\bmodel(\d)\b", claim["id"])
    if number and not claim.get("model", "").startswith(f"Model {number[1]} "):
        return f"its id speaks of model {number[1]}, its model is {claim.get('model')!r}."
    return _numbers_problem(claim) or _value_problem(claim) or _count_problem(claim)


def _is_number(value, kinds=(int, float)) -> bool:
    """Tell numbers from the rest, True and NaN included, which Python and YAML let pass."""
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)


def _numbers_problem(claim: dict) -> str:
    numbers = {key: claim[key] for key in NUMBERS if key in claim}
    for key, number in numbers.items():
        if not _is_number(number, int) or number < 0:
            return f"{key} must be a whole number, not {number!r}."
    if numbers and not re.match("printed|inferred|n is printed", claim.get("how", "")):
        return f"how must say if its numbers are printed or inferred, not {claim.get('how')!r}."
    sizes = claim.get("other_n", [1])
    if not isinstance(sizes, list) or not all(_is_number(n, int) and n > 0 for n in sizes):
        return f"other_n must be a list of whole numbers above 0, not {sizes!r}."
    if "patients" in claim and not 0 < claim["patients"] <= claim.get("n", 0):
        return f"{claim['patients']} patients of n {claim.get('n')} images: each has one or more."
    return ""


def _value_problem(claim: dict) -> str:
    text, value = claim["printed"], claim["value"]
    said = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]
    if isinstance(value, str):
        same = value == text
    elif value == [] or not all(map(_is_number, value if isinstance(value, list) else [value])):
        return f"value must be a number, numbers or words, not {value!r}."
    elif isinstance(value, list):
        same = set(value) <= set(said)
    elif "count" in claim and "(" in text:  # Fig. 2 prints "count (percentage)"
        same = said[:1] == [claim["count"]] and said[1:] and abs(said[1] / 100 - value) < 1e-9
    else:
        same = said and abs(said[0] / (100 if "%" in text else 1) - value) < 1e-9
    return "" if same else f"value {value!r} is not what is printed, {text!r}."


def _count_problem(claim: dict) -> str:
    """Complain about a count that no rounding or cutting off turns into what is printed."""
    if "count" not in claim:
        return ""
    count, n, text = claim["count"], claim.get("n"), claim["printed"]
    if not n or count > n:
        return f"count {count} of n {n} is no share."
    if claim["value"] == count:  # the count itself is printed
        return ""
    if not _is_number(claim["value"]):
        return f"it has a count, so value must be a number, not {claim['value']!r}."
    decimals = re.findall(r"\d+(?:\.(\d+))?", text)[-1]
    unit = 10.0 ** -len(decimals) / (100 if "%" in text or "(" in text else 1)
    close = abs(count / n - claim["value"]) < unit
    return "" if close else f"{count} of {n} does not print as {text!r}."
