"""Which films give their class away the loudest, and where in the film it lies.

A red light is a number; a person believes what can be seen. Here are the films of which a probe
was surest, and the squares that tell the classes apart each by itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from cxrlib.shortcuts import probes, views

NEARLY = 0.9  # share of what the best of many squares tells, which is best by chance too


class Loudest(NamedTuple):
    """What :func:`loudest` found.

    Attributes
    ----------
    films : DataFrame
        ``class``, ``image``, ``patient`` and ``score``, by how much the film's own class is ahead
        of the next one (0.5 or more is sure); the loudest of each class first.
    squares : ndarray, shape (24, 24), float, or None
        Area under the ROC curve (0.5 to 1) of each square alone, by its brightness or its fine
        detail, whichever tells more; NaN where the view shows nothing. None for the file's facts.
    said : str
        Where it lies, in words.
    view : str
    """

    films: pd.DataFrame
    squares: np.ndarray | None
    said: str
    view: str


def loudest(cohort, view, classes=None, by="label", most=6, **options) -> Loudest:
    """Find the films that a probe of a view is surest of, and where they differ.

    The probe sees brightness and fine detail of squares, not a network's features: their places
    are known.

    Parameters
    ----------
    cohort : Cohort
    view : str
        A key of :data:`cxrlib.shortcuts.views.VIEWS`.
    classes : sequence of str, optional
        Values of the column `by` to tell apart; all labels by default.
    by : str
        The column that names the classes.
    most : int
        Films a class, of one patient each, by a model that did not see that patient.
    **options
        folds and seed of :func:`cxrlib.shortcuts.probes.probe`.

    Raises
    ------
    ShortcutError
        If there is no such view, or too few patients for a probe.
    """
    classes = list(classes or cohort.labels)
    cohort = cohort.where(**{by: classes})
    targets = pd.Categorical(cohort.table[by], categories=classes).codes.astype(np.int64)
    described = views.features(cohort, view)
    patients = cohort.table["patient"]
    found = probes.probe(described, targets, patients, permutations=1, **options)
    rows = np.arange(len(targets))
    others = found.scores.copy()
    others[rows, targets] = -np.inf
    films = cohort.table[["image", "patient"]].assign(
        **{"class": cohort.table[by], "score": found.scores[rows, targets] - others.max(axis=1)}
    )
    films = films.sort_values("score", ascending=False).drop_duplicates(["class", "patient"])
    films = films.groupby("class", sort=False).head(most)
    films = films.sort_values("class", key=lambda names: names.map(classes.index), kind="stable")
    films = films[["class", "image", "patient", "score"]].reset_index(drop=True)
    if view == "file":
        return Loudest(films, None, _files(cohort, by, classes), view)
    squares, said = _where(cohort, view, described, targets == found.best, classes[found.best])
    return Loudest(films, squares, said, view)


def _where(cohort, view, described, truth, name) -> tuple[np.ndarray, str]:
    """Measure each square alone; `truth` says which films are of the class called `name`."""
    shown = views.visible(view, views.CELLS)
    brightness, detail = np.split(described, 2, axis=1)
    values = np.column_stack([brightness.mean(axis=1), brightness, detail])
    truth = np.repeat(truth[:, None], values.shape[1], axis=1)
    areas = probes.fold_areas(values, truth, np.zeros(len(truth)))
    whole, (bright, fine) = areas[0], np.split(areas[1:], 2)
    squares = np.full(shown.shape, np.nan)
    squares[shown] = 0.5 + np.maximum(abs(bright - 0.5), abs(fine - 0.5))
    best = np.nanmax(squares)
    if abs(whole - 0.5) >= NEARLY * (best - 0.5):
        than = "brighter" if whole > 0.5 else "darker"
        told = f"It lies in the brightness of all that is seen: films of {name!r} are {than}"
        return squares, f"{told} (AUC {0.5 + abs(whole - 0.5):.2f})."
    place = np.unravel_index(np.nanargmax(squares), squares.shape)
    number = int(shown[: place[0]].sum() + shown[place[0], : place[1]].sum())
    by_light = abs(bright[number] - 0.5) >= abs(fine[number] - 0.5)
    more = (bright if by_light else fine)[number] > 0.5
    words = ("brighter", "darker") if by_light else ("richer in fine detail", "smoother")
    return squares, (
        f"It is clearest {_place(*place)}, where films of {name!r} are "
        f"{words[0 if more else 1]}: that square alone has AUC {best:.2f}, the best of "
        f"{int(shown.sum())}; the brightness of all that is seen has "
        f"{0.5 + abs(whole - 0.5):.2f}."
    )


def _place(down: int, across: int) -> str:
    """Name a square's place as a reader sees it on the page."""
    last = views.CELLS - 1
    upper = "top" if down < views.CELLS / 3 else "bottom" if down > last * 2 / 3 else ""
    side = "left" if across < views.CELLS / 3 else "right" if across > last * 2 / 3 else ""
    from_edge = sorted((min(down, last - down), min(across, last - across)))
    if upper and side and from_edge[1] < views.CORNER:
        return f"in the {upper} {side} corner"
    if from_edge[0] < views.FRAME:
        upright = min(down, last - down) <= min(across, last - across)
        edge = ("top" if down < last / 2 else "bottom") if upright else side
        return f"at the {edge} edge"
    return f"at the {upper} {side}".rstrip() if upper or side else "in the middle"


def _files(cohort, by, classes) -> str:
    """Say which format and size the files of each class have, as a rule."""
    told = []
    for name in classes:
        facts = cohort.table.loc[cohort.table[by] == name, list(views.FACTS)]
        usual, count = facts.value_counts().index[0], int(facts.value_counts().iloc[0])
        words = f"{usual[0]}, {usual[2]} x {usual[1]} pixels"
        told.append(f"{name}: {words} in {count} of {len(facts)} files")
    return f"It lies in the files. {'; '.join(told)}."
