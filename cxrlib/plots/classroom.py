"""A class's guesses beside what was found."""

from __future__ import annotations

import numpy as np

from cxrlib.plots import style
from cxrlib.plots.style import finish, need, subplots

BINS = 40  # dots of one column share a fortieth of the axis
WIDE = 50  # guesses that differ by more than this factor are drawn on a logarithmic axis


def class_guesses(table, title="", note=""):
    """Draw each question of one notebook: what was guessed, and what was found (orange).

    `table` is part of ``guesses.gather``: columns question, guess, found. Numbers are dots in
    columns, choices bars; of a list of answers the right ones are counted.
    """
    need(table, "table", "question", "guess", "found")
    parts = list(table.groupby("question", sort=False))
    figure, axes = subplots(len(parts), height=1.5 * len(parts) + 0.9, squeeze=False)
    for axis, (question, part) in zip(axes.flat, parts, strict=True):
        is_list = any(isinstance(guess, list) for guess in part["guess"])
        pairs = zip(part["guess"], part["found"], strict=True)
        pairs = [_right(*pair) if is_list else pair for pair in pairs]
        said = [guess for guess, _ in pairs if guess is not None]
        found = sorted({one for _, one in pairs if not (one is None or one != one)}, key=str)
        more = f", {len(pairs) - len(said)} did not know" if len(said) < len(pairs) else ""
        what = f"{question}: how many are right" if is_list else question
        axis.set_title(f"{style.plain(what)} ({len(said)} answers{more})", fontsize=10, loc="left")
        (_bars if any(isinstance(one, str) for one in said + found) else _dots)(axis, said, found)
    return finish(figure, title, f"Orange: what the runs found.\n{note}")


def _right(guess, found):
    """Count the right ones of a list of answers; results keep such a list as one text."""
    if not (guess and isinstance(found, str)):
        return None, None
    truth = found.split(", ")
    return sum(a == b for a, b in zip(guess, truth, strict=False)), len(truth)


def _dots(axis, said, found) -> None:
    values, every = np.asarray(said, dtype=float), np.asarray([*said, *found], dtype=float)
    if len(every) and every.min() > 0 and every.max() > WIDE * every.min():
        axis.set_xscale("log")
    scale = np.log if axis.get_xscale() == "log" else np.asarray
    edges = np.linspace(scale(every).min(), scale(every).max() + 1e-9, BINS) if len(every) else []
    bins = np.digitize(scale(values), edges)
    height = [np.sum(bins[: place + 1] == own) for place, own in enumerate(bins)]
    axis.plot(values, height, "o", color=style.BLUE, alpha=0.7)
    for one in found:
        axis.axvline(one, color=style.ORANGE, linewidth=3, zorder=0)
    axis.set(ylim=(0, max(height, default=0) + 1), xlabel="guess", ylabel="people")


def _bars(axis, said, found) -> None:
    names = sorted({*map(str, said), *map(str, found)})
    counts = [sum(str(one) == name for one in said) for name in names]
    right = {*map(str, found)}
    hues = [style.ORANGE if name in right else style.BLUE for name in names]
    axis.barh(names, counts, color=hues)
    axis.set(xlabel="people", ylabel="guess", xlim=(0, max(counts, default=0) + 1))
