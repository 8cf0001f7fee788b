"""Lead a link to a word of the glossary to that word. A Sphinx extension.

``docs/link_terms.py`` writes these links. Elsewhere they open the glossary.
"""

import link_terms
from sphinx.addnodes import pending_xref


def _lead_to_words(app, doctree):
    words = {link_terms.anchor(word): word for word in link_terms.read_glossary()}
    for link in doctree.findall(pending_xref):
        word = words.get(link.get("reftargetid"))  # of others Sphinx says that they lead nowhere
        if word and link["reftarget"] == "docs/glossary":
            place = {"refdomain": "std", "reftype": "term", "reftarget": word}
            link.attributes.update(place, refexplicit=True, refwarn=True)


def setup(app):
    """Work on each page once it is read."""
    app.connect("doctree-read", _lead_to_words)
    return {"version": "2", "parallel_read_safe": True, "parallel_write_safe": True}
