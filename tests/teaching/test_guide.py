"""The teacher's guide: its minutes, plans and outcomes are those of lessons and exercises."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml

from cxrlib import results

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
TEACHING = ROOT / "docs" / "teaching"
OUTCOMES = yaml.safe_load((TEACHING / "outcomes.yml").read_text(encoding="utf-8"))
LESSONS = {int(path.stem[:2]): path for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))}
CORE = 35  # minutes of the core of lessons 7, 8 and 9


def prose(path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def exercise(lesson) -> Path:
    name = LESSONS[lesson].stem
    return ROOT / "notebooks" / "exercises" / "source" / name / f"{name}.ipynb"


def stated(path) -> int:
    return int(re.search(r"About (\d+) minutes", prose(path))[1])


def rows(text) -> list[list[str]]:
    """Rows of the first table of a text, without its head."""
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")]
            for line in table.splitlines()[2:]]  # fmt: skip


def test_the_minutes_are_those_that_lessons_and_exercises_state():
    for row in rows(GUIDE.split("## What your students need")[1]):
        lesson = int(row[0].split()[0].strip("| "))
        assert [int(row[1]), int(row[2])] == [stated(LESSONS[lesson]), stated(exercise(lesson))]
        tasks = re.findall(r"points, about (\d+) minutes", prose(exercise(lesson)))
        assert sum(map(int, tasks)) == stated(exercise(lesson))


@pytest.mark.parametrize(("name", "hours"), [("Half a day", 3.5), ("A day", 8)])
def test_a_plan_adds_up_and_gives_each_lesson_its_minutes(name, hours):
    plan = rows(GUIDE.split(f"**{name} (")[1])
    minutes = [int(row[0].strip("| ")) for row in plan]
    assert sum(minutes) == 60 * hours
    taught = set()
    for given, (_, what) in zip(minutes, plan, strict=True):
        found = re.match(r"Lesson (\d)(, core|, sections)?", what)
        if found:
            lesson, part = int(found[1]), found[2]
            taught.add(lesson)
            if part != ", sections":
                assert given >= (CORE if part else stated(LESSONS[lesson])), what
    assert {1, 3, 7, 9} <= taught


def test_the_weeks_add_up_and_hold_every_lesson():
    weeks = rows(GUIDE.split("**Six weeks")[1])
    lessons = [[int(n) for n in week[1].split(",")] for week in weeks]
    held = [lesson for own in lessons for lesson in own]
    assert len(held) == len(set(held)) and set(held) == set(LESSONS)
    for own, (_, _, *numbers) in zip(lessons, weeks, strict=True):
        reading, tasks, in_class, more, total = (int(one.strip("| ")) for one in numbers)
        assert reading == sum(stated(LESSONS[n]) for n in own)
        assert tasks == sum(stated(exercise(n)) for n in own)
        assert total == reading + tasks + in_class + more and more >= 10 * len(own)


@pytest.mark.parametrize("lesson", OUTCOMES)
def test_each_outcome_has_a_place_and_each_task_an_outcome(lesson):
    text = prose(ROOT / "notebooks" / f"{lesson}.ipynb")
    said = re.search(r"After this lesson you can\s*\n\n?((?:- .*\n)+)", text)[1].splitlines()
    assert len(OUTCOMES[lesson]) == len(said)
    sections = set(map(int, re.findall(r"^## (\d+) · ", text, re.MULTILINE)))
    tasks = re.findall(r"\*.+, \d+ points?, about \d+ minutes?\*", prose(exercise(int(lesson[:2]))))
    practised = [task for one in OUTCOMES[lesson] for task in one["tasks"]]
    assert sorted(practised) == list(range(1, len(tasks) + 1))
    for one in OUTCOMES[lesson]:
        assert one["sections"] and set(one["sections"]) <= sections
        assert one["level"] in ("explain", "do", "judge")


def test_the_two_forms_are_parallel_and_their_key_is_not_to_be_guessed():
    text = (TEACHING / "before_after.md").read_text(encoding="utf-8")
    asked = re.findall(r"^\*\*([AB]\d+)\.\*\* .+\n\n((?:- [a-d]\) .+\n){4})", text, re.MULTILINE)
    answers = {name: re.findall(r"- [a-d]\) (.+)", block) for name, block in asked}
    assert list(answers) == [f"{form}{n}" for form in "AB" for n in range(1, 11)]
    key = {}
    for row in rows(text.split("## Key")[1]):
        number = row[0].strip("| ")
        key |= {f"A{number}": row[1], f"B{number}": row[2]}
    assert key.keys() == answers.keys()
    for form in "AB":
        mine = [name for name in key if name[0] == form]
        assert all(1 <= [key[name] for name in mine].count(letter) <= 4 for letter in "abcd")
        places = [sorted(answers[n], key=len).index(answers[n]["abcd".index(key[n])]) for n in mine]
        assert max(places.count(0), places.count(3)) <= 4, "its length gives the answer away"


def test_what_a_run_found_is_written_beside_its_questions(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("expected", TEACHING / "expected.py")
    expected = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(expected)
    page = tmp_path / "hours.md"
    page.write_text("a\n<!-- found: 04_resnet50 -->\nold\n<!-- end -->\nb\n")
    monkeypatch.setattr(expected, "PAGE", page)
    reference = ROOT / "data" / "reference"
    expected.main([str(reference)])
    once = page.read_text()
    found = results.load(reference, "04_resnet50")
    for name, value in found.tables["guesses"]["found"].items():
        assert f"| {name} | {expected.said(value)} |" in once
    assert "old" not in once and once.startswith("a\n") and once.endswith("b\n")
    assert "phantoms, seed 0, RANDOM weights" in once
    expected.main([str(reference)])
    assert page.read_text() == once
    assert [expected.said(v) for v in (0.5, 12.0, float("nan"), None, "x")] == [
        "0.5", "12", "not measured", "not measured", "x"
    ]  # fmt: skip


def test_every_lesson_has_a_run_sheet_of_an_hour():
    text = (TEACHING / "hours.md").read_text(encoding="utf-8")
    for lesson, path in LESSONS.items():
        sheet = text.split(f"\n## {lesson} · ")[1].split("<!-- end -->")[0]
        minutes = [int(row[0].strip("| ")) for row in rows(sheet)]
        assert minutes == sorted(set(minutes)) and minutes[0] == 0 and 50 <= minutes[-1] < 60
        asked = re.search(rf"<!-- found: {path.stem} -->\n\n\| the lesson asks", sheet)
        assert asked, "python docs/teaching/expected.py RUN"
