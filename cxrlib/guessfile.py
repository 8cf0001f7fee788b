"""Guesses in the run folder: one JSON file a notebook, never half-written, never thrown away."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from cxrlib.files import write_json

SCHEMA = 1


class GuessError(ValueError):
    """A question that makes no sense, an answer that is none, or a damaged file of guesses."""


def read(path: Path) -> dict[str, dict]:
    """Read the guesses kept in a file: by name, each with ``question``, ``guess``, ``time``.

    Raises
    ------
    GuessError
        If the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kept = content["guesses"] if content["schema"] == SCHEMA else None
        if not all("guess" in entry for entry in kept.values()):
            raise ValueError("an entry has no guess")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise GuessError(
            f"Your earlier guesses cannot be read: {path} is damaged ({error}). Guess again; the "
            f"file is set aside as {_aside(path).name} when you commit."
        ) from error
    return kept


def keep(path: Path, name: str, question: str, guess) -> None:
    """Add a guess to those in the file, or replace an earlier one of that name.

    Parameters
    ----------
    guess : float, int, str, list of str or None
        None says *I don't know*.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    try:
        kept = read(path)  # again, each time: the notebook may be open twice
    except GuessError:
        path.rename(_aside(path))
        kept = {}
    time = datetime.now(UTC).isoformat(timespec="seconds")
    kept[name] = {"question": question, "guess": guess, "time": time}
    write_json(path, {"schema": SCHEMA, "notebook": path.stem, "guesses": kept})


def _aside(path: Path) -> Path:
    """Name for a damaged file: the first that is free."""
    number = 1
    while (aside := path.with_suffix(f".damaged-{number}.json")).exists():
        number += 1
    return aside
