"""Every figure of the course. Each function returns a figure; the notebook shows it.

Here are the figures of cohorts and training. Those that show images are in ``imageplots``, those
of scores in ``scoreplots``, the drawings of networks in ``drawings``; sizes and colours in
``style``. All can be called as ``plots.NAME``.

Every function takes a ``note``, written at the figure's foot, for what its reader must know
("synthetic data"), and raises ValueError where there is nothing to draw or a table lacks a column.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxrlib.auditplots import (
    calibration_plot,
    drop_plot,
    headline_plot,
    leakage_plot,
    pairs_plot,
    remedy_plot,
    shortcut_plot,
    views_plot,
)
from cxrlib.drawings import architecture, dense_block, residual_block
from cxrlib.imageplots import (
    augmentations,
    contact_sheet,
    heat_map,
    heat_map_grid,
    image_grid,
    sample_pair,
)
from cxrlib.knobplots import knob_curves
from cxrlib.scoreplots import (
    confusion_matrix,
    precision_recall_curves,
    protocol_comparison,
    reliability_diagram,
    roc_curves,
    score_comparison,
    threshold_curves,
)
from cxrlib.style import (
    FIXED,
    MARKERS,
    SMALL,
    colours,
    finish,
    heat_table,
    legend_above,
    need_columns,
    need_items,
    provenance,
    subplots,
)

__all__ = [
    "architecture",
    "augmentations",
    "calibration_plot",
    "class_counts",
    "confusion_matrix",
    "contact_sheet",
    "dense_block",
    "drop_plot",
    "feature_map",
    "figure2",
    "grey_histograms",
    "grid_accuracy",
    "headline_plot",
    "heat_map",
    "heat_map_grid",
    "image_grid",
    "images_per_patient",
    "knob_curves",
    "leakage_plot",
    "learning_curves",
    "pairs_plot",
    "precision_recall_curves",
    "protocol_comparison",
    "provenance",
    "reliability_diagram",
    "remedy_plot",
    "residual_block",
    "roc_curves",
    "sample_pair",
    "score_comparison",
    "shortcut_plot",
    "splits",
    "threshold_curves",
    "views_plot",
]


def class_counts(cohort, note=""):
    """Count images and patients by label and source, as bars."""
    counts = cohort.counts().reset_index().dropna(subset="label")
    need_items(counts, f"{cohort.name}: labelled images")
    counts = counts.sort_values("label", key=lambda labels: labels.map(cohort.labels.index))
    names = counts["label"].astype(str) + ", " + counts["source"].astype(str)
    figure, axes = subplots(1, 2, 0.45 * len(counts) + 1.3, sharey=True)
    for axis, column in zip(axes, ("images", "patients"), strict=True):
        bars = axis.barh(names, counts[column], color=colours(list(counts["label"])))
        axis.bar_label(bars, fontsize=SMALL, padding=2)
        axis.set(xlabel=column, xlim=(0, counts[column].max() * 1.18))
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel("label, source")
    axes[0].invert_yaxis()
    return finish(figure, cohort.name, note)


def images_per_patient(cohort, note=""):
    """Count how many patients have one image, two images, and so on, by label."""
    table = cohort.table.groupby(["label", "patient"]).size()
    need_items(table, f"{cohort.name}: labelled images")
    counts = table.groupby("label").value_counts().unstack("label", fill_value=0).sort_index()
    counts = counts[cohort.labels]
    figure, axis = subplots()
    width = 0.8 / counts.shape[1]
    for place, (label, colour) in enumerate(zip(counts, colours(list(counts)), strict=True)):
        shift = (place - (counts.shape[1] - 1) / 2) * width
        bars = axis.bar(np.arange(len(counts)) + shift, counts[label], width, color=colour)
        bars.set_label(label)
        axis.bar_label(bars, [str(n) if n else "" for n in counts[label]], fontsize=SMALL)
    axis.set_xticks(range(len(counts)), counts.index)
    axis.set(xlabel="images of one patient", ylabel="patients")
    axis.margins(y=0.1)
    axis.legend()
    return finish(figure, f"{cohort.name}: repeats", note)


def grey_histograms(cohort, by="label", at_most=200, note=""):
    """Compare the grey values of groups of images; a source often gives itself away here.

    Parameters
    ----------
    cohort : Cohort
    by : str
        Column of the table that makes the groups, such as ``label`` or ``source``.
    at_most : int
        Images read of each group, evenly spread over it.
    """
    need_columns(cohort.table, [by], cohort.name)
    groups = cohort.labels if by == "label" else sorted(cohort.table[by].dropna().unique())
    need_items(groups, f"{cohort.name}: {by}")
    figure, axis = subplots()
    for group, colour in zip(groups, colours(groups), strict=True):
        places = np.flatnonzero(cohort.table[by] == group)
        chosen = places[np.linspace(0, len(places) - 1, min(at_most, len(places))).astype(int)]
        counts = sum(np.bincount(cohort.images[int(p)].ravel(), minlength=256) for p in chosen)
        share = 100 * counts.reshape(64, 4).sum(axis=1) / counts.sum()
        axis.stairs(
            share,
            np.arange(0, 257, 4),
            color=colour,
            linewidth=1.8,
            label=f"{group} ({len(chosen)})",
        )
    axis.set(xlabel="grey value (0 black, 255 white)", ylabel="pixels (%)", xlim=(0, 256))
    axis.legend(title=f"{by} (images read)", fontsize=SMALL)
    return finish(figure, f"{cohort.name}: grey values by {by}", note)


def figure2(counts, note=""):
    """Lay CheXpert's labels out as Fig. 2 of the paper: counts and percentages of studies.

    Parameters
    ----------
    counts : DataFrame
        A row for each finding; columns ``positive``, ``uncertain``, ``negative`` (studies), as
        ``claims.figure2()`` gives them.
    """
    answers = ["positive", "uncertain", "negative"]
    need_columns(counts, answers, "counts")
    counts = counts[answers].astype(int)
    percent = 100 * counts.div(counts.sum(axis=1), axis=0)
    said = [
        [f"{c:,} ({p:.2f})" for c, p in zip(*row, strict=True)]
        for row in zip(counts.to_numpy(), percent.to_numpy(), strict=True)
    ]
    figure, axis = subplots(height=0.36 * len(counts) + 1.2)
    heat_table(axis, percent, said, "studies (%)", 0, 100)
    axis.set(xlabel="", ylabel="finding")
    axis.set_xlabel("label as counted (negative: no, or not mentioned): studies (%)")
    return finish(figure, "CheXpert's labels (as Fig. 2)", note)


def splits(parts, note=""):
    """Count images and patients of each label in the three parts of a split.

    Parameters
    ----------
    parts : Parts
        With the cohorts ``train``, ``validation`` and ``test``.
    """
    names = ("train", "validation", "test")
    tables = [getattr(parts, name).table for name in names]
    labels = list(dict.fromkeys(label for name in names for label in getattr(parts, name).labels))
    figure, axes = subplots(1, 3, 3.4)
    for axis, (unit, column) in zip(
        axes, {"images": "image", "originals": "origin", "patients": "patient"}.items(), strict=True
    ):
        bottom = np.zeros(3)
        for label, colour in zip(labels, colours(labels), strict=True):
            counts = [table.loc[table["label"] == label, column].nunique() for table in tables]
            bars = axis.bar(names, counts, bottom=bottom, color=colour, label=label)
            room = 0.07 * max(table[column].nunique() for table in tables)
            said = [str(n) if n > room else "" for n in counts]
            axis.bar_label(bars, said, label_type="center", fontsize=SMALL)
            bottom += counts
        axis.set(ylabel=unit, xlabel="part")
        axis.margins(y=0.12)
        axis.yaxis.get_major_locator().set_params(integer=True)
        for place, total in enumerate(bottom):
            axis.text(place, total, f"{total:.0f}", ha="center", va="bottom", fontsize=SMALL)
    legend_above(figure, axes[0], "The split")
    return finish(figure, "", note)


def learning_curves(history, title="", metric="accuracy", note=""):
    """Draw loss and score against epochs, on training and validation data.

    Parameters
    ----------
    history : DataFrame or dict of lists
        Columns ``loss``, ``val_loss``, the metric and ``val_`` metric; ``epoch`` if it does not
        count from 1. A Keras ``history.history`` will do.
    metric : str
        Such as ``accuracy``.
    """
    need_columns(history, ["loss", "val_loss", metric, f"val_{metric}"], "history")
    table = pd.DataFrame(history)
    epochs = table["epoch"] if "epoch" in table else np.arange(1, len(table) + 1)
    figure, axes = subplots(1, 2, 3.3)
    for axis, column in zip(axes, ("loss", metric), strict=True):
        for name, part, style in (
            ("training", column, "--o"),
            ("validation", f"val_{column}", "-s"),
        ):
            axis.plot(epochs, table[part], style, color=FIXED[name], label=name, markersize=3.5)
        trained, held = table[[column, f"val_{column}"]].iloc[-1]
        last = np.max(epochs)
        axis.plot([last, last], [trained, held], color="black", linewidth=1)
        axis.set(xlabel="epoch", ylabel=column)
        axis.set_title(f"training minus validation: {trained - held:+.3f}", fontsize=10)
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[1].legend(fontsize=SMALL)
    return finish(figure, title, note)


def grid_accuracy(table, title="", note=""):
    """Draw the search of Fig. 5: validation accuracy by hidden layers and neurons, twice.

    Parameters
    ----------
    table : DataFrame
        Columns ``layers``, ``neurons``, ``val_accuracy`` (0 to 1). Where it has several epochs
        (column ``epoch``), the last of each head counts.
    """
    need_columns(table, ["layers", "neurons", "val_accuracy"], "table")
    if "epoch" in table:
        table = table.sort_values("epoch").groupby(["layers", "neurons"], as_index=False).last()
    if table.duplicated(["layers", "neurons"]).any():
        raise ValueError("table has several rows for the same layers and neurons; choose one each.")
    wide = table.pivot(index="layers", columns="neurons", values="val_accuracy")
    figure, (left, right) = subplots(1, 2, 3.5, 8)
    said = [[f"{v:.3f}" for v in row] for row in wide.to_numpy()]
    heat_table(left, wide, said, unit="")
    left.set(xlabel="neurons per layer", ylabel="hidden layers", title="validation accuracy")
    left.title.set_fontsize(10)
    chosen = colours([str(depth) for depth in wide.index])
    for (depth, row), colour, marker in zip(wide.iterrows(), chosen, MARKERS, strict=False):
        right.plot(range(len(row)), row, marker=marker, color=colour, label=str(depth))
    right.set_xticks(range(wide.shape[1]), wide.columns)
    right.set(xlabel="neurons per layer", ylabel="validation accuracy")
    beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
    right.legend(title="hidden\nlayers", fontsize=SMALL, **beside)
    return finish(figure, title, note)


def feature_map(features, labels, title="", names=("component 1", "component 2"), note=""):
    """Scatter images by two features, such as the first principal components.

    Parameters
    ----------
    features : ndarray, shape (n, 2)
    labels : sequence of str, length n
        Class, source or scanner of each image.
    names : (str, str)
        What the two axes are.
    """
    features, labels = np.asarray(features), np.asarray(labels, dtype=str)
    if features.ndim != 2 or features.shape[1] != 2 or len(features) != len(labels):
        raise ValueError(f"Features of shape {features.shape} do not fit {len(labels)} x 2.")
    need_items(features, "features")
    figure, axis = subplots(height=4.6)
    present = [name for name in FIXED if name in labels]
    present += sorted(set(labels) - set(present))
    for place, (label, colour) in enumerate(zip(present, colours(present), strict=True)):
        chosen = features[labels == label]
        axis.scatter(
            *chosen.T,
            s=22,
            alpha=0.75,
            color=colour,
            marker=MARKERS[place % 8],
            linewidth=0.8,
            label=f"{label} ({len(chosen)})",
        )
    axis.set(xlabel=names[0], ylabel=names[1])
    figure.legend(loc="outside right upper", fontsize=SMALL)
    return finish(figure, title, note)
