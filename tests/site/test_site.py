"""The site: what goes into its pages, and the built pages in a real browser."""

import functools
import itertools
import json
import os
import re
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import browser

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))

for needed in ("sphinx", "myst_nb", "sphinx_book_theme", "ziamath"):
    pytest.importorskip(needed)

import build  # noqa: E402
from _site import executed, pages, project, tables  # noqa: E402

START = "notebooks/START.md"
LESSONS = [Path(name).stem for name in pages.lessons()]
READ = ["index.html", "notebooks/01_data_retrieval.html", "notebooks/07_evaluation.html"]
READ += ["docs/explorers.html"]
WAYS = list(itertools.product(READ, [1280, 390], ["light", "dark"]))
FEW = [(READ[0], 390, "light"), (READ[1], 1280, "dark"), (READ[2], 390, "dark")]
FEW += [(READ[3], 390, "dark")]


# -- what goes into a page ---------------------------------------------------------------------
PLACES = {
    "docs/index.md": "index.md",
    "docs/a.md": "docs/a.md",
    "docs/results/README.md": "docs/results/README.md",
    "notebooks/01_x.ipynb": "notebooks/01_x.ipynb",
}


@pytest.mark.parametrize(
    ("origin", "written", "shown"),
    [
        ("docs/a.md", "[r](results/README.md#two)", "[r](results/README.md#two)"),
        ("docs/a.md", "[r](results)", "[r](results/README.md)"),
        ("docs/a.md", "[home](../README.md)", "[home](../index.md)"),
        ("docs/index.md", "[r](results/README.md)", "[r](docs/results/README.md)"),
        ("docs/index.md", "[n](../notebooks/01_x.ipynb)", "[n](notebooks/01_x.ipynb)"),
        ("docs/a.md", "[x](nowhere.md)", "[x](nowhere.md)"),
        ("docs/a.md", "[x](https://example.org/a.md)", "[x](https://example.org/a.md)"),
        ("docs/a.md", "`[r](../README.md)`", "`[r](../README.md)`"),
        ("docs/a.md", "```\n[r](../README.md)\n```", "```\n[r](../README.md)\n```"),
        ("docs/a.md", "(doi:10.1/x)", "(doi:10.1/x)"),
        ("docs/a.md", "(doi:10.1000/x.y).", "([doi:10.1000/x.y](https://doi.org/10.1000/x.y))."),
    ],
)
def test_links_that_work_in_the_repository_work_in_the_site(origin, written, shown):
    assert pages.rewrite(written, origin, PLACES) == shown


def test_a_link_to_what_is_no_page_leads_to_the_repository():
    address = project.address()
    link = pages.rewrite("[s](build.py) [n](../notebooks)", "docs/a.md", PLACES)
    assert link == f"[s]({address}/blob/main/docs/build.py) [n]({address}/tree/main/notebooks)"


def test_a_badge_is_a_button_without_a_picture_from_elsewhere():
    badge = "[![Open in Colab](https://host/badge.svg)](https://colab/x.ipynb)"
    assert pages.rewrite(badge, "docs/a.md", PLACES) == (
        "[Open in Colab](https://colab/x.ipynb){.launch}"
    )


def notebook(*outputs, tags=(), source="show()"):
    cell = {"cell_type": "code", "id": "c", "metadata": {"tags": list(tags), "papermill": {"a": 1}},
            "execution_count": 1, "source": source, "outputs": list(outputs)}  # fmt: skip
    text = {"cell_type": "markdown", "id": "m", "metadata": {}, "source": "## Lungs\n\nNow look."}
    metadata = {"kernelspec": {"name": "python3"}, "papermill": {"output_path": "/home/me"}}
    return json.dumps({"cells": [text, cell], "metadata": metadata, "nbformat": 4})


def page_cells(*outputs, **more):
    return json.loads(executed.page(notebook(*outputs, **more), lambda text: text))["cells"]


def picture(**metadata):
    return {"output_type": "display_data", "data": {"image/png": "aGk="}, "metadata": metadata}


def test_a_figure_says_what_it_shows():
    told = page_cells(picture(**{"image/png": {"alt": "A curve\nrises"}}))[1]
    assert told["metadata"]["mystnb"]["image"]["alt"] == "A curve rises"
    untold = page_cells(picture())[1]["metadata"]["mystnb"]["image"]["alt"]
    assert "Lungs" in untold and "Now look." in untold


def test_a_page_leaves_out_what_belongs_to_one_machine_and_one_run():
    bar = {"output_type": "stream", "name": "stderr", "text": "50%|####"}
    widget = {"output_type": "display_data", "data": {executed.WIDGET: {"model_id": "x"}}}
    kept = {"output_type": "stream", "name": "stdout", "text": "right"}
    cell = page_cells(bar, widget, kept)[1]
    assert cell["outputs"] == [kept]
    whole = executed.page(notebook(kept), lambda text: text)
    assert "papermill" not in whole and "/home/me" not in whole


def test_a_still_explorer_says_where_it_moves():
    run = notebook(picture(), source="from cxrlib.interactive import widgets\n\nwidgets.knob()")
    cells = json.loads(executed.page(run, lambda text: text, "notebooks/09_x.ipynb"))["cells"]
    _, said, shown = (cell["source"] for cell in cells)
    assert "stands still" in said and "(colab:notebooks/09_x.ipynb)" in said
    assert shown.endswith("widgets.knob()")
    assert len(page_cells(picture())) == 2, "what moves nowhere needs no note"


def test_the_installation_is_not_shown_and_the_values_of_the_run_are_folded():
    assert len(page_cells(tags=["setup"])) == 1
    folded = page_cells(tags=["injected-parameters"])[1]["metadata"]
    assert folded["tags"] == ["hide-input"]


def test_the_list_of_lessons_is_made_from_the_lessons():
    parts = tables.lessons().split("\n## ")
    assert len(parts) == len(LESSONS) and len(tables.minutes().splitlines()) == len(LESSONS) + 2
    for name, part in zip(LESSONS, parts, strict=True):
        assert f"/notebooks/{name}.ipynb" in part
        assert re.search(r"^\d+( to \d+)? minutes", part, re.MULTILINE), name
        assert part.count("\n- ") >= 3, name


def test_outcomes_name_the_questions_and_tasks_of_their_sections(monkeypatch):
    headings = {
        "whose": "9 · A baseline that needs no lungs",
        "what": "5 · Fig. 2, and what was counted",
    }
    quiz = {"questions": [{"id": name, "section": where} for name, where in headings.items()]}
    read = tables._yaml
    monkeypatch.setattr(tables, "_yaml", lambda name: quiz if "quizzes/01" in name else read(name))
    parts = tables.outcomes().split("\n## ")
    assert len(parts) == len(LESSONS)
    first = next(part for part in parts if "/notebooks/01_data_retrieval" in part)
    (row,) = (line for line in first.splitlines() if "before anyone looks at a lung" in line)
    assert "| 9 | whose | Task 5 · Three letters; Question 1 ·" in row and "(open) | judge |" in row
    (row,) = (line for line in first.splitlines() if line.startswith("| count the labels"))
    assert "| 5 | what | Task 2 · What silence says | do |" in row
    assert tables._sections("## 1 · A\n\n### Try\n\n## 2 · B\n") == {
        "1 · A": 1,
        "Try": 1,
        "2 · B": 2,
    }


def test_each_exercise_s_open_question_has_its_rubric_and_not_its_answer():
    parts = tables.rubrics().split("### ")[1:]
    assert len(parts) == len(pages.find([pages.EXERCISES]))
    for part in parts:
        assert part.count("\n- ") >= 3 and "point" in part
        assert "SOLUTION" not in part and "model answer" not in part


def test_the_start_page_says_that_links_lead_nowhere_only_while_they_do(monkeypatch):
    for name, is_said in ((project.PLACEHOLDER, True), ("ada/course", False)):
        monkeypatch.setattr(project, "repository", lambda name=name: name)
        assert ("make badges" in tables.address()) == is_said


def test_every_module_is_on_one_page_of_the_reference():
    pages_of_it = (ROOT / "docs" / "api").glob("*.md")
    texts = "".join(tables.fill(path.read_text()) for path in pages_of_it)
    shown = sorted(re.findall(r"automodule:: cxrlib\.([\w.]+)$", texts, re.MULTILINE))
    package = ROOT / "cxrlib"
    there = {path.relative_to(package).with_suffix("") for path in package.rglob("*.py")}
    names = {".".join(part for part in path.parts if part != "__init__") for path in there}
    assert shown == sorted(names - {""})


def test_a_lesson_that_was_not_run_stops_the_build(tmp_path, capsys):
    options = ["--run", tmp_path, "--work", tmp_path / "work", "--out", tmp_path / "site"]
    assert build.main([str(one) for one in options]) == 1
    assert "cxr run" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(build.BuildError, match="something else"):
        build.publish(tmp_path / "html", tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_the_run_s_report_and_an_audit_become_examples(tmp_path, monkeypatch):
    run, work, html = (tmp_path / name for name in ("run", "work", "html"))
    run.mkdir()
    work.mkdir()
    with pytest.raises(build.BuildError, match="cxr report"):
        build.add_examples(run, work, html)
    (run / "report.html").write_text('<a href="notebooks/01_x.ipynb">lesson</a> <a href="#one">')
    asked = []

    def audit(*words, folder):
        asked.append(words)
        (folder / "audit-phantom.html").write_text("made")

    monkeypatch.setattr(build, "run_command", audit)
    for _ in range(2):
        build.add_examples(run, work, html)
    report = (html / "example" / "report.html").read_text()
    assert report == '<a href="../notebooks/01_x.html">lesson</a> <a href="#one">'
    assert (html / "example" / "audit.html").read_text() == "made"
    assert asked == [("audit", "phantom")], "made anew only when the code is"


@pytest.mark.slow
def test_the_examples_are_one_click_away(site):
    folder = site[1] / "site"
    for page, name in [("index", "report"), ("index", "audit"), ("docs/audit/README", "audit")]:
        text = (folder / f"{page}.html").read_text().split("<article")[1]
        link = re.search(rf'href="([./]*example/{name}\.html)"', text)
        example = (folder / page).parent / link[1]
        assert "not for clinical use" in example.read_text()
        assert str(site[1]) not in example.read_text(), "it tells where it was made"


@pytest.mark.slow
def test_a_warning_stops_the_build_each_time(tmp_path):
    """Sphinx itself warns once: what it has read it does not read again."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "index.md").write_text("# Start\n\n[gone](gone.md)\n")
    for _ in range(2):
        with pytest.raises(build.BuildError):
            build.write_pages(source, tmp_path / "work")
    (source / "index.md").write_text("# Start\n\nNothing is gone.\n")
    assert (build.write_pages(source, tmp_path / "work") / "index.html").exists()


# -- the built site ----------------------------------------------------------------------------
def build_site(run, folder):
    command = [sys.executable, ROOT / "docs" / "build.py", "--run", run]
    command += ["--work", folder / "work", "--out", folder / "site"]
    ended = subprocess.run([str(p) for p in command], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-6000:]
    return ended


@pytest.fixture(scope="module")
def site(request, tmp_path_factory):
    """The site of a smoke run; CXR_SITE_RUN names a finished run to save those minutes."""
    run = os.environ.get("CXR_SITE_RUN") or request.getfixturevalue("smoke")[0]
    folder = tmp_path_factory.mktemp("site")
    ended = build_site(run, folder)
    assert "WARNING" not in ended.stderr and "ERROR" not in ended.stderr
    return Path(run), folder


@pytest.fixture(scope="module")
def address(site):
    handler = functools.partial(QuietHandler, directory=str(site[1] / "site"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def html_pages(site):
    folder = site[1] / "site"
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.html")}


@pytest.mark.sweep
@pytest.mark.slow
def test_a_second_build_does_nothing_again(site):
    html = site[1] / "work" / "html"
    names = [*pages.lessons(), "index.md", "docs/glossary.md", "docs/api/front.md"]
    written = [html / Path(name).with_suffix(".html") for name in names]
    before = [path.stat().st_mtime_ns for path in written]
    ended = build_site(*site)
    assert "Pages: 0 changed" in ended.stdout
    assert [path.stat().st_mtime_ns for path in written] == before


@pytest.mark.slow
def test_no_page_asks_another_host_for_anything(site):
    wanted = r"<(?:script|img|iframe|source|video|audio)[^>]*\ssrc=\"(?:https?:)?//[^\"]*\""
    wanted += r"|<link(?![^>]*rel=\"canonical\")[^>]*\shref=\"(?:https?:)?//[^\"]*\""
    asked = {name: re.findall(wanted, text) for name, text in html_pages(site).items()}
    assert {name: found for name, found in asked.items() if found} == {}


@pytest.mark.slow
def test_a_link_to_a_word_leads_to_that_word(site):
    from bs4 import BeautifulSoup

    shown = html_pages(site)
    for name in LESSONS:
        text = (ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8")
        words = re.findall(r"glossary\.md#([^ ]+) ", text)
        article = BeautifulSoup(shown[f"notebooks/{name}.html"], "html.parser").article
        led = [link["href"] for link in article.select('a[href*="glossary.html#"]')]
        assert led == [f"../docs/glossary.html#term-{word}" for word in words], name
        assert all(f'id="term-{word}"' in shown["docs/glossary.html"] for word in words)


@pytest.mark.slow
def test_every_notebook_s_page_opens_that_notebook_of_the_repository(site):
    shown = html_pages(site)
    names = [*pages.lessons(), *pages.find([pages.EXERCISES])]
    for name in names:
        text = shown[name.replace(".ipynb", ".html")]
        menu = re.search(r"dropdown-launch-buttons.*?</ul>", text, re.DOTALL)
        assert menu, name
        assert f'href="{project.colab(name)}"' in menu.group(), name
        assert f'href="{project.binder(name)}"' in menu.group(), name
        assert (ROOT / name).exists()


@pytest.mark.slow
def test_the_start_page_leads_to_a_running_notebook_with_one_click(site):
    article = html_pages(site)["index.html"].split("<article")[1]
    top = article.split("<h2")[0]  # before the first section
    first = "notebooks/01_data_retrieval.ipynb"
    assert f'href="{project.colab(first)}"' in top
    assert f'href="{project.binder(START)}"' in top
    assert (ROOT / START).exists()


@pytest.mark.slow
def test_formulas_need_no_script(site):
    text = html_pages(site)["docs/measured/index.html"]
    assert text.count("<math") > 10 and text.count("<svg aria-hidden") > 10
    assert "mathjax" not in text.replace("mathjax_ignore", "").lower()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [pytest.param(*way, marks=() if way in FEW else pytest.mark.sweep) for way in WAYS],
)
def test_a_page_in_a_browser(address, name, width, scheme):
    with browser.page(width, 844, color_scheme=scheme) as tab:
        asked = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(address + name)
        tab.wait_for_load_state("networkidle")
        browser.assert_clean(tab)
        assert [url for url in asked if not url.startswith((address, "data:"))] == []
        wide, room = tab.evaluate(
            "[document.scrollingElement.scrollWidth, document.scrollingElement.clientWidth]"
        )
        assert wide <= room, "text goes over the edge"
        shown = tab.evaluate("document.documentElement.dataset.theme")
        assert shown == scheme
        check_pictures(tab)
        check_accessible(tab)


def check_pictures(tab):
    """Every picture has arrived, and is described by words of its own."""
    pictures = tab.evaluate(
        "[...document.querySelectorAll('article img')]"
        ".map(i => [i.currentSrc || i.src, i.alt, i.loading === 'lazy' || i.naturalWidth])"
    )
    assert pictures
    assert [source for source, _, width in pictures if not width] == []
    words = {source: alt for source, alt, _ in pictures}
    assert all(len(alt) > 15 for alt in words.values()), words
    assert len(set(words.values())) == len(words), "two figures are described alike"


def check_accessible(tab):
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(tab).response
    # That axe looked at colours at all: at least one element passed.
    assert any(rule["id"] == "color-contrast" and rule["nodes"] for rule in found["passes"])
    bad = {
        rule["id"]: [node["html"][:120] for node in rule["nodes"]]
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
    }
    assert bad == {}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_of_source_can_be_read(address, scheme):
    with browser.page(1280, 844, color_scheme=scheme) as tab:
        tab.goto(address + "_modules/cxrlib/files.html")
        tab.wait_for_load_state("networkidle")  # colours change until then
        check_accessible(tab)


@pytest.mark.slow
def test_search_finds_a_word_and_lessons_follow_each_other(address):
    with browser.page(1280, 900) as tab:
        tab.goto(address + "search.html?q=phantom")
        tab.wait_for_selector('#search-results li a[href*="notebooks/"]')  # they come one by one
        tab.goto(address + "notebooks/05_vgg16.html")
        tab.click("a.right-next")
        tab.wait_for_url("**/06_densenet121_multiclass.html")
        tab.click("a.left-prev")
        tab.wait_for_url("**/05_vgg16.html")
        browser.assert_clean(tab)


@pytest.mark.slow
def test_what_goes_deeper_is_folded_until_it_is_wanted(address):
    lesson = address + "notebooks/09_shortcuts.html"
    with browser.page(1280, 900) as tab:
        tab.goto(lesson)
        folds = tab.locator("details.deeper")
        inside = tab.locator("#the-same-film-twice div.cell").first
        assert folds.count() == 3 and not inside.is_visible()
        folds.first.locator("summary").focus()
        tab.keyboard.press("Enter")
        inside.wait_for()
        tab.evaluate("location.hash = '#audit-your-own-images'")
        tab.locator("#audit-your-own-images div.cell").first.wait_for()
        tab.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert tab.locator("details.deeper[open]").count() == 3
        browser.assert_clean(tab)


@pytest.mark.parametrize("name", LESSONS)
def test_what_is_folded_is_said_in_the_head_and_is_no_core(name):
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8"))["cells"]
    head = "".join(cells[0]["source"])
    said = re.search(r"The core is sections ([^.]*), some", head)
    core = set()
    for first, last in re.findall(r"(\d+)(?: to (\d+))?", said[1] if said else ""):
        core |= set(range(int(first), int(last or first) + 1))
    deeper = [cell for cell in cells if "go-deeper" in cell["metadata"].get("tags", [])]
    folded = {int(re.match(r"## (\d+) ·", cell["source"][0])[1]) for cell in deeper}
    assert not folded & core and (not core or folded)
    named = {int(one) for one in re.findall(r"Section (\d+) goes deeper and is folded", head)}
    assert named == (set() if core else folded)
    assert all(cell["metadata"]["jp-MarkdownHeadingCollapsed"] for cell in deeper)


@pytest.mark.slow
def test_a_reader_chooses_the_dark_colours(address):
    with browser.page(1280, 900, color_scheme="light") as tab:
        tab.goto(address)
        light = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        tab.wait_for_load_state("networkidle")
        tab.click(".theme-switch-button >> visible=true")
        tab.click("text=/^\\s*Dark\\s*$/ >> visible=true")
        assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != light
