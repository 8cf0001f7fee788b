"""Make private variants: questions with other numbers than those that are public.

    python make_private.py --seed WORD                     the exercises, each with one task more
    python make_private.py --seed WORD ada bob             a sheet for each of these students
    python make_private.py --seed WORD --class list.txt    or for those in a file, a name a line
    python make_private.py --grade key.csv answers.csv     the columns student, question, answer

The exercises are public with their solutions. Here the seed is the secret: who knows it has the
key. One question a lesson, a pocket calculator or Python allowed. The exercises get the numbers of
the class, in a course folder for nbgrader; a sheet has all ten with the student's own, for some 40
minutes on paper.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import sys
from hashlib import sha256
from math import ceil, isclose
from pathlib import Path

import nbformat
import numpy as np
from nbformat import v4
from scipy.stats import binomtest
from scipy.stats.contingency import association

from cxrlib import metrics
from cxrlib.files import whole_file

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / "build" / "private"
CLASS = ""  # in the place of a student's name: no student is called so
POINTS = 4
TASK = """\
## One more task · With the numbers of your class

*Work it out, {points} points, about 4 minutes*

{text}

**Write** the number as `answer`, with the decimals that it asks for or more. The check here knows \
only whether it is a number."""
CHECK = """\
from math import isclose
from numbers import Real

assert isinstance(answer, Real), f"Write one number, not {{answer!r}}."
### BEGIN HIDDEN TESTS
if not __debug__:
    raise RuntimeError("PYTHONOPTIMIZE (or -O) takes out all asserts: unset it to grade.")
assert isclose(answer, {value}, rel_tol=1e-9, abs_tol={tolerance}), f"{{answer}} is not it."
### END HIDDEN TESTS
print("That is a number. Whether it is right, your teacher's copy says.")"""
COLUMNS = ("student", "question", "value", "tolerance")
HEAD = "# {}\n\nTeaching material: not for clinical use. All numbers are invented.\n\n"


def steps(draw):
    """Lesson 0."""
    films, batch, epochs = draw(90, 400), 2 ** draw(3, 6), draw(5, 20)
    text = f"{films} films are learned from in batches of {batch}, the rest of an epoch in a "
    text += f"smaller one, for {epochs} epochs. How many steps is that?"
    return text, ceil(films / batch) * epochs, 0


def met_before(draw):
    """Lesson 1."""
    films, share = draw(2, 4), draw(10, 30)
    text = f"Each of very many people has {films} films. {share} % of all films are drawn by lot "
    text += "for testing, the others are learned from. Of what share of the tested films has the "
    text += "model seen another film of the same person? (0 to 1, three decimals)"
    return text, 1 - (share / 100) ** (films - 1), 0.001


def worth(draw):
    """Lesson 2."""
    films, copies, alike = draw(10, 30), draw(3, 9), draw(2, 9) / 10
    text = f"A test holds {films} films in {copies} copies each. Answers to copies of one film "
    text += f"correlate by {alike}, films are independent. How many independent films are all "
    text += "these images worth?"
    return text, films * copies / (1 + (copies - 1) * alike), 0.1


def weights(draw):
    """Lesson 3."""
    side, maps, filters = 2 * draw(1, 3) + 1, draw(2, 16), draw(8, 64)
    text = f"A convolution has {filters} filters of {side} x {side}, and reads {maps} maps. How "
    text += "many numbers does it learn, biases included?"
    return text, (side * side * maps + 1) * filters, 0


def patients(draw):
    """Lesson 4."""
    known, now, wanted = draw(30, 90), draw(8, 15), draw(2, 6)
    text = f"With {known} patients a difference is known to within {now} points of accuracy. How "
    text += f"many patients would it take to know it to within {wanted} points?"
    return text, known * (now / wanted) ** 2, 1


def coin(draw):
    """Lesson 5."""
    first, second = draw(8, 16), draw(1, 7)
    text = f"Of {first} patients the first network alone has more films right, of {second} the "
    text += "second. What is the two-sided p of McNemar's exact test? (three decimals)"
    return text, binomtest(first, first + second).pvalue, 0.001


def three_classes(draw):
    """Lesson 6."""
    films = [draw(8, 30) for _ in range(3)]
    right = [draw(2, n) for n in films]
    told = ", ".join(f"{k} of {n}" for k, n in zip(right, films, strict=True))
    text = f"Of three classes a model calls {told} films right. How much higher is its accuracy "
    text += "than that of always calling the most frequent class? (three decimals, may be negative)"
    return text, (sum(right) - max(films)) / sum(films), 0.001


def alarms(draw):
    """Lesson 7."""
    found, spared, ill = draw(70, 99), draw(70, 99), draw(1, 20)
    text = f"A test finds {found} % of the ill and clears {spared} % of the healthy. Where {ill} % "
    text += "are ill, what share of its alarms is right? (0 to 1, three decimals)"
    true, false = found * ill, (100 - spared) * (100 - ill)
    return text, true / (true + false), 0.001


def lower_end(draw):
    """Lesson 8."""
    n = draw(10, 40)
    found = draw(n // 2, n - 1)
    text = f"A test finds {found} of {n} ill patients, one film each. Where does Wilson's 95 % "
    text += "interval of its sensitivity begin? (0 to 1, three decimals)"
    return text, metrics.wilson(found, n)[0], 0.001


def tied(draw):
    """Lesson 9."""
    table = [[draw(5, 40), draw(5, 40)], [draw(5, 40), draw(5, 40)]]
    (a, b), (c, d) = table
    text = f"Machine A X-rayed {a} healthy and {b} ill patients, machine B {c} and {d}. What is "
    text += "Cramer's V of machine and label, without any correction? (0 to 1, three decimals)"
    return text, association(table, method="cramer"), 0.001


QUESTIONS = (steps, met_before, worth, weights, patients, coin)
QUESTIONS += (three_classes, alarms, lower_end, tied)


def sheet(seed: str, student: str) -> list[tuple[str, float, float]]:
    """Give a student's questions: text, right value, and how far from it an answer may lie."""
    found = []
    for question in QUESTIONS:
        secret = sha256(f"{seed}\n{student}\n{question.__name__}".encode()).digest()
        rng = np.random.default_rng(list(secret))
        found.append(question(lambda low, high, rng=rng: int(rng.integers(low, high + 1))))
    return found


def write(seed: str, students: list[str], folder: Path) -> None:
    """Write a sheet a student (Markdown), and ``key.csv`` for the teacher alone."""
    rows = []
    for number, student in enumerate(students, 1):
        asked = sheet(seed, student)
        text = HEAD.format(student) + "\n".join(f"{n}. {one[0]}" for n, one in enumerate(asked))
        with whole_file(folder / f"{number:02}.md") as partial:
            partial.write_text(text + "\n", encoding="utf-8")
        rows += [(student, n, *one[1:]) for n, one in enumerate(asked)]
    with whole_file(folder / "key.csv") as partial, partial.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def variant(master, text: str, value: float, tolerance: float):
    """Give a master one task more, whose answer is a number. The master is changed in place."""
    value, mark = float(value), {"schema_version": 3, "task": False}
    told, answer, check = (
        v4.new_markdown_cell(TASK.format(text=text, points=POINTS), id="private-text"),
        v4.new_code_cell(
            f"### BEGIN SOLUTION\nanswer = {value}\n### END SOLUTION", id="task-private"
        ),
        v4.new_code_cell(CHECK.format(value=value, tolerance=tolerance), id="check-private"),
    )
    answer.metadata["nbgrader"] = mark | {"grade": False, "locked": False, "solution": True}
    check.metadata["nbgrader"] = mark | {"grade": True, "locked": True, "solution": False}
    check.metadata["nbgrader"]["points"] = POINTS
    for cell in (answer, check):
        cell.metadata["nbgrader"]["grade_id"] = cell.id
    title = master.cells[0]
    # The badges open the public release, which lacks the task
    title.source = re.sub(r"(?m)^\[!\[.*\n", "", title.source)
    stated = re.search(r"(\d+) points\.", title.source)
    title.source = title.source.replace(stated[0], f"{int(stated[1]) + POINTS} points.", 1)
    master.cells += [told, answer, check]
    return master


def write_exercises(seed: str, folder: Path) -> int:
    """Write masters and releases with the class's task, as a course folder for nbgrader.

    Returns the exit status of ``make_release.py``, which says what is wrong.
    """
    import make_release

    names = make_release.find_masters(HERE / "source")
    for name, asked in zip(names, sheet(seed, CLASS), strict=True):
        master = nbformat.read(HERE / "source" / name / f"{name}.ipynb", as_version=4)
        with whole_file(folder / "source" / name / f"{name}.ipynb") as partial:
            nbformat.write(variant(master, *asked), partial)
    shutil.copy(HERE / "nbgrader_config.py", folder)
    print(f"The exercises with one task more, for nbgrader, in {folder}:")
    return make_release.main([], folder)


def grade(key: Path, answers: Path) -> list[str]:
    """Say of each student how many answers are right, and which are not.

    A ValueError names a column that is missing, or a student or question that the key lacks.
    """
    right = {(row["student"], row["question"]): row for row in _rows(key, COLUMNS)}
    wrong = {student: [] for student, _ in right}
    given = {(row["student"], row["question"]): row["answer"]
             for row in _rows(answers, ("student", "question", "answer"))}  # fmt: skip
    if unknown := sorted(given.keys() - right.keys()):
        raise ValueError(f"{answers}: the key has no {' / '.join(unknown[0])}: spell it as there")
    for (student, question), row in right.items():
        value, tolerance = float(row["value"]), float(row["tolerance"])
        try:
            answer = float(given.get((student, question), "nan").replace(",", "."))
        except ValueError:
            answer = np.nan
        # A rounding of the last digit asked for is no mistake
        if not isclose(answer, value, rel_tol=1e-9, abs_tol=tolerance):
            wrong[student].append(question)
    asked = len(QUESTIONS)
    return [
        f"{student}: {asked - len(missed)} of {asked}"
        + f" (not {', '.join(missed)})" * bool(missed)
        for student, missed in wrong.items()
    ]


def _rows(path: Path, columns) -> list[dict]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if lacking := set(columns) - set(reader.fieldnames or ()):
            raise ValueError(f"{path} has no column {', '.join(sorted(lacking))}: add it")
        return list(reader)


def main(arguments=None) -> int:
    """Write exercises and sheets, or mark answers. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("students", nargs="*", help="names, as your list has them")
    parser.add_argument("--seed", help="a word that students don't know")
    parser.add_argument("--class", dest="names", type=Path, help="file with a name a line")
    parser.add_argument("--grade", nargs=2, type=Path, metavar=("KEY", "ANSWERS"))
    parser.add_argument("--out", type=Path, default=FOLDER)
    chosen = parser.parse_args(arguments)
    try:
        if chosen.grade:
            print("\n".join(grade(*chosen.grade)))
            return 0
        listed = chosen.names.read_text(encoding="utf-8").splitlines() if chosen.names else []
        students = list(filter(None, map(str.strip, [*chosen.students, *listed])))
        if not chosen.seed:
            parser.error("give --seed, or --grade with key and answers")
        if len(set(students)) < len(students):
            parser.error("a name stands twice: tell the two apart, such as 'ada 2'")
        if not students:
            return write_exercises(chosen.seed, chosen.out / "exercises")
        write(chosen.seed, students, chosen.out)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(students)} sheets and key.csv in {chosen.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
