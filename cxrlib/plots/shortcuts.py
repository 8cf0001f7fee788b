"""Figures of the audit: leaks, shortcuts, another hospital, and what helps."""

from __future__ import annotations

import textwrap
from pathlib import PurePath

import numpy as np

from cxrlib.plots.scores import reliability_diagram
from cxrlib.plots.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    PURPLE,
    SMALL,
    VERMILLION,
    finish,
    interval,
    legend_above,
    need_columns,
    need_items,
    plain,
    score_rows,
    subplots,
)
from cxrlib.shortcuts import leaks, views

ACROSS = 22  # characters of small text that fit above a picture of 1.9 inches
KINDS = {"true": (BLUE, "o"), "permuted": (VERMILLION, "s")}
SIDES = {"inside": (BLUE, "o", -0.14), "outside": (VERMILLION, "s", 0.14)}  # and the row's shift
HEADLINE_COLOURS = {
    "paper's protocol": ORANGE,
    "clean protocol": BLUE,
    "lungs covered": BLACK,
    "another hospital": PURPLE,
}


def leakage_plot(table, metric="balanced accuracy", title="", note=""):
    """Draw each repeat of four protocols as a dot, with true and with permuted labels.

    Parameters
    ----------
    table : DataFrame
        As ``leaks.leakage`` gives it.
    metric : str
        ``balanced accuracy``, or another column.
    """
    need_columns(table, ["protocol", "labels", "repeat", "chance", metric], "table")
    protocols = [name for name in leaks.PROTOCOLS if name in set(table["protocol"])]
    need_items(protocols, "table: known protocols")
    figure, axis = subplots(height=0.62 * len(protocols) + 1.7)
    for place, (labels, (colour, marker)) in enumerate(KINDS.items()):
        for row, protocol in enumerate(protocols):
            chosen = (table["protocol"] == protocol) & (table["labels"] == labels)
            found = table.loc[chosen, metric].to_numpy()
            if not len(found):
                continue
            spread = np.linspace(-0.1, 0.1, len(found))  # equal scores must not hide each other
            y = row - 0.18 + 0.36 * place
            said = f"{labels} labels" if row == 0 else None
            axis.plot(found, y + spread, marker, color=colour, alpha=0.45, markersize=4)
            axis.plot([found.mean()] * 2, [y - 0.15, y + 0.15], color=colour, linewidth=3)
            axis.plot([], [], marker, color=colour, label=said)
            axis.text(1.03, y, f"{found.mean():.2f}", color=colour, va="center", fontsize=SMALL)
    if metric == "balanced accuracy":  # where chance is known
        axis.axvline(table["chance"].iloc[0], linestyle=":", color=BLACK, label="chance")
    axis.text(1.03, -0.62, "mean", color=GREY, fontsize=SMALL)
    score_rows(axis, protocols, f"{metric} of one nearest neighbour", "protocol")
    axis.set_ylim(len(protocols) - 0.45, -0.55)
    legend_above(figure, axis, title)
    note = "\n".join(["A dot is one division; bars are means.", note])
    return finish(figure, "", note, predictions=True)


def shortcut_plot(table, title="What tells the classes apart", note=""):
    """Draw the area under the curve of each view, with its interval.

    Parameters
    ----------
    table : DataFrame
        As ``shortcuts.shortcuts`` gives it: ``view``, ``auc``, ``low``, ``high``. The rows of
        ``shortcuts.sources_within_class`` will do too (``label`` in place of ``view``).
    """
    name = "view" if "view" in table else "label"
    need_columns(table, [name, "auc", "low", "high"], "table")
    names = [str(each) for each in table[name]]
    figure, axis = subplots(height=0.38 * len(names) + 1.5)
    for row, (each, ends) in enumerate(
        zip(names, table[["auc", "low", "high"]].to_numpy(float), strict=True)
    ):
        colour, marker = _view_style(each)[1:]
        interval(axis, row, ends, colour, marker, size=7)
        axis.text(1.03, row, f"{ends[0]:.2f}", va="center", fontsize=SMALL, color=colour)
    if set(names) & set(views.VIEWS):
        for said, colour, marker in dict.fromkeys(map(_view_style, names)):
            axis.plot([], [], marker, color=colour, label=said)
    axis.axvline(0.5, linestyle=":", color=GREY, label="chance")
    least = min(0.4, float(np.nanmin(table["low"])) - 0.02)
    score_rows(axis, names, "area under the ROC curve, with interval", name, least)
    legend_above(figure, axis, title)
    return finish(figure, "", note, predictions=True)


def drop_plot(external, title="The same model inside and at another hospital", note=""):
    """Draw scores inside and outside with their intervals, and the drop of two of them.

    Parameters
    ----------
    external : External
        As ``transfer.external_validation`` gives it.
    """
    rows = _drop_rows(external)
    figure, axis = subplots(height=0.7 * len(rows) + 1.5)
    for row, parts in enumerate(rows.values()):
        for part, (colour, marker, shift) in SIDES.items():
            label = part if row == 0 else None
            interval(axis, row + shift, parts[part], colour, marker, label)
            said = f"{parts[part]['value']:.2f}"
            axis.text(1.03, row + shift, said, color=colour, va="center", fontsize=SMALL)
    axis.axvline(0.5, linestyle=":", color=GREY, label="a coin (AUC)")
    score_rows(axis, list(rows), "score, with interval", "metric")
    legend_above(figure, axis, title)
    auc = external.drop.loc["auc"]
    said = (
        f"Drop of the AUC: {auc['drop']:+.3f} [{auc['low']:+.3f}, {auc['high']:+.3f}]. The "
        f"threshold, {external.threshold:.3f}, was chosen inside; so the sensitivity there is no "
        "result."
    )
    return finish(figure, "", "\n".join([said, note]), predictions=True)


def calibration_plot(external, title="What a probability promises", note=""):
    """Draw calibration inside, outside, and outside after recalibration.

    Parameters
    ----------
    external : External
    """
    errors = external.quality["ece"]
    tables = {f"{name} (ECE {errors[name]:.3f})": t for name, t in external.calibration.items()}
    return reliability_diagram(tables, title, note)


def remedy_plot(table, title="What helps at another hospital", note=""):
    """Draw the area under the curve inside and outside for each remedy.

    Parameters
    ----------
    table : DataFrame
        As ``remedies.remedies`` gives it. A remedy that could not be tried keeps its row.
    """
    need_columns(table, ["remedy", "inside auc", "outside auc", "gain", "gain low"], "table")
    figure, axis = subplots(height=0.5 * len(table) + 1.7, width=8.4)
    for row, (_, found) in enumerate(table.iterrows()):
        for part, (colour, marker, shift) in SIDES.items():
            ends = found[[f"{part} auc", f"{part} low", f"{part} high"]].to_numpy(float)
            label = f"{part}, with interval" if row == 0 else None
            interval(axis, row + shift, ends, colour, marker, label, size=5)
        axis.text(1.03, row, _gain(found), va="center", fontsize=SMALL)
    axis.axvline(0.5, linestyle=":", color=GREY, label="chance")
    axis.text(1.03, -0.75, "gain outside", fontsize=SMALL, color=GREY)
    least = min(0.4, float(np.nanmin(table[["inside low", "outside low"]])) - 0.02)
    names = [plain(name) for name in table["remedy"]]
    score_rows(axis, names, "area under the ROC curve", "remedy", least)
    legend_above(figure, axis, title)
    return finish(figure, "", note, predictions=True)


def pairs_plot(cohort, pairs, most=6, title="Images that look the same", note=""):
    """Show pairs of images side by side.

    Parameters
    ----------
    cohort : Cohort
    pairs : DataFrame
        As ``duplicates.near_duplicates`` gives it.
    most : int
        Pairs shown, from the top.
    """
    need_columns(pairs, ["image", "other", "similarity", "exact"], "pairs")
    row = {name: number for number, name in enumerate(cohort.table["image"])}
    shown = pairs.head(most)
    across = min(2, len(shown))
    down = -(-len(shown) // across)
    height = 2.7 * down + 0.6  # with room for long names in several lines
    figure, axes = subplots(down, 2 * across, height, 3.8 * across, squeeze=False)
    figure.get_layout_engine().set(h_pad=0.1)
    for axis in axes.flat:
        axis.axis("off")
    for number, (_, pair) in enumerate(shown.iterrows()):
        for side, name in enumerate((pair["image"], pair["other"])):
            axis = axes[number // across, 2 * (number % across) + side]
            facts = cohort.table.iloc[row[name]]
            axis.imshow(cohort.images[row[name]], cmap="gray", vmin=0, vmax=255)
            said = "identical" if pair["exact"] else f"similarity {pair['similarity']:.2f}"
            first = f"pair {number + 1}: {said}" if side == 0 else ""
            said = "\n".join([first, *_named(facts["label"], facts["patient"], name)])
            axis.set_title(plain(said), fontsize=7.5, loc="left")
    left = len(pairs) - len(shown)
    more = f"Not shown: {left} more." if left else ""
    return finish(figure, title, "\n".join([more, note]))


def views_plot(cohort, rows=None, seen=tuple(views.VIEWS), title="What a probe sees", note=""):
    """Show what each view leaves of some films.

    Parameters
    ----------
    cohort : Cohort
    rows : sequence of int, optional
        Which images; by default the first of each of two labels.
    seen : sequence of str
        Keys of :data:`cxrlib.shortcuts.views.VIEWS`.
    """
    need_items(seen, "seen")
    label = cohort.table["label"].reset_index(drop=True)
    if rows is None:
        rows = [int((label == name).argmax()) for name in cohort.labels[:2]] or [0]
    need_items(rows, "rows")
    figure, axes = subplots(len(rows), len(seen), 1.55 * len(rows) + 0.8, 10, squeeze=False)
    for axis, view in zip(axes[0], seen, strict=True):
        axis.set_title(view, fontsize=SMALL)
    for line, number in zip(axes, rows, strict=True):
        for axis, view in zip(line, seen, strict=True):
            _show_view(axis, cohort, int(number), view)
        line[0].set_ylabel(plain(label[number]), fontsize=SMALL)
    return finish(figure, title, note)


def headline_plot(table, title="One model, four scores", note=""):
    """Draw what one model scores in the four conditions, with 95 % intervals by patient.

    Parameters
    ----------
    table : DataFrame
        As ``headline.scores`` gives it.
    """
    wanted = ["condition", "metric", "value", "low", "high", "patients", "baseline"]
    need_columns(table, wanted, "table")
    conditions = list(table["condition"].unique())
    figure, axes = subplots(1, 2, 0.5 * len(conditions) + 1.6, sharey=True)
    for axis, metric in zip(axes, ("accuracy", "auc"), strict=True):
        rows = table[table["metric"] == metric].set_index("condition").loc[conditions]
        for place, (condition, row) in enumerate(rows.iterrows()):
            colour = HEADLINE_COLOURS.get(condition, BLUE)
            interval(axis, place, row[["value", "low", "high"]], colour, "o", width=3, size=8)
            axis.text(row["value"], place - 0.2, f"{row['value']:.2f}", ha="center", fontsize=10)
        axis.plot(rows["baseline"], range(len(rows)), "|", color=GREY, markersize=16,
                  label="a model that never looks")  # fmt: skip
        axis.set(xlim=(0.35, 1.03), xlabel=f"{metric.replace('auc', 'AUC')}, 95 % interval")
        axis.set_ylim(len(conditions) - 0.5, -0.6)
        axis.grid(axis="x", alpha=0.3)
    patients = table.drop_duplicates("condition").set_index("condition")["patients"]
    labels = [f"{name}\n({patients[name]} patients)" for name in conditions]
    axes[0].set_yticks(range(len(conditions)), labels)
    axes[0].set_ylabel("tested under")
    legend_above(figure, axes[0], title)
    return finish(figure, "", note, predictions=True)


def _view_style(view) -> tuple[str, str, str]:
    """Say in words what a view leaves, with its colour and mark."""
    if view == "whole image":
        return view, BLACK, "D"
    blind = view in views.WITHOUT_LUNGS
    return ("sees no lung", ORANGE, "s") if blind else ("sees no detail", BLUE, "o")


def _drop_rows(external) -> dict:
    """Give value, low and high (a Series) by metric and part."""
    ends = ["value", "low", "high"]
    sides = {part: getattr(external, part)[ends] for part in SIDES}
    at = external.at_threshold.set_index(["metric", "part"])[ends]
    rows = {
        "AUC": {part: sides[part].loc["auc"] for part in SIDES},
        "accuracy at 0.5": {part: sides[part].loc["accuracy"] for part in SIDES},
    }
    for metric in ("sensitivity", "specificity"):
        rows[f"{metric}\nat the threshold"] = {part: at.loc[(metric, part)] for part in SIDES}
    return rows


def _gain(found) -> str:
    if np.isnan(found["gain"]):
        return "cannot be tried"
    if found["gain low"] == found["gain high"] == 0:
        return "the same model"
    return f"{found['gain']:+.2f} [{found['gain low']:+.2f}, {found['gain high']:+.2f}]"


def _named(label, patient, name) -> list[str]:
    """Word whose film it is, in lines that end before the next picture begins.

    The patient is left out where it is only the film's name again. The middle is cut out of a
    long name: films of a series differ at their end.
    """
    stem = str(PurePath(name).with_suffix("")) if name else ""
    known = str(patient) not in (str(name), stem, PurePath(stem).name)
    lines, half = [], ACROSS - 2
    for part in map(str, [label, patient, name] if known else [label, name]):
        short = part if len(part) <= 2 * half + 2 else f"{part[:half]}…{part[-half:]}"
        lines += textwrap.wrap(short, ACROSS, break_on_hyphens=False)
    return lines


def _show_view(axis, cohort, number, view) -> None:
    """Draw what a view leaves of one image: pixels, bars, or the facts of the file."""
    image = cohort.images[number]
    axis.set(xticks=[], yticks=[])
    if view == "file":
        facts = cohort.table.iloc[number]
        known = [str(facts[name]) for name in ("format", "height", "width") if name in facts]
        said = "\n".join(known) or "unknown"
        axis.text(0.5, 0.5, plain(said), ha="center", va="center", fontsize=SMALL)
        axis.set_box_aspect(1)
        return
    if view == "histogram":
        counts = views.features(cohort.take([number]), view)[0] ** 2
        axis.bar(range(len(counts)), counts, width=1, color=PURPLE)
        axis.set_box_aspect(1)
        return
    if view == "thumbnail":
        image = views.features(cohort.take([number]), view)[0].reshape(8, 8)
    else:
        image = views.cover(image[None], view)[0]
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
