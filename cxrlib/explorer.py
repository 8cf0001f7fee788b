"""What all explorers share: labelled controls, pictures that can be read aloud, a fallback.

An explorer is some controls and a function that turns their values into HTML. Films go into
it as ``<img>`` with an alternative text, numbers as tables: both can be read by a screen reader,
and a film is packed in a few milliseconds, where a figure of matplotlib takes a hundred.

Nothing here starts a thread or a timer. A front end holds back the moves of a control until the
kernel has drawn the one before, and then sends only the last, so slow drawing never piles up.
"""

from __future__ import annotations

import base64
import importlib.util
import io
from html import escape

import numpy as np

from cxrlib.frontend import is_live

MOVE_IT = "Move the sliders in JupyterLab or Colab."
LABELLED = {"description_width": "11em"}
WIDE = {"width": "min(32em, 98%)"}


def is_movable() -> bool:
    """Tell whether to make widgets: somebody is there, and ipywidgets is installed."""
    return is_live() and importlib.util.find_spec("ipywidgets") is not None


def options(label: str) -> dict:
    """Give what every control gets: a label that is never cut off, and the keyboard's width."""
    return {"description": label, "style": LABELLED, "layout": WIDE}


def explorer(controls: dict, draw, *, above: str = "", more=()):
    """Put controls above what they show.

    Parameters
    ----------
    controls : dict of str to widget
        By the name of `draw`'s argument that each sets.
    draw : callable
        Takes the values of the controls by name, gives HTML. Called once now and after every
        move.
    above : str
        HTML that always stands on top.
    more : sequence of widget
        Shown between the controls and the picture.

    Returns
    -------
    ipywidgets.VBox
        With ``controls`` as given, ``shown`` (the HTML widget) and ``redraw``, for programs
        that move it.
    """
    import ipywidgets

    shown = ipywidgets.HTML()

    def redraw(_=None):
        shown.value = draw(**{name: control.value for name, control in controls.items()})

    redraw()
    for control in controls.values():
        control.observe(redraw, "value")
    top = [ipywidgets.HTML(above)] if above else []
    rows = [_row(control) for control in controls.values()]
    box = ipywidgets.VBox([*top, *rows, *more, shown])
    box.controls, box.shown, box.redraw = controls, shown, redraw
    return box


def name_label(control, text: str) -> None:
    """Say what shows over a control's label; ipywidgets 8 would say "null"."""
    if hasattr(control, "tooltip"):
        control.tooltip = text


def _row(control):
    """Put a field, labelled, with the number before a slider; other controls stay as they are.

    ipywidgets gives its sliders no name that a screen reader could say, and reads 0.7 out as
    0.7000000000000002. A field has both right, and the arrow keys move it, too.
    """
    import ipywidgets

    name_label(control, control.description)
    if not hasattr(control, "readout"):
        return control
    whole = isinstance(control, ipywidgets.IntSlider)
    field = ipywidgets.BoundedIntText if whole else ipywidgets.BoundedFloatText
    span = {"min": control.min, "max": control.max, "step": control.step}
    number = field(control.value, **span, **options(control.description))
    number.layout = {"width": "17em", "flex": "0 0 auto"}
    name_label(number, control.description)

    def on_number(change):
        # not what the slider just told: it would be sent back while it is still being dragged
        if abs(change["new"] - control.value) > 1e-6:
            control.value = change["new"]

    control.observe(lambda change: setattr(number, "value", round(change["new"], 4)), "value")
    number.observe(on_number, "value")
    control.description, control.readout = "", False
    control.layout = {"flex": "1 1 auto", "width": "auto", "min_width": "0"}
    return ipywidgets.HBox([number, control], layout=WIDE)


def picture(image: np.ndarray, alt: str, caption: str = "", width: int = 300) -> str:
    """Pack an image as HTML.

    Parameters
    ----------
    image : ndarray, shape (height, width) or (height, width, 3), uint8
        Grey, or red, green, blue.
    alt : str
        What it shows, in words. Escaped here, as is the caption.
    caption : str
    width : int
        In the browser's pixels; a narrower window shrinks it.
    """
    import cv2

    # compressed lightly: on the way to a browser nearby, time counts more than bytes
    fast = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    packed = cv2.imencode(".png", image if image.ndim == 2 else image[..., ::-1], fast)[1]
    return _figure(packed.tobytes(), alt, caption, width)


def drawing(figure, alt: str, caption: str = "", width: int = 380) -> str:
    """Pack a matplotlib figure as HTML; see :func:`picture`. Its size is fixed: no trimming."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with io.BytesIO() as file:
        FigureCanvasAgg(figure).print_png(file, pil_kwargs={"compress_level": 1})
        return _figure(file.getvalue(), alt, caption, width)


def _figure(png: bytes, alt: str, caption: str, width: int) -> str:
    source = "data:image/png;base64," + base64.b64encode(png).decode()
    below = f'<figcaption style="line-height:1.4">{escape(caption)}</figcaption>' if caption else ""
    return (
        f'<figure style="margin:0;max-width:{width}px;overflow-wrap:anywhere">'
        f'<img src="{source}" alt="{escape(alt)}" style="width:{width}px;max-width:100%;'
        f'height:auto">{below}</figure>'
    )


def beside(*parts: str, wrap: bool = True) -> str:
    """Lay parts side by side; in a narrow window they wrap, or all of them shrink."""
    flow = "wrap" if wrap else "nowrap"
    style = f"display:flex;flex-wrap:{flow};gap:8px 24px;align-items:flex-start"
    box = "flex:0 1 auto;min-width:0;max-width:30em"
    boxes = "".join(f'<div style="{box}">{part}</div>' for part in parts)
    return f'<div style="{style}">{boxes}</div>'


def words(*sentences: str) -> str:
    """Make a paragraph of sentences, each escaped; empty ones are left out."""
    text = " ".join(escape(sentence) for sentence in sentences if sentence)
    return (
        f'<p style="max-width:46em;line-height:1.4;margin:8px 0;overflow-wrap:anywhere">{text}</p>'
    )


def table(head, rows, caption: str = "") -> str:
    """Make a small table; the first cell of each row is its heading. Everything is escaped."""
    cell = 'style="padding:2px 10px;text-align:right"'
    left = 'style="padding:2px 10px;text-align:left"'
    styles = [left] + [cell] * (len(head) - 1)
    top = "".join(
        f'<th scope="col" {style}>{escape(str(name))}</th>'
        for name, style in zip(head, styles, strict=True)
    )
    lines = [
        f'<tr><th scope="row" {left}>{escape(str(name))}</th>'
        + "".join(f"<td {cell}>{escape(str(value))}</td>" for value in values)
        + "</tr>"
        for name, *values in rows
    ]
    said = f'<caption style="text-align:left">{escape(caption)}</caption>' if caption else ""
    style = "border-collapse:collapse;font-variant-numeric:tabular-nums;line-height:1.4"
    return f'<table style="{style}">{said}<tr>{top}</tr>{"".join(lines)}</table>'
