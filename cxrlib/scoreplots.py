"""Figures of scores: what a model got right, how sure it was, and the paper's figures beside."""

from __future__ import annotations

import numpy as np

from cxrlib import metrics
from cxrlib.style import (
    BLACK,
    BLUE,
    GREY,
    MARKERS,
    ORANGE,
    PURPLE,
    SMALL,
    colours,
    finish,
    heat_table,
    legend_above,
    need_columns,
    need_items,
    subplots,
)


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
    from sklearn.metrics import roc_auc_score, roc_curve

    need_items(predictions, "predictions")
    figure, axis = subplots(height=4.8, width=5.4)
    for (name, (y, p)), colour in zip(predictions.items(), colours(list(predictions)), strict=True):
        y, p = metrics.check_binary(y, p)
        _need_both_classes(y, name)
        false_alarms, found, _ = roc_curve(y, p, drop_intermediate=False)
        area = roc_auc_score(y, p)
        axis.plot(false_alarms, found, color=colour, linewidth=2, label=f"{name}: AUC {area:.3f}")
    axis.plot([0, 1], [0, 1], ":", color=GREY, label="by chance: AUC 0.5")
    axis.set(xlabel="false alarms (1 - specificity)", ylabel="sensitivity (recall)")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axis.legend(loc="lower right", fontsize=SMALL)
    return finish(figure, title, note, predictions=True)


def precision_recall_curves(predictions, title="", note=""):
    """Draw precision against recall over all thresholds; parameters as :func:`roc_curves`."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    need_items(predictions, "predictions")
    shares = []
    figure, axis = subplots(height=4.6, width=6)
    for (name, (y, p)), colour in zip(predictions.items(), colours(list(predictions)), strict=True):
        y, p = metrics.check_binary(y, p)
        _need_both_classes(y, name)
        precision, recall, _ = precision_recall_curve(y, p)
        label = f"{name}: average precision {average_precision_score(y, p):.3f}"
        axis.plot(recall, precision, color=colour, linewidth=2, label=label, drawstyle="steps-post")
        shares.append(y.mean())
    for share in dict.fromkeys(shares):
        label = f"all called positive: precision {share:.3f}"
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
    figure, (above, below) = subplots(
        2, 1, 5, 6, sharex=True, gridspec_kw={"height_ratios": [3, 1]}
    )
    above.plot([0, 1], [0, 1], ":", color=GREY, label="perfectly calibrated")
    for place, ((name, table), colour) in enumerate(
        zip(tables.items(), colours(list(tables)), strict=True)
    ):
        need_columns(table, ["mean_probability", "fraction_positive", "n"], name)
        x, y = table["mean_probability"], table["fraction_positive"]
        ends = np.array(
            [metrics.wilson(round(f * n), n) for f, n in zip(y, table["n"], strict=True)]
        )
        errors = np.abs(ends.T - y.to_numpy())
        above.errorbar(
            x, y, errors, color=colour, marker=MARKERS[place % 8], capsize=3, label=name, alpha=0.9
        )
        shift = 0.02 * (place - (len(tables) - 1) / 2)
        below.bar(x + shift, table["n"], 0.018, color=colour)
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
    need_columns(table, ["model", "protocol", "metric", "value", "low", "high"], "table")
    names = list(table["metric"].unique())
    models, protocols = list(table["model"].unique()), list(table["protocol"].unique())
    panels = min(2, len(names))
    rows = -(-len(names) // panels)
    height = rows * (0.3 * len(models) * len(protocols) + 1.0) + 0.9
    figure, axes = subplots(rows, panels, height, sharey=True, sharex=True, squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, names, strict=False):
        for place, protocol in enumerate(protocols):
            chosen = table[(table["metric"] == name) & (table["protocol"] == protocol)]
            shift = 0.5 * (place - (len(protocols) - 1) / 2) / len(protocols)
            _intervals(axis, chosen, models, shift, protocol, MARKERS[place % 8])
        if "printed" in table:
            chosen = table[table["metric"] == name].drop_duplicates("model")
            y = [models.index(model) for model in chosen["model"]]
            axis.scatter(
                chosen["printed"],
                y,
                marker="D",
                facecolors="none",
                edgecolors=BLACK,
                s=45,
                label="printed in the paper",
                zorder=3,
            )
        axis.set_title(name, fontsize=10)
        axis.set(xlim=(-0.02, 1.02), ylim=(len(models) - 0.5, -0.5), xlabel="score, 95 % interval")
        axis.set_yticks(range(len(models)), models)
        axis.xaxis.set_tick_params(labelbottom=True)
        axis.grid(axis="x", alpha=0.3)
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
    need_columns(table, ["model", "protocol", "metric", "value", "low", "high"], "table")
    table = table[table["metric"] == metric]
    need_items(table, f"table: rows with the metric {metric!r}")
    models, protocols = list(table["model"].unique()), list(table["protocol"].unique())
    figure, axis = subplots(height=0.75 * len(models) + 1.7)
    for place, protocol in enumerate(protocols):
        shift = 0.24 * (place - (len(protocols) - 1) / 2)
        chosen = table[table["protocol"] == protocol]
        _intervals(axis, chosen, models, shift, protocol, MARKERS[place % 8])
    wide = table.pivot(index="model", columns="protocol", values="value").loc[models, protocols]
    if len(protocols) == 2:
        for place, change in enumerate(wide[protocols[1]] - wide[protocols[0]]):
            said = "" if np.isnan(change) else f"{change:+.3f}"
            axis.text(1.04, place, said, va="center", fontsize=10)
        axis.text(1.04, -0.55, f"{protocols[1]} - {protocols[0]}", fontsize=SMALL, color=GREY)
    axis.set_yticks(range(len(models)), models)
    axis.set(xlim=(0, 1.02), ylim=(len(models) - 0.5, -0.5), xlabel=f"{metric}, 95 % interval")
    axis.set_ylabel("model")
    axis.grid(axis="x", alpha=0.3)
    legend_above(figure, axis, title)
    return finish(figure, "", note, predictions=True)


def _intervals(axis, chosen, models, shift, protocol, marker):
    """Draw a dot and its interval for each model of one protocol."""
    y = np.array([models.index(model) for model in chosen["model"]]) + shift
    value, low, high = (chosen[name].to_numpy(float) for name in ("value", "low", "high"))
    colour = colours([protocol])[0]
    axis.hlines(y, low, high, color=colour, linewidth=2)
    axis.plot(value, y, marker, color=colour, label=f"{protocol} protocol")


def _need_both_classes(truth, name):
    if truth.all() or not truth.any():
        raise ValueError(f"{name}: only one class among the images, so there is no curve.")
