"""Figures of scores: what a model got right, how sure it was, and the paper's figures beside."""

from __future__ import annotations

import numpy as np

from cxrlib import metrics
from cxrlib.plots import style
from cxrlib.plots.style import (
    coloured,
    colours,
    finish,
    heat_table,
    interval,
    legend_above,
    need,
    plain,
    score_rows,
    subplots,
)

SCORES = ("model", "protocol", "metric", "value", "low", "high")  # columns of a table of scores


def confusion_matrix(matrix, title="", note=""):
    """Draw a matrix as ``metrics.confusion`` gives it: images, and percent of the row."""
    need(matrix, "matrix")
    percent = metrics.row_percent(matrix).drop(columns="number of images")
    said = matrix.astype(str) + percent.map("\n{:.1f} %".format)
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
    predictions : dict of str to (y_true, probability) or (y_true, probability, fold)
        Name of the curve, and arrays of shape (n,): 0 or 1, 0 to 1, and which of several models
        answered. The curve pools what they said; the area compares images within a fold only.
    """
    from sklearn.metrics import roc_curve

    figure, axis = subplots(height=4.8, width=5.4)
    for name, y, p, colour in _checked(predictions):
        false_alarms, found, _ = roc_curve(y, p, drop_intermediate=False)
        label = f"{name}: AUC {metrics.auc(y, p, *predictions[name][2:]):.3f}"
        axis.plot(false_alarms, found, color=colour, linewidth=2, label=label)
    axis.plot([0, 1], [0, 1], ":", color=style.GREY, label="by chance: AUC 0.5")
    axis.set(xlabel="false alarms (1 - specificity)", ylabel="sensitivity (recall)")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    within = "AUC within folds" if any(len(each) > 2 for each in predictions.values()) else None
    axis.legend(loc="lower right", fontsize=style.SMALL, title=within)
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
        axis.axhline(share, linestyle=":", color=style.GREY, label=label)
    axis.set(xlabel="recall (sensitivity)", ylabel="precision")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axis.legend(loc="best", fontsize=style.SMALL)
    return finish(figure, title, note, predictions=True)


def reliability_diagram(tables, title="", note=""):
    """Draw what happened against what was promised, with 95 % intervals.

    `tables` are by the curve's name, as ``metrics.calibration`` gives them.
    """
    need(tables, "tables")
    heights = {"height_ratios": [3, 1]}
    figure, (above, below) = subplots(2, 1, 5, 6, sharex=True, gridspec_kw=heights)
    above.plot([0, 1], [0, 1], ":", color=style.GREY, label="perfectly calibrated")
    for place, (name, table, colour) in enumerate(coloured(tables)):
        x, y, n = table["mean_probability"], table["fraction_positive"], table["n"]
        reach = np.abs(table[["low", "high"]].to_numpy().T - y.to_numpy())
        look = {"color": colour, "marker": style.MARKERS[place % 8], "alpha": 0.9, "capsize": 3}
        above.errorbar(x, y, reach, label=name, **look)
        shift = 0.02 * (place - (len(tables) - 1) / 2)
        below.bar(x + shift, n, 0.018, color=colour)
    above.set(ylabel="observed share of positives", ylim=(-0.03, 1.03), xlim=(-0.03, 1.03))
    below.set(xlabel="predicted probability", ylabel="images")
    legend_above(figure, above, title, columns=2)
    return finish(figure, "", note, predictions=True)


def threshold_curves(y_true, probability, threshold, title="", note=""):
    """Draw sensitivity, specificity and precision against the threshold, and mark one by a line.

    `y_true` (0 or 1) and `probability` (0 to 1) are array_like of shape (n,).
    """
    y, p = metrics.check_binary(y_true, probability)
    _need_both_classes(y, "y_true")
    thresholds = np.linspace(0, 1, 201)
    called = p[None, :] >= thresholds[:, None]
    found, alarms = called[:, y].sum(axis=1), called[:, ~y].sum(axis=1)
    with np.errstate(invalid="ignore"):
        precision = found / (found + alarms)  # NaN, and no line, where nothing is called
    curves = {
        "sensitivity": (found / y.sum(), style.BLUE, "-"),
        "specificity": (1 - alarms / (~y).sum(), style.ORANGE, "--"),
        "precision": (precision, style.PURPLE, "-."),
    }
    figure, axis = subplots()
    for name, (values, colour, dash) in curves.items():
        axis.plot(thresholds, values, dash, color=colour, linewidth=2, label=name)
    label = f"threshold {threshold:.3f}"
    axis.axvline(threshold, color=style.BLACK, linestyle=":", label=label)
    axis.set(xlabel="threshold on the probability", ylabel="score", ylim=(-0.03, 1.03))
    figure.legend(loc="outside right upper", fontsize=style.SMALL)
    return finish(figure, title, note, predictions=True)


def decision_curve(tables, title="", note=""):
    """Draw the net benefit of models, of acting on everybody and on nobody, by threshold.

    `tables` are by the model's name, as ``metrics.net_benefit`` gives them, over one test set.
    """
    need(tables, "tables")
    figure, axis = subplots()
    for name, table, colour in coloured(tables):
        axis.plot(table.index, table["model"], color=colour, linewidth=2, label=name)
    for name, mark in {"everybody": "--", "nobody": ":"}.items():
        axis.plot(table.index, table[name], mark, color=style.GREY, label=f"act on {name}")
    top = max(0.01, *(table[["model", "everybody"]].max().max() for table in tables.values()))
    axis.set(xlabel="threshold: probability from which one would act", ylabel="net benefit")
    axis.set(ylim=(-0.4 * top, 1.1 * top))
    return finish(figure, title, note, predictions=True, legend=axis)


def probability_histograms(predictions, title="", note=""):
    """Draw how the probabilities of each outcome lie: a panel a curve of :func:`roc_curves`."""
    need(predictions, "predictions")
    panels = len(predictions)
    figure, axes = subplots(panels, 1, 1.7 * panels + 1, sharex=True, squeeze=False)
    edges = np.linspace(0, 1, 21)
    for axis, (name, y, p, _) in zip(axes.flat, _checked(predictions), strict=True):
        for outcome, of, colour in (("healthy", ~y, style.GREEN), ("covid", y, style.VERMILLION)):
            shares = np.histogram(p[of], edges)[0] / of.sum()
            shares = (
                shares if outcome == "covid" else -shares
            )  # back to back, for eyes without colour
            axis.bar(edges[:-1], shares, 0.05, align="edge", color=colour, label=outcome)
        axis.axhline(0, color=style.BLACK, linewidth=0.8)
        axis.yaxis.set_major_formatter(lambda share, _: f"{abs(share):g}")
        axis.set(xlim=(0, 1), ylabel="share of images")
        axis.set_title(plain(name), fontsize=10)
    axes[-1, 0].set_xlabel("predicted probability of COVID-19")
    return finish(figure, title, note, predictions=True, legend=axes[0, 0])


def score_comparison(table, title="", note=""):
    """Draw our scores with their intervals beside the figures that the paper prints.

    The table has ``model``, ``protocol``, ``metric``, ``value``, ``low``, ``high`` (0 to 1; NaN
    draws nothing), and ``printed`` where there is one to compare with.
    """
    need(table, "table", *SCORES)
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
            hollow = {"marker": "D", "facecolors": "none", "edgecolors": style.BLACK, "s": 45}
            axis.scatter(printed["printed"], y, label="printed in the paper", zorder=3, **hollow)
        axis.set_title(name, fontsize=10)
        score_rows(axis, models, "score, 95 % interval", "", -0.02)
        axis.xaxis.set_tick_params(labelbottom=True)
    for axis in axes[:, 0]:
        axis.set_ylabel("model")
    return finish(figure, title, note, predictions=True, legend=axes[0, 0])


def protocol_comparison(table, metric="accuracy", title="", note=""):
    """Draw how a score changes with the protocol; `table` is as for :func:`score_comparison`.

    Of two protocols the later by name less the other is told: paper minus clean.
    """
    need(table, "table", *SCORES)
    table = table[table["metric"] == metric]
    need(table, f"table: rows with the metric {metric!r}")
    models, protocols = list(table["model"].unique()), sorted(table["protocol"].unique())
    figure, axis = subplots(height=0.75 * len(models) + 1.7)
    _draw_protocols(axis, table, models, protocols, 0.24 * len(protocols))
    wide = table.pivot(index="model", columns="protocol", values="value").loc[models, protocols]
    if len(protocols) == 2:
        for place, change in enumerate(wide[protocols[1]] - wide[protocols[0]]):
            said = "" if np.isnan(change) else f"{change:+.3f}"
            axis.text(1.04, place, said, va="center", fontsize=10)
        small = {"fontsize": style.SMALL, "color": style.GREY}
        axis.text(1.04, -0.55, f"{protocols[1]} minus {protocols[0]}", **small)
    score_rows(axis, models, f"{metric}, 95 % interval", "model")
    return finish(figure, title, note, predictions=True, legend=axis)


def width_by_patients(table, difference, marks, title="", note=""):
    """Draw half the width of a difference's 95 % interval against the patients who give it.

    The table has ``patients``, rising, and ``half width`` (0 to 1), of parts of one test. From the
    last on a dashed line falls as the root of the patients grows. The `difference` (-1 to 1) is a
    line across: below it an interval leaves 0 out. The numbers of patients of `marks`, a dict by
    what they count, are marked by a line.
    """
    need(table, "table", "patients", "half width")
    figure, axis = subplots()
    found = table[["patients", "half width"]]
    axis.plot(*found.to_numpy().T, "o-", color=style.BLUE, label="parts of the test")
    patients, width = found.iloc[-1]
    meets = (width / difference) ** 2 if difference else np.inf
    beyond = patients * np.geomspace(1, np.clip(1.5 * meets, 4, 50))
    falling = width * np.sqrt(patients / beyond)
    axis.plot(beyond, falling, "--", color=style.BLUE, label="beyond: 1 / root of n")
    said = f"the difference found, {difference:+.3f}"
    axis.axhline(abs(difference), color=style.VERMILLION, linestyle="-.", label=said)
    look = {"textcoords": "offset points", "fontsize": style.SMALL}
    for name, size in marks.items():
        axis.axvline(size, color=style.BLACK, linestyle=":", linewidth=1)
        axis.annotate(f"{size} {name}", (size, 1), (3, -10), ("data", "axes fraction"), **look)
    axis.set(xlabel="patients in the test, n", ylabel="half width of the 95 % interval")
    axis.set_xscale("log", base=2)
    axis.set_ylim(0, None)
    axis.xaxis.set_major_formatter("{x:,.0f}")
    return finish(figure, title, note, predictions=True, legend=axis)


def _draw_protocols(axis, table, models, protocols, room):
    """Draw a mark and its interval for each model and protocol, those of a model in `room`."""
    for place, protocol in enumerate(protocols):
        chosen = table[table["protocol"] == protocol]
        shift = room * (place - (len(protocols) - 1) / 2) / len(protocols)
        y = np.array([models.index(model) for model in chosen["model"]]) + shift
        ends = chosen[["value", "low", "high"]].to_numpy(float).T
        label, marker = f"{protocol} protocol", style.MARKERS[place % 8]
        interval(axis, y, ends, colours([protocol])[0], marker, label, 2)


def _checked(predictions):
    """Go through predictions: name, truth (bool), probability and colour of each curve."""
    need(predictions, "predictions")
    for name, answers, colour in coloured(predictions):
        y, p = metrics.check_binary(*answers[:2])
        _need_both_classes(y, name)
        yield name, y, p, colour


def _need_both_classes(truth, name):
    if truth.all() or not truth.any():
        raise ValueError(f"{name}: only one class among the images, so there is no curve.")
