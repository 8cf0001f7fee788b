"""Figures of the audit: leaks, shortcuts, another hospital, and what helps."""

from __future__ import annotations

import textwrap
from pathlib import PurePath

import numpy as np

from cxrlib.plots import style
from cxrlib.plots.images import image_grid
from cxrlib.plots.scores import reliability_diagram
from cxrlib.plots.style import finish, interval, need, plain, score_rows, subplots
from cxrlib.shortcuts import leaks, views

ACROSS = 22  # characters of small text that fit above a picture of 1.9 inches
KINDS = {"true": (style.BLUE, "o"), "permuted": (style.VERMILLION, "s")}
SIDES = {"inside": (style.BLUE, "o", -0.14), "outside": (style.VERMILLION, "s", 0.14)}
DROPS = {
    "AUC": "auc",
    "accuracy at 0.5": "accuracy",
    "sensitivity\nat the threshold": "sensitivity",
    "specificity\nat the threshold": "specificity",
}
HEADLINE_COLOURS = {
    "paper's protocol": style.ORANGE,
    "clean protocol": style.BLUE,
    "lungs covered": style.BLACK,
    "another hospital": style.PURPLE,
}


def leakage_plot(table, title="", note=""):
    """Draw each repeat of ``leaks.leakage`` as a dot, with true and with permuted labels."""
    need(table, "table", "protocol", "labels", "chance", "balanced accuracy")
    protocols = [name for name in leaks.PROTOCOLS if name in set(table["protocol"])]
    figure, axis = subplots(height=0.62 * len(protocols) + 1.7)
    for place, (labels, (colour, marker)) in enumerate(KINDS.items()):
        for row, protocol in enumerate(protocols):
            chosen = (table["protocol"] == protocol) & (table["labels"] == labels)
            found = table.loc[chosen, "balanced accuracy"].to_numpy()
            spread = np.linspace(-0.1, 0.1, len(found))  # equal scores must not hide each other
            y = row - 0.18 + 0.36 * place
            said = f"{labels} labels" if row == 0 else None
            axis.plot(found, y + spread, marker, color=colour, alpha=0.45, markersize=4)
            axis.plot([found.mean()] * 2, [y - 0.15, y + 0.15], color=colour, linewidth=3)
            axis.plot([], [], marker, color=colour, label=said)
            _beside(axis, y, f"{found.mean():.2f}", colour)
    axis.axvline(table["chance"].iloc[0], linestyle=":", color=style.BLACK, label="chance")
    axis.text(1.03, -0.62, "mean", color=style.GREY, fontsize=style.SMALL)
    score_rows(axis, protocols, "balanced accuracy of one nearest neighbour", "protocol")
    axis.set_ylim(len(protocols) - 0.45, -0.55)
    note = f"A dot is one division; bars are means.\n{note}"
    return finish(figure, title, note, predictions=True, legend=axis)


def shortcut_plot(table, title="What tells the classes apart", note=""):
    """Draw the area under the curve of each view, with its interval, as ``shortcuts.shortcuts``."""
    need(table, "table", "view", "auc", "low", "high")
    figure, axis = subplots(height=0.38 * len(table) + 1.5)
    for row, found in enumerate(table.itertuples()):
        _, colour, marker = _view_style(found.view)
        interval(axis, row, (found.auc, found.low, found.high), colour, marker, size=7)
        _beside(axis, row, f"{found.auc:.2f}", colour)
    for said, colour, marker in dict.fromkeys(map(_view_style, table["view"])):
        axis.plot([], [], marker, color=colour, label=said)
    axis.axvline(0.5, linestyle=":", color=style.GREY, label="chance")
    least = min(0.4, float(np.nanmin(table["low"])) - 0.02)
    score_rows(axis, table["view"], "area under the ROC curve, 95 % interval", "view", least)
    return finish(figure, title, note, predictions=True, legend=axis)


def drop_plot(external, title="One recipe, inside and at another hospital", note=""):
    """Draw scores inside and outside with intervals, and the AUC's drop.

    `external` is as ``hospitals.external_validation`` gives it.
    """
    figure, axis = subplots(height=0.7 * len(DROPS) + 1.5)
    for part, (colour, marker, shift) in SIDES.items():
        at = external.at_threshold.query("part == @part").set_index("metric")
        for row, metric in enumerate(DROPS.values()):
            scores = getattr(external, part) if row < 2 else at
            ends = scores.loc[metric, ["value", "low", "high"]]
            interval(axis, row + shift, ends, colour, marker, None if row else part)
            _beside(axis, row + shift, f"{ends['value']:.2f}", colour)
    axis.axvline(0.5, linestyle=":", color=style.GREY, label="a coin (AUC)")
    score_rows(axis, DROPS, "score, 95 % interval", "metric")
    auc = external.drop.loc["auc"]
    said = (
        f"Drop of the AUC: {auc['drop']:+.3f} [{auc['low']:+.3f}, {auc['high']:+.3f}]. The "
        f"threshold, {external.threshold:.3f}, was chosen inside; so the sensitivity there is no "
        f"result.\n{note}"
    )
    return finish(figure, title, said, predictions=True, legend=axis)


def calibration_plot(external, title="What a probability promises", note=""):
    """Draw calibration inside, outside, and outside after recalibration."""
    errors = external.quality["ece"]
    tables = {f"{name} (ECE {errors[name]:.3f})": t for name, t in external.calibration.items()}
    return reliability_diagram(tables, title, note)


def remedy_plot(table, title="Remedies, tried at another hospital", note=""):
    """Draw the AUC inside and outside for each of ``remedies.remedies``.

    A remedy that could not be tried keeps its row.
    """
    need(table, "table", "remedy", "inside auc", "outside auc", "gain", "gain low")
    figure, axis = subplots(height=0.5 * len(table) + 1.7, width=8.4)
    for row, (_, found) in enumerate(table.iterrows()):
        for part, (colour, marker, shift) in SIDES.items():
            ends = found[[f"{part} auc", f"{part} low", f"{part} high"]].to_numpy(float)
            label = f"{part}, with interval" if row == 0 else None
            interval(axis, row + shift, ends, colour, marker, label, size=5)
        _beside(axis, row, _gain(found))
    axis.axvline(0.5, linestyle=":", color=style.GREY, label="chance")
    axis.text(1.03, -0.75, "gain outside", fontsize=style.SMALL, color=style.GREY)
    least = min(0.4, float(np.nanmin(table[["inside low", "outside low"]])) - 0.02)
    names = [plain(name) for name in table["remedy"]]
    score_rows(axis, names, "area under the ROC curve", "remedy", least)
    return finish(figure, title, note, predictions=True, legend=axis)


def pairs_plot(cohort, pairs, most=6, title="Images that look the same", note=""):
    """Show the first pairs of ``duplicates.near_duplicates``, at most so many, side by side."""
    need(pairs, "pairs", "image", "other", "similarity", "exact")
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
    return finish(figure, title, f"Not shown: {left} more.\n{note}" if left else note)


def loudest_plot(cohort, found, title="Films that speak loudest", note=""):
    """Show the films of ``shortcuts.loudest``, what the view hides dimmed, and where it lies."""
    need(found.films, "films", "class", "image", "score")
    row = {name: number for number, name in enumerate(cohort.table["image"])}
    groups = list(found.films.groupby("class", sort=False))
    across = max(len(films) for _, films in groups) + (found.squares is not None)
    figure, axes = subplots(len(groups), across, 1.75 * len(groups) + 1.1, 11, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for line, (name, films) in zip(axes, groups, strict=True):
        line[0].set_ylabel(plain(textwrap.fill(str(name), ACROSS)), fontsize=style.SMALL)
        for axis, film in zip(line, films.itertuples(), strict=False):
            image = cohort.images[row[film.image]]
            shown = views.visible(found.view, len(image)) if found.view != "file" else True
            image = np.where(shown, image, image * 0.35)
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            short = film.image if len(film.image) <= ACROSS else f"…{film.image[-ACROSS + 1 :]}"
            axis.set_title(plain(f"{short}\n{film.score:+.2f}"), fontsize=7)
            if found.view == "file":
                facts = cohort.table.loc[row[film.image], list(views.FACTS)]
                axis.set_xlabel(" ".join(map(str, facts)), fontsize=7)
    if found.squares is not None:
        axis = axes[0, -1]
        drawn = axis.imshow(found.squares, cmap="viridis", vmin=0.5, vmax=1)
        axis.set_title("where it lies", fontsize=style.SMALL)
        axis.spines[:].set_visible(True)
        bar = figure.colorbar(drawn, ax=axis, location="bottom", shrink=0.9)
        bar.set_label("AUC of one square", fontsize=7)
        bar.ax.tick_params(labelsize=7)
    score = "The number is by how much the film's own class was ahead. "
    return finish(figure, title, f"{found.said}\n{score}{note}", predictions=True)


def odd_plot(cohort, found, most=24, title="Films unlike the rest, and why", note=""):
    """Show films of ``shortcuts.odd_films``, `most` in all: each with label, source and reason."""
    need(found, "found", "image", "label", "source", "reason", "score")
    shown = found.groupby("label").head(max(1, most // found["label"].nunique())).head(most)
    row = {name: number for number, name in enumerate(cohort.table["image"])}
    films = [cohort.images[row[name]] for name in shown["image"]]
    titles = [f"{film.label}, {film.source}: {film.reason}" for film in shown.itertuples()]
    left = len(found) - len(shown)
    return image_grid(films, titles, 6, title, f"Not shown: {left} more.\n{note}" if left else note)


def views_plot(cohort, title="What a probe sees", note=""):
    """Show what each view leaves of the first film of each of two labels."""
    labels = cohort.labels[:2]
    need(labels, f"{cohort.name}: labels")
    down, across = len(labels), len(views.VIEWS)
    figure, axes = subplots(down, across, 1.55 * down + 0.8, 10, squeeze=False)
    for line, label in zip(axes, labels, strict=True):
        number = int((cohort.table["label"] == label).argmax())
        for axis, view in zip(line, views.VIEWS, strict=True):
            _show_view(axis, cohort, number, view)
        line[0].set_ylabel(plain(label), fontsize=style.SMALL)
    for axis, view in zip(axes[0], views.VIEWS, strict=True):
        axis.set_title(view, fontsize=style.SMALL)
    return finish(figure, title, note)


def headline_plot(table, title="One model, four scores", note=""):
    """Draw ``headline.scores``: one model in four conditions, with 95 % intervals by patient."""
    need(table, "table", "condition", "metric", "value", "low", "high", "patients", "baseline")
    conditions = list(table["condition"].unique())
    figure, axes = subplots(1, 2, 0.5 * len(conditions) + 1.6, sharey=True)
    for axis, metric in zip(axes, ("accuracy", "auc"), strict=True):
        rows = table[table["metric"] == metric].set_index("condition").loc[conditions]
        for place, (condition, row) in enumerate(rows.iterrows()):
            colour = HEADLINE_COLOURS.get(condition, style.BLUE)
            interval(axis, place, row[["value", "low", "high"]], colour, "o", width=3, size=8)
            axis.text(row["value"], place - 0.2, f"{row['value']:.2f}", ha="center", fontsize=10)
        axis.plot(rows["baseline"], range(len(rows)), "|", color=style.GREY, markersize=16,
                  label="a model that never looks")  # fmt: skip
        axis.set(xlim=(0.35, 1.03), xlabel=f"{metric.replace('auc', 'AUC')}, 95 % interval")
        axis.set_ylim(len(conditions) - 0.5, -0.6)
        axis.grid(axis="x", alpha=0.3)
    patients = table.drop_duplicates("condition").set_index("condition")["patients"]
    labels = [f"{name}\n({patients[name]} patients)" for name in conditions]
    axes[0].set_yticks(range(len(conditions)), labels)
    axes[0].set_ylabel("tested under")
    return finish(figure, title, note, predictions=True, legend=axes[0])


def _view_style(view) -> tuple[str, str, str]:
    """Say in words what a view leaves, with its colour and mark."""
    if view == "whole image":
        return view, style.BLACK, "D"
    blind = view in views.WITHOUT_LUNGS
    return ("sees no lung", style.ORANGE, "s") if blind else ("sees no detail", style.BLUE, "o")


def _beside(axis, y, said, colour=style.BLACK) -> None:
    """Write a number right of its row."""
    axis.text(1.03, y, said, color=style.ink(colour), va="center", fontsize=style.SMALL)


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
        axis.text(0.5, 0.5, plain(said), ha="center", va="center", fontsize=style.SMALL)
        axis.set_box_aspect(1)
        return
    if view == "histogram":
        counts = views.features(cohort.take([number]), view)[0] ** 2
        axis.bar(range(len(counts)), counts, width=1, color=style.PURPLE)
        axis.set_box_aspect(1)
        return
    if view == "thumbnail":
        image = views.features(cohort.take([number]), view)[0].reshape(8, 8)
    else:
        image = views.cover(image[None], view)[0]
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
