"""The exercises: masters, releases, and what the real nbgrader gives for all kinds of answers."""

import importlib.util
import re
import subprocess
import sys

import pandas as pd
import pytest
from matplotlib import pyplot

import grading
from grading import EXERCISES, LESSONS, ROOT
from helpers import KEEP

GENEROUS = "--ExecutePreprocessor.timeout=600"  # seconds a cell: a test machine may be busy
ENDLESS = "import time\n\nwhile True:\n    time.sleep(1)"
# Seconds for a cell: so the endless one, and no other, ends soon at any pace.
IMPATIENT = "lambda cell: 3 if 'while True' in cell.source else 600"
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
    assert (20 if lesson.startswith("00") else 30) <= int(stated[1]) <= 60
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


def autograded(points):
    return {name: value for name, value in points.items() if name.startswith("check")}


@pytest.fixture(scope="session", params=LESSONS)
def graded(request, tmp_path_factory):
    """One lesson, graded as after a course evening: a solved submission, and a wrong one.

    The wrong one has a known wrong answer to each task, and leaves the questions as they are.
    """
    lesson = request.param
    course = grading.Course(tmp_path_factory.mktemp("course"), lesson)
    wrong, release = grading.answer(lesson, first_wrong(lesson)), grading.read(lesson, "release")
    for name in grading.ids(release, solution=True, grade=True):
        grading.find(wrong, name)["source"] = grading.find(release, name)["source"]
    course.submit("solved", grading.answer(lesson))
    course.submit("wrong", wrong)
    made = course.type("generate_assignment", lesson, "--create")
    assert made.returncode == 0, made.stderr
    course.run = course.type("autograde", lesson, "--create", GENEROUS)
    return course


def first_wrong(lesson) -> dict[str, str]:
    """The first known wrong answer to each task."""
    return {task: one["code"] for task, one in grading.wrong_rounds(lesson)[0].items()}


@pytest.mark.slow
@needs_nbgrader
def test_the_master_scores_full_marks_and_wrong_answers_nothing(graded):
    assert graded.run.returncode == 0, graded.run.stderr
    full = grading.points(grading.read(graded.lesson, "source"))
    wanted = {name: None if "question" in name else n for name, n in full.items()}
    found = graded.grades()
    assert found == {"solved": wanted, "wrong": dict.fromkeys(full, 0)}
    cells = graded.graded("solved")["cells"]
    assert not [cell["id"] for cell in cells if grading.errors(cell)]


@pytest.mark.slow
@needs_nbgrader
def test_an_empty_answer_earns_nothing_where_asserts_are_taken_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    lesson, course = LESSONS[0], grading.Course(tmp_path, LESSONS[0])
    master = tmp_path / "source" / lesson / f"{lesson}.ipynb"
    short = until_the_last_of(grading.read(lesson, "source"), ["check-1"])
    master.write_text(grading.json.dumps(short), encoding="utf-8")
    for student, whole in {
        "solved": grading.answer(lesson),
        "empty": grading.read(lesson, "release"),
    }.items():
        course.submit(student, until_the_last_of(whole, ["check-1"]))
    assert course.type("generate_assignment", lesson, "--create").returncode == 0
    assert course.type("autograde", lesson, "--create", GENEROUS).returncode == 0
    full = grading.points(short)["check-1"]
    assert course.grades() == {"solved": {"check-1": full}, "empty": {"check-1": 0}}


@each_lesson
def test_every_hidden_part_begins_by_refusing_to_run_without_asserts(lesson):
    """Then the checks give nothing under a teacher's own settings for nbgrader, too."""
    master = grading.read(lesson, "source")
    for name in autograded(grading.points(master)):
        hidden = grading.cut(grading.source(grading.find(master, name)), "HIDDEN TESTS")[1]
        names = {}
        with pytest.raises(RuntimeError, match="PYTHONOPTIMIZE"):
            exec(compile("\n".join(hidden), name, "exec", optimize=1), names)
        assert set(names) == {"__builtins__"}, "nothing ran before"


# --- The same checks without a kernel for each submission -------------------------------------


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working folder of its own, and no figure left open."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    yield
    pyplot.close("all")


@pytest.mark.slow
@each_lesson
def test_the_release_as_it_is_passes_no_check(lesson, elsewhere):
    release = grading.read(lesson, "release")
    failed = grading.perform(with_hidden_tests(release, lesson))
    unanswered = "This task is not answered yet."
    for check in autograded(grading.points(release)):
        assert check in failed
        words = {failed[name].words for name in (check, check.replace("check", "task"))
                 if name in failed}  # fmt: skip
        assert unanswered in words, check
    given = [name for name in failed if not re.match("(task|check)-", name)]
    assert not given, "given cells need no answer"


@pytest.mark.slow
@each_lesson
def test_each_known_wrong_answer_is_caught_where_its_author_says(lesson, elsewhere):
    master = grading.read(lesson, "source")
    for wrong in grading.wrong_rounds(lesson):
        code = {task: one["code"] for task, one in wrong.items()}
        caught = {f"check-{task[5:]}": one for task, one in wrong.items()}
        notebook = with_hidden_tests(grading.answer(lesson, code), lesson)
        failed = grading.perform(until_the_last_of(notebook, caught))
        assert {name for name in failed if name.startswith("check")} == set(caught), {
            task: one["why"] for task, one in wrong.items()
        }
        for check, one in caught.items():
            cell = grading.find(master, check)
            visible = grading.source(cell).split("### BEGIN HIDDEN TESTS")[0].count("\n")
            if "says" in one:
                assert failed[check].line <= visible, (one["why"], failed[check])
                assert one["says"] in failed[check].words, (one["why"], failed[check])
            else:
                assert failed[check].line > visible, f"{one['why']}: a visible check stopped it"


def until_the_last_of(notebook, checks):
    """Cut a notebook to what comes before these checks: other checks, and the end, cost time."""
    cells = [cell for cell in notebook["cells"]
             if cell["id"] in checks or not cell["id"].startswith("check-")]  # fmt: skip
    last = max(place for place, cell in enumerate(cells) if cell["id"] in checks)
    return notebook | {"cells": cells[: last + 1]}


def with_hidden_tests(notebook, lesson):
    """Put the master's checks in the place of those that students see, as nbgrader does."""
    checks = {cell["id"]: cell for cell in grading.read(lesson, "source")["cells"]
              if cell["id"].startswith("check-")}  # fmt: skip
    cells = [checks.get(cell["id"], cell) for cell in notebook["cells"]]
    return notebook | {"cells": cells}


# --- What students do to notebooks ----------------------------------------------------------


@pytest.fixture(scope="session")
def odd(tmp_path_factory):
    """One lesson, handed in in odd ways."""
    lesson = LESSONS[0]
    course, full = grading.Course(tmp_path_factory.mktemp("odd"), lesson), grading.answer(lesson)
    first = grading.wrong_answers(lesson)[0]["code"]
    spoilt = grading.answer(lesson, {"task-1": first})
    grading.find(spoilt, "task-3")["source"] = ENDLESS
    grading.find(spoilt, "check-1")["source"] = "pass"
    warned = grading.answer(lesson)
    grading.find(warned, "task-1")["source"] += (
        "\n\nimport sys\nfrom functools import partial\n\nprint = partial(print, file=sys.stderr)"
    )
    copied = grading.with_copy_of(grading.with_copy_of(full, "check-1"), "task-2")
    copied = grading.without(copied, "check-3", "question-1")
    crash = grading.answer(lesson, {"task-2": "import os\n\nos._exit(1)"})
    lost = {**full, "cells": [cell | {"metadata": {}} for cell in full["cells"]]}
    for student, notebook in {
        "colab": grading.through_colab(copied),
        "crashed": crash,
        "lost": lost,
        "spoilt": grading.without(spoilt, "task-2", "check-2"),
        "warned": warned,
    }.items():
        course.submit(student, notebook)
    with (course.folder / "nbgrader_config.py").open("a", encoding="utf-8") as settings:
        settings.write(f"\nc.ExecutePreprocessor.timeout_func = {IMPATIENT}\n")
    course.type("generate_assignment", lesson, "--create")
    course.run = course.type("autograde", lesson, "--create")
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
        ("colab", {}),  # with copied cells, and without a check and a question
        # a tampered check comes back and finds the answer wrong; a task is deleted; one is endless
        ("spoilt", {"check_1": 0, "check_2": 0, "check_3": 0}),
        ("warned", {}),
    ],
)
def test_odd_submissions_score_what_they_deserve(odd, student, lost):
    assert autograded(odd.grades()[student]) == odd_points(odd, **lost), odd.run.stderr


@pytest.mark.slow
@needs_nbgrader
def test_a_deleted_question_comes_back_for_the_teacher_to_look_at(odd):
    assert odd.grades()["colab"]["question-1"] is None
    cell = grading.find_marked(odd.graded("colab"), "question-1")
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
    for student in ("colab", "spoilt"):
        page = odd.path("feedback", student).with_suffix(".html").read_text(encoding="utf-8")
        assert "check-1" in page and "Score" in page
    found = odd.type("export", "--to", "points.csv")
    assert found.returncode == 0, found.stderr
    table = pd.read_csv(odd.folder / "points.csv").set_index("student_id")
    assert table.loc["colab", "score"] == sum(odd_points(odd).values())
    assert table.loc["lost", "score"] == 0
