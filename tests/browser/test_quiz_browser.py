"""Quizzes in a real browser, by keyboard alone: a page of its own, without script, JupyterLab."""

import json
import re

import pytest

from browser import assert_clean, page, run_all
from cxrlib import interactive
from servers import ROOT, jupyter_lab

pytestmark = pytest.mark.slow
LESSON = "03_custom_cnn"
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Quiz</title><main>
<section id="the-test"><h2>{}<a href="#the-test">#</a></h2></section>{}</main></html>"""


def question(identity):
    quiz = interactive.quiz(LESSON)
    number = [one.id for one in quiz.questions].index(identity)
    return number, quiz.questions[number]


@pytest.fixture
def file(tmp_path):
    _, one = question("intervals-overlap")
    path = tmp_path / "quiz.html"
    html = interactive.quiz(LESSON)._repr_html_()
    path.write_text(PAGE.format(one.section, html), "utf-8")
    return path


def focused(tab, what):
    return tab.evaluate(f"document.activeElement.{what}")


def tab_to(tab, form, where):
    """Press Tab until the focus is on what `where` finds in the form."""
    wanted = form.locator(where)
    for _ in range(100):
        if wanted.evaluate("one => one === document.activeElement"):
            return
        tab.keyboard.press("Tab")
    raise AssertionError(f"Tab never reaches {where}")


def choose(tab, one, text):
    """Move along the radio buttons from the first one, by the arrow."""
    tab.keyboard.press("Space")
    for _ in one.answers:
        label = tab.evaluate("document.activeElement.closest('label').innerText.trim()")
        if label == text:
            return
        tab.keyboard.press("ArrowDown")
    raise AssertionError(f"no answer {text}")


def answer_one_wrong_then_right(tab, form, one):
    tab_to(tab, form, "input >> nth=0")
    said = form.get_by_role("status")
    wrong = next(answer for answer in one.answers if answer.misses == "overlap-decides")
    choose(tab, one, wrong.text)
    assert said.inner_text() == "", "an arrow key is no answer yet"
    tab.keyboard.press("Enter")
    assert said.inner_text().startswith(f"Not yet. {wrong.feedback}")
    right = next(answer for answer in one.answers if answer.right)
    choose(tab, one, right.text)
    tab_to(tab, form, "button")
    tab.keyboard.press("Space")
    assert said.inner_text() == f"Right. {right.feedback}"


def test_a_question_is_answered_by_keyboard_and_the_feedback_leads_to_its_section(file):
    number, one = question("intervals-overlap")
    with page() as tab:
        tab.goto(file.as_uri())
        form = tab.locator("form").nth(number)
        assert form.get_by_role("group", name=re.compile("The recorded run")).count() == 1
        answer_one_wrong_then_right(tab, form, one)
        tab.keyboard.press("Shift+Tab")
        wrong = next(answer for answer in one.answers if not answer.right)
        choose(tab, one, wrong.text)
        tab.keyboard.press("Enter")
        tab_to(tab, form, "[role=status] a")
        assert focused(tab, "textContent") == one.section
        assert focused(tab, "getAttribute('href')") == "#the-test"
        tab.keyboard.press("Enter")
        assert focused(tab, "tagName") == "H2"
        assert_clean(tab)


def test_several_answers_and_a_number_by_keyboard(file):
    number, one = question("cures-of-low-curves")
    with page() as tab:
        tab.goto(file.as_uri())
        form = tab.locator("form").nth(number)
        said = form.get_by_role("status")
        tab_to(tab, form, "input >> nth=0")
        tab.keyboard.press("Enter")
        assert said.inner_text() == "Choose an answer first."
        heard = []
        for place, answer in enumerate(one.answers):
            if answer.right:
                tab_to(tab, form, f"input >> nth={place}")
                tab.keyboard.press("Space")
                tab.keyboard.press("Enter")
                heard.append(said.inner_text())
        assert heard[0].startswith("Right so far, and 1 more belongs here.")
        assert heard[1].startswith("Right. ") and len(heard) == 2
        assert all(answer.feedback in said.inner_text() for answer in one.answers if answer.right)
        place = next(place for place, answer in enumerate(one.answers) if not answer.right)
        form.locator("input").nth(place).focus()
        tab.keyboard.press("Space")
        tab.keyboard.press("Enter")
        assert said.inner_text().startswith(f"Not yet. {one.answers[place].feedback}")

        number, one = question("missed-by-stage-1")
        form = tab.locator("form").nth(number)
        said = form.get_by_role("status")
        tab_to(tab, form, "input")
        right, wrong = (answer.value for answer in one.answers[:2])
        told = {"": "Write a number first.", f"{wrong}": "Not yet. So many", "7": "Not yet. Take"}
        for typed, begins in told.items():
            tab.keyboard.press("Control+A")
            tab.keyboard.type(typed)
            tab.keyboard.press("Enter")
            assert said.inner_text().startswith(begins)
        tab.keyboard.press("Control+A")
        tab.keyboard.type(f"{right + 0.5}")
        tab.keyboard.press("Enter")
        assert said.inner_text() == f"Right. {one.answers[0].feedback}".replace("*", "")
        assert_clean(tab)


def test_without_script_the_answers_lie_folded_below(file):
    _, one = question("intervals-overlap")
    with page(java_script_enabled=False) as tab:
        tab.goto(file.as_uri())
        fold = tab.locator("details").nth(1)
        told = fold.get_by_text(one.answers[0].feedback, exact=True)
        assert not told.is_visible() and tab.get_by_role("button").count() == 0
        fold.locator("summary").press("Enter")
        assert told.is_visible()
        assert fold.locator("li", has_text=re.compile("^Right: ")).count() == 1


def test_in_jupyterlab_the_keys_belong_to_the_quiz(tmp_path):
    root = tmp_path / "notebooks"
    root.mkdir()
    notebook = json.loads((ROOT / "notebooks" / f"{LESSON}.ipynb").read_text("utf-8"))
    wanted = ("setup", "test-intro", "quiz-lesson-intro", "quiz-lesson")
    notebook["cells"] = [cell for cell in notebook["cells"] if cell["id"] in wanted]
    (root / "lesson.ipynb").write_text(json.dumps(notebook), "utf-8")
    number, one = question("intervals-overlap")
    with page(height=3000) as tab, jupyter_lab(tmp_path, root) as address:
        run_all(tab, address, "lesson.ipynb")
        form = tab.locator(".cxr-quiz form").nth(number)
        form.get_by_role("button", name="Check").wait_for()
        form.locator("input").first.focus()
        answer_one_wrong_then_right(tab, form, one)
