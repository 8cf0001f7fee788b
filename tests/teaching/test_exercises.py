"""The exercises: masters, releases, and what the real nbgrader gives for all kinds of answers."""

import importlib.util
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from test_project import KEEP

import grading
from grading import EXERCISES, LESSONS, ROOT

each_lesson = pytest.mark.parametrize("lesson", LESSONS)
needs_nbgrader = pytest.mark.skipif(
    importlib.util.find_spec("nbgrader") is None, reason="nbgrader is missing (extra teach)"
)


# --- Masters and releases, read as text -----------------------------------------------------


@each_lesson
def test_tasks_checks_and_points_agree(lesson):
    master = grading.read(lesson, "source")
    tasks = grading.ids(master, solution=True, grade=False)
    questions = grading.ids(master, solution=True, grade=True)
    checks = grading.ids(master, solution=False, grade=True, locked=True)
    names = [cell["id"] for cell in master["cells"] if grading.mark(cell)]
    assert sorted(tasks + questions + checks) == sorted(names)
    numbers = range(1, len(tasks) + 1)
    assert tasks == [f"task-{k}" for k in numbers] and checks == [f"check-{k}" for k in numbers]
    assert all(names.index(f"task-{k}") + 1 == names.index(f"check-{k}") for k in numbers)
    assert questions and questions == [f"question-{k + 1}" for k in range(len(questions))]
    assert 4 <= len(tasks + questions) <= 6
    for cell in master["cells"]:
        if grading.mark(cell):
            assert grading.mark(cell)["grade_id"] == cell["id"]


@each_lesson
def test_minutes_and_points_are_stated(lesson):
    master = grading.read(lesson, "source")
    points = grading.points(master)
    title = grading.source(master["cells"][0])
    assert re.match(r"# Exercises \d · .+", title)
    stated = re.search(r"About (\d+) minutes\. (\d+) points\.", title)
    assert int(stated[2]) == sum(points.values()) and 15 <= int(stated[2]) <= 25
    assert 30 <= int(stated[1]) <= 60
    headings, minutes = [], 0
    for cell in master["cells"]:
        found = re.search(r"(\d+) points?, about (\d+) minutes?", grading.source(cell))
        if cell["cell_type"] == "markdown" and found:
            headings.append(int(found[1]))
            minutes += int(found[2])
    assert headings == list(points.values()), "each task states its points, in order"
    assert minutes <= int(stated[1]) + 5


@each_lesson
def test_a_question_has_a_rubric_and_tasks_have_hidden_tests(lesson):
    master = grading.read(lesson, "source")
    for name in grading.ids(master, solution=True, grade=True):
        assert "**Rubric" in grading.source(grading.find(master, name))
    checks = grading.ids(master, solution=False, grade=True)
    texts = [grading.source(grading.find(master, name)) for name in checks]
    assert any("### BEGIN HIDDEN TESTS" in text for text in texts)
    for text in texts:
        # The last line prints: a bare number there would count as partial credit.
        assert text.rstrip().split("\n")[-1].startswith("print("), text


@each_lesson
def test_set_up_badges_and_links_are_those_of_the_lesson(lesson):
    exercise = grading.read(lesson, "source")["cells"]
    own = grading.json.loads((ROOT / "notebooks" / f"{lesson}.ipynb").read_text(encoding="utf-8"))
    set_up = next(cell for cell in own["cells"] if "setup" in cell["metadata"].get("tags", []))
    mine = next(cell for cell in exercise if "setup" in cell["metadata"].get("tags", []))
    assert grading.source(mine) == grading.source(set_up)
    badges = [line for line in grading.source(own["cells"][0]).split("\n") if "badge" in line]
    release = f"notebooks/exercises/release/{lesson}/{lesson}.ipynb"
    title = grading.source(exercise[0])
    assert len(badges) == 2
    for badge in badges:
        assert badge.replace(f"notebooks/{lesson}.ipynb", release) in title
    assert f"(../../../{lesson}.ipynb)" in title and "not" in title and "clinical" in title


@each_lesson
def test_the_release_is_the_master_minus_its_blanks(lesson):
    master, release = grading.read(lesson, "source"), grading.read(lesson, "release")
    assert [cell["id"] for cell in master["cells"]] == [cell["id"] for cell in release["cells"]]
    for cell, given in zip(master["cells"], release["cells"], strict=True):
        wanted, what = grading.source(cell), grading.mark(cell)
        if what.get("solution") and what["grade"]:
            before, _, after, _ = grading.cut(wanted, "SOLUTION")
            wanted = "\n".join([*before, grading.QUESTION_STUB, *after])
        elif what.get("solution"):
            before, _, after, indent = grading.cut(wanted, "SOLUTION")
            wanted = "\n".join([*before, *(indent + line for line in grading.STUB), *after])
        elif "HIDDEN TESTS" in wanted:
            before, _, after, _ = grading.cut(wanted, "HIDDEN TESTS")
            wanted = "\n".join(before + after)
        assert grading.source(given) == wanted
        assert given["cell_type"] == cell["cell_type"]
        assert given["metadata"].get("tags") == cell["metadata"].get("tags")
        for key in ("grade", "solution", "locked", "points"):
            assert grading.mark(given).get(key) == what.get(key)


@each_lesson
def test_no_cell_that_students_read_is_long(lesson):
    """At most 30 lines, as in the lessons; a master's checks are longer, by their hidden part."""
    code = [
        cell for cell in grading.read(lesson, "release")["cells"] if cell["cell_type"] == "code"
    ]
    long = {cell["id"] for cell in code if len("".join(cell["source"]).splitlines()) > 30}
    assert not long


@each_lesson
def test_a_release_gives_nothing_away_and_needs_no_nbgrader(lesson):
    for cell in grading.read(lesson, "release")["cells"]:
        text = grading.source(cell)
        for word in ("SOLUTION", "HIDDEN", "Rubric", "nbgrader"):
            assert word not in text, (cell["id"], word)
        if cell["cell_type"] == "code" and not text.lstrip().startswith("try:\n    import cxrlib"):
            compile(text, cell["id"], "exec")


@each_lesson
def test_each_task_has_a_known_wrong_answer(lesson):
    master, wrong = grading.read(lesson, "source"), grading.wrong_answers(lesson)
    tasks = grading.ids(master, solution=True, grade=False)
    assert {one["task"] for one in wrong} == set(tasks)
    assert any("says" not in one for one in wrong), "one must pass the visible checks"
    for one in wrong:
        assert set(one) <= {"task", "why", "earns", "says", "code"} and one["why"]
        points = grading.points(master)[one["task"].replace("task", "check")]
        assert 0 <= one.get("earns", 0) <= points


def test_notebooks_are_stripped_and_their_ids_are_unique():
    paths = [*EXERCISES.glob("source/*/*.ipynb"), *EXERCISES.glob("release/*/*.ipynb")]
    command = [sys.executable, "-m", "nbstripout", "--verify", "--keep-id", "--extra-keys", KEEP]
    found = subprocess.run([*command, *paths], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    for path in paths:
        cells = grading.json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert len({cell["id"] for cell in cells}) == len(cells)


# --- make student -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def make_release():
    path = EXERCISES / "make_release.py"
    spec = importlib.util.spec_from_file_location("make_release", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def small_course(tmp_path, make_release):
    """A folder with the settings and one master, whose release is made."""
    grading.Course(tmp_path, LESSONS[0])
    assert make_release.main([], tmp_path) == 0
    return tmp_path


@needs_nbgrader
def test_no_release_has_drifted_from_its_master(make_release, capsys):
    assert make_release.main(["--check"]) == 0, capsys.readouterr().out


@needs_nbgrader
def test_a_drifted_release_is_named_and_left_alone(small_course, make_release, capsys):
    path = small_course / "release" / LESSONS[0] / f"{LESSONS[0]}.ipynb"
    made = path.read_bytes()
    assert made == (EXERCISES / path.relative_to(small_course)).read_bytes()
    path.write_bytes(made + b"\n")
    (small_course / "release" / "old").mkdir()
    (small_course / "release" / "old" / "old.ipynb").write_text("{}")
    assert make_release.main(["--check"], small_course) == 1
    said = capsys.readouterr().out
    assert f"{path.name} in release/ differs" in said and "old.ipynb in release/ has no" in said
    assert path.read_bytes() == made + b"\n"
    assert make_release.main(["--only", LESSONS[0][:2]], small_course) == 0
    assert path.read_bytes() == made
    assert not (small_course / "release" / "old").exists()
    path.unlink()
    drift = make_release.find_drift({LESSONS[0]: "{}"}, small_course / "release")
    assert drift == [f"{path.name} is missing from release/"]


@needs_nbgrader
def test_a_teachers_own_command_makes_the_same_bytes(tmp_path):
    course = grading.Course(tmp_path, LESSONS[0])
    release = course.path("release", ".")
    before = release.read_bytes()
    release.write_text("{}")
    found = course.type("generate_assignment", LESSONS[0], "--create")
    assert found.returncode == 0, found.stderr
    assert release.read_bytes() == before


@needs_nbgrader
def test_a_master_that_nbgrader_refuses_is_named(small_course, make_release, capsys):
    path = small_course / "source" / LESSONS[0] / f"{LESSONS[0]}.ipynb"
    path.write_text(path.read_text(encoding="utf-8").replace("### END SOLUTION", ""), "utf-8")
    assert make_release.main([], small_course) == 2
    said = capsys.readouterr().err
    assert f"refuses the master {LESSONS[0]}" in said and "no end solution" in said


def test_without_nbgrader_the_message_says_what_to_install(make_release, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nbgrader.apps", None)
    monkeypatch.setitem(sys.modules, "nbgrader", None)
    assert make_release.main([]) == 2
    assert '".[teach]"' in capsys.readouterr().err


def test_an_unknown_lesson_is_named(make_release, capsys):
    assert make_release.main(["--only", "77"]) == 2
    assert "'77'" in capsys.readouterr().err


# --- Graded by nbgrader -----------------------------------------------------------------------


class Graded:
    """All submissions of one lesson, graded in one go, as after a course evening."""

    def __init__(self, lesson, folder):
        self.lesson, self.master = lesson, grading.read(lesson, "source")
        self.full = grading.points(self.master)
        self.course = grading.Course(folder, lesson)
        self.rounds = grading.wrong_rounds(lesson)
        self.course.submit("solved", grading.answer(lesson))
        self.course.submit("empty", grading.read(lesson, "release"))
        for place, wrong in enumerate(self.rounds):
            code = {task: one["code"] for task, one in wrong.items()}
            self.course.submit(f"wrong-{place}", grading.answer(lesson, code))
        made = self.course.type("generate_assignment", lesson, "--create")
        assert made.returncode == 0, made.stderr
        start = time.monotonic()
        limit = "--ExecutePreprocessor.timeout=200"  # generous: a test machine may be busy
        self.run = self.course.type("autograde", lesson, "--create", limit)
        self.seconds = (time.monotonic() - start) / (2 + len(self.rounds))
        self.grades = self.course.grades()


class Lessons(dict):
    """Graded lessons by name; one that nobody has begun begins when it is asked for."""

    def __init__(self, folder, pool, begun=()):
        self.folder, self.pool = folder, pool
        super().__init__({lesson: self.begin(lesson) for lesson in begun})

    def begin(self, lesson):
        return self.pool.submit(Graded, lesson, self.folder / lesson)

    def __missing__(self, lesson):
        return self.setdefault(lesson, self.begin(lesson))


@pytest.fixture(scope="session")
def graded(request, tmp_path_factory):
    """Grade the lessons that this session tests, two at a time, while tests read the first.

    A worker of pytest-xdist grades those that it is given, when it comes to them.
    """
    asked = {
        item.callspec.params["lesson"]
        for item in request.session.items
        if "graded" in item.fixturenames and hasattr(item, "callspec")
    }
    if "PYTEST_XDIST_WORKER" in os.environ:
        asked = set()
    with ThreadPoolExecutor(2) as pool:
        yield Lessons(tmp_path_factory.mktemp("courses"), pool, sorted(asked))
        pool.shutdown(cancel_futures=True)  # after an interruption: begin no further lesson


def autograded(points):
    return {name: value for name, value in points.items() if name.startswith("check")}


@pytest.mark.slow
@needs_nbgrader
@each_lesson
def test_the_master_scores_full_marks(graded, lesson):
    found = graded[lesson].result()
    assert found.run.returncode == 0, found.run.stderr
    wanted = {name: None if "question" in name else n for name, n in found.full.items()}
    assert found.grades["solved"] == wanted
    cells = found.course.graded("solved")["cells"]
    assert not [cell["id"] for cell in cells if grading.errors(cell)]
    assert found.seconds < 90


@pytest.mark.slow
@needs_nbgrader
@each_lesson
def test_the_release_as_it_is_scores_nothing(graded, lesson):
    found = graded[lesson].result()
    assert found.grades["empty"] == dict.fromkeys(found.full, 0)
    failed = {
        cell["id"]: {(error["ename"], error["evalue"]) for error in grading.errors(cell)}
        for cell in found.course.graded("empty")["cells"]
    }
    message = ("NotImplementedError", "This task is not answered yet.")
    for check in autograded(found.full):
        assert message in failed[check] | failed[check.replace("check", "task")]
    given = [name for name in failed if not re.match("(task|check)-", name)]
    assert not [name for name in given if failed[name]], "given cells need no answer"


@pytest.mark.slow
@needs_nbgrader
@each_lesson
def test_known_wrong_answers_score_what_they_deserve(graded, lesson):
    found = graded[lesson].result()
    for place, wrong in enumerate(found.rounds):
        deserved = autograded(found.full)
        deserved |= {f"check-{task[5:]}": one.get("earns", 0) for task, one in wrong.items()}
        assert autograded(found.grades[f"wrong-{place}"]) == deserved, {
            task: one["why"] for task, one in wrong.items()
        }


@pytest.mark.slow
@needs_nbgrader
@each_lesson
def test_a_wrong_answer_is_caught_where_its_author_says(graded, lesson):
    found = graded[lesson].result()
    for place, wrong in enumerate(found.rounds):
        notebook = found.course.graded(f"wrong-{place}")
        for task, one in wrong.items():
            check = f"check-{task[5:]}"
            if one.get("earns", 0) == found.full[check]:
                continue
            cell = grading.find(notebook, check)
            visible = grading.source(cell).split("### BEGIN HIDDEN TESTS")[0].count("\n")
            line = grading.failed_line(cell)
            if "says" in one:
                shown = "\n".join(error["evalue"] for error in grading.errors(cell))
                assert line <= visible and one["says"] in shown, (one["why"], shown)
            else:
                assert line > visible, f"{one['why']}: a visible check stopped it"


# --- What students do to notebooks ----------------------------------------------------------


@pytest.fixture(scope="session")
def odd(tmp_path_factory):
    """One lesson, handed in in odd ways."""
    lesson = LESSONS[0]
    course, full = grading.Course(tmp_path_factory.mktemp("odd"), lesson), grading.answer(lesson)
    wrong = grading.answer(lesson, {"task-1": grading.wrong_answers(lesson)[0]["code"]})
    grading.find(wrong, "check-1")["source"] = "pass"
    loop = grading.answer(lesson, {"task-2": "while True:\n    pass"})
    crash = grading.answer(lesson, {"task-2": "import os\n\nos._exit(1)"})
    lost = {**full, "cells": [cell | {"metadata": {}} for cell in full["cells"]]}
    warned = grading.answer(lesson)
    grading.find(warned, "task-1")["source"] += (
        "\n\nimport sys\nfrom functools import partial\n\nprint = partial(print, file=sys.stderr)"
    )
    for student, notebook in {
        "tampered": wrong,
        "colab": grading.through_colab(full),
        "colab-deleted": grading.through_colab(grading.without(full, "check-1", "question-1")),
        "deleted-task": grading.without(full, "task-2", "check-2"),
        "copied": grading.with_copy_of(grading.with_copy_of(full, "check-1"), "task-2"),
        "endless": loop,
        "crashed": crash,
        "lost": lost,
        "warned": warned,
    }.items():
        course.submit(student, notebook)
    course.type("generate_assignment", lesson, "--create")
    course.run = course.type("autograde", lesson, "--create", "--ExecutePreprocessor.timeout=20")
    return course


def odd_points(course, **instead):
    """Full marks of the checks of the odd lesson, apart from those named."""
    points = autograded(grading.points(grading.read(course.lesson, "source")))
    return points | {name.replace("_", "-"): value for name, value in instead.items()}


@pytest.mark.slow
@needs_nbgrader
@pytest.mark.parametrize(
    ("student", "lost"),
    [
        ("tampered", {"check_1": 0}),  # nbgrader puts the check back, and the answer is wrong
        ("colab", {}),
        ("colab-deleted", {}),
        ("deleted-task", {"check_2": 0}),
        ("copied", {}),
        ("endless", {"check_2": 0}),
        ("warned", {}),
    ],
)
def test_odd_submissions_score_what_they_deserve(odd, student, lost):
    assert autograded(odd.grades()[student]) == odd_points(odd, **lost), odd.run.stderr


@pytest.mark.slow
@needs_nbgrader
def test_a_deleted_question_comes_back_for_the_teacher_to_look_at(odd):
    assert odd.grades()["colab-deleted"]["question-1"] is None
    cell = grading.find_marked(odd.graded("colab-deleted"), "question-1")
    assert "was missing from the submission" in grading.source(cell)


@pytest.mark.slow
@needs_nbgrader
def test_what_cannot_be_graded_is_named_and_stops_nobody_else(odd):
    assert odd.run.returncode != 0
    log = re.sub(r"\s+", " ", odd.run.stderr)
    failed = set(re.findall(r"error processing assignment '\S+' for student '(\S+)'", log))
    assert failed == {"lost", "crashed"}
    assert "The notebook of lost has lost nbgrader's metadata" in log and "fresh release" in log
    assert "Kernel died" in log
    assert odd.path("autograded", "warned").exists(), "the last in the alphabet is graded too"


@pytest.mark.slow
@needs_nbgrader
def test_feedback_and_a_table_of_points_come_out(odd):
    found = odd.type("generate_feedback", odd.lesson)
    assert found.returncode == 0, found.stderr
    for student in ("colab", "tampered"):
        page = odd.path("feedback", student).with_suffix(".html").read_text(encoding="utf-8")
        assert "check-1" in page and "Score" in page
    found = odd.type("export", "--to", "points.csv")
    assert found.returncode == 0, found.stderr
    table = pd.read_csv(odd.folder / "points.csv").set_index("student_id")
    assert table.loc["colab", "score"] == sum(odd_points(odd).values())
    assert table.loc["lost", "score"] == 0
