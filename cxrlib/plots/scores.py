"""Figures of scores: what a model got right, how sure it was, and the paper's figures beside."""

from __future__ import annotations

import numpy as np

from cxrlib import metrics
from cxrlib.plots.style import (
    BLACK,
    BLUE,
    GREY,
    MARKERS,
    ORANGE,
    PURPLE,
    SMALL,
    coloured,
    colours,
    finish,
    heat_table,
    interval,
    legend_above,
    need_columns,
    need_items,
    score_rows,
    subplots,
)

SCORES = ("model", "protocol", "metric", "value", "low", "high")  # columns of a table of scores


def confusion_matrix(matrix, title="", note=""):
    """Draw a confusion matrix: images, and percent of the row.

    Parameters
    ----------
    matrix : DataFrame of int
        Rows actual, columns predicted, as ``metrics.confusion`` gives it.
    """
    need_items(matrix, "matrix")
    percent = metrics.row_percent(matrix).drop(columns="number of images")
    said = [
        [f"{count}\n{share:.1f} %" for count, share in zip(*row, strict=True)]
        for row in zip(matrix.to_numpy(), percent.to_numpy(), strict=True)
    ]
    figure, axis = subplots(height=0.9 * len(matrix) + 1.2, width=1.3 * len(matrix) + 2.3)
    heat_table(axis, percent, said, "images of the row (%)", 0, 100)
    totals = [f"{name}\n(n = {n})" for name, n in matrix.sum(axis=1).items()]
    axis.set_yticklabels(totals, rotation=0)
    axis.set(xlabel="predicted", ylabel="actual")
    return finish(figure, title, note, predictions=True)


def roc_curves(predictions, title="", note=""):
    """Draw sensitivity against false alarms, over all thresholds.

    Parameters
    ----------
    predictions : dict of str to (y_true, probability)
        Name of the curve, and arrays of shape (n,): 0 or 1, and 0 to 1.
    """
    from sklearn.metrics import roc_curve

    figure, axis = subplots(height=4.8, width=5.4)
    for name, y, p, colour in _checked(predictions):
        false_alarms, found, _ = roc_curve(y, p, drop_intermediate=False)
        label = f"{name}: AUC {metrics.auc(y, p):.3f}"
        axis.plot(false_alarms, found, color=colour, linewidth=2, label=label)
    axis.plot([0, 1], [0, 1], ":", color=GREY, label="by chance: AUC 0.5")
    axis.set(xlabel="false alarms (1 - specificity)", ylabel="sensitivity (recall)")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axis.legend(loc="lower right", fontsize=SMALL)
    return finish(figure, title, note, predictions=True)


def precision_recall_curves(predictions, title="", note=""):
    """Draw precision against recall over all thresholds; parameters as :func:`roc_curves`."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    shares = {}
    figure, axis = subplots(height=4.6, width=6)
    for name, y, p, colour in _checked(predictions):
        precision, recall, _ = precision_recall_curve(y, p)
        label = f"{name}: average precision {average_precision_score(y, p):.3f}"
        axis.plot(recall, precision, color=colour, linewidth=2, label=label, drawstyle="steps-post")
        shares[y.mean()] = f"all called positive: precision {y.mean():.3f}"
    for share, label in shares.items():
        axis.axhline(share, linestyle=":", color=GREY, label=label)
    axis.set(xlabel="recall (sensitivity)", ylabel="precision")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axis.legend(loc="best", fontsize=SMALL)
    return finish(figure, title, note, predictions=True)


def reliability_diagram(tables, title="", note=""):
    """Draw what happened against what was promised, with 95 % Wilson intervals.

    Parameters
    ----------
    tables : dict of str to DataFrame
        As ``metrics.calibration`` gives them.
    """
    need_items(tables, "tables")
    heights = {"height_ratios": [3, 1]}
    figure, (above, below) = subplots(2, 1, 5, 6, sharex=True, gridspec_kw=heights)
    above.plot([0, 1], [0, 1], ":", color=GREY, label="perfectly calibrated")
    for place, (name, table, colour) in enumerate(coloured(tables)):
        need_columns(table, ["mean_probability", "fraction_positive", "n"], name)
        x, y, n = table["mean_probability"], table["fraction_positive"], table["n"]
        ends = [metrics.wilson(round(f * k), k) for f, k in zip(y, n, strict=True)]
        look = {"color": colour, "marker": MARKERS[place % 8], "alpha": 0.9}
        above.errorbar(
            x, y, np.abs(np.transpose(ends) - y.to_numpy()), capsize=3, label=name, **look
        )
        shift = 0.02 * (place - (len(tables) - 1) / 2)
        below.bar(x + shift, n, 0.018, color=colour)
    above.set(ylabel="observed share of positives", ylim=(-0.03, 1.03), xlim=(-0.03, 1.03))
    below.set(xlabel="predicted probability", ylabel="images")
    legend_above(figure, above, title, columns=2)
    return finish(figure, "", note, predictions=True)


def threshold_curves(y_true, probability, threshold=None, title="", note=""):
    """Draw sensitivity, specificity and precision against the threshold.

    Parameters
    ----------
    y_true, probability : array_like, shape (n,)
        0 or 1, and 0 to 1.
    threshold : float, optional
        Marked by a line.
    """
    y, p = metrics.check_binary(y_true, probability)
    _need_both_classes(y, "y_true")
    thresholds = np.linspace(0, 1, 201)
    called = p[None, :] >= thresholds[:, None]
    found, alarms = called[:, y].sum(axis=1), called[:, ~y].sum(axis=1)
    with np.errstate(invalid="ignore"):
        precision = found / (found + alarms)  # NaN, and no line, where nothing is called
    curves = {
        "sensitivity": (found / y.sum(), BLUE, "-"),
        "specificity": (1 - alarms / (~y).sum(), ORANGE, "--"),
        "precision": (precision, PURPLE, "-."),
    }
    figure, axis = subplots()
    for name, (values, colour, style) in curves.items():
        axis.plot(thresholds, values, style, color=colour, linewidth=2, label=name)
    if threshold is not None:
        label = f"threshold {threshold:.3f}"
        axis.axvline(threshold, color=BLACK, linestyle=":", label=label)
    axis.set(xlabel="threshold on the probability", ylabel="score", ylim=(-0.03, 1.03))
    figure.legend(loc="outside right upper", fontsize=SMALL)
    return finish(figure, title, note, predictions=True)


def score_comparison(table, title="", note=""):
    """Draw our scores with their intervals beside the figures that the paper prints.

    Parameters
    ----------
    table : DataFrame
        Columns ``model``, ``protocol``, ``metric``, ``value``, ``low``, ``high`` (0 to 1; NaN
        draws nothing), and ``printed`` where there is one to compare with.
    """
    need_columns(table, SCORES, "table")
    names, models = list(table["metric"].unique()), list(table["model"].unique())
    panels = min(2, len(names))
    rows = -(-len(names) // panels)
    height = rows * (0.3 * len(models) * table["protocol"].nunique() + 1.0) + 0.9
    figure, axes = subplots(rows, panels, height, sharey=True, sharex=True, squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, names, strict=False):
        chosen = table[table["metric"] == name]
        _draw_protocols(axis, chosen, models, list(table["protocol"].unique()), 0.5)
        if "printed" in table:
            printed = chosen.drop_duplicates("model")
            y = [models.index(model) for model in printed["model"]]
            hollow = {"marker": "D", "facecolors": "none", "edgecolors": BLACK, "s": 45}
            axis.scatter(printed["printed"], y, label="printed in the paper", zorder=3, **hollow)
        axis.set_title(name, fontsize=10)
        score_rows(axis, models, "score, 95 % interval", "", -0.02)
        axis.xaxis.set_tick_params(labelbottom=True)
    for axis in axes[:, 0]:
        axis.set_ylabel("model")
    legend_above(figure, axes[0, 0], title)
    return finish(figure, "", note, predictions=True)


def protocol_comparison(table, metric="accuracy", title="", note=""):
    """Draw how a score changes with the protocol, model by model.

    Parameters
    ----------
    table : DataFrame
        As for :func:`score_comparison`.
    metric : str
        Which of its scores.
    """
    need_columns(table, SCORES, "table")
    table = table[table["metric"] == metric]
    need_items(table, f"table: rows with the metric {metric!r}")
    models, protocols = list(table["model"].unique()), list(table["protocol"].unique())
    figure, axis = subplots(height=0.75 * len(models) + 1.7)
    _draw_protocols(axis, table, models, protocols, 0.24 * len(protocols))
    wide = table.pivot(index="model", columns="protocol", values="value").loc[models, protocols]
    if len(protocols) == 2:
        for place, change in enumerate(wide[protocols[1]] - wide[protocols[0]]):
            said = "" if np.isnan(change) else f"{change:+.3f}"
            axis.text(1.04, place, said, va="center", fontsize=10)
        axis.text(1.04, -0.55, f"{protocols[1]} - {protocols[0]}", fontsize=SMALL, color=GREY)
    score_rows(axis, models, f"{metric}, 95 % interval", "model")
    legend_above(figure, axis, title)
    return finish(figure, "", note, predictions=True)


def _draw_protocols(axis, table, models, protocols, room):
    """Draw a mark and its interval for each model and protocol, those of a model in `room`."""
    for place, protocol in enumerate(protocols):
        chosen = table[table["protocol"] == protocol]
        shift = room * (place - (len(protocols) - 1) / 2) / len(protocols)
        y = np.array([models.index(model) for model in chosen["model"]]) + shift
        ends = chosen[["value", "low", "high"]].to_numpy(float).T
        label, marker = f"{protocol} protocol", MARKERS[place % 8]
        interval(axis, y, ends, colours([protocol])[0], marker, label, 2)


def _checked(predictions):
    """Go through predictions: name, truth (bool), probability and colour of each curve."""
    need_items(predictions, "predictions")
    for name, answers, colour in coloured(predictions):
        y, p = metrics.check_binary(*answers)
        _need_both_classes(y, name)
        yield name, y, p, colour


def _need_both_classes(truth, name):
    if truth.all() or not truth.any():
        raise ValueError(f"{name}: only one class among the images, so there is no curve.")
