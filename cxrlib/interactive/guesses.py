"""Predict, then check: a learner commits to a guess before the result shows.

A lesson asks (``my_guesses.ask``), computes, and hands over what it found (``guess.check``).
Where a person sits in front of the notebook, the result waits for the guess; a headless run
shows it at once. The gate is for eyes only: the code has every result. Guesses are kept in the
run folder, a file a notebook. Nothing here counts points: a wrong guess is worth as much.
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from cxrlib import results
from cxrlib.files import write_json
from cxrlib.interactive import forms, frontend
from cxrlib.interactive.forms import GuessError, Kind, Line, said

SCHEMA = 1  # of the files of guesses
WAITS = (
    "Commit your guess above first. The result then appears here "
    "(if it should not, run this cell again)."
)
_opened: dict[Path, Guesses] = {}


def of(notebook: str) -> Guesses:
    """Guesses of a notebook, by its file name without the ending; always the same object."""
    if not re.fullmatch(r"\w[\w-]*", notebook):
        raise GuessError(f"{notebook!r} is no notebook's name: give one such as '05_vgg16'.")
    path = (results.run_folder() / "guesses" / f"{notebook}.json").absolute()
    # A cell may be run again; results that wait for the first cell's guess must not be orphaned.
    if path not in _opened:
        _opened[path] = Guesses(path)
    return _opened[path]


def read(path: Path) -> dict[str, dict]:
    """Read the guesses kept in a file: by name, each with ``question``, ``guess``, ``time``."""
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
            f"file is set aside as {path.stem}.damaged.json when you commit."
        ) from error
    return kept


def gather(folders) -> pd.DataFrame:
    """Put a class's guesses into one table, for ``plots.class_guesses``.

    Parameters
    ----------
    folders : iterable of path
        Run folders, one a person; ``guesses/`` in each is read, and ``results/`` where it is there.

    Returns
    -------
    DataFrame
        A row a committed guess: run (the folder's name), notebook, question, guess (None for
        *I don't know*) and found (None where that run recorded nothing). A damaged file is left
        out, with a warning.
    """
    rows = []
    for path in (one for folder in folders for one in sorted(Path(folder).glob("guesses/*.json"))):
        run, notebook = path.parents[1], path.stem
        if notebook.endswith(".damaged"):
            continue
        try:
            kept = read(path)
        except GuessError:
            warnings.warn(f"{path} is damaged: its guesses are left out.", stacklevel=2)
            continue
        try:
            found = results.load(run, notebook).tables["guesses"]["found"]
        except (results.ResultsError, KeyError):
            found = {}
        for name, entry in kept.items():
            rows.append([run.name, notebook, name, entry["guess"], found.get(name)])
    columns = ["run", "notebook", "question", "guess", "found"]
    return pd.DataFrame(rows, columns=columns, dtype=object)


class Guesses:
    """The questions of one notebook; made by :func:`of`."""

    def __init__(self, path: Path):
        self.path, self.asked, self.kept, self.warning = path, {}, {}, ""
        try:
            self.kept = read(path)
        except GuessError as error:
            self.warning = str(error)

    def ask(
        self, name: str, question: str, *, low=None, high=None, whole=False, choices=(), items=()
    ) -> Guess:
        """Ask, and show the form (in a headless run: a line).

        Parameters
        ----------
        name : str
            A few words, for the table at the notebook's end. Asked again, as when a cell is run
            twice, a question gives the same object; another one of this name is a GuessError.
        question : str
            Short; the lesson's text asks at length.
        low, high : float, optional
            Ends of what a number may be, both included; `whole` says that it must be whole.
        choices : sequence of str
            Answers to choose from, in place of a number; with `items`, one for each of these.
        """
        kind = Kind(low, high, whole, tuple(map(str, choices)), tuple(map(str, items)))
        guess = self.asked.setdefault(name, Guess(self, name, question, kind))
        if (guess.question, guess.kind) != (question, kind):
            raise GuessError(
                f"Two questions are called {name!r}: give each a name of its own. "
                "(If you have just rewritten this one, restart the kernel.)"
            )
        if self.warning:
            forms.show(Line(self.warning))
            self.warning = ""
        if frontend.is_movable():
            forms.show(forms.form(guess))
        else:
            told = said(guess.answer) if guess.committed else "asked in JupyterLab and Colab"
            about = {"name": name, "question": question, "hint": kind.hint} | asdict(kind)
            forms.show(Line(f"Your guess ({name}): {told}.", guess=about))
        return guess

    def keep(self, name: str, question: str, answer) -> None:
        """Add a guess to the file, or replace an earlier one; OSError if it cannot be written."""
        try:
            kept = read(self.path)  # again, each time: the notebook may be open twice
        except GuessError:
            self.path.replace(self.path.with_suffix(".damaged.json"))
            kept = {}
        time = datetime.now(UTC).isoformat(timespec="seconds")
        kept[name] = {"question": question, "guess": answer, "time": time}
        write_json(self.path, {"schema": SCHEMA, "notebook": self.path.stem, "guesses": kept})

    def table(self) -> pd.DataFrame:
        """List each question with 'your guess' and what was 'found', to be recorded."""
        rows = [[_flat(one.answer_said), _flat(one.found)] for one in self.asked.values()]
        index = pd.Index(self.asked, name="question", dtype=object)
        return pd.DataFrame(rows, index, ["your guess", "found"], dtype=object)

    def summary(self) -> None:
        """Show the table; what was found stays covered where a person has not guessed yet."""
        waiting = [guess for guess in self.asked.values() if not guess.committed]
        if not (waiting and frontend.is_movable()):
            forms.show(self.table())
            return
        note = Line("After guessing, run this cell and those below again, for the record.")
        box = forms.box()

        def refresh():
            table = self.table()
            table = table.where(table.notna(), "not measured")
            still = [guess.name for guess in waiting if not guess.committed]
            table.loc[still, "found"] = "after your guess"
            box.value = forms.to_html(table) + forms.to_html(note)

        refresh()
        for guess in waiting:
            guess.after_commit.append(refresh)
        forms.show(box)


class Guess:
    """One question and its answer; made by :meth:`Guesses.ask`.

    ``answer`` is a number, text, list of text, or None: before it is ``committed``, and for
    *I don't know*. ``found`` is alike: None until :meth:`check`, and where nothing was measured.
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
        return said(None) if self.answer is None else self.answer

    def commit(self, answer) -> None:
        """Fix the answer (else a GuessError), keep it, and show all that waited for it."""
        if answer is not None and not self.kind.accepts(answer):
            raise GuessError(f"{self.question} {self.kind.wanted}")
        self.answer, self.committed, self.trouble = answer, True, ""
        try:
            self.notebook.keep(self.name, self.question, answer)
        except OSError as error:
            self.trouble = f"It could not be kept for later ({error})."
        for follow in self.after_commit:
            follow()

    def check(self, found, *shown) -> None:
        """Take what the notebook found, with figures or tables; show all once there is a guess."""
        self.found = results.to_native(found)
        told = {"found": {"name": self.name, "value": self.found}}
        self._gate(shown, lambda: [Line(self.comparison(), **told)])

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
        if self.committed or not frontend.is_movable():
            forms.show(*shown, *lines())
            return
        pictures = [forms.to_html(one, self.question) for one in shown]
        box = forms.box(Line(WAITS))

        def open_gate():
            box.value = "".join([*pictures, *map(forms.to_html, lines())])

        self.after_commit.append(open_gate)
        forms.show(box)


def _flat(entry):
    """Make one cell of a table: lists become text, numbers lose what nobody reads."""
    if isinstance(entry, list):
        return said(entry)
    return round(entry, 3) if isinstance(entry, float) else entry
