"""Slides of the lessons: a deck each for reveal.js, with speaker notes, and a PDF.

    python docs/slides.py                    # the quick profile into build/slides/
    python docs/slides.py --run runs/real    # lessons that another run executed

The decks need no network and no server: open one in a browser, press S for the notes, F for the
whole screen. `_site/deck.py` says what goes onto a slide.
"""

import argparse
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS), str(ROOT)]

import nbformat  # noqa: E402
from _site import deck  # noqa: E402
from build import BuildError, run_lessons  # noqa: E402
from nbconvert import SlidesExporter  # noqa: E402

from cxrlib import results  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SHARED = "shared"  # folder beside the decks
REVEAL = ("dist/reveal.js", "dist/reveal.css", "plugin/notes/notes.js", "LICENSE")


def main(arguments=None) -> int:
    """Write the decks, and say where they are; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default="quick", help="sizes of the lessons (quick)")
    parser.add_argument("--run", type=Path, help="show this run's notebooks, and execute none")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "build" / "slides", help="where to (build/slides/)"
    )
    parser.add_argument("--no-pdf", action="store_true", help="only the decks for the browser")
    options = parser.parse_args(arguments)
    try:
        run = options.run or run_lessons(options.profile)
        decks = write_decks(run, options.out)
    except (BuildError, results.ResultsError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Slides: {len(decks)} decks in {options.out}, to be opened in a browser")
    if not options.no_pdf:
        print(write_pdfs(decks))
    return 0


def write_decks(run: Path, out: Path) -> list[Path]:
    """Write a deck for each executed lesson of a run, and what they share; return their paths."""
    lessons = sorted((run / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not lessons:
        raise BuildError(f"{run} holds no executed lessons: `cxr run --out {run}` makes them.")
    share(out / SHARED)
    template = (DOCS / "_slides" / "deck.html.j2").read_text(encoding="utf-8")
    plain = {"exclude_input": True, "exclude_output_prompt": True, "exclude_anchor_links": True}
    exporter = SlidesExporter(raw_template=template, reveal_url_prefix=SHARED, **plain)
    written = []
    for path in lessons:
        slides = deck.deck(nbformat.read(path, 4), facts(run, path.stem))
        page, _ = exporter.from_notebook_node(slides)
        target = out / f"{path.stem}.html"
        target.write_text(page, encoding="utf-8")
        written.append(target)
    return written


def share(folder: Path) -> None:
    """Copy reveal.js (MIT; sphinx-revealjs brings it) and our style beside the decks."""
    found = find_spec("sphinx_revealjs")
    if not found:
        raise BuildError("reveal.js is missing: `pip install sphinx-revealjs` brings it.")
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(found.submodule_search_locations[0], "_static", "revealjs")
    for path in (*(source / name for name in REVEAL), DOCS / "_slides" / "deck.css"):
        shutil.copy(path, folder / path.name)


def facts(run: Path, lesson: str) -> str:
    """Say on what data a lesson ran, for the foot of its slides."""
    found = results.load(run, lesson)
    data, size = found.data, ""
    if data["images"]:
        size = f", {data['images']} films of {data['patients']} patients"
    weights = " RANDOM weights." if found.has_random_weights else ""
    return f"Not for clinical use. Data: {data['name']}{size}.{weights} Seed\u00a0{found.seed}."


def write_pdfs(decks: list[Path]) -> str:
    """Print each deck with Chromium, a slide a page; return what to tell."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return "No PDF: playwright is not installed (`make test` installs it)."
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        return f"No PDF: none of {', '.join(BROWSERS)} is on the PATH."
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for path in decks:
            tab = browser.new_page(viewport={"width": 1280, "height": 720})
            tab.goto(f"{path.resolve().as_uri()}?print-pdf")
            tab.wait_for_selector(".pdf-page")
            tab.pdf(path=path.with_suffix(".pdf"), prefer_css_page_size=True, print_background=True)
            tab.close()
        browser.close()
    return f"PDF: {len(decks)} beside them"


if __name__ == "__main__":
    sys.exit(main())
