"""Predict, then check: a learner commits to a guess before the result shows.

A lesson asks (``my_guesses.ask``), computes, and hands over what it found (``guess.check``).
Where a person sits in front of the notebook, the result waits for the guess; a headless run
shows it at once. The gate is for eyes only: the code has every result. Guesses are kept in the
run folder, a file a notebook. A wrong guess is worth as much as a right one, so nothing here
counts points.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from cxrlib import frontend, guessforms, results
from cxrlib.guessfile import GuessError, keep, read
from cxrlib.guessforms import Kind, said
from cxrlib.results import to_native

NONE, OPEN = "none", "don't know"  # no guess was made; the learner said so
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


class Guesses:
    """The questions of one notebook; made by :func:`of`."""

    def __init__(self, path: Path):
        self.path, self.asked, self.kept, self._warned = path, {}, {}, False
        try:
            self.kept = read(path)
        except GuessError as error:
            self._warning = str(error)
        else:
            self._warning = ""

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
        guess = self.asked.get(name) or Guess(self, name, question, kind)
        if (guess.question, guess.kind) != (question, kind):
            raise GuessError(
                f"Two questions are called {name!r}: give each a name of its own. "
                "(If you have just rewritten this one, restart the kernel.)"
            )
        self.asked[name] = guess
        if self._warning and not self._warned:
            self._warned = True
            guessforms.show(guessforms.Line(self._warning))
        guess.show()
        return guess

    def table(self) -> pd.DataFrame:
        """List each question with 'your guess' and what was 'found', to be recorded."""
        rows = {name: [guess.answer_said, guess.found] for name, guess in self.asked.items()}
        index = pd.Index(rows, name="question", dtype=object)
        flat = [[_flat(entry) for entry in row] for row in rows.values()]
        return pd.DataFrame(flat, index, ["your guess", "found"], dtype=object)

    def summary(self) -> None:
        """Show the table; what was found stays covered where a person has not guessed yet."""
        waiting = [name for name, guess in self.asked.items() if not guess.committed]
        if not (waiting and _is_live()):
            guessforms.show(self.table())
            return
        box = guessforms.box()

        def refresh():
            table = self.table()
            still = [name for name in waiting if not self.asked[name].committed]
            table.loc[still, "found"] = "after your guess"
            note = "After guessing, run this cell and those below again, for the record."
            box.value = guessforms.table_html(table) + guessforms.Line(note)._repr_html_()

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
        """The answer; a word where there is none."""
        if not self.committed:
            return NONE
        return OPEN if self.answer is None else self.answer

    def show(self) -> None:
        """Show the form; in a headless run, a line."""
        if _is_live():
            guessforms.show(guessforms.form(self))
            return
        told = said(self.answer) if self.committed else "asked in JupyterLab and Colab"
        guessforms.show(guessforms.Line(f"Your guess ({self.name}): {told}."))

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
        self.found = to_native(found)
        self._gate(shown, compare=True)

    def reveal(self, *shown) -> None:
        """Show figures or tables that would give the answer away, once there is a guess."""
        self._gate(shown, compare=False)

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

    def _gate(self, shown, compare: bool) -> None:
        def lines():
            return [guessforms.Line(self.comparison())] * compare

        if self.committed or not _is_live():
            guessforms.show(*shown, *lines())
            return
        pictures = [guessforms.to_html(one, self.question) for one in shown]
        box = guessforms.box(guessforms.Line(WAITS)._repr_html_())

        def open_gate():
            box.value = "".join([*pictures, *(line._repr_html_() for line in lines())])

        self.after_commit.append(open_gate)
        guessforms.show(box)


def _flat(entry):
    """Make one cell of a table: lists become text, numbers lose what nobody reads."""
    if isinstance(entry, list):
        return ", ".join(map(str, entry))
    return round(entry, 3) if isinstance(entry, float) else entry


def _is_live() -> bool:
    return frontend.is_live() and guessforms.has_widgets()
