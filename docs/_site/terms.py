"""Link a word of the glossary where a lesson uses it first. A Sphinx extension."""

import re

from docutils import nodes
from sphinx.addnodes import pending_xref

from . import project

GLOSSARY = project.ROOT / "docs" / "glossary.md"
LESSON = re.compile(r"notebooks/\d")
# Where a link would be in the way, or words stand for themselves
KEPT = (nodes.reference, nodes.literal, nodes.math, nodes.title, pending_xref, nodes.raw)


def words() -> list[str]:
    """List the words that the glossary explains, longest first."""
    entries = GLOSSARY.read_text(encoding="utf-8").split("```{glossary}")[1].split("```")[0]
    return sorted(re.findall(r"^\S.*$", entries, re.MULTILINE), key=len, reverse=True)


def pattern(word: str) -> re.Pattern:
    """Find a word, also in the plural; abbreviations as they are written."""
    flags = 0 if word.isupper() else re.IGNORECASE
    return re.compile(rf"(?<![\w-]){re.escape(word)}(?:s|es)?(?![\w-])", flags)


def _link_first_uses(app, doctree):
    if not LESSON.match(app.env.docname):
        return
    left = {word: pattern(word) for word in words()}
    texts = [
        text
        for paragraph in doctree.findall(nodes.paragraph)
        for text in paragraph.findall(nodes.Text)
        if not any(isinstance(one, KEPT) for one in _above(text))
    ]
    for text in texts:
        found = [(*use.span(), word) for word, how in left.items() if (use := how.search(text))]
        linked, at = [], 0
        for begin, end, word in sorted(found, key=lambda one: (one[0], -one[1])):
            if begin < at:
                continue  # inside a longer word, which has its own entry
            linked += [nodes.Text(text[at:begin]), _link(text[begin:end], word, app.env.docname)]
            at = end
            del left[word]
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
