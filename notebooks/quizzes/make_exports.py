"""Write the quizzes for learning platforms, and the table of misconceptions for teachers.

    python make_exports.py                          all of it, into build/quizzes/
    python make_exports.py --only 03                one lesson, or several: --only 03 05
    python make_exports.py --site https://SITE      feedback links to the sections of your site

A lesson gives Moodle XML, GIFT, and a zip of QTI 1.2 for Canvas, which text2qti makes.
"""

from __future__ import annotations

import argparse
import re
import sys
from html import escape
from pathlib import Path
from xml.etree import ElementTree as ET

from cxrlib.files import whole_file
from cxrlib.interactive import quizzes

HERE = Path(__file__).resolve().parent
MISSING = """\
text2qti is missing, so the QTI files for Canvas were left out. Install it with
    python -m pip install -e ".[teach]"
in the course's folder."""
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Misconceptions</title><style>body{{font:1rem/1.5 sans-serif;margin:1rem auto;max-width:60rem;
padding:0 1rem}}td,th{{border-top:1px solid #888;padding:.4rem;text-align:left;vertical-align:top}}
td{{overflow-wrap:anywhere}}</style><h1>Misconceptions</h1><p>{intro}</p>
<table><thead><tr><th>{head}</th></tr></thead><tbody>
{rows}
</tbody></table></html>
"""
COLUMNS = ("belief", "what to say against it", "questions that show it")
INTRO = "Who chooses a wrong answer of these questions may hold the belief beside it."


def main(arguments=None) -> int:
    """Write the files, name their folder, and return the exit code: 1 if something is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "build" / "quizzes")
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="these lessons only")
    parser.add_argument("--site", default="", help="address of the site, for links in feedback")
    options = parser.parse_args(arguments)
    try:
        found = [quizzes.read(path) for path in sorted(HERE.glob("[0-9]*.yml"))]
    except quizzes.QuizError as error:
        print(error, file=sys.stderr)
        return 1
    there = [one.lesson[:2] for one in found]
    if unknown := sorted(set(options.only) - set(there)):
        parser.error(f"no lesson {', '.join(unknown)}: give some of {', '.join(there)}")
    chosen = [one for one in found if one.lesson[:2] in (options.only or there)]
    for quiz in chosen:
        _write(options.out / f"{quiz.lesson}.moodle.xml", moodle(quiz, options.site))
        _write(options.out / f"{quiz.lesson}.gift", gift(quiz, options.site))
    for name, text in misconceptions(found).items():
        _write(options.out / name, text)
    try:
        for quiz in chosen:
            write_qti(quiz, options.out / f"{quiz.lesson}.qti.zip", options.site)
    except ModuleNotFoundError as error:
        if error.name != "text2qti":
            raise
        print(MISSING, file=sys.stderr)
        return 1
    finally:
        print(f"Quizzes: {len(chosen)} lessons in {options.out}")
    return 0


def read_again(quiz, question, site: str) -> str:
    """Name the section as Markdown; with the site's address, as a link to it."""
    where = f"lesson {int(quiz.lesson[:2])}, section {question.section}"
    if not site:
        return f"Read again: {where}."
    # the anchor as docutils makes it
    anchor = re.sub(r"[^a-z0-9]+", "-", question.section.lower()).strip("-").lstrip("0123456789-")
    return f"Read again: [{where}]({site.rstrip('/')}/notebooks/{quiz.lesson}.html#{anchor})."


def moodle(quiz, site: str = "") -> str:
    """Give a quiz as Moodle XML; its points for the right answers add up to 100."""
    root = ET.Element("quiz")
    category = ET.SubElement(root, "question", type="category")
    _text(category, "category", f"$course$/top/Chest X-rays/{quiz.lesson}")
    for question in quiz.questions:
        kind = "numerical" if question.kind == "number" else "multichoice"
        one = ET.SubElement(root, "question", type=kind)
        _text(one, "name", f"{quiz.lesson[:2]} {question.id}")
        _text(one, "questiontext", quizzes.to_html(question.ask), format="html")
        _text(one, "generalfeedback", _again(quiz, question, site), format="html")
        if question.kind != "number":
            ET.SubElement(one, "single").text = str(question.kind == "single").lower()
            ET.SubElement(one, "shuffleanswers").text = "false"  # they are already
            ET.SubElement(one, "answernumbering").text = "abc"
        for answer, points in zip(question.answers, _points(question), strict=True):
            look = {"format": "html"} if question.kind != "number" else {}
            part = ET.SubElement(one, "answer", fraction=points, **look)
            text = "*" if answer.value is None else f"{answer.value:.6g}"
            said = quizzes.to_html(answer.text) if question.kind != "number" else text
            ET.SubElement(part, "text").text = said
            _text(part, "feedback", quizzes.to_html(answer.feedback), format="html")
            if answer.value is not None:
                ET.SubElement(part, "tolerance").text = str(question.tolerance)
        tags = ET.SubElement(one, "tags")
        _text(tags, "tag", question.level)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def gift(quiz, site: str = "") -> str:
    """Give a quiz as Moodle's GIFT, one question a paragraph."""
    parts = [f"$CATEGORY: $course$/top/Chest X-rays/{quiz.lesson}"]
    for question in quiz.questions:
        ask = _gift(quizzes.to_html(question.ask))
        lines = [f"::{quiz.lesson[:2]} {question.id}::[html]{ask}"]
        lines[0] += "{#" if question.kind == "number" else "{"
        for answer, points in zip(question.answers, _points(question), strict=True):
            said = f"#{_gift(quizzes.to_html(answer.feedback))}"
            if answer.value is not None:
                share = "" if answer.right else "%0%"
                lines.append(f"={share}{answer.value:.6g}:{question.tolerance}{said}")
            elif question.kind == "number":
                lines.append(f"~{said}")
            else:
                sign = {"single": "=" if answer.right else "~"}.get(question.kind, f"~%{points}%")
                lines.append(f"{sign}{_gift(quizzes.to_html(answer.text))}{said}")
        parts.append("\n".join([*lines, f"####{_gift(_again(quiz, question, site))}", "}"]))
    return "\n\n".join(parts) + "\n"


def text2qti_source(quiz, site: str = "") -> str:
    """Give a quiz in the Markdown of text2qti."""
    lines = [f"Quiz title: {quiz.lesson}", ""]
    for number, one in enumerate(quiz.questions, 1):
        lines += [f"Title: {one.id}", f"{number}. {one.ask}"]
        lines.append(f"... {read_again(quiz, one, site)}")
        if one.kind == "number":
            right, *wrong = one.answers
            told = " ".join(f"{answer.text}: {answer.feedback}" for answer in wrong)
            lines += [f"+ {right.feedback}", f"- {told[0].upper()}{told[1:]}"]
            lines.append(f"= {right.value:.6g} +- {one.tolerance or 1e-6}")
        for place, answer in enumerate(one.answers if one.kind != "number" else ()):
            mark = f"{'*' * answer.right}{'abcdefghij'[place]})"
            if one.kind == "multiple":
                mark = "[*]" if answer.right else "[ ]"
            lines += [f"{mark} {answer.text}", f"... {answer.feedback}"]
        lines.append("")
    return "\n".join(lines)


def write_qti(quiz, path: Path, site: str = "") -> None:
    """Write a quiz as a zip of QTI 1.2; ModuleNotFoundError without text2qti."""
    from text2qti.config import Config
    from text2qti.qti import QTI
    from text2qti.quiz import Quiz

    source = text2qti_source(quiz, site)
    with whole_file(path) as partial:
        QTI(Quiz(source, config=Config(), source_name=quiz.lesson)).save(partial)


def misconceptions(found) -> dict[str, str]:
    """Give the teachers' table, belief by belief, as Markdown and as a page."""
    shown = {key: [] for key in quizzes.misconceptions()}
    for quiz in found:
        for question in quiz.questions:
            name = f"{quiz.lesson[:2]} {question.id}"
            for answer in question.answers:
                if answer.misses and name not in shown[answer.misses]:
                    shown[answer.misses].append(name)
    rows = [
        (known["belief"], known["against"], ", ".join(shown[key]) or "none yet")
        for key, known in quizzes.misconceptions().items()
    ]
    lines = [" | ".join(row) for row in [COLUMNS, ["---"] * 3, *rows]]
    table = "\n".join(f"| {line} |" for line in lines)
    cells = ["</td><td>".join(map(quizzes.to_html, row)) for row in rows]
    page = PAGE.format(
        intro=escape(INTRO),
        head="</th><th>".join(COLUMNS),
        rows="\n".join(f"<tr><td>{row}</td></tr>" for row in cells),
    )
    text = f"# Misconceptions\n\n{INTRO}\n\n{table}\n"
    return {"misconceptions.md": text, "misconceptions.html": page}


def _points(question) -> list[str]:
    """Share the points: 100 among the right; of several, each wrong one takes its share away."""
    right = sum(answer.right for answer in question.answers)
    wrong = len(question.answers) - right
    lost = -100 / wrong if question.kind == "multiple" else 0
    shares = [100 / right if answer.right else lost for answer in question.answers]
    return [f"{share:.5f}".rstrip("0").rstrip(".") for share in shares]  # as Moodle lists them


def _again(quiz, question, site: str) -> str:
    return quizzes.to_html(read_again(quiz, question, site))


def _gift(text: str) -> str:
    return re.sub(r"([~=#{}:\\])", r"\\\1", text)


def _text(parent, name: str, text: str, **look) -> None:
    ET.SubElement(ET.SubElement(parent, name, look), "text").text = text


def _write(path: Path, text: str) -> None:
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    sys.exit(main())
