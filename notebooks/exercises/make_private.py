"""Give each student questions with numbers of their own, on paper, and the teacher the key.

    python make_private.py --seed WORD ada bob             names as your list has them
    python make_private.py --seed WORD --class list.txt    or a file with a name a line
    python make_private.py --grade key.csv answers.csv     the columns student, question, answer

The exercises are public with their solutions. Here the seed is the secret: who knows it has the
key. One question a lesson, a pocket calculator or Python allowed; some 40 minutes.
"""

from __future__ import annotations

import argparse
import csv
import sys
from hashlib import sha256
from math import ceil, isclose
from pathlib import Path

import numpy as np
from scipy.stats import binomtest
from scipy.stats.contingency import association

from cxrlib import metrics
from cxrlib.files import whole_file

FOLDER = Path(__file__).resolve().parents[2] / "build" / "private"
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
    """Write the sheets, or mark answers. Returns the exit status."""
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
        if not chosen.seed or not students:
            parser.error("give --seed and the students' names, or --grade with key and answers")
        if len(set(students)) < len(students):
            parser.error("a name stands twice: tell the two apart, such as 'ada 2'")
        write(chosen.seed, students, chosen.out)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(students)} sheets and key.csv in {chosen.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
