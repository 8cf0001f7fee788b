"""Figures of cohorts: how many images and patients, how grey, and where they lie by features."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import ListedColormap

from cxrlib.plots import style
from cxrlib.plots.style import coloured, colours, finish, heat_table, need, subplots


def images_per_patient(cohort, note=""):
    """Count how many patients have one image, two images, and so on, by label."""
    table = cohort.table.groupby(["label", "patient"]).size()
    need(table, f"{cohort.name}: labelled images")
    counts = table.groupby("label").value_counts().unstack("label", fill_value=0).sort_index()
    counts = counts[cohort.labels]
    figure, axis = subplots()
    width = 0.8 / counts.shape[1]
    for place, (label, found, colour) in enumerate(coloured(dict(counts))):
        shift = (place - (counts.shape[1] - 1) / 2) * width
        x = np.arange(len(counts)) + shift
        bars = axis.bar(x, found, width, color=colour, label=label)
        axis.bar_label(bars, [str(n) if n else "" for n in found], fontsize=style.SMALL)
    axis.set_xticks(range(len(counts)), counts.index)
    axis.set(xlabel="images of one patient", ylabel="patients")
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.margins(y=0.1)
    return finish(figure, f"{cohort.name}: repeats", note, legend=axis)


def ages(table, title="Who is in the films", note=""):
    """Draw how old the patients of each label are; `table` has ``label``, ``patient``, ``age``."""
    need(table, "table", "label", "patient", "age")
    people = table.dropna(subset="age").groupby(["label", "patient"], observed=True)["age"].mean()
    labels = list(dict.fromkeys(people.index.get_level_values("label")))
    need(labels, "table: ages")
    figure, axis = subplots()
    for label, colour in zip(labels, colours(labels), strict=True):
        found = people[label]
        shares = 100 * np.histogram(found, np.arange(0, 121, 10))[0] / len(found)
        said = f"{label} ({len(found)}, mean {found.mean():.0f})"
        axis.stairs(shares, np.arange(0, 121, 10), color=colour, linewidth=1.8, label=said)
    axis.set(xlabel="age (years)", ylabel="patients of the label (%)", xlim=(0, 110))
    style.legend_above(figure, axis, title)
    return finish(figure, "", note)


def grey_histograms(cohort, by="label", at_most=200, note=""):
    """Compare the grey values of groups of images; a source often gives itself away here.

    The column `by` of the cohort's table makes the groups; of each, `at_most` images are read,
    evenly spread over it.
    """
    need(cohort.table, cohort.name, by)
    groups = cohort.labels if by == "label" else sorted(cohort.table[by].dropna().unique())
    need(groups, f"{cohort.name}: {by}")
    figure, axis = subplots()
    for group, colour in zip(groups, colours(groups), strict=True):
        places = np.flatnonzero(cohort.table[by] == group)
        chosen = places[np.linspace(0, len(places) - 1, min(at_most, len(places))).astype(int)]
        counts = sum(np.bincount(cohort.images[int(p)].ravel(), minlength=256) for p in chosen)
        share = 100 * counts.reshape(64, 4).sum(axis=1) / counts.sum()
        label = f"{group} ({len(chosen)})"
        axis.stairs(share, np.arange(0, 257, 4), color=colour, linewidth=1.8, label=label)
    axis.set(xlabel="grey value (0 black, 255 white)", ylabel="pixels (%)", xlim=(0, 256))
    axis.legend(title=f"{by} (images read)", fontsize=style.SMALL)
    return finish(figure, f"{cohort.name}: grey values by {by}", note)


def figure2(counts, note=""):
    """Lay CheXpert's labels out as Fig. 2 of the paper: counts and percentages of studies.

    `counts` has a row a finding, and the columns ``positive``, ``uncertain`` and ``negative``
    (studies), as ``claims.figure2()``.
    """
    answers = ["positive", "uncertain", "negative"]
    need(counts, "counts", *answers)
    counts = counts[answers].astype(int)
    percent = 100 * counts.div(counts.sum(axis=1), axis=0)
    said = counts.map("{:,}".format) + percent.map(" ({:.2f})".format)
    figure, axis = subplots(height=0.36 * len(counts) + 1.2)
    heat_table(axis, percent, said, "studies (%)", 0, 100)
    across = "label as counted (negative: no, or not mentioned): studies (%)"
    axis.set(xlabel=across, ylabel="finding")
    return finish(figure, "CheXpert's labels (as Fig. 2)", note)


def splits(parts, note=""):
    """Count images, films and people in the parts of a split (``split.Parts``), on one scale."""
    names = ("train", "validation", "test")
    tables = [getattr(parts, name).table for name in names]
    labels = list(dict.fromkeys(label for name in names for label in getattr(parts, name).labels))
    units = {"images": "image", "films": "origin", "patients": "patient"}
    if all(table["image"].nunique() == table["origin"].nunique() for table in tables):
        del units["images"]  # no copies
    figure, axes = subplots(1, len(units), 3.4, sharey=True)
    room = 0.07 * max(len(table) for table in tables)
    for axis, (unit, column) in zip(axes, units.items(), strict=True):
        bottom = np.zeros(3)
        for label, colour in zip(labels, colours(labels), strict=True):
            counts = [table.loc[table["label"] == label, column].nunique() for table in tables]
            bars = axis.bar(names, counts, bottom=bottom, color=colour, label=label)
            said = [str(n) if n > room else "" for n in counts]
            axis.bar_label(bars, said, label_type="center", fontsize=style.SMALL)
            bottom += counts
        axis.set(title=unit, xlabel="part")
        axis.margins(y=0.12)
        axis.yaxis.get_major_locator().set_params(integer=True)
        for place, total in enumerate(bottom):
            axis.text(place, total, f"{total:.0f}", ha="center", va="bottom", fontsize=style.SMALL)
    axes[0].set_ylabel("number of them (one scale)")
    return finish(figure, "The split", note, legend=axes[0])


def folds(whole, divided, people=8, note=""):
    """Show in which part of each fold the images of the first `people` patients stand.

    `whole` is what ``augment.expand`` gives, `divided` what ``split.folds`` gives, by protocol. A
    title counts, of all patients, those whose films test a model that also learned from them.
    """
    need(divided, "divided")
    patient, names = whole.table["patient"].to_numpy(), whole.table["patient"].unique()
    groups = [np.flatnonzero(patient == one) for one in names[:people]]
    rows, ends = np.concatenate(groups), np.cumsum([0, *map(len, groups)])
    films = np.flatnonzero(whole.table["copy"].to_numpy()[rows] == 0) + 0.5
    parts = ("not used", "training", "validation", "test")
    looks = ListedColormap(["white", "#C8C8C8", style.FIXED["validation"], style.BLACK])
    figure, axes = subplots(len(divided), 1, 1.8 * len(divided) + 1, sharex=True, squeeze=False)
    for axis, (protocol, models) in zip(axes.flat, divided.items(), strict=True):
        where, met = np.zeros((len(models), len(patient)), int), set()
        for number, fold in enumerate(models):
            for part, chosen in enumerate(fold, 1):
                where[number, chosen] = part
            met |= {*patient[fold.train]} & {*patient[fold.test]}
        axis.pcolormesh(where[:, rows], cmap=looks, vmin=0, vmax=3)
        axis.vlines(ends, 0, len(models), color=style.BLACK, linewidth=1)
        axis.plot(films, np.full(len(films), -0.35), "v", color=style.BLACK, markersize=3)
        axis.set_yticks(np.arange(len(models)) + 0.5, range(1, len(models) + 1))
        axis.set(ylabel="fold", ylim=(len(models), -0.7), xlim=(0, ends[-1]))
        said = f"{len(met)} of {len(names)} patients test a model that learned from them"
        axis.set_title(f"{protocol}: {said}", fontsize=10)
    for name, colour in zip(parts, looks.colors, strict=True):
        axes[0, 0].plot([], [], "s", color=colour, markeredgecolor="black", label=name)
    axis.set_xticks((ends[1:] + ends[:-1]) / 2, range(1, len(groups) + 1))
    shown = f"the first {len(groups)} patients" if len(groups) < len(names) else "patient"
    axis.set_xlabel(f"{shown} (a column an image; a triangle over a film, then its copies)")
    return finish(figure, "", note, legend=axes[0, 0])


def feature_map(features, labels, title="", note=""):
    """Scatter images by their first two principal components, `features` of shape (n, 2).

    `labels` (n of them) are the class, source or scanner of each.
    """
    features, labels = np.asarray(features), np.asarray(labels, dtype=str)
    if features.ndim != 2 or features.shape[1] != 2 or len(features) != len(labels):
        raise ValueError(f"Features of shape {features.shape} do not fit {len(labels)} x 2.")
    need(features, "features")
    figure, axis = subplots(height=4.6)
    present = [name for name in style.FIXED if name in labels]
    present += sorted(set(labels) - set(present))
    for place, (label, colour) in enumerate(zip(present, colours(present), strict=True)):
        chosen = features[labels == label]
        look = {"color": colour, "marker": style.MARKERS[place % 8], "s": 22, "alpha": 0.75}
        axis.scatter(*chosen.T, linewidth=0.8, label=f"{label} ({len(chosen)})", **look)
    axis.set(xlabel="component 1", ylabel="component 2")
    figure.legend(loc="outside right upper", fontsize=style.SMALL)
    return finish(figure, title, note)
