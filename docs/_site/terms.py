"""Link a word of the glossary where a lesson uses it first. A Sphinx extension."""

import re

from docutils import nodes
from sphinx.addnodes import pending_xref

from . import project

GLOSSARY = project.ROOT / "docs" / "glossary.md"
LESSON = re.compile(r"notebooks/\d")
# Where a link would be in the way, or words stand for themselves
KEPT = (nodes.reference, nodes.literal, nodes.math, pending_xref, nodes.raw)


def words() -> list[str]:
    """List the words that the glossary explains, longest first."""
    entries = GLOSSARY.read_text(encoding="utf-8").split("```{glossary}")[1].split("```")[0]
    return sorted(re.findall(r"^\S.*$", entries, re.MULTILINE), key=len, reverse=True)


def pattern(known: list[str]) -> re.Pattern:
    """Find words, the longest first, also in the plural; abbreviations as they are written.

    Group number `n` is the word `known[n - 1]`.
    """
    each = (f"({re.escape(w)})" if w.isupper() else f"((?i:{re.escape(w)}))" for w in known)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(each)})(?:s|es)?(?![\w-])")


def _link_first_uses(app, doctree):
    if not LESSON.match(app.env.docname):
        return
    known, done = words(), set()
    found = pattern(known)
    texts = [
        text
        for paragraph in doctree.findall(nodes.paragraph)
        for text in paragraph.findall(nodes.Text)
        if not any(isinstance(one, KEPT) for one in _above(text))
    ]
    for text in texts:
        linked, at = [], 0
        for use in found.finditer(text):
            if (word := known[use.lastindex - 1]) in done:
                continue
            done.add(word)
            linked += [nodes.Text(text[at : use.start()]), _link(use[0], word, app.env.docname)]
            at = use.end()
        if linked:
            text.parent.replace(text, [*linked, nodes.Text(text[at:])])


def _above(node):
    while node := node.parent:
        yield node


def _link(shown: str, word: str, page: str) -> pending_xref:
    place = {"refdomain": "std", "reftype": "term", "reftarget": word, "refdoc": page}
    return pending_xref("", nodes.inline(shown, shown), refexplicit=True, refwarn=True, **place)


def setup(app):
    """Work on each page once it is read."""
    app.connect("doctree-read", _link_first_uses)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
