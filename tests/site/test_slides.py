"""Slides: what goes onto them by rule, and whether they fit and stay at home in a real browser."""

import base64
import json
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import browser

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import slides  # noqa: E402
from _site import deck  # noqa: E402

FACTS = "Not for clinical use. Data: phantom (synthetic). Seed 0."
TABLE = "<table><tbody>{}</tbody></table>"
FOUND = '<p data-found="{}">Found (share): 0.75.</p>'


def picture(width, height):
    import cv2
    import numpy as np

    kept = cv2.imencode(".png", np.full((height, width), 128, np.uint8))[1].tobytes()
    return {"image/png": base64.b64encode(kept).decode()}


def shows(data, source="draw()", **metadata):
    output = new_output("display_data", data=data, metadata={"image/png": {"alt": "a figure"}})
    return new_code_cell(source, outputs=[output], metadata=metadata)


def prose(text, name=None, **metadata):
    return new_markdown_cell(text, metadata=metadata, **({"id": name} if name else {}))


def marked(kind):
    return {"slideshow": {"slide_type": kind}}


def lesson(*cells):
    """A lesson with these sections between its title and what was learned."""
    title = "# 1 · A title\n\n*About 5 minutes.*\n\nAfter this lesson you can\n\n- look;\n- count."
    end = (
        "## What you have learned\n\n- To look.\n\n"
        "**Exercises.** [Six tasks](exercises/release/01_a/01_a.ipynb).\n\n"
        "**Read on.** A paper.\n\nNext: [lesson 2](02_b.ipynb#there)."
    )
    return new_notebook(cells=[prose(title), *cells, prose(end)])


def section(number):
    rows = "".join(f"<tr><td>row {row}</td><td>{'word ' * 60}</td></tr>" for row in range(40))
    intent = "We divide the films. " + "A sentence of some length that nobody needs here. " * 8
    return [
        prose(f"## {number} · Section <{number}>\n\n{intent}"),
        new_code_cell('ask = "What share?"\nguess = guesses.ask("share", ask, low=0)'),
        shows(picture(700, 700)),
        shows({"text/html": FOUND}),
        prose("Each line is a patient. And more.", f"read-{number}"),
        prose("## More\n\nA table, in words. " * 2),
        shows({"text/html": TABLE.format(rows)}),
    ]


def slides_of(notebook):
    """Each slide's text, and that of its notes."""
    found = []
    for cell in deck.deck(notebook, FACTS).cells:
        kind = cell.metadata.slideshow.slide_type
        text = cell.source + "".join(str(o.data) for o in cell.get("outputs", []))
        if kind == "slide":
            found.append(["", ""])
        found[-1][kind == "notes"] += text
    return found


def test_a_deck_begins_with_what_it_is_and_ends_with_what_to_do():
    first, *_, learned, last = slides_of(lesson(*section(1)))
    assert "1 · A title" in first[0] and "- count." in first[0] and FACTS in first[0]
    assert "About 5 minutes" in first[1] and "About 5 minutes" not in first[0]
    assert "To look." in learned[0]
    assert "`notebooks/exercises/release/01_a/01_a.ipynb`" in last[0] and "A paper." in last[0]
    assert "[lesson 2](02_b.html)" in last[0]


def test_a_guess_stands_before_its_answer_and_the_prose_in_the_notes():
    _, ask, figure, table, *_ = slides_of(lesson(*section(1)))
    assert "What share?" in ask[0] and "Found" not in ask[0] and "image/png" not in ask[0]
    assert "image/png" in figure[0] and "**Found** (share): 0.75." in figure[0]
    assert "Each line is a patient." in figure[0]
    assert ask[0].count("that nobody needs") < 8 == ask[1].count("that nobody needs")
    assert "of 40 rows" in table[0]
    assert all(notes.strip() for _, notes in slides_of(lesson(*section(1))))


def test_many_sections_are_25_slides_and_each_section_has_one():
    cells = [cell for number in range(1, 12) for cell in section(number)]
    cells += [shows(picture(600, 200)) for _ in range(30)]
    found = slides_of(lesson(*cells))
    assert len(found) == 25


def test_a_cell_s_own_slideshow_metadata_has_the_last_word():
    said = "Words that a rule would leave out. " * 30
    notebook = lesson(
        prose("## 1 · Shown\n\nIntent."),
        shows(picture(600, 200), source="skipped()", **marked("skip")),
        shows({"text/html": TABLE.format("<tr><td>first</td></tr>")}),
        shows({"text/html": TABLE.format("<tr><td>second</td></tr>")}),
        shows({"text/html": TABLE.format("<tr><td>third</td></tr>")}, **marked("slide")),
        prose("Only for the speaker.", "read-third", **marked("notes")),
        prose("A slide of words.", **marked("subslide")),
        prose(f"## 2 · Off\n\n{said}", **marked("skip")),
        shows(picture(600, 200)),
    )
    text = "\n".join(slide for slide, _ in slides_of(notebook))
    notes = "\n".join(notes for _, notes in slides_of(notebook))
    assert "first" in text and "second" not in text and "third" in text
    assert "image/png" not in text and "2 · Off" not in text + notes
    assert "A slide of words." in text
    assert "Only for the speaker." in notes and "Only for the speaker." not in text


def test_a_section_that_only_stores_results_has_no_slide():
    held = shows({"text/html": TABLE.format("<tr><td>held</td></tr>")}, 'results.record("01_a")')
    assert len(slides_of(lesson(prose("## 9 · Keep it\n\nThe record."), held))) == 3


def test_sentences_are_whole():
    said = "**The odd ones out.** A set. Fig. 2 of it counts (e.g. films). Compare the next table."
    assert deck.short(said, 10) == "**The odd ones out.**"
    assert deck.short(said, 40) == "**The odd ones out.** A set."
    assert deck.short(said, 400).endswith("counts (e.g. films).")
    assert (
        deck.short("## Head\n\nWe do:\n\n- this;\n- that.", 99, "prose")
        == "We do:\n\n- this;\n- that."
    )
    assert deck.short("Look at this. Here is what came of it:", 99) == "Look at this."


def test_a_table_keeps_its_first_rows_and_shortens_its_cells():
    rows = "".join(f"<tr><th>{n}</th><td>{'long ' * 50}</td></tr>" for n in range(20))
    kept = deck.trimmed(TABLE.format(rows))
    assert "7 of 20 rows" in kept and kept.count("<th>") == 7 and kept.count("…") == 7
    small = TABLE.format("<tr><td>1</td></tr>")
    assert deck.trimmed(small) == small


# -- in a browser ------------------------------------------------------------------------------
@pytest.fixture
def run(tmp_path):
    """A run of one lesson with everything that is too long, too wide or too high."""
    wide = "".join(f"<th>a_rather_long_name_{n}</th>" for n in range(9))
    cells = [*section(1), *section(2), prose("## 3 · Wide\n\n" + "Many words stand here. " * 20)]
    cells += [shows({"text/html": TABLE.format(f"<tr>{wide}</tr>" * 9)}), shows(picture(900, 200))]
    cells += [prose("## 4 · High\n\n" + "Many words stand here. " * 20), shows(picture(300, 900))]
    out = tmp_path / "run"
    (out / "notebooks").mkdir(parents=True)
    (out / "results").mkdir()
    nbformat.write(lesson(*cells), out / "notebooks" / "01_a.ipynb")
    data = {"name": "phantom (synthetic)", "images": 12, "patients": 6}
    recorded = json.loads((ROOT / "data/reference/results/04_resnet50.json").read_text("utf-8"))
    (out / "results" / "01_a.json").write_text(json.dumps(recorded | {"data": data, "seed": 0}))
    return out


TOO_FAR = """() => {
  const slide = Reveal.getCurrentSlide(), box = slide.getBoundingClientRect();
  const parts = [...slide.querySelectorAll("h1, h2, p, li, img, table, .ask, .facts")];
  const far = parts.filter((part) => {
    const at = part.getBoundingClientRect();
    return at.bottom > box.top + 690 || at.right > box.left + 1280 || at.top < box.top;
  }).map((part) => part.outerHTML.slice(0, 80));
  const image = slide.querySelector("img");
  if (image && image.getBoundingClientRect().height < 280) far.push("a small figure");
  if (slide.scrollHeight > 720 || slide.scrollWidth > 1280) far.push("it scrolls");
  const notes = slide.querySelector("aside.notes");
  if (!notes.textContent.trim() || notes.closest(".fragment")) far.push("no notes from the start");
  return far;
}"""


def check(path):
    """Walk through a deck by its keys: all fits, nothing is asked of another host."""
    with browser.page(1280, 720) as tab:
        asked = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(path.as_uri())
        tab.wait_for_function("window.Reveal && Reveal.isReady()")
        count = tab.evaluate("Reveal.getTotalSlides()")
        for number in range(count):
            while tab.evaluate("Reveal.availableFragments().next"):
                tab.keyboard.press("ArrowRight")
            assert tab.evaluate("Reveal.getIndices().h") == number
            assert tab.evaluate(TOO_FAR) == [], (path.name, number + 1)
            tab.keyboard.press("ArrowRight")
        browser.assert_clean(tab)
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert 3 < count <= 25
    return count


def test_every_slide_fits_and_no_request_leaves(run, tmp_path):
    (path,) = slides.write_decks(run, tmp_path / "out")
    text = path.read_text(encoding="utf-8")
    assert "12 films of 6 patients" in text and "draw()" not in text  # no code
    assert (tmp_path / "out" / "shared" / "LICENSE").exists()
    count = check(path)
    assert slides.write_pdfs([path]) == "PDF: 1 beside them"
    assert path.with_suffix(".pdf").read_bytes().count(b"/Type /Page\n") == count


def test_the_speaker_s_view_opens_beside_it(run, tmp_path):
    (path,) = slides.write_decks(run, tmp_path / "out")
    with browser.page(1280, 720) as tab:
        tab.goto(path.as_uri())
        tab.wait_for_function("window.Reveal && Reveal.isReady()")
        with tab.expect_popup() as opened:
            tab.keyboard.press("s")
        said = "document.querySelector('.speaker-controls-notes').textContent.includes({!r})"
        opened.value.wait_for_function(said.format("About 5 minutes"))
        tab.keyboard.press("ArrowRight")
        tab.keyboard.press("ArrowRight")
        opened.value.wait_for_function(said.format("And more."))


def test_what_is_missing_is_named(run, tmp_path, capsys, monkeypatch):
    (run / "results" / "01_a.json").unlink()
    assert slides.main(["--run", str(run), "--out", str(tmp_path / "out")]) == 1
    assert "no results of 01_a" in capsys.readouterr().err
    assert slides.main(["--run", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "holds no executed lessons" in capsys.readouterr().err
    monkeypatch.setattr(slides, "find_spec", lambda name: None)
    assert slides.main(["--run", str(run), "--out", str(tmp_path / "out")]) == 1
    assert "reveal.js is missing" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CHROMIUM", raising=False)
    assert slides.write_pdfs([]).startswith("No PDF: none of chromium")


@pytest.mark.slow
def test_the_lessons_own_decks_fit(smoke, tmp_path):
    decks = slides.write_decks(smoke[0], tmp_path)
    assert len(decks) >= 9
    for path in decks:
        text = path.read_text(encoding="utf-8")
        assert 10 < text.count('class="notes"') <= 25, path.name
    check(decks[-1])
