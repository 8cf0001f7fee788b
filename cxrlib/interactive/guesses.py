"""Predict, then check: a learner commits to a guess before the result shows.

A lesson asks (``my_guesses.ask``), computes, and hands over what it found (``guess.check``).
Where a person sits in front of the notebook, the result waits for the guess; a headless run
shows it at once. The gate is for eyes only: the code has every result. Guesses are kept in the
run folder, a file a notebook. A wrong guess is worth as much as a right one, so nothing here
counts points.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from cxrlib import results
from cxrlib.files import write_json
from cxrlib.interactive import forms as guessforms
from cxrlib.interactive import frontend
from cxrlib.interactive.forms import GuessError, Kind, Line, said

SCHEMA = 1  # of the files of guesses
WAITS = (
    "Commit your guess above first. The result then appears here "
    "(if it should not, run this cell again)."
)
_opened: dict[Path, Guesses] = {}


def of(notebook: str) -> Guesses:
    """Guesses of a notebook, by its file name without the ending; always the same object.

    Raises
    ------
    GuessError
        If the name would not do as a file's name.
    """
    if not re.fullmatch(r"\w[\w-]*", notebook):
        raise GuessError(f"{notebook!r} is no notebook's name: give one such as '05_vgg16'.")
    path = (results.run_folder() / "guesses" / f"{notebook}.json").absolute()
    # A cell may be run again; results that wait for the first cell's guess must not be orphaned.
    return _opened.setdefault(path, Guesses(path))


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

    The file is never half-written, and a damaged one is set aside, not thrown away.

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


class Guesses:
    """The questions of one notebook; made by :func:`of`."""

    def __init__(self, path: Path):
        self.path, self.asked, self.kept, self.warning = path, {}, {}, ""
        try:
            self.kept = read(path)
        except GuessError as error:
            self.warning = str(error)

    def ask(
        self,
        name: str,
        question: str,
        *,
        low: float | None = None,
        high: float | None = None,
        whole: bool = False,
        choices=(),
        items=(),
    ) -> Guess:
        """Ask, and show the form (in a headless run: a line).

        Parameters
        ----------
        name : str
            A few words, for the table at the notebook's end.
        question : str
            Short; the lesson's text asks at length.
        low, high : float, optional
            Ends of what a number may be, both included. Without choices, a number is asked for.
        whole : bool
            Whether it must be a whole number.
        choices : sequence of str
            Answers to choose from, in place of a number.
        items : sequence of str
            Things that each get one of the choices.

        Returns
        -------
        Guess
            Asked again, as when a cell is run twice, a question gives the same object.

        Raises
        ------
        GuessError
            If another question has this name, or the kind of answer makes no sense.
        """
        kind = Kind(low, high, whole, tuple(map(str, choices)), tuple(map(str, items)))
        if not name.strip():
            raise GuessError("A question needs a name: a few words for the table of guesses.")
        guess = self.asked.setdefault(name, Guess(self, name, question, kind))
        if (guess.question, guess.kind) != (question, kind):
            raise GuessError(
                f"Two questions are called {name!r}: give each a name of its own. "
                "(If you have just rewritten this one, restart the kernel.)"
            )
        if self.warning:
            guessforms.show(Line(self.warning))
            self.warning = ""
        guess.show()
        return guess

    def table(self) -> pd.DataFrame:
        """List each question with 'your guess' and what was 'found', to be recorded."""
        rows = [[_flat(one.answer_said), _flat(one.found)] for one in self.asked.values()]
        index = pd.Index(self.asked, name="question", dtype=object)
        return pd.DataFrame(rows, index, ["your guess", "found"], dtype=object)

    def summary(self) -> None:
        """Show the table; what was found stays covered where a person has not guessed yet."""
        waiting = [name for name, guess in self.asked.items() if not guess.committed]
        if not (waiting and frontend.is_movable()):
            guessforms.show(self.table())
            return
        note = Line("After guessing, run this cell and those below again, for the record.")
        box = guessforms.box()

        def refresh():
            table = self.table()
            table = table.where(table.notna(), "not measured")
            still = [name for name in waiting if not self.asked[name].committed]
            table.loc[still, "found"] = "after your guess"
            box.value = guessforms.to_html(table) + guessforms.to_html(note)

        refresh()
        for name in waiting:
            self.asked[name].after_commit.append(refresh)
        guessforms.show(box)


class Guess:
    """One question and its answer; made by :meth:`Guesses.ask`.

    Attributes
    ----------
    committed : bool
        Whether there is an answer; *I don't know* is one.
    answer : float, int, str, list of str or None
        None before an answer, and for *I don't know*.
    found : float, int, str, list of str or None
        What the notebook found; None until :meth:`check`, and where nothing was measured.
    """

    def __init__(self, notebook: Guesses, name: str, question: str, kind: Kind):
        self.notebook, self.name, self.question, self.kind = notebook, name, question, kind
        self.found, self.trouble = None, ""
        self.after_commit = []  # called without arguments, in the order of the notebook
        kept = notebook.kept.get(name, {})
        answer = kept.get("guess")
        # An answer to an older form of the question is none to this one.
        self.committed = bool(kept) and (answer is None or kind.accepts(answer))
        self.answer = answer if self.committed else None

    def __repr__(self) -> str:
        return f"Guess({self.name!r}: {said(self.answer_said)})"

    @property
    def answer_said(self):
        """The answer; a word where there is none, or where it is *I don't know*."""
        if not self.committed:
            return "none"
        return "don't know" if self.answer is None else self.answer

    def show(self) -> None:
        """Show the form; in a headless run, a line."""
        if frontend.is_movable():
            guessforms.show(guessforms.form(self))
            return
        told = said(self.answer) if self.committed else "asked in JupyterLab and Colab"
        guessforms.show(Line(f"Your guess ({self.name}): {told}."))

    def commit(self, answer) -> None:
        """Fix the answer, None for *I don't know*; keep it; show all that waited for it.

        Raises
        ------
        GuessError
            If it is no answer to this question.
        """
        if answer is not None and not self.kind.accepts(answer):
            raise GuessError(f"{self.question} {self.kind.wanted}")
        self.answer, self.committed, self.trouble = answer, True, ""
        try:
            keep(self.notebook.path, self.name, self.question, answer)
        except OSError as error:
            self.trouble = f"It could not be kept for later ({error})."
        for follow in self.after_commit:
            follow()

    def check(self, found, *shown) -> None:
        """Take what the notebook found, and show it beside the guess.

        Parameters
        ----------
        found : float, int, str, list of str or None
            The answer; None where this run could not measure it.
        *shown
            What shows it: figures, tables. Until a person commits, they are not displayed.
        """
        self.found = results.to_native(found)
        self._gate(shown, lambda: [Line(self.comparison())])

    def reveal(self, *shown) -> None:
        """Show figures or tables that would give the answer away, once there is a guess."""
        self._gate(shown, list)

    def comparison(self) -> str:
        """Put guess and finding into one line, without praise or blame."""
        if self.found is None:
            return f"{self.name}: this run did not measure it."
        if not self.committed:
            return f"Found ({self.name}): {said(self.found)}."
        if self.answer is None:
            return f"You left it open. Found: {said(self.found)}."
        apart = self.kind.apart(self.answer, self.found)
        return f"Your guess: {said(self.answer)}. Found: {said(self.found)}. {apart}".strip()

    def _gate(self, shown, lines) -> None:
        """Show things and the lines that `lines()` gives, now or once there is a guess."""
        if self.committed or not frontend.is_movable():
            guessforms.show(*shown, *lines())
            return
        pictures = [guessforms.to_html(one, self.question) for one in shown]
        box = guessforms.box(Line(WAITS))

        def open_gate():
            box.value = "".join([*pictures, *map(guessforms.to_html, lines())])

        self.after_commit.append(open_gate)
        guessforms.show(box)


def _flat(entry):
    """Make one cell of a table: lists become text, numbers lose what nobody reads."""
    if isinstance(entry, list):
        return ", ".join(map(str, entry))
    return round(entry, 3) if isinstance(entry, float) else entry
