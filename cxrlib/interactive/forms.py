"""What a guess looks like: which answers a question takes, its form, and results as HTML.

Results that wait for a guess are HTML widgets: in Colab, Output widgets do not reliably take
what a button in another cell sends them.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from html import escape

from cxrlib.interactive.explorer import message

MANY = 6  # from so many choices on, a list that folds is easier to read than radio buttons


class GuessError(ValueError):
    """A question's name that is taken, an answer that is none, or a damaged file of guesses."""


@dataclass(frozen=True)
class Kind:
    """Which answers a question takes: one of the choices, a choice an item, or else a number."""

    low: float | None = None
    high: float | None = None
    whole: bool = False
    choices: tuple[str, ...] = ()
    items: tuple[str, ...] = ()

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
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return math.isfinite(answer) and low <= answer <= high

    def number(self, text: str) -> float | int:
        """Read what a person wrote: ``0.5``, ``0,5``, ``50 %``, or, where whole, ``1,200``."""
        text = "".join(text.split()).replace(",", "" if self.whole else ".")
        try:
            found = int(text) if self.whole else float(text.removesuffix("%"))
        except ValueError as error:
            raise GuessError(self.wanted) from error
        return found / 100 if text.endswith("%") else found

    def apart(self, answer, found) -> str:
        """Say how far guess and finding lie apart; empty where they cannot be compared."""
        if self.items:
            same = sum(one == other for one, other in zip(answer, found, strict=True))
            return f"{same} of {len(found)} agree."
        if self.choices and found not in self.choices:
            return ""
        if self.choices:
            return "They agree." if answer == found else "They differ."
        return f"They lie {said(abs(found - answer))} apart."


def said(value) -> str:
    """Write an answer as a reader wants it."""
    if value is None:
        return "don't know"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


class Line(str):
    """A sentence, displayed as text or as HTML; what is `told` beside it, the site's script reads.

    There it stands as ``data-`` attributes, in JSON.
    """

    __repr__ = str.__str__

    def __new__(cls, text: str = "", **told):
        """Take the sentence, and by name what JSON can hold."""
        line = super().__new__(cls, text)
        line.told = told
        return line

    def _repr_html_(self) -> str:
        data = [f' data-{name}="{escape(json.dumps(told))}"' for name, told in self.told.items()]
        return f"<p{''.join(data)}>{escape(self)}</p>"


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

    kind, fields = guess.kind, _fields(guess.kind)
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
        answers = [field.value for field in fields]
        try:
            if None in answers:
                raise GuessError(kind.wanted)
            one = answers[0] if kind.choices else kind.number(answers[0])
            guess.commit(answers if kind.items else one)
        except GuessError as error:
            told.value = message(str(error), bad=True)

    def guess_again(_):
        set_open(True)
        if hasattr(fields[0], "focus"):  # of ipywidgets 8; the button that had it is gone
            fields[0].focus()

    entered = []

    def on_message(_, sent, __):
        if sent.get("event") == "submit" and not fields[0].disabled:  # Enter
            entered.append(True)
            try_commit()

    def on_value(_):
        # A browser tells of Enter before it sends what was written; and a busy kernel hears of a
        # click before a field's last change, which then finds the field locked.
        late = guess.answer is not None if fields[0].disabled else bool(entered)
        entered.clear()
        if late:
            try_commit()

    for field in fields:
        field.tooltip = kind.hint
        field.on_msg(on_message)
        field.observe(on_value, "value")
    commit.on_click(try_commit)
    unknown.on_click(lambda _: guess.commit(None))
    again.on_click(guess_again)
    # First of all: this form shows the guess before the results below appear.
    guess.after_commit.insert(0, lambda: set_open(False))
    set_open(not guess.committed)
    question = HTML(f'<p style="line-height:1.4"><b>{escape(guess.question)}</b></p>')
    return VBox([question, HBox(fields, layout=Layout(flex_flow="row wrap")), buttons, told])


def _fields(kind: Kind) -> list:
    """Build the controls: a text, radio buttons, or a list that folds, for each item one."""
    from ipywidgets import Dropdown, RadioButtons, Text

    look = {"description": "Your guess", "style": {"description_width": "initial"}}
    if not kind.choices:  # sent when it is complete: half a number is a number, too
        return [Text(placeholder=kind.hint, continuous_update=False, **look)]
    if len(kind.choices) < MANY and not kind.items:
        return [RadioButtons(options=kind.choices, value=None, layout={"width": "auto"}, **look)]
    look["layout"] = {"width": "15em" if kind.items else "auto"}
    look["options"] = [("choose ...", None), *zip(kind.choices, kind.choices, strict=True)]
    names = kind.items or ["Your guess"]
    return [Dropdown(index=0, **look | {"description": name}) for name in names]
