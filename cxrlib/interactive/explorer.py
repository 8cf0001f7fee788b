"""What all explorers share: labelled controls, and HTML that can be read aloud.

An explorer is some controls and a function that turns their values into HTML. Films go into
it as ``<img>`` with an alternative text, numbers as tables: both can be read by a screen reader,
and a film is packed in a few milliseconds, where a figure of matplotlib takes a hundred.
"""

from __future__ import annotations

import base64
from html import escape

import numpy as np

MOVE_IT = "Move the sliders in JupyterLab or Colab."
WRAPPED = "line-height:1.4;overflow-wrap:anywhere"


def options(label: str) -> dict:
    """Give what every control gets: a label that is never cut off, and the keyboard's width."""
    wide = {"width": "min(32em, 98%)"}
    return {"description": label, "style": {"description_width": "11em"}, "layout": wide}


def explorer(controls: dict, draw, *, above: str = "", more=(), room: int = 22):
    """Put controls beside what they show; in a narrow window they stand above it.

    Parameters
    ----------
    controls : dict of str to widget
        By the name of `draw`'s argument that each sets.
    draw : callable
        Takes the values of the controls by name, gives HTML. Called now and after every move.
    above : str
        HTML that always stands on top.
    more : sequence of widget
        Shown below the controls.
    room : int
        Width that the picture needs to stand beside the controls, in em.

    Returns
    -------
    ipywidgets.VBox
        With ``controls`` as given, ``shown`` (the HTML widget) and ``redraw``, for programs
        that move it.
    """
    from ipywidgets import HTML, Box, VBox

    # What a knob changes must be in sight while it is turned
    shown = HTML(layout={"flex": f"1 1 min({room}em, 98%)", "min_width": "0", "width": "auto"})

    def redraw(_=None):
        values = {name: control.value for name, control in controls.items()}
        # a browser's slider counts up 0.1 + 0.2 to 0.30000000000000004
        values = {key: round(x, 4) if isinstance(x, float) else x for key, x in values.items()}
        shown.value = draw(**values)

    redraw()
    for control in controls.values():
        control.tooltip = control.description
        control.observe(redraw, "value")
    left = VBox([*controls.values(), *more], layout={"flex": "0 1 33em", "max_width": "100%"})
    row = Box([left, shown], layout={"flex_flow": "row wrap", "align_items": "flex-start"})
    box = VBox([HTML(above), row])
    box.controls, box.shown, box.redraw = controls, shown, redraw
    return box


def picture(image: np.ndarray, alt: str, caption: str = "", width: int = 300) -> str:
    """Pack an image as HTML.

    `image` is (height, width) or (height, width, 3), uint8: grey, or red, green, blue. `alt`
    says in words what it shows; it is escaped here, as is the caption. `width` is in the
    browser's pixels; a narrower window shrinks it.
    """
    import cv2

    # compressed lightly: on the way to a browser nearby, time counts more than bytes
    fast = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    png = cv2.imencode(".png", image if image.ndim == 2 else image[..., ::-1], fast)[1].tobytes()
    return (
        f'<figure style="margin:0;max-width:{width}px;{WRAPPED}">'
        f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}" alt="{escape(alt)}" '
        f'style="width:{width}px;max-width:100%;height:auto">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def drawing(figure, alt: str, width: int = 380) -> str:
    """Pack a matplotlib figure as HTML; see :func:`picture`. Its size is fixed: no trimming."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return picture(np.asarray(canvas.buffer_rgba())[..., :3], alt, width=width)


def beside(*parts: str, wrap: bool = True) -> str:
    """Lay parts side by side; in a narrow window they wrap, or all of them shrink."""
    style = f"display:flex;flex-wrap:{'wrap' if wrap else 'nowrap'};gap:8px 24px"
    box = '<div style="flex:0 1 auto;min-width:0;max-width:30em">'
    boxes = "".join(f"{box}{part}</div>" for part in parts)
    return f'<div style="{style};align-items:flex-start">{boxes}</div>'


def words(*sentences: str) -> str:
    """Make a paragraph of sentences, each escaped; empty ones are left out."""
    text = " ".join(escape(sentence) for sentence in sentences if sentence)
    return f'<p style="max-width:46em;margin:8px 0;{WRAPPED}">{text}</p>'


def message(text: str, bad: bool = False) -> str:
    """Make a sentence that a screen reader reads out when it comes."""
    role, colours = ("alert", "color:#8b0000;background:#fdecea;") if bad else ("status", "")
    style = f"{colours}padding:6px;margin:4px 0;{WRAPPED}"
    return f'<p role="{role}" style="{style}">{escape(text)}</p>'


def table(head, rows, caption: str = "") -> str:
    """Make a small table; the first cell of each row is its heading. Everything is escaped."""

    def cells(values, scope, tag):
        first, *others = (escape(str(value)) for value in values)
        heading = f'<th scope="{scope}" style="padding:2px 10px;text-align:left">{first}</th>'
        start, end = f'<{tag} style="padding:2px 10px;text-align:right">', f"</{tag[:2]}>"
        return f"<tr>{heading}{''.join(start + other + end for other in others)}</tr>"

    lines = [cells(head, "col", 'th scope="col"'), *(cells(row, "row", "td") for row in rows)]
    style = "border-collapse:collapse;font-variant-numeric:tabular-nums;line-height:1.4"
    said = f'<caption style="text-align:left">{escape(caption)}</caption>' if caption else ""
    return f'<table style="{style}">{said}{"".join(lines)}</table>'
