"""Draw the house: docs/architecture.svg, from the imports as they are.

python docs/_site/architecture.py            draw it again after a change
python docs/_site/architecture.py --check    fail if the drawing is not that of the code

An arrow leads from a part to one that it imports. What follows from other arrows is left out: where
`audit` imports `plots` and `plots` imports `files`, none leads from `audit` to `files`.
"""

import argparse
import re
import sys
import tomllib
from html import escape
from pathlib import Path
from textwrap import wrap

import grimp

ROOT = Path(__file__).resolve().parents[2]
DRAWING = ROOT / "docs" / "architecture.svg"
WIDTH, MARGIN, BETWEEN = 1100, 20, 16  # pixels
LINE, ABOVE = 15, 34  # between two lines of text; between two floors
LETTER = 6.4  # how wide a letter of the small text is, about
STYLE = """
  text { font-family: sans-serif; text-anchor: middle; fill: #1b1b1b }
  .name { font-size: 15px; font-weight: bold }
  .files { font-size: 11px; fill: #444 }
  .room { fill: #dcebf7; stroke: #0072b2 }
  .front { fill: #fdf3dc; stroke: #b36b00 }
  .arrow { stroke: #8a8a8a; fill: none; marker-end: url(#head) }
"""


def floors() -> list[list[str]]:
    """Read the floors, roof first, from the contract that ``make lint`` keeps."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["type"] == "layers")
    return [re.split(r"\s*[|:]\s*", layer) for layer in layers]


def imports(parts: list[str]) -> dict[str, set[str]]:
    """Tell for each part which others it imports, in functions too."""
    graph = grimp.build_graph("cxrlib", cache_dir=None)
    found: dict[str, set[str]] = {part: set() for part in parts}
    for module in graph.modules - {"cxrlib"}:
        for imported in graph.find_modules_directly_imported_by(module) - {"cxrlib"}:
            one, other = (name.split(".")[1] for name in (module, imported))
            if one != other:
                found[one].add(other)
    return found


def reduced(arrows: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Leave out the arrows that follow from others."""

    def below(part: str) -> set[str]:
        return arrows[part].union(*map(below, arrows[part]))

    return sorted(
        (part, other)
        for part, others in arrows.items()
        for other in others
        if not any(other in below(third) for third in others - {other})
    )


def rooms() -> dict[str, list[str]]:
    """Name the modules of each room."""
    folders = sorted(path.parent for path in (ROOT / "cxrlib").glob("*/__init__.py"))
    return {
        folder.name: sorted(path.stem for path in folder.glob("[!_]*.py")) for folder in folders
    }


def draw() -> str:
    """Give the drawing as SVG."""
    house, inside = floors(), rooms()
    wide = {len(floor): (WIDTH - 2 * MARGIN + BETWEEN) / len(floor) for floor in house}
    boxes, shapes, top = {}, [], MARGIN
    for floor in house:
        each = wide[len(floor)]
        width = min(each - BETWEEN, 340)
        texts = {
            part: wrap(", ".join(inside.get(part, [])), int((width - 12) / LETTER))
            for part in floor
        }
        height = 26 + LINE * max(map(len, texts.values()))
        for place, part in enumerate(floor):
            middle = MARGIN + each * place + (each - BETWEEN) / 2
            boxes[part] = middle, top, height
            shapes += box(part, texts[part], middle, top, width, height)
        top += height + ABOVE
    lines = [arrow(boxes[one], boxes[other]) for one, other in reduced(imports([*boxes]))]
    size = f'width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}"'
    head = '<path d="M0,0 L8,4 L0,8 z" fill="#8a8a8a"/>'
    told = "; ".join(
        f"{part} imports {', '.join(sorted(others)) or 'nothing'}"
        for part, others in sorted(imports([*boxes]).items())
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>The parts of cxrlib, floor by floor</title><desc>{escape(told)}</desc>",
            f"<style>{STYLE}</style>",
            '<defs><marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="4" '
            f'orient="auto">{head}</marker></defs>',
            f'<rect width="{WIDTH}" height="{top}" fill="#fff"/>',
            *lines,
            *shapes,
            "</svg>\n",
        ]
    )


def box(part, texts, middle, top, width, height) -> list[str]:
    """Draw a room with its modules, or a module of the front."""
    kind = "room" if texts else "front"
    place = f'x="{middle - width / 2:.0f}" y="{top}" width="{width:.0f}" height="{height}" rx="5"'
    return [
        f'<rect class="{kind}" {place}/>',
        f'<text class="name" x="{middle:.0f}" y="{top + 18}">{part}</text>',
        *(
            f'<text class="files" x="{middle:.0f}" y="{top + 18 + LINE * row}">{text}</text>'
            for row, text in enumerate(texts, 1)
        ),
    ]


def arrow(one, other) -> str:
    """Draw an arrow from the foot of a box to the head of one below, or to a neighbour's foot."""
    (x1, top1, high1), (x2, top2, _) = one, other
    y1 = top1 + high1
    if top1 == top2:
        bow = f"M{x1:.0f},{y1} C{x1:.0f},{y1 + 22} {x2:.0f},{y1 + 22} {x2:.0f},{y1 + 2}"
        return f'<path class="arrow" d="{bow}"/>'
    return f'<path class="arrow" d="M{x1:.0f},{y1} L{x2:.0f},{top2 - 1}"/>'


def main(words=None) -> int:
    """Draw, or check; returns the exit code."""
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=about)
    parser.add_argument("--check", action="store_true")
    drawing = draw()
    if parser.parse_args(words).check:
        same = DRAWING.exists() and DRAWING.read_text(encoding="utf-8") == drawing
        print(f"{DRAWING.name} {'is' if same else 'is not'} what the imports are")
        return int(not same)
    DRAWING.write_text(drawing, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
