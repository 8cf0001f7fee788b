"""Quizzes of the lessons: read, checked whole, and shown in a notebook and on the site.

``notebooks/quizzes/README.md`` says what a file holds. jupyterquiz (MIT) is not used because an
arrow key already answers there, and without its script (40 KB a quiz) nothing shows at all.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, partial
from hashlib import sha256
from html import escape
from math import isfinite
from pathlib import Path

from cxrlib import results
from cxrlib.files import no_such, parse_yaml, shipped
from cxrlib.plots import pages

LEVELS = ("judgement", "reading", "recall")
SHARED = {"id", "level", "kind", "section", "ask"}
KINDS = {  # what a question of each kind must have beside the shared keys
    "single": SHARED | {"answers"},
    "multiple": SHARED | {"answers"},
    "number": SHARED | {"value", "tolerance", "feedback", "otherwise"},
}
OTHER = "any other number"
LINK, HELD = re.compile(r"\[([^\]]+)\]\(((?:https?:)?[^):\s]+)\)"), re.compile(r"\{(\w+)\}")


class QuizError(ValueError):
    """A quiz that cannot be read; the message names file, question and remedy."""


@dataclass(frozen=True)
class Answer:
    """An answer, right or wrong; of a number question with its `value`, None for any other."""

    text: str
    right: bool
    feedback: str
    misses: str | None = None
    value: float | None = None


@dataclass(frozen=True)
class Question:
    """A question with its answers in the order in which they are shown everywhere.

    Of a number question the first answer is right; the last, without a value, fits all others.
    """

    id: str
    level: str
    kind: str
    section: str
    ask: str
    answers: tuple[Answer, ...]
    tolerance: float | None = None


@dataclass(frozen=True)
class Quiz:
    """The questions of a lesson; as a cell's last line it shows itself."""

    lesson: str
    questions: tuple[Question, ...]

    def __repr__(self) -> str:
        lines = []
        for number, one in enumerate(self.questions, 1):
            choices = [f"   - {answer.text}" for answer in one.answers if one.kind != "number"]
            lines += [f"{number}. {one.ask}", *choices]
        return "\n".join(lines)

    def part(self, first: int, last: int | None = None) -> Quiz:
        """Give some of the questions, as a slice does: from `first` (0 is the first) to `last`."""
        return Quiz(self.lesson, self.questions[first:last])

    def _repr_html_(self) -> str:
        page = pages.template(Path(__file__).with_name("quiz.html.j2"))
        return page.render(quiz=self, html=to_html)


def quiz(lesson: str) -> Quiz:
    """Give the quiz of a lesson, such as ``"04_resnet50"``, for a cell to show; see `read`."""
    folder = shipped("notebooks") / "quizzes"
    there = [path.stem for path in sorted(folder.glob("[0-9]*.yml"))]
    if lesson not in there:
        raise QuizError(no_such("quiz", lesson, there))
    return read(folder / f"{lesson}.yml")


def read(path: Path | str) -> Quiz:
    """Read a quiz and check all of it; a QuizError names the file, the question and the remedy.

    `path` is its YAML file. The lesson's notebook, which has the sections, and
    ``misconceptions.yml`` are those of the course.
    """
    path = Path(path)
    where, questions = path.name, []
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
        _has(content, {"lesson", "questions"})
        if content["lesson"] != path.stem:
            raise ValueError(f"lesson is {content['lesson']!r}: write the file's own name")
        if not isinstance(content["questions"], list) or not content["questions"]:
            raise ValueError("questions is no list: write one question at least")
        headings = _headings(path.stem)
        for number, one in enumerate(content["questions"], 1):
            name = one.get("id", number) if isinstance(one, dict) else number
            where = f"{path.name}, question {name}"
            if name in [other.id for other in questions]:
                raise ValueError("this id stands twice: give each question its own")
            questions.append(_question(one, path.stem, headings))
            levels = [LEVELS.index(other.level) for other in questions]
            if levels != sorted(levels):
                raise ValueError("it stands too late: put judgement first, then reading, recall")
    except (OSError, TypeError, ValueError) as error:
        raise QuizError(f"{where}: {error}.") from error
    return Quiz(path.stem, tuple(questions))


@dataclass(frozen=True)
class Recorded:
    """What the recorded run found, folded away; see :func:`recorded`."""

    text: str

    def __repr__(self) -> str:
        return f"What we saw with the defaults: {self.text}"

    def _repr_html_(self) -> str:
        summary = "<summary>What we saw with the defaults</summary>"
        return f"<details>{summary}<p>{to_html(self.text)}</p></details>"


def recorded(lesson: str, name: str) -> Recorded:
    """Say what the recorded run of a lesson found (data/reference), for a cell to show.

    ``notebooks/quizzes/recorded.yml`` has the paragraphs, by lesson and `name`, and says where
    their numbers stand. A QuizError names a paragraph or a number that is not there.
    """
    try:
        given = recordings()[lesson][name]
    except KeyError:
        there = [f"{one} / {key}" for one, told in recordings().items() for key in told]
        raise QuizError(no_such("recorded text", f"{lesson} / {name}", there)) from None
    try:
        run = _recorded(lesson)
        places = given["places"].items()
        found = {name: _result([lesson, "tables", *place]) for name, place in places}
        told = _fill(given["text"], found)
    except ValueError as error:
        raise QuizError(f"recorded.yml, {lesson} / {name}: {error}.") from error
    kinds = sorted({one["kind"] for one in run.weights.values()})
    said = {"random": "random weights in place of ImageNet's"}
    kinds = [f"{said.get(kind, f'{kind} weights')}, " for kind in kinds if given["weights"]]
    synthetic = "Synthetic" if run.data["synthetic"] else "Real"
    return Recorded(f"{told} ({synthetic} images, {''.join(kinds)}seed {run.seed}.)")


@cache
def recordings() -> dict[str, dict]:
    """Read what lessons say of the recorded run: ``text``, ``places``, ``weights``, by name."""
    path = shipped("notebooks") / "quizzes" / "recorded.yml"
    return parse_yaml(path.read_text(encoding="utf-8"))


@cache
def misconceptions() -> dict[str, dict]:
    """Read what wrong answers show: by key, the ``belief`` and what to say ``against`` it."""
    path = shipped("notebooks") / "quizzes" / "misconceptions.yml"
    return parse_yaml(path.read_text(encoding="utf-8"))


def to_html(text: str) -> str:
    """Turn one paragraph of Markdown (emphasis, code, links) into HTML."""
    parts = re.split(r"`([^`]+)`", escape(text.strip()).replace("&#x27;", "'"))
    parts[1::2] = [f"<code>{code}</code>" for code in parts[1::2]]
    for place in range(0, len(parts), 2):
        plain = LINK.sub(r'<a href="\2">\1</a>', parts[place])
        plain = re.sub(r"\*\*(?=\S)(.+?)(?<=\S)\*\*", r"<strong>\1</strong>", plain)
        parts[place] = re.sub(r"\*(?=\S)(.+?)(?<=\S)\*", r"<em>\1</em>", plain)
    return "".join(parts)


def _has(given, needed: set, optional=frozenset()) -> None:
    if not isinstance(given, dict):
        raise ValueError(f"{given!r} has no keys: write {', '.join(sorted(needed))}")
    if lacking := sorted(needed - given.keys()):
        raise ValueError(f"{', '.join(lacking)} is missing: add it")
    if unknown := sorted(map(str, given.keys() - needed - optional)):
        raise ValueError(f"{', '.join(unknown)} is unknown: take it out or spell it right")


def _headings(lesson: str) -> set[str]:
    path = shipped("notebooks") / f"{lesson}.ipynb"
    if not path.exists():
        raise ValueError(f"there is no lesson {lesson}: name the file as its notebook")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return {found.strip() for text in texts for found in re.findall(r"(?m)^#+ +(.+)$", text)}


def _question(one, lesson: str, headings: set) -> Question:
    kind = one.get("kind") if isinstance(one, dict) else None
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}: write {', '.join(KINDS)}")
    _has(one, KINDS[kind], {"results", "wrong"} if kind == "number" else {"results"})
    if not isinstance(one["id"], str):
        raise ValueError(f"id is {one['id']!r}: write a short name")
    if one["level"] not in LEVELS:
        raise ValueError(f"level is {one['level']!r}: write {', '.join(LEVELS)}")
    if one["section"] not in headings:
        raise ValueError(f"{one['section']!r} is no heading of {lesson}: copy one word for word")
    found = {name: _result(where) for name, where in (one.get("results") or {}).items()}
    answers = _numbers(one, found) if kind == "number" else _choices(one, found, lesson)
    missed = {a.misses for a in answers if not a.right and a.text != OTHER}
    if unknown := missed - misconceptions().keys():
        raise ValueError(f"misses {unknown.pop()!r} is no key of misconceptions.yml: add it there")
    texts = {key: one[key] for key in ("id", "level", "kind", "section")}
    tolerance = one.get("tolerance")
    return Question(**texts, ask=_fill(one["ask"], found), answers=answers, tolerance=tolerance)


def _choices(one: dict, found: dict, lesson: str) -> tuple[Answer, ...]:
    answers = []
    for given in one["answers"]:
        right = isinstance(given, dict) and given.get("right") is True
        _has(given, {"text", "feedback", "right" if right else "misses"})
        told = {key: _fill(given[key], found) for key in ("text", "feedback")}
        answers.append(Answer(right=right, misses=given.get("misses"), **told))
    count = sum(answer.right for answer in answers)
    if count == 0 or count == len(answers) or (one["kind"] == "single" and count > 1):
        wanted = "one right answer and a wrong one" if one["kind"] == "single" else "both kinds"
        raise ValueError(f"{count} of {len(answers)} answers are right: give {wanted}")
    # By a hash: the right one has no favourite place, and all places have the same order.
    key = f"{lesson} {one['id']}"
    return tuple(sorted(answers, key=lambda a: sha256(f"{key} {a.text}".encode()).hexdigest()))


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _numbers(one: dict, found: dict) -> tuple[Answer, ...]:
    if not _is_number(one["tolerance"]) or one["tolerance"] < 0:
        raise ValueError(f"tolerance is {one['tolerance']!r}: write a number, 0 or more")
    right = {"value": one["value"], "feedback": one["feedback"], "misses": None}
    answers = []
    for given in [right, *(one.get("wrong") or [])]:
        _has(given, {"value", "misses", "feedback"})
        value = found.get(given["value"], given["value"])
        if not _is_number(value):
            raise ValueError(f"value is {value!r}: write a number, or the name of a result")
        text = _said(value) if given["value"] in found else f"{value:g}"
        told = _fill(given["feedback"], found)
        answers.append(Answer(text, given is right, told, given["misses"], value))
    if any(abs(other.value - answers[0].value) <= one["tolerance"] for other in answers[1:]):
        raise ValueError("a wrong value lies within the tolerance of the right one: move it")
    return *answers, Answer(OTHER, False, _fill(one["otherwise"], found))


_recorded = cache(partial(results.load, shipped("data") / "reference"))


def _result(where) -> int | float:
    try:
        notebook, kind, name, row, column = where
        table = getattr(_recorded(notebook), kind)[name]
        return results.to_native(table.loc[row, column])
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"results {where} are not in data/reference: correct the path") from error


def _said(value) -> str:
    if not isinstance(value, float):
        return str(value)
    if 0 < abs(value) < 0.005:  # on which side of 0 it lies is what an interval's end says
        return format(Decimal(f"{value:.1g}"), "f")
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"


def _fill(text, found: dict) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{text!r} is no text: write one, in quotation marks")
    if lacking := set(HELD.findall(text)) - set(found):
        raise ValueError(f"{{{lacking.pop()}}} has no number: name it under results")
    return HELD.sub(lambda name: _said(found[name[1]]), text).strip()
