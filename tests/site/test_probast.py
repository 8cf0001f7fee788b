"""The worksheet of PROBAST+AI answers every question, and names cells that exist."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "probast_ai.md").read_text(encoding="utf-8")
ANSWER = re.compile(r"^\*\*(Y|PY|PN|N|NI|NA)\b")


def rows(part):
    return [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in part.splitlines()
        if re.match(r"\| \d\.\d \|", line)
    ]


def test_every_question_is_answered_for_the_paper_and_for_the_course():
    _, development, evaluation = re.split(r"^## .*$", PAGE, flags=re.M)
    for part, sizes in ((development, (3, 4, 4, 5)), (evaluation, (3, 4, 4, 7))):
        found = rows(part)
        wanted = [f"{d}.{n + 1}" for d, size in enumerate(sizes, 1) for n in range(size)]
        assert [row[0] for row in found] == wanted
        for _, _, paper, course in found:
            assert ANSWER.match(paper) and ANSWER.match(course), (paper, course)
            evidence = (
                '"',
                "Table",
                "lesson",
                "As in",
                "No date",
                "Nothing is said",
                "One division",
            )
            assert any(word in paper for word in evidence), paper


def test_the_cells_that_are_named_exist():
    named = 0
    for _, _, *answers in rows(PAGE):
        for text in answers:
            for number, told in re.findall(r"[Ll]esson (\d)((?:[ ,]*`[\w-]+`)+)", text):
                path = next((ROOT / "notebooks").glob(f"0{number}_*.ipynb"))
                notebook = json.loads(path.read_text(encoding="utf-8"))
                ids = {cell["id"] for cell in notebook["cells"]}
                cells = set(re.findall(r"`([\w-]+)`", told))
                assert cells <= ids, (number, cells - ids)
                named += len(cells)
    assert named > 40


def test_links_lead_to_pages_and_their_headings():
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        path, _, anchor = target.partition("#")
        text = (ROOT / "docs" / path).read_text(encoding="utf-8")
        heads = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-")
                 for h in re.findall(r"^#+ (.+)$", text, re.M)]  # fmt: skip
        assert not anchor or anchor in heads, target
