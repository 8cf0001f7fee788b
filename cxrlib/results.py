"""What a notebook found: one JSON file of results and one CSV table of predictions.

Notebook 07 and the report read these files; nothing else passes between notebooks.
"""

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
    schema: int = SCHEMA

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
    checkout = (root / "pyproject.toml").exists()
    return (root if checkout else Path.cwd()) / "runs" / "interactive"


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
    """Write what a notebook found, whole or not at all.

    It goes to ``<run folder>/results/<notebook>.json``, whose path is returned; the predictions,
    if any, to ``<run folder>/predictions/<notebook>.csv``. A ResultsError says if a protocol is
    unknown, or the predictions lack a column.

    Parameters
    ----------
    notebook, profile : str
        The file's name without its ending, such as ``"05_vgg16"``; ``smoke``, ``quick`` or
        ``paper``.
    cohort : Cohort or None
        The images that were used, before augmentation; None where only the paper is read.
    model : str or int, optional
        Which of the paper's models this is, such as ``3`` or ``"Model 3 (VGG16+)"``.
    weights : backbone.Weights, or dict of str to these or to facts on them, optional
        The backbones' weights; None where no backbone was used.
    scores : dict of str to DataFrame, optional
        By protocol (``paper``, ``clean``), as :mod:`cxrlib.metrics` makes them.
    predictions : DataFrame, optional
        As :func:`predictions` makes them; several protocols one below the other.
    histories, tables : dict of str to DataFrame, optional
        Training curves, and any other tables, by name.
    notes : str or list of str, optional
    """
    scores = scores or {}
    _check_protocols(scores)
    missing = [] if predictions is None else [one for one in COLUMNS if one not in predictions]
    if missing:
        raise ResultsError(
            f"The predictions lack {', '.join(missing)}: make them with "
            "results.predictions(test, probabilities, classes, protocol)."
        )
    data = describe_data(cohort)
    weights = describe_weights(weights)
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
        "environment": there,
        "command": os.environ.get("CXR_COMMAND"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "notes": notes,
        "scores": pack_all(scores),
        "histories": pack_all(histories),
        "tables": pack_all(tables),
    }
    folder = run_folder()
    table = folder / "predictions" / f"{notebook}.csv"
    if predictions is None:
        table.unlink(missing_ok=True)
    else:
        safe = predictions.map(harmless)
        with whole_file(table) as partial:
            # In quotes, all of it: a carriage return in a name would begin a new row
            how = {"quoting": csv.QUOTE_NONNUMERIC, "errors": "surrogateescape"}
            safe.to_csv(partial, index=False, **how)
    return write_json(folder / "results" / f"{notebook}.json", to_native(content))


def predictions(test, probabilities, classes, protocol: str) -> pd.DataFrame:
    """Put what a model said about each test image into a table, one row an image.

    Its columns are `COLUMNS` (``origin`` is the image a copy was made from, ``predicted`` the
    most probable class) and ``p_<class>`` for each class. A ResultsError says if images, classes
    and probabilities don't fit together.

    Parameters
    ----------
    test : Cohort
        The n test images.
    probabilities : array_like, shape (n, classes) or, for two classes, (n,)
        From 0 to 1; one column alone is that of the second class.
    classes : sequence of str
        In the order of the columns.
    protocol : {"paper", "clean"}
    """
    _check_protocols([protocol])
    found = np.asarray(probabilities, dtype=float)
    classes = list(classes)
    if len(classes) == 2 and (found.ndim == 1 or found.shape[1:] == (1,)):
        found = np.column_stack([1 - found.ravel(), found.ravel()])
    if found.shape != (len(test), len(classes)):
        raise ResultsError(
            f"Probabilities of shape {np.shape(probabilities)} don't fit {len(test)} test images "
            f"and the classes {classes}: give one row an image and one column a class."
        )
    if not ((found >= 0) & (found <= 1)).all():
        raise ResultsError("Probabilities must lie between 0 and 1; some don't, or are NaN.")
    table = test.table[["image", "origin", "patient", "label"]].reset_index(drop=True)
    table.insert(0, "protocol", protocol)
    # As in the metrics: of two classes the second is called from 0.5 on, also when they tie.
    answer = (found[:, 1] >= 0.5).astype(int) if len(classes) == 2 else found.argmax(axis=1)
    table["predicted"] = np.array(classes, dtype=object)[answer]
    for number, name in enumerate(classes):
        table[f"p_{name}"] = found[:, number]
    return table


def load(folder: Path | str, notebook: str) -> Result:
    """Read what a notebook recorded in the run folder `folder`.

    A ResultsError says if it is not there, damaged, or of another version of the course.
    """
    path = Path(folder) / "results" / f"{notebook}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"its schema is {content['schema']}, not {SCHEMA}")
        for kind in ("scores", "histories", "tables"):
            content[kind] = {name: unpack(table) for name, table in content[kind].items()}
        return Result(**content, predictions=_read_predictions(folder, notebook))
    except FileNotFoundError as error:
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.json"))) or "none"
        raise ResultsError(
            f"{folder} has no results of {notebook} (it has: {there}). Run that notebook first."
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ResultsError(
            f"{path} is damaged, or of another version of the course ({error}). Run {notebook} "
            "again."
        ) from error


def _read_predictions(folder: Path | str, notebook: str) -> pd.DataFrame | None:
    path = Path(folder) / "predictions" / f"{notebook}.csv"
    if not path.exists():
        return None
    table = pd.read_csv(
        path,
        dtype=dict.fromkeys(COLUMNS, str),  # patient "007" must stay "007"
        keep_default_na=False,  # and a label "NA" is a label
        na_values={"label": [""], "patient": [""]},
        encoding_errors="surrogateescape",
    )
    return table.map(original)


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
    """Facts on the weights of one backbone, or of several by name, as :func:`record` takes them."""
    if weights is None:
        return {}
    if not isinstance(weights, dict):
        weights = {weights.describe()["backbone"]: weights}
    known = weights.items()
    return {name: one if isinstance(one, dict) else one.describe() for name, one in known}


def why_not_comparable(
    data: dict, weights: dict, number: int | None = None, parameters: dict | None = None
) -> str:
    """Say why results cannot be set against the paper's; empty where they can."""
    if data["images"] == 0:
        return NOTHING
    kinds = {facts["kind"] for facts in weights.values()}
    wanted = BACKBONES.get(number)
    backbones = ", ".join(weights) or "none"
    stage1 = (parameters or {}).get("stage1_source", "chexpert")
    reasons = {
        "the images are synthetic (phantoms)": data["synthetic"],
        "the backbone's weights are random": "random" in kinds,
        "the backbone's weights come from a file that may not be ImageNet's": "file" in kinds,
        f"the backbone is {backbones}, the paper's is {wanted}": wanted not in (None, *weights),
        f"stage 1 was trained on {stage1}, the paper's on CheXpert": (
            number == 1 and stage1 != "chexpert"
        ),
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
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if value is pd.NA or value is pd.NaT else str(value)


def pack(table: pd.DataFrame) -> dict:
    """Turn a DataFrame into what JSON can hold: pandas' "split", and the index's name.

    pandas' own ``to_json`` would do, but for numbers: it writes 15 digits at most, of 17.
    """
    content = {"index_name": table.index.name} | table.to_dict("split")
    for axis in ("index", "columns"):
        labels = getattr(table, axis)
        if labels.nlevels > 1:
            content[axis] = [" / ".join(filter(None, map(str, label))) for label in labels]
    return to_native(content)


def unpack(content: dict) -> pd.DataFrame:
    """Turn what :func:`pack` made into a DataFrame; None is NaN among numbers."""
    index = pd.Index(content["index"], name=content["index_name"])
    table = pd.DataFrame(content["data"], index=index, columns=content["columns"], dtype=object)
    for place in range(table.shape[1]):
        column = table.iloc[:, place]
        known = {type(value) for value in column if value is not None}
        if known == {bool} and not column.isna().any():
            table.isetitem(place, column.astype(bool))
        elif known <= {int, float}:
            table.isetitem(place, pd.to_numeric(column))
    return table


def pack_all(tables: dict | None) -> dict:
    """:func:`pack` of each DataFrame, by name."""
    return {name: pack(table) for name, table in (tables or {}).items()}
