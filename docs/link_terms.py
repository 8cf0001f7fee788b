r"""Link each word of the glossary where a lesson uses it first, with its meaning to hover over.

python docs/link_terms.py             write the lessons
python docs/link_terms.py --check     write nothing; exit 1 and name what has drifted
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from cxrlib.files import whole_file

HERE = Path(__file__).resolve().parent
GLOSSARY = HERE / "glossary.md"
LESSONS = HERE.parent / "notebooks"
LINKED = re.compile(r'\[([^\]]+)\]\(\.\./docs/glossary\.md#[^)"]+ "[^"]*"\)')
# What stays as it is, where a word of the glossary is no word of the prose
KEPT = r"""
  ```[\s\S]*?``` | `[^`\n]*` | \$[^$\n]+\$                  # code, formulas
  | ^[ ]{0,3}</?[a-z][\s\S]*?(?:\n\s*\n|\Z) | <[^>\n]+>     # HTML
  | ^\#.*$ | ^\|.*$ | !?\[[^\]]*\]\([^)]*\)                 # headings, rows of tables, links
  | \*[^*\n]+\*,[ ](?:doi|arXiv): | Model[ ]\d              # titles of papers, the paper's models
"""


def read_glossary() -> dict[str, str]:
    """Give each word of the glossary the first sentence that explains it, as plain text."""
    entries = GLOSSARY.read_text(encoding="utf-8").split("```{glossary}")[1].split("```")[0]
    found = re.findall(r"^(\S.*)\n  (.*)$", entries, re.MULTILINE)
    return {word: _first_sentence(text) for word, text in found}


def _first_sentence(text: str) -> str:
    text = re.sub(r"\{term\}`([^`<]+?)(?: <[^`]*>)?`", r"\1", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)|[*`$]", lambda link: link[1] or "", text)
    return re.split(r"(?<=\.) ", text)[0].replace('"', "'")


def anchor(word: str) -> str:
    """Give the name that a link calls a word by, after the #."""
    return re.sub(r"\W+", "-", word)


def unlink(text: str) -> str:
    """Take the links to words of the glossary out of a text, and leave the words."""
    return LINKED.sub(r"\1", text)


def link(texts: list[str], words: dict[str, str]) -> list[str]:
    """Link each of the words at its first use in the texts (Markdown), and nowhere else."""
    known = sorted(words, key=len, reverse=True)
    each = [f"({re.escape(w)})" if w.isupper() else f"((?i:{re.escape(w)}))" for w in known]
    uses = "|".join(one.replace(r"\ ", r"\s+") for one in each)
    found = re.compile(rf"{KEPT}|(?<![\w-])(?:{uses})(?:s|es)?(?![\w-])", re.MULTILINE | re.VERBOSE)
    done = set()

    def put(use) -> str:
        word = use.lastindex and known[use.lastindex - 1]
        if not word or word in done:
            return use[0]
        done.add(word)
        return f'[{use[0]}](../docs/glossary.md#{anchor(word)} "{words[word]}")'

    return [found.sub(put, unlink(text)) for text in texts]


def linked(path: Path) -> str:
    """Give a lesson's file as it should be."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    prose = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    texts = link(["".join(cell["source"]) for cell in prose], read_glossary())
    for cell, text in zip(prose, texts, strict=True):
        cell["source"] = text.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def main(arguments=None) -> int:
    """Write the lessons, or say which have drifted. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    given, drifted = parser.parse_args(arguments), []
    for path in sorted(LESSONS.glob("[0-9][0-9]_*.ipynb")):
        if (text := linked(path)) != path.read_text(encoding="utf-8"):
            drifted.append(path.name)
            if not given.check:
                with whole_file(path) as partial:
                    partial.write_text(text, encoding="utf-8")
    print("\n".join(drifted) or "Each word of the glossary is linked where a lesson uses it first.")
    return int(given.check and bool(drifted))


if __name__ == "__main__":
    sys.exit(main())
