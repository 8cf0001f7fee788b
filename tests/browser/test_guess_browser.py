"""A guess in a real browser: committed by the keyboard in JupyterLab, then the result appears."""

import json
import re

import pytest

from browser import page, run_all
from cxrlib.interactive import guesses
from servers import ROOT, jupyter_lab

pytestmark = pytest.mark.slow
NEEDED = {  # cells of lesson 1, and whether to show what they give
    **dict.fromkeys(["setup", "parameters"], True),
    **dict.fromkeys(["show-sources", "load-cohort", "show-shape", "contact-sheet", "quiz"], False),
    **dict.fromkeys(["guess-quiz", "answer-quiz"], True),
    "first-rows": False,
    **dict.fromkeys(["guess-unit", "sum-rows"], True),
    "repeats": False,
    **dict.fromkeys(["guess-share", "split-both", "guesses"], True),
}


def cells_of_lesson_1():
    notebook = json.loads((ROOT / "notebooks" / "01_data_retrieval.ipynb").read_text("utf-8"))
    cells = {cell["id"]: cell for cell in notebook["cells"]}
    for name, is_shown in NEEDED.items():
        cells[name]["source"] = "".join(cells[name]["source"]) + ("" if is_shown else ";")
    few = cells["parameters"]["source"].replace('"patients": 120', '"patients": 24')
    cells["parameters"]["source"] = few
    return notebook | {"cells": [cells[name] for name in NEEDED]}


def output(tab, text):
    return tab.locator(".jp-OutputArea-output", has_text=text)


def test_the_keyboard_commits_a_guess_and_the_result_appears(tmp_path):
    root = tmp_path / "notebooks"
    root.mkdir()
    (root / "lesson.ipynb").write_text(json.dumps(cells_of_lesson_1()), "utf-8")
    own = {"CXR_CACHE": str(tmp_path / "cache"), "CXR_RUN": str(tmp_path / "run")}
    with page(height=3000) as tab, jupyter_lab(tmp_path, root, **own) as address:
        run_all(tab, address, "lesson.ipynb")
        output(tab, "after your guess").wait_for()
        waiting = output(tab, re.compile("^Commit your guess above first"))
        assert waiting.count() == 3 and output(tab, "by patient").count() == 0

        field = tab.get_by_placeholder("a number from 0 to 1")
        field.focus()
        tab.keyboard.type("2")
        tab.keyboard.press("Enter")
        output(tab, "Please write a number from 0 to 1").wait_for()
        tab.keyboard.press("Backspace")
        tab.keyboard.type("0,5")
        tab.keyboard.press("Enter")
        share = output(tab, "They lie")
        share.wait_for()
        assert "by patient" in share.inner_text() and field.is_disabled()

        tab.get_by_label("images", exact=True).focus()
        tab.keyboard.press("Space")
        while tab.evaluate("document.activeElement.textContent") != "Commit":
            assert tab.evaluate("document.activeElement.type") == "radio"
            tab.keyboard.press("Tab")
        tab.keyboard.press("Enter")
        output(tab, "Found: studies. They differ.").wait_for()
        assert waiting.count() == 1, "the third question is still open"
        summary = output(tab, "after your guess").inner_text()
        assert re.search(r"Fig. 2 counts\s+images\s+studies", summary)
    kept = guesses.read(tmp_path / "run" / "guesses" / "01_data_retrieval.json")
    assert {name: entry["guess"] for name, entry in kept.items()} == {
        "test patients seen": 0.5,
        "Fig. 2 counts": "images",
    }
