"""What a reader does with a page of the site, on a small one: look, guess, print, search."""

import base64
import functools
import io
import json
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

import browser

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))

for needed in ("sphinx", "myst_nb", "sphinx_book_theme", "ziamath"):
    pytest.importorskip(needed)

import build  # noqa: E402
from _site import executed  # noqa: E402

from cxrlib.interactive import guesses  # noqa: E402

pytestmark = pytest.mark.slow
KERNEL = {
    "kernelspec": {"name": "python3", "display_name": "Python 3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}
WIDE = 720  # pixels of the lesson's figure, as most have


def png(width):
    with io.BytesIO() as file:
        Image.new("L", (width, 90), 128).save(file, "PNG")
        return file.getvalue()


def text(source):
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source, *outputs):
    cell = {"cell_type": "code", "metadata": {}, "source": source, "execution_count": 1}
    return cell | {"outputs": list(outputs)}


def figure(alt):
    data = {"image/png": base64.b64encode(png(WIDE)).decode()}
    return {"output_type": "display_data", "data": data, "metadata": {"image/png": {"alt": alt}}}


def shown(thing):
    data = {"text/html": thing._repr_html_(), "text/plain": str(thing)}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def lesson(monkeypatch, folder):
    """Cells as a run of a lesson leaves them, with two guesses and what they found."""
    lines = []
    monkeypatch.setenv("CXR_RUN", str(folder))
    monkeypatch.setattr(guesses.forms, "show", lambda *things: lines.extend(things))
    mine = guesses.of("01_lesson")
    mine.ask("share kept", "What share is kept?", low=0, high=1).check(0.75)
    mine.ask("better", "Which is better?", choices=["a", "b"]).check("b")
    mine.ask("skipped", "What of this?").check(None)
    kept_asked, kept, better_asked, better, skipped_asked, skipped = map(shown, lines)
    summary = {"data": {"text/html": guesses.forms.to_html(mine.table())}}
    return [
        text("# Lesson\n\n## Films\n\nLook at the films. Heat maps became usual: Grad-CAM is one."),
        code(f"show({'very_' * 60})", figure("Two films of phantoms, side by side")),
        text("## Guess\n\nHow much?"),
        code("ask()", kept_asked),
        code("compute()"),
        text("(deep)=\nWhat is said of it."),
        code("check()", kept),
        code("ask()", better_asked),
        code("ask()", skipped_asked),
        text("## Later\n\nSome prose."),
        code("check()", better),
        text("And a conclusion."),
        text("## Guesses"),
        code("summary()", skipped, skipped_asked | summary),
        code(
            "a = 1",
        )
        | {"metadata": {"tags": ["injected-parameters"]}},
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder of a site of two pages, made as the real one is."""
    folder = tmp_path_factory.mktemp("reading")
    with pytest.MonkeyPatch.context() as patch:
        made = lesson(patch, folder)
    source = folder / "source"
    source.mkdir()
    cells = [cell | {"id": f"c{number}"} for number, cell in enumerate(made)]
    notebook = {"cells": cells, "metadata": KERNEL, "nbformat": 4, "nbformat_minor": 5}
    (source / "lesson.ipynb").write_text(executed.page(json.dumps(notebook), lambda said: said))
    start = "# Start\n\n![A grey square, as a picture](grey.png)\n\n```{toctree}\nlesson\n```\n"
    (source / "index.md").write_text(start)
    (source / "grey.png").write_bytes(png(WIDE))
    return build.write_pages(source, folder / "work")


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(site):
    handler = functools.partial(QuietHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_dark_mode_changes_no_grey_value(address):
    with browser.page(color_scheme="dark") as tab:
        for name in ["index.html", "lesson.html"]:
            tab.goto(address + name)
            assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
            films = "[...document.querySelectorAll('article img')]"
            assert tab.evaluate(f"{films}.map(i => getComputedStyle(i).filter)") == ["none"]
            box = f"{films}.map(i => getComputedStyle(i.parentElement.parentElement).filter)"
            assert tab.evaluate(box) == ["none"]


def test_a_figure_opens_in_full_size_by_keyboard_and_without_script(address):
    with browser.page(390, 844, java_script_enabled=False) as tab:
        for name in ["index.html", "lesson.html"]:
            tab.goto(address + name)
            link = tab.locator("article a:has(> img)")
            assert link.locator("img").bounding_box()["width"] < WIDE / 1.8
            link.focus()
            tab.keyboard.press("Enter")
            tab.wait_for_url("**/_images/*.png")
            assert tab.evaluate("document.images[0].naturalWidth") == WIDE


def answer(tab, said):
    """Tell whether the cell or sentence with these words can be seen."""
    return tab.get_by_text(said, exact=True).evaluate("one => one.checkVisibility()")


def test_a_guess_comes_before_its_answer(address):
    with browser.page(390, 844) as tab:
        tab.goto(address + "lesson.html")
        number, choice = tab.locator("form.guess").all()
        assert not answer(tab, "What is said of it.") and not answer(tab, "And a conclusion.")
        assert answer(tab, "Some prose."), "up to the next heading, not beyond"
        assert tab.get_by_text("after your guess").count() == 2
        assert tab.get_by_text("skipped: this run did not measure it").is_visible()

        field = number.get_by_label("Your guess, a number from 0 to 1")
        field.focus()
        tab.keyboard.type("2")
        tab.keyboard.press("Enter")
        assert not answer(tab, "What is said of it."), "2 is no share"
        tab.keyboard.press("Backspace")
        tab.keyboard.type("0.5")
        tab.keyboard.press("Enter")
        told = number.get_by_role("status").inner_text()
        assert told == "Your guess: 0.5. Found: 0.75. They lie 0.25 apart."
        assert answer(tab, "What is said of it.") and not answer(tab, "And a conclusion.")
        row = tab.locator("tr", has_text="share kept").inner_text().split("\t")
        assert row[1:] == ["0.5", "0.75"]

        choice.get_by_label("Your guess, one of the answers").select_option("a")
        choice.get_by_role("button", name="Reveal").click()
        told = choice.get_by_role("status").inner_text()
        assert told == "Your guess: a. Found: b. They differ." and answer(tab, "And a conclusion.")
        choice.get_by_role("button", name="I don't know").click()
        assert choice.get_by_role("status").inner_text() == "You left it open. Found: b."
        browser.assert_clean(tab)


def test_what_waits_is_opened_by_a_switch_an_anchor_and_the_printer(address):
    with browser.page() as tab:
        tab.goto(address + "lesson.html")
        tab.emulate_media(media="print")
        assert answer(tab, "What is said of it.") and answer(tab, "And a conclusion.")
        tab.emulate_media(media="screen")
        tab.get_by_label("Show every result at once").check()
        assert answer(tab, "What is said of it.") and answer(tab, "And a conclusion.")
        tab.get_by_label("Show every result at once").uncheck()
        assert not answer(tab, "What is said of it.")
        tab.evaluate("location.hash = 'deep'")  # as find-in-page does, the browser opens it
        tab.wait_for_function("!document.getElementById('deep').closest('[hidden]')")
        tab.goto(address + "index.html")
        tab.goto(address + "lesson.html#deep")
        assert answer(tab, "What is said of it.") and not answer(tab, "And a conclusion.")


def test_without_script_the_page_shows_question_and_answer(address):
    with browser.page(java_script_enabled=False) as tab:
        tab.goto(address + "lesson.html")
        assert tab.get_by_text("Your guess (better): asked in JupyterLab and Colab.").is_visible()
        assert tab.get_by_text("Found (better): b.").is_visible()
        assert tab.get_by_text("And a conclusion.").is_visible()


def test_paper_clips_no_line_of_code_and_is_white(address):
    with browser.page(688, 900, color_scheme="dark") as tab:  # A4 less its margins
        tab.goto(address + "lesson.html")
        wide = "[...document.querySelectorAll('.cell_input pre')]"
        wide += ".filter(pre => pre.scrollWidth > pre.clientWidth).length"
        assert tab.evaluate(wide) == 1
        tab.emulate_media(media="print")
        assert tab.evaluate(wide) == 0
        themes = "[dispatchEvent(new Event('{}print')), document.documentElement.dataset.theme][1]"
        assert tab.evaluate(themes.format("before")) == "light"
        assert tab.evaluate(themes.format("after")) == "dark"


def test_names_say_what_they_show(address):
    from axe_playwright_python.sync_playwright import Axe

    with browser.page() as tab:
        tab.goto(address + "lesson.html")
        tab.wait_for_load_state("networkidle")
        rule = "label-content-name-mismatch"
        options = {"runOnly": [rule, "color-contrast", "label"], "rules": {rule: {"enabled": True}}}
        found = Axe().run(tab, options=options).response
        assert [(one["id"], one["nodes"]) for one in found["violations"]] == []
        folded = tab.locator("summary", has_text=executed.PARAMETERS)
        assert folded.get_attribute("aria-label") is None, "its words are its name"
        assert tab.get_by_role("button", name="Search Ctrl").count() == 1


def test_search_shows_the_word_sought_and_nothing_of_the_menus(address):
    with browser.page() as tab:
        tab.goto(address + "search.html?q=Grad-CAM")
        tab.locator("#search-results p.context").wait_for()
        told = tab.locator("#search-results p.context").inner_text()
        assert told.startswith("Lesson Films Look at the films.") and "Grad-CAM is one." in told
        tab.goto(address + "search.html?q=c%2B%2B(")  # no pattern
        tab.wait_for_selector("#search-results")
        browser.assert_clean(tab)
