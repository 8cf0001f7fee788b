"""Figures of training: curves over epochs, and the search of Fig. 5."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxrlib.plots.style import (
    FIXED,
    MARKERS,
    SMALL,
    coloured,
    finish,
    heat_table,
    need_columns,
    subplots,
)


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
        parts = {"training": (column, "--o"), "validation": (f"val_{column}", "-s")}
        for name, (part, style) in parts.items():
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
    rows = {str(depth): row for depth, row in wide.iterrows()}
    for (depth, row, colour), marker in zip(coloured(rows), MARKERS, strict=False):
        right.plot(range(len(row)), row, marker=marker, color=colour, label=depth)
    right.set_xticks(range(wide.shape[1]), wide.columns)
    right.set(xlabel="neurons per layer", ylabel="validation accuracy")
    beside = (1, 1)
    right.legend(title="hidden\nlayers", fontsize=SMALL, loc="upper left", bbox_to_anchor=beside)
    return finish(figure, title, note)
