"""Draw the flow of films and patients, from the manifests to the test sets: docs/flow.svg."""

from html import escape

WIDTH, HEIGHT, DEEP, GAP = 920, 66, 52, 34  # pixels: drawing and box wide, box high, between boxes
STYLE = """
  text { font-family: sans-serif; font-size: 13px; fill: #1b1b1b }
  .box { fill: #dcebf7; stroke: #0072b2 }
  path { stroke: #666; fill: none; marker-end: url(#head) }
"""


def steps(inside, outside, fetched, model, headline) -> list[list[tuple]]:
    """List the boxes of each column: what it is, images, patients, and why fewer remained.

    `inside` and `outside` are what :func:`inventory.describe` gives; `fetched` and `model` the
    ``data`` of lessons 1 and 5; `headline` lesson 7's table. What was not measured on real films
    is None and has no box.
    """
    films = [("listed in the manifest `open`", inside["images"], inside["patients"], "")]
    if fetched:
        why = "not on the server that was asked"
        films.append(("fetched and read", fetched["images"], fetched["patients"], why))
    if model:
        why = "another class, or left out to balance the two"
        name = "Model 3, by folds: each tested once"
        films.append((name, model["images"], model["patients"], why))
    other = [("listed in the manifest `external`", outside["images"], outside["patients"], "")]
    if headline is not None:
        last = headline[headline["condition"] == "another hospital"].iloc[0]
        why = "not on the server, or another class"
        other.append(("another hospital's test set", last["images"], last["patients"], why))
    return [films, other]


def counted(images, patients) -> str:
    """Word how many films of how many people."""
    return f"{images:,} images" + (f" of {patients:,} patients" if patients else "")


def draw(columns) -> str:
    """Give the drawing of :func:`steps` as SVG: in the column who is in, beside it who is out."""
    tall = 20 + max(map(len, columns)) * (DEEP + GAP)
    wide = WIDTH // len(columns)
    shapes, told = [], []
    for place, column in enumerate(columns):
        left, before = 10 + place * wide, None
        for row, (name, images, patients, why) in enumerate(column):
            top = 10 + row * (DEEP + GAP)
            lines = [name.replace("`", ""), counted(images, patients)]
            shapes += box(left, top, wide - 30, lines)
            told.append(" ".join(lines))
            if why:
                out = f"{before - images:,} images out: {why}"
                middle = left + 16
                shapes.append(f'<path d="M{middle},{top - GAP} L{middle},{top - 2}"/>')
                shapes.append(f'<text x="{middle + 10}" y="{top - GAP / 2 + 4}">{out}</text>')
                told.append(out)
            before = images
    head = '<path d="M0,0 L8,4 L0,8 z" style="fill:#666;marker-end:none"/>'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{tall}" '
            f'viewBox="0 0 {WIDTH} {tall}" role="img">',
            f"<title>Flow of films and patients</title><desc>{escape('; '.join(told))}</desc>",
            f"<style>{STYLE}</style>",
            '<defs><marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="4" '
            f'orient="auto">{head}</marker></defs>',
            f'<rect width="{WIDTH}" height="{tall}" fill="#fff"/>',
            *shapes,
            "</svg>\n",
        ]
    )


def box(left, top, width, lines) -> list[str]:
    """Draw a box with its lines of text."""
    return [
        f'<rect class="box" x="{left}" y="{top}" width="{width}" height="{DEEP}" rx="5"/>',
        *(
            f'<text x="{left + 12}" y="{top + 20 + 20 * row}">{escape(line)}</text>'
            for row, line in enumerate(lines)
        ),
    ]
