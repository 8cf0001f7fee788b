"""Questions with a student's own numbers: right, different, and marked fairly."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2_contingency
from statsmodels.stats.proportion import proportion_confint

from grading import LESSONS, ROOT, Course, answer, find, points, read, source

PATH = ROOT / "notebooks" / "exercises" / "make_private.py"


@pytest.fixture(scope="module")
def private():
    spec = importlib.util.spec_from_file_location("make_private", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def by_hand(number, text):
    """The answer from the numbers that the question prints, in another way than the script's."""
    n = [float(one) for one in re.findall(r"\d+(?:\.\d+)?", text)]
    if number == 0:
        return sum(1 for _ in range(int(n[2])) for _ in range(0, int(n[0]), int(n[1])))
    if number == 1:  # everybody's films, dealt a great many times
        dealt = np.random.default_rng(0).random((400_000, int(n[0]))) < n[1] / 100
        return 1 - dealt[dealt[:, 0], 1:].all(axis=1).mean()
    if number == 2:  # one over the variance of the mean, from the whole matrix of correlations
        films, copies, alike = int(n[0]), int(n[1]), n[2]
        block = np.full((copies, copies), alike) + (1 - alike) * np.eye(copies)
        return 1 / np.kron(np.eye(films), block).mean()
    if number == 3:
        return int(n[0]) * int(n[1]) * int(n[2]) * int(n[3]) + int(n[0])
    if number == 4:
        return n[0] / (n[2] / n[1]) ** 2
    if number == 5:  # all outcomes of the coin as unlikely as this one
        ways = np.array([1.0])
        for _ in range(int(n[0] + n[1])):
            ways = np.convolve(ways, [0.5, 0.5])
        return ways[ways <= ways[int(n[0])] * (1 + 1e-9)].sum()
    if number == 6:
        right, films = n[:6:2], n[1:6:2]
        return sum(right) / sum(films) - max(films) / sum(films)
    if number == 7:
        ill, well = n[2] * 1e4, (100 - n[2]) * 1e4
        return ill * n[0] / (ill * n[0] + well * (100 - n[1]))
    if number == 8:
        return proportion_confint(n[0], n[1], method="wilson")[0]
    table = np.array(n[:4]).reshape(2, 2)
    return np.sqrt(chi2_contingency(table, correction=False).statistic / table.sum())


@pytest.mark.parametrize("student", ["ada", "Øyvind", "bob"])
def test_each_question_s_answer_follows_from_its_numbers(private, student):
    for number, (text, value, tolerance) in enumerate(private.sheet("a word", student)):
        assert value == pytest.approx(by_hand(number, text), abs=max(tolerance, 1e-9) * 2), text


def test_another_student_or_another_word_has_other_numbers(private):
    sheets = [private.sheet(*one) for one in (("a", "ada"), ("a", "bob"), ("b", "ada"))]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        same = [a[0] == b[0] for a, b in zip(sheets[one], sheets[other], strict=True)]
        assert sum(same) <= 1
    assert sheets[0] == private.sheet("a", "ada"), "a lost key can be made again"


def test_answers_are_marked(private, tmp_path, capsys):
    names = tmp_path / "list.txt"
    names.write_text("ada\n\nbob\n", encoding="utf-8")
    out = tmp_path / "out"
    assert private.main(["--seed", "w", "--class", str(names), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["01.md", "02.md", "key.csv"]
    text = (out / "02.md").read_text(encoding="utf-8")
    assert text.startswith("# bob\n") and "not for clinical use" in text
    right = [value for _, value, _ in private.sheet("w", "ada")]
    given = [f"{value:.3f}" for value in right]
    given[7] = given[7].replace(".", ",")  # as half of Europe writes
    given[8], given[9] = "0.123", "don't know"
    answers = tmp_path / "answers.csv"
    rows = "".join(f'ada,{n},"{one}"\n' for n, one in enumerate(given))
    answers.write_text("student,question,answer\n" + rows, encoding="utf-8-sig")
    capsys.readouterr()
    assert private.main(["--grade", str(out / "key.csv"), str(answers)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "ada: 8 of 10 (not 8, 9)" and said[1].startswith("bob: 0 of 10 (not 0, 1,")


def test_what_is_wrong_is_named(private, tmp_path, capsys):
    private.main(["--seed", "w", "ada", "--out", str(tmp_path)])
    answers = tmp_path / "answers.csv"
    for text, told in {
        "student,question\nada,1\n": "no column answer",
        "student,question,answer\neve,1,2\n": "no eve / 1",
    }.items():
        answers.write_text(text)
        assert private.main(["--grade", str(tmp_path / "key.csv"), str(answers)]) == 1
        assert told in capsys.readouterr().err
    assert private.main(["--seed", "w", "--class", str(tmp_path / "lost.txt")]) == 1
    assert "lost.txt" in capsys.readouterr().err
    for wrong in (["ada"], [], ["--seed", "w", "ada", "ada"]):
        with pytest.raises(SystemExit):
            private.main(wrong)


@pytest.fixture(scope="module")
def variants(private, tmp_path_factory):
    """A course folder with the class's task in each exercise."""
    pytest.importorskip("nbgrader", reason="nbgrader is missing (extra teach)")
    folder = tmp_path_factory.mktemp("private")
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(PATH.parent)
        assert private.main(["--seed", "w", "--out", str(folder)]) == 0
    return folder / "exercises"


def test_each_exercise_gets_a_task_that_only_the_seed_can_answer(private, variants):
    for number, lesson in enumerate(LESSONS):
        question, value, _ = private.sheet("w", "")[number]
        path = Path("release", lesson, f"{lesson}.ipynb")
        given = (variants / path).read_text(encoding="utf-8")
        cells = json.loads(given)["cells"]
        assert question in source(cells[-3]) and "NotImplementedError" in source(cells[-2])
        assert str(value) not in given and "isclose" in given and "colab-badge" not in given
        exec(source(cells[-1]), {"answer": 7})  # a number is told only that it is one
        with pytest.raises(AssertionError, match="Write one number, not 'many'"):
            exec(source(cells[-1]), {"answer": "many"})
        master = json.loads((variants / "source" / lesson / path.name).read_text("utf-8"))
        assert f". {sum(points(master).values())} points." in source(cells[0])
        public = read(lesson, "release")["cells"]
        assert cells[1:-3] == public[1:], "all else is as everybody has it"


@pytest.mark.slow
def test_the_public_solution_earns_nothing_in_the_task_of_the_class(private, variants, tmp_path):
    lesson = LESSONS[0]
    course = Course(tmp_path, lesson)
    for step in ("source", "release"):
        shutil.copytree(variants / step / lesson, course.folder / step / lesson, dirs_exist_ok=True)
    value = private.sheet("w", "")[0][1]
    course.submit("public", answer(lesson))
    for student, said in {"right": value, "wrong": value + 1}.items():
        notebook = json.loads(course.path("release", ".").read_text(encoding="utf-8"))
        find(notebook, "task-private")["source"] = f"answer = {said}"
        course.submit(student, notebook)
    assert course.type("generate_assignment", lesson, "--create").returncode == 0
    ended = course.type("autograde", lesson, "--create")
    assert ended.returncode == 0, ended.stderr
    found = {student: grades["check-private"] for student, grades in course.grades().items()}
    assert found == {"right": private.POINTS, "wrong": 0, "public": 0}
    full = points(read(lesson, "source"))
    assert course.grades()["public"]["check-1"] == full["check-1"], "its other tasks count"
