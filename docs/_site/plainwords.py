"""Leave the words of a docstring's types alone: "array_like, shape (n,)" names no class of ours.

A Sphinx extension. Sphinx would look up each word, and link "shape" to some attribute of that
name. Only names with their module (``cxrlib.cohort.Cohort``) stay links.
"""

from sphinx.addnodes import pending_xref


def _unlink(app, doctree):
    for node in list(doctree.findall(pending_xref)):
        is_word = node.get("refdomain") == "py" and node.get("reftype") in ("class", "obj")
        if is_word and not node["reftarget"].startswith("cxrlib."):
            node.replace_self(node.children)


def setup(app):
    """Work on each page once it is read."""
    app.connect("doctree-read", _unlink)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
