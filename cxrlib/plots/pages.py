"""HTML pages: templates that look alike, and nothing that they would have to fetch."""

from __future__ import annotations

from pathlib import Path


def template(file: Path | str):
    """Load the template ``NAME.html.j2``; it may include ``page.css.j2``, which all pages share.

    Text that is put into it is escaped: what strangers' files say stays text.

    Returns
    -------
    jinja2.Template
    """
    from jinja2 import Environment, FileSystemLoader

    file = Path(file)
    loader = FileSystemLoader([file.parent, Path(__file__).parent])
    room = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return room.get_template(file.name)
