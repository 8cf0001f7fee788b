"""Figures of training: curves over epochs and over patients, and the search of Fig. 5."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxrlib.plots import style
from cxrlib.plots.style import coloured, finish, heat_table, need, subplots


def learning_curves(history, title="", note=""):
    """Draw loss and accuracy against epochs, on training and validation data.

    `history` is a DataFrame or dict with ``loss``, ``val_loss``, ``accuracy`` and
    ``val_accuracy``, as Keras' ``history.history``; with ``epoch`` if it does not count from 1.
    """
    need(history, "history", "loss", "val_loss", "accuracy", "val_accuracy")
    table = pd.DataFrame(history)
    epochs = table["epoch"] if "epoch" in table else np.arange(1, len(table) + 1)
    figure, axes = subplots(1, 2, 3.3)
    for axis, column in zip(axes, ("loss", "accuracy"), strict=True):
        parts = {"training": (column, "--o"), "validation": (f"val_{column}", "-s")}
        for name, (part, line) in parts.items():
            colour = style.FIXED[name]
            axis.plot(epochs, table[part], line, color=colour, label=name, markersize=3.5)
        trained, held = table[[column, f"val_{column}"]].iloc[-1]
        last = np.max(epochs)
        axis.plot([last, last], [trained, held], color="black", linewidth=1)
        axis.set(xlabel="epoch", ylabel=column)
        axis.set_title(f"training minus validation: {trained - held:+.3f}", fontsize=10)
        axis.xaxis.get_major_locator().set_params(integer=True)
    # one scale, or the gaps of two figures could not be compared
    axes[0].set_ylim(0)
    lowest = table[["accuracy", "val_accuracy"]].min().min()
    axes[1].set_ylim(min(0.45, lowest - 0.02), 1.02)
    axes[1].legend(fontsize=style.SMALL)
    return finish(figure, title, note)


def patient_curves(scores, gains, metric="accuracy", title="", note=""):
    """Draw a score against the patients learned from, and below what pretraining adds.

    The tables are as ``pretraining.learning_curves`` gives them. Marks that would cover each other
    stand a little to the side.
    """
    columns = ("backbone", "patients", "metric", "value", "low", "high")
    need(scores, "scores", *columns)
    need(gains, "gains", *columns)
    figure, (above, below) = subplots(2, 1, 5.4, sharex=True)
    names = list(scores["backbone"].unique())
    for place, (name, colour) in enumerate(zip(names, style.colours(names), strict=True)):
        look = {"color": colour, "marker": style.MARKERS[place % 8], "capsize": 3, "label": name}
        for axis, table in ((above, scores), (below, gains)):
            mine = table[(table["backbone"] == name) & (table["metric"] == metric)]
            ends = np.abs(mine[["low", "high"]].to_numpy().T - mine["value"].to_numpy())
            x = mine["patients"] * 1.03 ** (place - (len(names) - 1) / 2)
            if len(mine):
                axis.errorbar(x, mine["value"], ends, **look)
    below.axhline(0, linestyle=":", color=style.BLACK)
    sizes = sorted(scores["patients"].unique())
    below.set(xscale="log", xlabel="patients to learn from (log scale)")
    below.set_xticks(sizes, sizes)
    below.minorticks_off()
    above.set_ylabel(f"{metric.replace('auc', 'AUC')}, 95 % interval")
    below.set_ylabel("minus random weights,\n95 % interval, paired")
    return finish(figure, title, note, predictions=True, legend=above)


def grid_accuracy(table, title="", note="", within=(None, None)):
    """Draw the search of Fig. 5: validation accuracy by hidden layers and neurons, twice.

    `table` has the columns ``layers``, ``neurons`` and ``val_accuracy`` (0 to 1), a row a head.
    Colours and axis run over the table's values, and as far as `within`, (low, high): given the
    interval of a head, differences that luck makes look as small as they are.
    """
    need(table, "table", "layers", "neurons", "val_accuracy")
    if table.duplicated(["layers", "neurons"]).any():
        raise ValueError("table has several rows for the same layers and neurons; choose one each.")
    wide = table.pivot(index="layers", columns="neurons", values="val_accuracy")
    figure, (left, right) = subplots(1, 2, 3.5, 8)
    least, most = within
    if least is not None:
        least, most = max(0, min(least, wide.min().min())), min(1, max(most, wide.max().max()))
        right.set_ylim(least - 0.02, most + 0.02)
    heat_table(left, wide, wide.map("{:.3f}".format), "", least, most)
    left.set(xlabel="neurons per layer", ylabel="hidden layers", title="validation accuracy")
    left.title.set_fontsize(10)
    rows = {str(depth): row for depth, row in wide.iterrows()}
    for (depth, row, colour), marker in zip(coloured(rows), style.MARKERS, strict=False):
        right.plot(range(len(row)), row, marker=marker, color=colour, label=depth)
    right.set_xticks(range(wide.shape[1]), wide.columns)
    right.set(xlabel="neurons per layer", ylabel="validation accuracy")
    beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
    right.legend(title="hidden\nlayers", fontsize=style.SMALL, **beside)
    return finish(figure, title, note)
