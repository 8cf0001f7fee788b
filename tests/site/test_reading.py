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


LESSON = [
    text("# Lesson\n\n## Films\n\nLook at the films."),
    code("show()", figure("Two films of phantoms, side by side")),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder of a site of two pages, made as the real one is."""
    folder = tmp_path_factory.mktemp("reading")
    source = folder / "source"
    source.mkdir()
    cells = [cell | {"id": f"c{number}"} for number, cell in enumerate(LESSON)]
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
