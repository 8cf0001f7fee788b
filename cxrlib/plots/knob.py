"""Figure of the knob: what internal validation sees, and what the network goes by."""

from __future__ import annotations

from cxrlib.plots import style
from cxrlib.plots.style import finish, need, subplots
from cxrlib.shortcuts import knob

SCORES = {
    "inside": ("inside, as in training", style.BLUE),
    "new": ("on new scanners", style.VERMILLION),
}
SHARES = {
    "finding": ("finding, against scanner (twins)", style.BLACK, "-"),
    "covered": ("lungs, against the rest (covered)", style.GREEN, "-"),
    "places_inside": ("heat inside lungs (HiResCAM)", style.PURPLE, "--"),
    "heat_inside": ("heat inside lungs (Grad-CAM)", style.ORANGE, "--"),
}


def knob_curves(table, note="", title="The knob: how far the scanner gives the label away"):
    """Draw the scores against the knob, and below what the network goes by.

    Lines join means over seeds, the small marks are single seeds. The dotted vertical line is
    ``knob.collapse(table)``, the table as ``knob.knob`` gives it.
    """
    need(table, "table", "level", "seed", "auc_inside", "auc_new", "area_inside", *SHARES)
    figure, (above, below) = subplots(2, 1, 6.4, sharex=True)
    _draw_scores(above, table)
    _draw_shares(below, table)
    level = knob.collapse(table) if table["level"].nunique() > 1 else None
    for axis in (above, below):
        if level is not None:
            axis.axvline(level, color=style.BLACK, linestyle=":", linewidth=1.5, zorder=0)
        axis.legend(
            loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=style.SMALL, frameon=False
        )
    if level is not None:
        above.text(level, 1.04, f"collapse: {level:g}", ha="center", fontsize=style.SMALL)
    seeds = table["seed"].nunique()
    each = f"{seeds} seeds: lines are their means, small marks one each" if seeds > 1 else "1 seed"
    said = f"Synthetic images (phantoms); {each}."
    return finish(figure, title, f"{said} {note}".strip(), predictions=True)


def _draw_scores(axis, table):
    seeds = list(table["seed"].unique())
    for place, (name, colour) in SCORES.items():
        mean = table.groupby("level")[f"auc_{place}"].mean()
        axis.plot(mean.index, mean, color=colour, linewidth=2, label=name)
        for number, seed in enumerate(seeds):
            mine = table[table["seed"] == seed]
            x = mine["level"] + 0.012 * (number - (len(seeds) - 1) / 2)  # side by side
            axis.vlines(x, mine[f"auc_{place}_low"], mine[f"auc_{place}_high"], color=colour)
            axis.plot(x, mine[f"auc_{place}"], "o", color=colour, markersize=4)
    axis.axhline(0.5, linestyle=":", color=style.GREY, label="by chance")
    axis.set(ylabel="AUC, 95 % interval", ylim=(0.3, 1.03))


def _draw_shares(axis, table):
    for marker, (column, (name, colour, line)) in zip(style.MARKERS, SHARES.items(), strict=False):
        mean = table.groupby("level")[column].mean()
        axis.plot(mean.index, mean, line, color=colour, linewidth=2, marker=marker, label=name)
        axis.plot(table["level"], table[column], marker, color=colour, markersize=3, alpha=0.5)
    area = table.groupby("level")["area_inside"].mean()
    axis.plot(area.index, area, ":", color=style.GREY, label="lungs' share of the image")
    axis.set(ylabel="share, 0 to 1", ylim=(-0.03, 1.03))
    axis.set_xlabel("the knob: share of patients whose scanner follows their label")
