"""A link around each picture: on a phone figures shrink to half, and their file opens in full.

A Sphinx extension. A link needs no script, works by keyboard, and the way back is the browser's.
"""

from docutils import nodes
from sphinx.util.osutil import relative_uri

SAID = "Open in full size"


def _link(app, doctree, page):
    """Wrap pictures once Sphinx knows which files they become."""
    for image in list(doctree.findall(nodes.image)):
        held = app.env.images.get(image["uri"])
        if held and not isinstance(image.parent, nodes.reference):
            folder = relative_uri(app.builder.get_target_uri(page), app.builder.imagedir)
            link = nodes.reference(refuri=f"{folder}/{held[1]}", internal=True, reftitle=SAID)
            link["classes"].append("full-size")
            image.replace_self(link)
            link += image


def setup(app):
    """Work on each page before it is written."""
    app.connect("doctree-resolved", _link)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
