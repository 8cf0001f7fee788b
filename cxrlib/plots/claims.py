"""Figures of what printed scores can carry: how many tests fit them, and how much they prove."""

from __future__ import annotations

from itertools import cycle

import numpy as np

from cxrlib import metrics
from cxrlib.plots import style
from cxrlib.plots.style import coloured, finish, need, subplots

BESIDE = {
    "textcoords": "offset points",
    "fontsize": style.SMALL,
}  # of what a line is annotated with


def fits_by_size(counts, title="", note=""):
    """Draw how many confusion matrices fit, against the size of the test.

    `counts` is a dict with a panel each: its heading, and matrices by n as ``reconstruct.fits``
    gives them (Series of int).
    """
    need(counts, "counts")
    figure, axes = subplots(len(counts), 1, 1.35 * len(counts) + 1.0, sharex=True, squeeze=False)
    for axis, (name, series) in zip(axes[:, 0], counts.items(), strict=True):
        found = series[series > 0]
        axis.vlines(found.index, 0.5, found, color=style.BLUE, linewidth=0.6)
        axis.plot(found.index, found, ".", color=style.BLUE, markersize=2)
        said = "nothing fits"
        if len(found):
            said = f"first at n = {found.index[0]}; {len(found)} sizes fit"
            axis.plot(found.index[:1], found.iloc[:1], "o", color=style.VERMILLION, markersize=6)
        axis.set_title(f"{name}: {said}", fontsize=10, loc="left")
        axis.set(xscale="log", yscale="log", ylabel="matrices", xlim=(1, series.index[-1]))
        axis.set_ylim(0.5, max(10, 3 * series.max()))
        axis.yaxis.set_major_formatter("{x:,.0f}")
        axis.xaxis.set_major_formatter("{x:,.0f}")
    axes[-1, 0].set_xlabel("test images n")
    return finish(figure, title, note)


def interval_widths(shares, sizes, marks, title="", note=""):
    """Draw how wide the 95 % interval of each named share (0 to 1) is, against the patients.

    `sizes` are numbers of independent patients; those of `marks`, a dict by what they count, are
    marked by a line.
    """
    need(shares, "shares")
    need(sizes, "sizes")
    figure, axis = subplots()
    for name, share, colour in coloured(shares):
        ends = np.array([metrics.wilson(share * size, size) for size in sizes])
        axis.plot(sizes, ends[:, 1] - ends[:, 0], color=colour, linewidth=2, label=name)
    for name, size in marks.items():
        axis.axvline(size, color=style.BLACK, linestyle=":", linewidth=1)
        axis.annotate(f"{size} {name}", (size, 0), (3, 4), ("data", "axes fraction"), **BESIDE)
    axis.set(xscale="log", xlabel="independent patients", ylabel="width of the 95 % interval")
    axis.set_ylim(0, None)
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.legend(fontsize=style.SMALL)
    return finish(figure, title, note)


def copies_and_evidence(simulated, images, originals, title="", note=""):
    """Draw what copies are worth: effective images, and how often an interval keeps its word.

    `images` were made from `originals` films. The table `simulated` has ``likeness`` (correlation
    between the answers to copies of one film, 0 to 1), ``effective`` (independent images that vary
    as much) and ``coverage`` (share of the 95 % intervals that hold the truth).
    """
    need(simulated, "simulated", "likeness", "effective", "coverage")
    figure, (left, right) = subplots(1, 2, 3.4)
    likeness = np.linspace(0, 1, 101)
    expected = images / (1 + (images / originals - 1) * likeness)  # Kish's design effect
    left.plot(likeness, expected, color=style.GREY, label="theory")
    alike = simulated["likeness"]
    left.plot(alike, simulated["effective"], "o", color=style.BLUE, label="simulated")
    left.axhline(originals, color=style.BLACK, linestyle=":", linewidth=1)
    left.text(0.02, originals + images / 60, f"{originals} originals", fontsize=style.SMALL)
    left.set(xlabel="likeness of the copies' answers", ylabel="effective images")
    left.set_ylim(0, images * 1.15)
    left.legend(fontsize=style.SMALL)
    right.plot(alike, simulated["coverage"], "o-", color=style.ORANGE)
    right.axhline(0.95, color=style.BLACK, linestyle=":", linewidth=1)
    right.text(0.02, 0.955, "promised", fontsize=style.SMALL)
    right.set(xlabel="likeness of the copies' answers", ylabel="intervals that hold the truth")
    right.set_ylim(min(0.5, simulated["coverage"].min() - 0.05), 1)
    return finish(figure, title, note)


def power_curves(curves, sizes, here, title="", note=""):
    """Draw the chance to notice a true difference, against the size of the test (images).

    `curves` are powers from 0 to 1, one a size, by name of the test; a line marks the paper's
    size, `here`.
    """
    need(curves, "curves")
    figure, axis = subplots()
    dashes = cycle(["-", "--", "-.", ":"])  # curves may fall together: both are to be seen
    for (name, power, colour), dash in zip(coloured(curves), dashes, strict=False):
        axis.plot(sizes, power, dash, color=colour, linewidth=2, label=name)
    axis.axhline(0.8, color=style.GREY, linestyle=":", linewidth=1)
    said, where = "customary 0.8", ("axes fraction", "data")
    axis.annotate(said, (1, 0.8), (-2, 3), where, ha="right", **BESIDE)
    axis.axvline(here, color=style.BLACK, linestyle=":", linewidth=1, label=f"the paper: {here}")
    axis.set(xscale="log", xlabel="test images", ylabel="power", ylim=(0, 1.02))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.legend(fontsize=style.SMALL)
    return finish(figure, title, note)
