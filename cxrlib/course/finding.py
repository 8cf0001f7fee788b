"""What a run found, in sentences to quote, and ``finding.json`` beside the report.

The file has ``schema`` (1), ``use`` (not for clinical use), ``title_block`` (text on data, weights,
seed, date, versions, by name), ``lessons`` (what became of each, by name), ``synthetic`` and
``random_weights`` (lists of lessons), ``finding`` (a list of sentences) and ``accuracy`` (a list of
``model``, ``protocol``, ``value``, ``low``, ``high``, ``n``: as the scores in a result's file).
"""

from __future__ import annotations

from contextlib import suppress

import pandas as pd

from cxrlib import NOT_CLINICAL
from cxrlib.paper import claims
from cxrlib.results import PROTOCOLS, Result, to_native

READINGS = "Model 4, readings of Table II"
ENDS = ["value", "low", "high"]


def content(found: dict[str, Result], lessons: dict[str, str], facts: dict[str, dict]) -> dict:
    """Everything in ``finding.json``, of results, what became of each lesson, and its facts."""
    block = {}
    for key in ("Data", "Weights", "Profile", "Seed", "Date", "Versions"):
        parts = "; ".join(one[key] for one in facts.values()).split("; ")
        block[key] = "; ".join(dict.fromkeys(parts))
    page = {"schema": 1, "use": NOT_CLINICAL, "title_block": block, "lessons": lessons}
    page["synthetic"] = [name for name, one in found.items() if one.data["synthetic"]]
    page["random_weights"] = [name for name, one in found.items() if one.has_random_weights]
    page["finding"] = sentences(found, lessons)
    return to_native(page | {"accuracy": accuracy(found).to_dict("records")})


def accuracy(found: dict[str, Result]) -> pd.DataFrame:
    """Accuracy of each model by protocol, with the columns that ``finding.json`` has."""
    rows = [
        {"model": one.model, "protocol": name, **one.scores[name].loc["accuracy", [*ENDS, "n"]]}
        for one in found.values()
        for name in PROTOCOLS
        if one.model and name in one.scores and "accuracy" in one.scores[name].index
    ]
    return pd.DataFrame(rows, columns=["model", "protocol", *ENDS, "n"]).astype({"n": int})


def sentences(found: dict[str, Result], lessons: dict[str, str]) -> list[str]:
    """One to five sentences on whichever lessons ran; every number is one of their results."""
    said = [_what_ran(found, lessons)]
    for name, tell in {
        "protocol_difference": _protocols,
        "shortcuts": _lungs_covered,
        READINGS: _printed_tables,
        "lessons held": _held,
    }.items():
        having = [one for one in found.values() if name in one.tables]
        with suppress(KeyError, IndexError, TypeError, ValueError):  # a table of another version
            said += [tell(having)] if having else []
    return [*filter(None, said)]


def _what_ran(found, lessons) -> str:
    lacking = ", ".join(f"{name} {status}" for name, status in lessons.items() if name not in found)
    text = f"{len(found)} of {len(lessons)} lessons have results" + f" ({lacking})" * bool(lacking)
    filmed = [one for one in found.values() if one.data["images"]]
    text += f"; their images are {_kind(filmed)}" if filmed else "; they read no image"
    random = {name for one in filmed for name, w in one.weights.items() if w["kind"] == "random"}
    text += f" and the weights of {', '.join(sorted(random))} random" if random else ""
    if random or any(one.data["synthetic"] for one in filmed):
        text += ", so the scores show how methods work, not how well they detect a disease"
    return f"{text}."


def _kind(several) -> str:
    synthetic = [one.notebook for one in several if one.data["synthetic"]]
    mixed = f" in {', '.join(synthetic)}, else real" if len(synthetic) < len(several) else ""
    return f"synthetic{mixed}" if synthetic else "real"


def _ends(row) -> str:
    if row[ENDS].isna().any():
        raise ValueError("undefined: there is nothing to say")
    return "{:.3f} [{:.3f}, {:.3f}]".format(*row[ENDS])


def _protocols(several) -> str:
    said, apart, scored = [], 0, [one for one in several if one.scores]  # 7 repeats the others
    for one in scored:
        paper, clean = (one.scores[name].loc["accuracy", "value"] for name in PROTOCOLS)
        row = one.tables["protocol_difference"].loc["accuracy"]
        if row[ENDS].isna().any():
            continue
        said.append(f"{one.model} {paper:.3f} and {clean:.3f}, difference {_ends(row)}")
        apart += bool(row["low"] > 0 or row["high"] < 0)
    text = f"Accuracy on {_kind(scored)} images, divided the paper's way and cleanly: "
    text += f"{'; '.join(said)}; {apart} of {len(said)} differences leave out zero."
    return text if said else ""


def _lungs_covered(several) -> str:
    one, row = several[0], several[0].tables["shortcuts"].set_index("view").loc["lungs covered"]
    text = f"With the lungs covered, a probe of {_kind([one])} images tells {row['told']} apart "
    text += f"with an AUC of {_ends(row.rename({'auc': 'value'}))}, where 0.5 is chance"
    if "external drop" in one.tables:
        drop = one.tables["external drop"].loc["auc"].rename({"drop": "value"})
        text += f"; a model with {drop['inside']:.3f} on whole images there has "
        text += f"{drop['outside']:.3f} on those of another hospital "
        text += f"({one.parameters['outside_source']}), difference {_ends(drop)}"
    return f"{text}."


def _printed_tables(several) -> str:
    counts = several[0].tables["Table II, counts"].to_numpy().astype(int)
    right, n = counts.trace(), counts.sum()
    fits = several[0].tables[READINGS]["consistent"].astype(bool)
    printed = claims.printed("table1.model4.accuracy")
    text = "The paper's own tables, read without any image: Table I prints an accuracy of "
    text += f"{printed} for Model 4, Table II comes to {right / n:.3f} ({right} of {n} images), "
    return text + f"and {fits.sum()} of {len(fits)} readings of Table II give the row of Table I."


def _held(several) -> str:
    held = pd.concat(one.tables["lessons held"] for one in several)["held"].astype(bool)
    return f"Of {len(held)} statements that lessons check on their own results, {held.sum()} held."
