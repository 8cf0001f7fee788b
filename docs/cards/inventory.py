"""What the data card counts: the manifests, their files, the phantom's scanners and its knob."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cxrlib import metrics, phantom, shortcuts, sources
from cxrlib.phantom import scanner, thorax

KNOB = (0.0, 0.5, 1.0)
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


def describe(name: str) -> dict:
    """Count what a manifest lists."""
    table = sources.manifest(name)
    table["format"] = [FORMATS[Path(path).suffix.lower()] for path in table["path"]]
    table["view"] = table["view"].fillna("not stated")
    sides = (table[side].astype("Int64").astype("string") for side in ("height", "width"))
    table["size"] = next(sides).str.cat(next(sides), " x ")  # missing where a side is
    known = table[table["size"].notna()]
    labels_of = table.groupby("patient")["label"].unique()
    return {
        "images": len(table),
        "patients": table["patient"].nunique(),
        "by_label": count(table, ["label", "source"]),
        "by_view": count(table, ["label", "source", "view"]),
        "files": files(table),
        "in_two": int((labels_of.map(len) > 1).sum()),
        "two": sorted({name for names in labels_of if len(names) > 1 for name in names}),
        "most": int(table["patient"].value_counts().max()),
        "no_licence": int(table["licence"].isna().sum()),
        "licences": sorted(table["licence"].dropna().unique()),
        "no_hash": int(table["sha256"].isna().sum()),
        "known": len(known),
        "told": told_by_size(known),
        "control_sizes": sorted(known.loc[known["label"] != "covid", "size"].unique()),
        "repositories": sorted(table["repo"].unique()),
        "people": shortcuts.people_by_label(table),
    }


def count(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Count images and patients by some columns."""
    grouped = table.groupby(by)["patient"]
    return grouped.agg(images="size", patients="nunique").reset_index()


def files(table: pd.DataFrame) -> pd.DataFrame:
    """Describe the files of each label: what gives it away before a pixel is read."""
    rows = {}
    for label, part in table.groupby("label"):
        sizes = part["size"].value_counts()
        rows[label] = {
            "images": len(part),
            "JPEG": int((part["format"] == "JPEG").sum()),
            "PNG": int((part["format"] == "PNG").sum()),
            "size known": int(sizes.sum()),
            "different sizes": len(sizes),
            "commonest size": sizes.index[0],
            "its share": sizes.iloc[0] / sizes.sum(),
            "median kB": round(part["bytes"].median() / 1000),
        }
    return pd.DataFrame(rows).T.infer_objects().rename_axis("label")


def told_by_size(known: pd.DataFrame) -> int:
    """Count the files that one rule, 'of the controls' size: not COVID-19', names rightly."""
    ill = known["label"] == "covid"
    return int((known["size"].isin(known.loc[~ill, "size"]) != ill).sum())


def who() -> pd.DataFrame:
    """Measure what age, sex and view tell of COVID-19 against healthy in `open`, without a film."""
    table = sources.manifest("open").query("label in ['healthy', 'covid']")
    ages = table.dropna(subset="age").groupby(["patient", "label"])["age"].mean().reset_index()
    ill = (ages["label"] == "covid").astype(int)
    scores = metrics.binary_scores(ill, ages["age"] / 100, patients=ages["patient"])
    rule = {"fact": "age: the older, the likelier", **scores.loc["auc", ["low", "high"]]}
    rule |= {"auc": scores.loc["auc", "value"], "patients": len(ages)}
    told = shortcuts.who_they_are(table, ["healthy", "covid"]).drop(columns=["classes", "told"])
    return pd.concat([pd.DataFrame([rule])[["fact", "auc", "low", "high", "patients"]], told])


def knob(patients: int) -> pd.DataFrame:
    """Measure how far the phantom's knob makes the scanner give the label away."""
    rows = []
    for level in KNOB:
        cohort = phantom.make_cohort(patients, (1, 1), confounding=level, size=phantom.SMALLEST)
        rows.append((level, len(cohort), shortcuts.association(cohort, "scanner")[1]))
    return pd.DataFrame(rows, columns=["confounding", "patients", "Cramér's V, scanner and label"])


def machines() -> pd.DataFrame:
    """List the phantom's scanners."""
    shown = ("format", "height", "width", "portable", "border", "marker", "print_lines")
    rows = {
        name: {key: getattr(one, key) for key in shown} for name, one in scanner.SCANNERS.items()
    }
    return pd.DataFrame(rows).T.infer_objects().rename_axis("scanner")


def measures() -> int:
    """Count the measures that are drawn for a phantom's body and for its pose."""
    return len(thorax.PATIENT) + len(thorax.POSE)


def shared() -> int:
    """Count the patients who stand in both manifests."""
    inside, outside = (set(sources.manifest(name)["patient"]) for name in ("open", "external"))
    return len(inside & outside)
