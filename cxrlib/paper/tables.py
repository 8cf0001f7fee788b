"""Table I and Table II: ours beside the paper's; and the verdicts on both."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from cxrlib import metrics
from cxrlib.paper import claims
from cxrlib.paper.check import MEASURES, describe, judge, measure
from cxrlib.paper.verdicts import INCOMPARABLE, SEEDS, Verdict
from cxrlib.results import Result

OURS = {"paper": "ours, the paper's protocol", "clean": "ours, clean protocol"}
LABELS = {"healthy": "Healthy", "pneumonia": "Pneumonia", "covid": "COVID-19"}


@dataclass
class Row:
    """A table row: its heading, its cells, and what sets it apart (a CSS class)."""

    heading: str
    cells: list[tuple[str, str]]  # value, and what stands small below it
    kind: str = ""


def table1(found: dict[str, Result]) -> list[tuple[str, list[Row]]]:
    """Table I: for each model what the paper prints, and ours under both protocols."""
    printed = claims.load()
    printed = printed[printed["place"] == "Table I"]
    ours, groups = {one.model_number: one for one in found.values()}, []
    for number, name in enumerate(claims.MODELS, 1):
        lines = printed[printed["model"] == name].set_index("metric")["printed"]
        cells = [(lines[measure], "") for measure in MEASURES]
        rows = [Row("the paper prints", cells + [("", "")] * 3, "paper")]
        scored = ours[number].scores if number in ours else {}
        rows += [_scores_row(ours[number], protocol) for protocol in OURS if protocol in scored]
        groups.append((name, rows))
    return groups


def _scores_row(one: Result, protocol: str) -> Row:
    scores = one.scores[protocol]
    names = list(MEASURES)
    if "precision" not in scores.index:  # several classes: COVID-19 against the rest, as the paper
        names = ["accuracy", *(f"{measure} covid" for measure in MEASURES[1:])]
    cells = [_interval(scores.loc[name]) if name in scores.index else ("–", "") for name in names]
    sizes = [(size, "") for size in _test_size(one, protocol)]
    verdict = ("yes", "") if one.comparable else ("not comparable", one.why_not_comparable)
    return Row(OURS[protocol], [*cells, *sizes, verdict], "ours")


def _interval(score: pd.Series) -> tuple[str, str]:
    """Word a value and its 95 % interval."""
    if pd.isna(score["value"]):
        return "undefined", ""
    interval = "" if pd.isna(score["low"]) else f"{score['low']:.3f} to {score['high']:.3f}"
    return f"{score['value']:.3f}", interval


def _test_size(one: Result, protocol: str) -> tuple[str, str]:
    """Test images and their patients."""
    if one.predictions is None:
        return str(int(one.scores[protocol]["n"].max())), "–"
    mine = one.predictions[one.predictions["protocol"] == protocol]
    return str(len(mine)), str(mine["patient"].nunique())


def table2(found: dict[str, Result]) -> list[tuple[str, list[Row]]]:
    """Table II: of each actual class, images and percentages; below the right one its interval.

    Intervals count patients: the paper's are the fewest that the images can come from.
    """
    printed = claims.table2(counts=True)
    people = {label: claims.claim(f"table2.{label}.{label}")["patients"] for label in printed.index}
    groups = [("The paper prints", _table2_rows(claims.table2(), printed, people, "paper"))]
    one = {one.model_number: one for one in found.values()}.get(4)
    if one is not None and one.predictions is not None:
        for protocol, told in OURS.items():
            matrix = confusion_of(one, protocol)
            if matrix is not None:
                head = told.capitalize() + ("" if one.comparable else " (not comparable)")
                mine = [one.predictions.query("protocol == @protocol")]
                people = {label: measure(mine, label, label).n for label in matrix.index}
                percent = metrics.row_percent(matrix)
                groups.append((head, _table2_rows(percent, matrix, people, "ours")))
    return groups


def _table2_rows(percent: pd.DataFrame, matrix: pd.DataFrame, people: dict, kind: str) -> list[Row]:
    rows = []
    for label, line in percent.iterrows():
        images, *shares = line
        cells = [(str(int(images)), "")]
        for predicted, share in zip(matrix.columns, shares, strict=True):
            right = predicted == label and images > 0
            n = people[label]
            ends = metrics.wilson(matrix.loc[label, label] / images * n, n) if right else ()
            interval = " to ".join(f"{end:.1%}".replace("%", " %") for end in ends)
            cells.append(("–" if pd.isna(share) else f"{share:.1f} %", interval))
        rows.append(Row(LABELS.get(label, str(label)), cells, kind))
    return rows


def verdicts(found: dict[str, Result]) -> tuple[list[Row], list[str]]:
    """Verdicts on the paper's claims; and a sentence for each reason why others have none."""
    judged: dict[str, dict[str, Verdict]] = {}
    for one in found.values():
        for protocol in OURS:
            for name, said in judge([one], protocol).items():
                judged.setdefault(name, {})[protocol] = said
    rows, reasons = [], {}
    for name in claims.load()["id"]:
        mine = judged.get(name, {})
        why = {one.reason for one in mine.values() if one.verdict == INCOMPARABLE}
        for reason in why:
            reasons[reason] = reasons.get(reason, 0) + 1
        if mine and not why:
            rows.append(_verdict_row(name, mine))
    told = [f"{count} claims, because {reason}." for reason, count in reasons.items()]
    return rows, told


def _verdict_row(name: str, mine: dict[str, Verdict]) -> Row:
    cells = [(claims.printed(name), "")]
    for protocol in OURS:
        if protocol not in mine:
            cells += [("–", ""), ("–", "")]
            continue
        _, ours, interval, verdict = describe(mine[protocol])
        why = mine[protocol].reason if mine[protocol].seeds >= SEEDS else ""  # the caption
        cells += [(ours, interval), (verdict, why)]
    return Row(name, cells)


def confusion_of(one: Result, protocol: str) -> pd.DataFrame | None:
    """Confusion matrix of a result under a protocol; None where it has no labelled predictions."""
    mine = one.predictions[one.predictions["protocol"] == protocol]
    if mine.empty or mine["label"].isna().any():
        return None
    return metrics.confusion(mine["label"], mine["predicted"], one.classes)
