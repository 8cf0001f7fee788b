"""What a notebook found, for notebook 07 and the report: a JSON file, and a CSV of predictions."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib.compute import settings
from cxrlib.files import harmless, original, shipped, whole_file, write_json
from cxrlib.machine import environment

SCHEMA = 1
PROTOCOLS = ("paper", "clean")
NOTHING = "nothing was measured: it reads the paper"
BACKBONES = {2: "ResNet50", 3: "VGG16", 4: "DenseNet121"}  # of the paper's models (Table I)
COLUMNS = ("protocol", "image", "origin", "patient", "label", "predicted")


class ResultsError(ValueError):
    """Results that contradict themselves, are damaged, or cannot be found."""


@dataclass
class Result:
    """What one notebook recorded; see :func:`record`."""

    notebook: str
    model: str | None
    profile: str
    parameters: dict
    data: dict
    weights: dict
    environment: dict
    comparable: bool
    why_not_comparable: str
    created: str
    command: str | None = None
    seed: int | None = None
    seconds: float | None = None
    scores: dict[str, pd.DataFrame] = field(default_factory=dict)
    histories: dict[str, pd.DataFrame] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    predictions: pd.DataFrame | None = None

    @property
    def classes(self) -> list[str]:
        """The classes that have a probability column among the predictions, in their order."""
        columns = [] if self.predictions is None else self.predictions.columns
        return [name.removeprefix("p_") for name in columns if name.startswith("p_")]

    @property
    def has_random_weights(self) -> bool:
        """Tell whether a backbone had learned nothing."""
        return any(facts["kind"] == "random" for facts in self.weights.values())

    @property
    def model_number(self) -> int | None:
        """Which of the paper's Models 1 to 4 this is, if any."""
        return model_number(self.model)


def model_number(model) -> int | None:
    """Read which of the paper's Models 1 to 4 is meant by ``3`` or ``"Model 3 (VGG16+)"``."""
    found = re.match(r"\s*(?:model\s*)?([1-4])\b", str(model), re.IGNORECASE)
    return int(found[1]) if found else None


def run_folder() -> Path:
    """Folder of results: ``CXR_RUN``, else ``runs/interactive`` of the checkout, or from here."""
    if os.environ.get("CXR_RUN"):
        return Path(os.environ["CXR_RUN"]).expanduser()
    root = shipped("notebooks").parent
    return (root if (root / "pyproject.toml").exists() else Path.cwd()) / "runs" / "interactive"


def record(
    notebook: str,
    *,
    profile: str,
    parameters: dict,
    cohort,
    model: str | int | None = None,
    weights=None,
    scores: dict | None = None,
    predictions: pd.DataFrame | None = None,
    histories: dict | None = None,
    tables: dict | None = None,
    notes=None,
    seconds: float | None = None,
) -> Path:
    """Write what a notebook found, whole or not at all, to ``results/<notebook>.json``: its path.

    `cohort` has the images before augmentation; it is None where only the paper is read. `model`
    and `weights` are as for :func:`model_number` and :func:`describe_weights`. `scores` are tables
    of :mod:`cxrlib.metrics` by protocol; `histories` and `tables` are any others, by name.
    `predictions` are as in :func:`predictions`, protocols one below the other; they go to
    ``predictions/<notebook>.csv``. A ResultsError says if a protocol or column is wrong.
    """
    _check_protocols(scores or {})
    missing = [] if predictions is None else [one for one in COLUMNS if one not in predictions]
    if missing:
        usual = "make them with results.predictions(test, probabilities, classes, protocol)."
        raise ResultsError(f"The predictions lack {', '.join(missing)}: {usual}")
    data, weights = describe_data(cohort), describe_weights(weights)
    reasons = why_not_comparable(data, weights, model_number(model), parameters)
    there = environment()
    notes = [notes] if isinstance(notes, str) else list(notes or [])
    if "bfloat16" in (there["precision"] or ""):
        notes.append("Frozen features were computed in bfloat16 (CXR_PRECISION), not in float32.")
    content = {
        "schema": SCHEMA,
        "notebook": notebook,
        "model": f"Model {model}" if str(model) in ("1", "2", "3", "4") else model,
        "profile": profile,
        "comparable": not reasons,
        "why_not_comparable": reasons,
        "data": data,
        "weights": weights,
        "parameters": dict(parameters),
        "seed": parameters.get("seed"),
        "seconds": seconds,
        "environment": there | {"settings": settings()},
        "command": os.environ.get("CXR_COMMAND"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "notes": notes,
        "scores": pack_all(scores),
        "histories": pack_all(histories),
        "tables": pack_all(tables),
    }
    table = run_folder() / "predictions" / f"{notebook}.csv"
    if predictions is None:
        table.unlink(missing_ok=True)
    else:
        # In quotes, all of it: a carriage return in a name would begin a new row
        how = {"quoting": csv.QUOTE_NONNUMERIC, "errors": "surrogateescape"}
        with whole_file(table) as partial:
            predictions.map(harmless).to_csv(partial, index=False, **how)
    return write_json(run_folder() / "results" / f"{notebook}.json", to_native(content))


def predictions(test, probabilities, classes, protocol: str, fold=None) -> pd.DataFrame:
    """Put what a model said about each test image into a table, one row an image.

    Its columns are `COLUMNS` (``origin`` is the image a copy was made from, ``predicted`` the
    most probable class) and ``p_<class>`` for each class. `probabilities`, from 0 to 1, have the
    shape (n images of the cohort `test`, classes); one column alone is that of the second class.
    With `fold`, int (n,), a column says which of several models answered.
    A ResultsError says if they don't fit together, or `protocol` is not one of `PROTOCOLS`.
    """
    _check_protocols([protocol])
    found, classes = np.asarray(probabilities, dtype=float), list(classes)
    if len(classes) == 2 and (found.ndim == 1 or found.shape[1:] == (1,)):
        found = np.column_stack([1 - found.ravel(), found.ravel()])
    if found.shape != (len(test), len(classes)):
        shape, wanted = np.shape(probabilities), f"{len(test)} test images and classes {classes}"
        said = f"Probabilities of shape {shape} don't fit {wanted}"
        raise ResultsError(f"{said}: give one row an image and one column a class.")
    if not ((found >= 0) & (found <= 1)).all():
        raise ResultsError("Probabilities must lie between 0 and 1; some don't, or are NaN.")
    table = test.table[["image", "origin", "patient", "label"]].reset_index(drop=True)
    table.insert(0, "protocol", protocol)
    if fold is not None:
        table.insert(1, "fold", _folds(fold, len(test)))
    # As in the metrics: of two classes the second is called from 0.5 on, also when they tie.
    answer = (found[:, 1] >= 0.5).astype(int) if len(classes) == 2 else found.argmax(axis=1)
    table["predicted"] = np.array(classes, dtype=object)[answer]
    table[[f"p_{name}" for name in classes]] = found
    return table


def _folds(fold, images: int) -> np.ndarray:
    fold = np.asarray(fold)
    if fold.shape != (images,) or fold.dtype.kind not in "iu" or (fold < 0).any():
        raise ResultsError(
            f"fold: give the number, from 0, of one fold for each of {images} images."
        )
    return fold


def load(folder: Path | str, notebook: str) -> Result:
    """Read what a notebook recorded; a ResultsError says if it is missing, damaged or too old."""
    path = Path(folder) / "results" / f"{notebook}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (schema := content.pop("schema")) != SCHEMA:
            raise ValueError(f"its schema is {schema}, not {SCHEMA}")
        for kind in ("scores", "histories", "tables"):
            content[kind] = {name: unpack(table) for name, table in content[kind].items()}
        table = Path(folder) / "predictions" / f"{notebook}.csv"
        if table.exists():
            unknown = {"label": [""], "patient": [""]}
            how = {"dtype": dict.fromkeys(COLUMNS, str), "encoding_errors": "surrogateescape"}
            # As text, a patient "007" stays "007"; and a label "NA" is a label
            said = pd.read_csv(table, keep_default_na=False, na_values=unknown, **how)
            content["predictions"] = said.map(original)
        return Result(**content)
    except FileNotFoundError as error:
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.json"))) or "none"
        what = f"no results of {notebook} (it has: {there})"
        raise ResultsError(f"{folder} has {what}. Run that notebook first.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        what = f"damaged, or of another version of the course ({error})"
        raise ResultsError(f"{path} is {what}. Run {notebook} again.") from error


def load_all(folder: Path | str) -> dict[str, Result]:
    """:func:`load` all results of a run folder, by notebook, in the notebooks' order."""
    found = sorted(path.stem for path in (Path(folder) / "results").glob("*.json"))
    return {name: load(folder, name) for name in found if not name.startswith(".")}


def provenance(notebook: str, profile: str, cohort, seed: int) -> dict:
    """Facts that a saved model carries along: where it comes from, and on what it was trained."""
    data = describe_data(cohort)
    facts = {name: data[name] for name in ("synthetic", "images", "patients")}
    return {"notebook": notebook, "profile": profile, "seed": seed, "data": data["name"]} | facts


def describe_data(cohort) -> dict:
    """Name the images: sources, whether synthetic, and counts by label; None is the paper alone."""
    if cohort is None:
        none = {"sources": [], "synthetic": False, "images": 0, "patients": 0, "counts": {}}
        return {"name": "the paper's printed figures", **none}
    table = cohort.table
    sources = sorted(map(str, table["source"].dropna().unique()))
    labels = table["label"].astype(object).where(table["label"].notna(), "unknown").map(str)
    counts = table.groupby(labels)["patient"].agg(images="size", patients="nunique")
    return {
        "name": cohort.name,
        "sources": sources,
        "synthetic": any(source.startswith("phantom") for source in sources),
        "images": len(table),
        "patients": int(table["patient"].nunique()),
        "counts": counts.to_dict("index"),
    }


def describe_weights(weights) -> dict:
    """Facts on one `backbone.Weights`, or several (or facts on them) by name; None is none."""
    if not isinstance(weights, dict | None):
        weights = {weights.describe()["backbone"]: weights}
    known = (weights or {}).items()
    return {name: one if isinstance(one, dict) else one.describe() for name, one in known}


def why_not_comparable(data: dict, weights: dict, number=None, parameters=None) -> str:
    """Say why results cannot be set against the paper's; empty where they can."""
    if data["images"] == 0:
        return NOTHING
    kinds = {facts["kind"] for facts in weights.values()}
    wanted, used = BACKBONES.get(number), ", ".join(weights) or "none"
    stage1 = (parameters or {}).get("stage1_source", "chexpert") if number == 1 else "chexpert"
    reasons = {
        "the images are synthetic (phantoms)": data["synthetic"],
        "the backbone's weights are random": "random" in kinds,
        "the backbone's weights come from a file that may not be ImageNet's": "file" in kinds,
        f"the backbone is {used}, the paper's is {wanted}": wanted not in (None, *weights),
        f"stage 1 was trained on {stage1}, the paper's on CheXpert": stage1 != "chexpert",
    }
    return " and ".join(reason for reason, holds in reasons.items() if holds)


def _check_protocols(names) -> None:
    unknown = [name for name in names if name not in PROTOCOLS]
    if unknown:
        raise ResultsError(f"There is no protocol {unknown[0]!r}; there are {list(PROTOCOLS)}.")


def to_native(value):
    """Turn NumPy and pandas values into what JSON knows; NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(key): to_native(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | np.ndarray | pd.Index):
        return [to_native(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    infinite = isinstance(value, float) and not math.isfinite(value)
    if infinite or value is None or value is pd.NA or value is pd.NaT:
        return None
    return value if isinstance(value, bool | int | float | str) else str(value)


def pack(table: pd.DataFrame) -> dict:
    """Turn a DataFrame into plain values: pandas' "split", whose ``to_json`` loses digits."""
    content = {"index_name": table.index.name} | table.to_dict("split")
    for axis, labels in {"index": table.index, "columns": table.columns}.items():
        if labels.nlevels > 1:
            content[axis] = [" / ".join(filter(None, map(str, label))) for label in labels]
    return to_native(content)


def unpack(content: dict) -> pd.DataFrame:
    """Turn what :func:`pack` made into a DataFrame; None is NaN among numbers."""
    index = pd.Index(content["index"], name=content["index_name"])
    table = pd.DataFrame(content["data"], index=index, columns=content["columns"], dtype=object)
    for place, (_, column) in enumerate(table.items()):
        known = {type(value) for value in column if value is not None}
        if known == {bool} and not column.isna().any():
            table.isetitem(place, column.astype(bool))
        elif known <= {int, float}:
            table.isetitem(place, pd.to_numeric(column))
    return table


def pack_all(tables: dict | None) -> dict:
    """:func:`pack` of each DataFrame, by name."""
    return {name: pack(table) for name, table in (tables or {}).items()}
