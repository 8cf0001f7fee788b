"""What a guess looks like: which answers a question takes, its form, and results as HTML.

Results that wait for a guess are shown in an HTML widget. Output widgets would do in
JupyterLab, but in Colab they do not reliably take what a button in another cell sends them.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from html import escape

from cxrlib.interactive.explorer import message

MANY = 6  # from so many choices on, a list that folds is easier to read than radio buttons


class GuessError(ValueError):
    """A question that makes no sense, an answer that is none, or a damaged file of guesses."""


@dataclass(frozen=True)
class Kind:
    """Which answers a question takes: a number, one of the choices, or a choice an item."""

    low: float | None = None
    high: float | None = None
    whole: bool = False
    choices: tuple[str, ...] = ()
    items: tuple[str, ...] = ()

    def __post_init__(self):
        number = self.whole or self.low is not None or self.high is not None
        if number and (self.choices or self.items):
            raise GuessError("Ask for a number or for a choice: give low and high, or choices.")
        if self.items and not self.choices:
            raise GuessError("Each item takes one of the choices: give choices, too.")
        if len(set(self.choices)) < len(self.choices):
            raise GuessError(f"Two of the choices are the same: {list(self.choices)}.")
        if None not in (self.low, self.high) and self.low >= self.high:
            raise GuessError(f"No number lies from {self.low} to {self.high}: low must be less.")

    @property
    def hint(self) -> str:
        """Words such as 'a number from 0 to 1'."""
        if self.choices:
            return "an answer for each" if self.items else "one of the answers"
        text = "a whole number" if self.whole else "a number"
        if self.low is not None:
            text += f" from {self.low:g}" + (" on" if self.high is None else "")
        return text + (f" to {self.high:g}" if self.high is not None else "")

    @property
    def wanted(self) -> str:
        """Sentence for an answer that is none."""
        return f"Please {'choose' if self.choices else 'write'} {self.hint}, or say you don't know."

    def accepts(self, answer) -> bool:
        """Tell whether this is an answer."""
        if self.items:
            fits = isinstance(answer, list) and len(answer) == len(self.items)
            return fits and all(one in self.choices for one in answer)
        if self.choices:
            return answer in self.choices
        if isinstance(answer, bool) or not isinstance(answer, int if self.whole else int | float):
            return False
        above = self.low is None or answer >= self.low
        return math.isfinite(answer) and above and (self.high is None or answer <= self.high)

    def number(self, text: str) -> float | int:
        """Read what a person wrote: ``0.5``, ``0,5``, ``50 %``, or, where whole, ``1,200``.

        Raises
        ------
        GuessError
            If it is no such number.
        """
        text = "".join(text.split())
        text = text.replace(",", "" if self.whole else ".")
        try:
            found = int(text) if self.whole else float(text.removesuffix("%"))
        except ValueError as error:
            raise GuessError(self.wanted) from error
        found = found / 100 if text.endswith("%") else found
        if not self.accepts(found):
            raise GuessError(self.wanted)
        return found

    def apart(self, answer, found) -> str:
        """Say how far guess and finding lie apart; empty where they cannot be compared."""
        if self.items and isinstance(found, list):
            same = sum(one == other for one, other in zip(answer, found, strict=False))
            return f"{same} of {len(found)} agree."
        if self.choices:
            agree = "They agree." if answer == found else "They differ."
            return agree if found in self.choices else ""
        if not isinstance(found, int | float):
            return ""
        return f"They lie {said(abs(found - answer))} apart."


def said(value) -> str:
    """Write an answer as a reader wants it."""
    if value is None:
        return "don't know"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


class Line:
    """A sentence, as text and as HTML; whatever stands in it is text."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.text)}</p>"


def show(*things) -> None:
    """Display things one below the other."""
    from IPython.display import display

    display(*things)


def box(shown=""):
    """Widget that shows a thing as HTML, and looks as a cell's output does."""
    from ipywidgets import HTML

    widget = HTML(to_html(shown) if shown else "")
    widget.add_class("jp-RenderedHTMLCommon")
    return widget


def to_html(shown, what: str = "A figure") -> str:
    """Turn what a cell would display into HTML; `what` describes a picture that does not itself."""
    from IPython import get_ipython
    from IPython.core.formatters import DisplayFormatter

    shell = get_ipython()
    data, about = (shell.display_formatter if shell else DisplayFormatter()).format(shown)
    picture = data.get("image/png")
    if picture:
        coded = picture if isinstance(picture, str) else base64.b64encode(picture).decode()
        told = about.get("image/png", {}).get("alt", what)
        return f'<img alt="{escape(told)}" src="data:image/png;base64,{coded}">'
    if "text/html" in data:  # in widgets JupyterLab centres tables, which a cell's output has left
        return data["text/html"].replace("<table", '<table style="margin-left: 0"')
    return f"<pre>{escape(shown if isinstance(shown, str) else data.get('text/plain', ''))}</pre>"


def form(guess):
    """Build the widgets that ask for a guess; they show it, fixed, once it is committed."""
    from ipywidgets import HTML, Button, HBox, Layout, VBox

    fields, read = _fields(guess.kind)
    commit, unknown, again = (
        Button(description=text, layout=Layout(width="auto"))
        for text in ("Commit", "I don't know", "Guess again")
    )
    told, buttons = HTML(), HBox()

    def set_open(is_open: bool):
        for field in fields:
            field.disabled = not is_open
        buttons.children = (commit, unknown) if is_open else (again,)
        text = f"Your guess: {said(guess.answer)}. The result appears below. {guess.trouble}"
        told.value = "" if is_open else message(text)

    def try_commit(*_):
        try:
            guess.commit(read())
        except GuessError as error:
            told.value = message(str(error), bad=True)

    def guess_again(_):
        set_open(True)
        if hasattr(fields[0], "focus"):  # of ipywidgets 8; the button that had it is gone
            fields[0].focus()

    def take_late(_):
        # A busy kernel may hear of Enter or a click before the field's last change. Fields are
        # locked once a guess is committed: a change that comes then was made before.
        if fields[0].disabled and guess.answer is not None:
            try_commit()

    for field in fields:
        field.on_msg(lambda _, sent, __: sent.get("event") == "submit" and try_commit())  # Enter
        field.observe(take_late, "value")
    commit.on_click(try_commit)
    unknown.on_click(lambda _: guess.commit(None))
    again.on_click(guess_again)
    # First of all: this form shows the guess before the results below appear.
    guess.after_commit.insert(0, lambda: set_open(False))
    set_open(not guess.committed)
    question = HTML(f'<p style="line-height:1.4"><b>{escape(guess.question)}</b></p>')
    return VBox([question, HBox(fields, layout=Layout(flex_flow="row wrap")), buttons, told])


def _fields(kind: Kind):
    """Build the controls, and a function that reads the answer from them or raises GuessError."""
    from ipywidgets import Dropdown, RadioButtons, Text

    look = {"style": {"description_width": "initial"}}
    if kind.choices:
        look["layout"] = {"width": "15em" if kind.items else "auto"}
    if not kind.choices:
        fields = [Text(description="Your guess", placeholder=kind.hint, **look)]
    elif len(kind.choices) < MANY and not kind.items:
        fields = [RadioButtons(options=kind.choices, value=None, description="Your guess", **look)]
    else:  # empty, it would not say what it is for
        options = [("choose ...", None), *((one, one) for one in kind.choices)]
        names = kind.items or ("Your guess",)
        fields = [Dropdown(options=options, index=0, description=one, **look) for one in names]
    for field in fields:
        field.tooltip = kind.hint

    def read():
        answers = [field.value for field in fields]
        if None in answers:
            raise GuessError(kind.wanted)
        if kind.items:
            return answers
        return answers[0] if kind.choices else kind.number(answers[0])

    return fields, read
