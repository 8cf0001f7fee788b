"""Words of the glossary: linked once a lesson, at first use, and explained to who points there."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import link_terms  # noqa: E402

LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
WORDS = {"loss": "How wrong.", "test set": "Seen once.", "score": "A number."}
WORDS |= {"AUC": "An area.", "model": "A rule."}


def put(word, shown=None):
    return f'[{shown or word}](../docs/glossary.md#{word.replace(" ", "-")} "{WORDS[word]}")'


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The loss falls; a loss is", f"The {put('loss')} falls; a loss is"),
        ("Losses fall.", f"{put('loss', 'Losses')} fall."),
        ("A **test set** has a score", f"A **{put('test set')}** has a {put('score')}"),
        ("AUC, not auc", f"{put('AUC')}, not auc"),
        ("lossless, underscore, score-board", "lossless, underscore, score-board"),
        ("`loss` $loss$ [the loss](x.md)", "`loss` $loss$ [the loss](x.md)"),
        ("## A loss\n| loss |\n", "## A loss\n| loss |\n"),
        ("<details>\nloss\n\nloss", f"<details>\nloss\n\n{put('loss')}"),
        ("Doe 2020, *On loss*, doi:10.1/2.", "Doe 2020, *On loss*, doi:10.1/2."),
        ("The paper's Model 2 has a model", f"The paper's Model 2 has a {put('model')}"),
        ("*loss*, not gain", f"*{put('loss')}*, not gain"),
    ],
)
def test_a_word_is_linked_where_prose_uses_it_first(text, wanted):
    assert link_terms.link([text], WORDS) == [wanted]
    assert link_terms.link([wanted], WORDS) == [wanted]
    assert link_terms.unlink(wanted) == text


def test_the_second_cell_is_not_linked_again():
    assert link_terms.link(["A loss", "a loss"], WORDS) == [f"A {put('loss')}", "a loss"]


def test_a_meaning_is_plain_text():
    meanings = link_terms.read_glossary()
    assert meanings["AUC"].startswith("Area under the ROC curve: the probability that a random")
    for word, meaning in meanings.items():
        assert 10 < len(meaning) < 180 and not re.search(r'[`"*{}\[\]]', meaning), word


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_links_each_word_where_it_uses_it_first(path):
    markdown_it = pytest.importorskip("markdown_it")
    bs4 = pytest.importorskip("bs4")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    prose = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    prose = re.sub(r"\$[^$\n]+\$|\*[^*\n]+\*, (?=doi|arXiv)|Model \d", "", prose)
    html = markdown_it.MarkdownIt().enable("table").render(prose)
    page = bs4.BeautifulSoup(html, "html.parser")
    for kept in page.select("code, table, h1, h2, h3, h4, details, a:not([title])"):
        kept.extract()
    links = page.select("a[title]")
    led = [link["href"].split("#")[1] for link in links]
    assert len(led) == len(set(led)) > 5
    assert all(link["href"].startswith("../docs/glossary.md#") for link in links)
    text = re.sub(r"\s+", " ", page.get_text())
    for word in link_terms.read_glossary():
        flags = 0 if word.isupper() else re.IGNORECASE
        used = re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text, flags)
        longer = [link for link in links if word.lower() in link.get_text().lower()]
        assert not used or longer or link_terms.anchor(word) in led, word


def test_the_command_names_a_lesson_that_drifted(tmp_path, monkeypatch, capsys):
    drifted = tmp_path / LESSONS[0].name
    cells = [{"cell_type": "markdown", "source": ["A loss.\n"]}]
    drifted.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    monkeypatch.setattr(link_terms, "LESSONS", tmp_path)
    before = drifted.read_text("utf-8")
    assert link_terms.main(["--check"]) == 1 and drifted.read_text("utf-8") == before
    assert LESSONS[0].name in capsys.readouterr().out
    assert link_terms.main([]) == 0 and "glossary.md#loss" in drifted.read_text("utf-8")
    assert link_terms.main(["--check"]) == 0


def test_no_lesson_has_drifted(capsys):
    assert link_terms.main(["--check"]) == 0, capsys.readouterr().out
