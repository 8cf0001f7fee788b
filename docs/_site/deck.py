"""What of an executed lesson goes onto its slides, and what into the speaker's notes.

By rule: a slide for the title; for each section its heading, the sentence that says what it is
for, its guess, and its first figure (or table) with the sentence that reads it; then more figures
while there is room; what was learned; the exercise. All prose goes into the notes. Jupyter's own
`slideshow` metadata overrides: `skip` or `notes` keep a cell off, any other type puts it on.
"""

import ast
import base64
import html
import re
import struct
from dataclasses import dataclass, field

import nbformat
from bs4 import BeautifulSoup

MOST = 25  # slides of a lesson
ROWS, CHARACTERS = 9, 1300  # of a table
INTENT, READING, WORDS = 190, 240, 520  # characters; the last where nothing else is on the slide
SIDE = 1.85  # a figure that is not wider than this times its height stands beside its text
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
_BADGE = re.compile(r"\[!\[.*?\]\(.*?\)\]\(.*?\)|<!--.*?-->", re.S)
_SENTENCE = re.compile(r"(?<=[.?!])[*_]*\s+(?=[A-Z*`\"'(])")
_READS = re.compile(r"(^|-)read(-|$)")  # the id of a cell that reads what stands before it


@dataclass
class Part:
    """A cell of a section: prose, a guess that is asked, what it found, a figure or a table."""

    kind: str
    cell: object
    place: int
    forced: bool = False
    notes: list = field(default_factory=list)


def deck(notebook, facts: str):
    """Make a notebook of slides from an executed lesson.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        The lesson, with its outputs.
    facts : str
        Data and seed, for the title and the foot of each slide.

    Returns
    -------
    nbformat.NotebookNode
        Its cells carry Jupyter's `slideshow` metadata; at most 25 are slides.
    """
    title, *sections = _sections(notebook)
    *sections, learned = sections
    bookkeeping = ("results.record(", "my_guesses.summary(")
    kept = [one for one in sections if not any(b in c.source for c in one for b in bookkeeping)]
    parts = [_parts(section) for section in kept]
    shown = _choose(parts, MOST - 3)
    slides = _title(title[0].source, facts)
    for section, chosen in zip(parts, shown, strict=True):
        slides += _section(section, chosen)
    slides += _end(learned[0].source)
    for cell in slides:
        cell.metadata.slideshow.setdefault("data", {})["foot"] = facts
    return nbformat.v4.new_notebook(cells=slides, metadata={"title": _heading(title[0].source)})


def _sections(notebook) -> list[list]:
    found = [[]]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _LINK.sub(_relink, _BADGE.sub("", cell.source))
            if re.match(r"#{1,2} ", cell.source.lstrip()) and found[-1]:
                found.append([])
        found[-1].append(cell)
    return found


def _relink(link) -> str:
    """Lead to another lesson's deck; of what is not beside the decks, say where it lies."""
    text, target = link.groups()
    if target.startswith("http"):
        return link[0]
    if lesson := re.match(r"(\d\d_\w+)\.ipynb", target):
        return f"[{text}]({lesson[1]}.html)"
    return f"{text} (`notebooks/{target}`)" if target.endswith(".ipynb") else text


def _parts(section) -> list[Part]:
    parts = []
    for place, cell in enumerate(section):
        wanted = cell.metadata.get("slideshow", {}).get("slide_type", "-")
        forced = wanted in ("slide", "subslide", "fragment")
        said = cell.cell_type == "markdown"
        kind = "prose" if said else _kind(cell)
        if wanted == "skip" or (wanted == "notes" and not said) or not kind:
            continue
        parts.append(Part(kind, cell, place, forced))
    return parts


def _kind(cell) -> str:
    if ".ask(" in cell.source:
        return "ask"
    held = [output.get("data", {}) for output in cell.outputs]
    if any("image/png" in data for data in held):
        return "figure"
    if any("<table" in data.get("text/html", "") for data in held):
        return "table"
    return "found" if _found([cell]) else ""


def _choose(sections, room: int) -> list[list[Part]]:
    """Pick of each section what is shown: the main thing first, more while there is room."""
    ranked = []
    for number, parts in enumerate(sections):
        seen = [one for one in parts if one.kind in ("ask", "figure", "table")]
        figures = [one for one in seen if one.kind == "figure"]
        asked = [one for one in seen if one.kind == "ask"][:1]
        answer = [one for one in seen if asked and one.place > asked[0].place]
        first = (figures or [one for one in seen if one.kind == "table"])[:1] + asked
        first += ([one for one in answer if one.kind == "figure"] or answer)[:1]
        for one in parts if not seen else seen:
            rank = 0 if one.forced or one in first or not seen else {"figure": 1, "ask": 2}.get(one.kind)
            if rank is not None and (seen or one is parts[0] or one.forced):
                ranked.append((not one.forced, rank, number, one.place))
    taken = {(number, place) for *_, number, place in sorted(ranked)[:room]}
    return [[one for one in parts if (number, one.place) in taken]
            for number, parts in enumerate(sections)]  # fmt: skip


def _section(parts, chosen) -> list:
    """Write the slides of a section: before, what is shown, after, and the notes."""
    prose = [one for one in parts if one.kind == "prose"]
    heading, slides = _heading(prose[0].cell.source), []
    for one in prose:  # to the slide that it reads, or that it introduces
        earlier = [c for c in chosen if c.place <= one.place]
        later = [c for c in chosen if c.place > one.place]
        reads = _READS.search(one.cell.get("id", "")) or not later
        if owner := (earlier[-1:] if reads and earlier else later[:1]):
            owner[0].notes.append(one)
    for number, one in enumerate(chosen):
        before = [note for note in one.notes if note.place <= one.place]
        after = [note for note in one.notes if note.place > one.place]
        nearest = (before[:1] if not number else before[-1:])
        bare = one.kind in ("ask", "prose")
        intent = [short(n.cell.source, WORDS if bare else INTENT, lists=bare) for n in nearest]
        reading = [short(n.cell.source, READING) for n in after[:1]] if not bare else []
        since = chosen[number - 1].place if number else -1
        if one.kind != "ask" and any(c.kind == "ask" for c in chosen[:number]):
            upto = chosen[number + 1].place if number + 1 < len(chosen) else 10**6
            near = [p.cell for p in parts if since < p.place < upto and p.kind != "prose"]
            reading = [f"**Found:** {said}" for said in _found(near)[:1]] + reading
        question = f'\n\n<div class="ask">\n\n{_question(one.cell)}\n\n</div>'
        words = f"## {heading}\n\n{_block('before', intent)}"
        slides.append(_markdown(words + (question if one.kind == "ask" else ""), "slide"))
        shape = one.kind
        if not bare:
            output, shape = _output(one)
            slides.append(output)
            if reading:
                slides.append(_markdown(_block("after", reading), "-"))
        slides[-1 - (not bare) - bool(reading)].metadata.slideshow["data"] = {"shape": shape}
        slides.append(_markdown("\n\n".join(n.cell.source for n in one.notes) or heading, "notes"))
    return slides


def _output(part):
    """Keep the picture or the table alone; say also how it is laid out."""
    want = "image/png" if part.kind == "figure" else "text/html"
    held = [o for o in part.cell.outputs if want in o.get("data", {})]
    one = next(o for o in held if want != "text/html" or "<table" in o.data[want])
    data, shape = one.data[want], "table"
    if part.kind == "figure":
        width, height = struct.unpack(">II", base64.b64decode(data[:64])[16:24])
        shape = "side" if width <= SIDE * height else "wide"
    else:
        data = trimmed(data)
    kept = nbformat.v4.new_output("display_data", data={want: data}, metadata=one.metadata)
    cell = nbformat.v4.new_code_cell(outputs=[kept], metadata={"slideshow": {"slide_type": "-"}})
    return cell, shape


def trimmed(table: str) -> str:
    """Keep of an HTML table the first rows that fit on a slide, and say how many there are."""
    soup = BeautifulSoup(table, "html.parser")
    rows, used = soup.select("tbody tr"), 0
    for number, row in enumerate(rows):
        used += len(row.get_text(" ", strip=True))
        if number and (number >= ROWS or used > CHARACTERS):
            for late in rows[number:]:
                late.decompose()
            note = soup.new_tag("caption")
            note.string = f"{number} of {len(rows)} rows"
            soup.table.insert(0, note)
            break
    soup.table["class"] = [*soup.table.get("class", []), "long" if used > CHARACTERS / 3 else "brief"]
    return str(soup)


def short(text: str, room: int, lists: bool = False) -> str:
    """Take whole sentences from the first paragraph, as many as `room` characters hold."""
    text = re.sub(r"^#+ .*$", "", text, flags=re.M).strip()
    first, *rest = text.split("\n\n")
    listed = rest[0] if rest and re.match(r"[-\d]", rest[0]) else ""
    sentences, taken = _SENTENCE.split(" ".join(first.split())), ""
    if first.endswith(":") and not (lists and listed) and len(sentences) > 1:
        sentences.pop()
    for sentence in sentences:
        if taken and len(taken) + len(sentence) > room:
            return taken
        taken = f"{taken} {sentence}".strip()
    return f"{taken}\n\n{listed}" if lists and listed else taken


def _question(cell) -> str:
    """Give what a guess asks: the second argument of `ask`, or the text that it names."""
    if ".ask(" not in cell.source:
        return ""
    tree = ast.parse(cell.source)
    names = {n.targets[0].id: n.value for n in tree.body
             if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "ask":
            asked = node.args[1]
            asked = names.get(getattr(asked, "id", ""), asked)
            if isinstance(asked, ast.Constant):
                return asked.value
    return "What is your guess?"


def _found(cells) -> list[str]:
    texts = [o.get("data", {}).get("text/html", "") for c in cells for o in c.get("outputs", [])]
    return [hit[1] for text in texts if (hit := re.search(r"Found(?: \([^)]*\))?: (.*?)</p>", text))]


def _title(text: str, facts: str) -> list:
    heading, *blocks = re.split(r"\n\n+", text.strip())
    outcomes = next((b for b in blocks if b.startswith("- ")), "")
    rows = f"{heading}\n\nAfter this lesson you can\n\n{outcomes}\n\n<div class=\"facts\">{facts}</div>"
    return [_markdown(rows, "slide", "title"), _markdown("\n\n".join(blocks), "notes")]


def _end(text: str) -> list:
    heading, *blocks = text.strip().split("\n\n")
    bullets = [b for b in blocks if re.match(r"[-\d]", b)]
    others = [b for b in blocks if b not in bullets]
    last = "## Practise, and read on\n\n" + "\n\n".join(others)
    note = "Hand out the exercise. It has checks that say what is wrong."
    return [
        _markdown("\n\n".join([heading, *bullets]), "slide", "words"),
        _markdown("Ask for an example of each from this lesson.", "notes"),
        _markdown(last, "slide", "end"),
        _markdown(note, "notes"),
    ]


def _block(name: str, texts) -> str:
    return f'<div class="{name}">\n\n' + "\n\n".join(texts) + "\n\n</div>"


def _heading(text: str) -> str:
    return html.escape(re.search(r"^#+ +(.*)$", text, re.M)[1], quote=False)


def _markdown(text: str, kind: str, shape: str = ""):
    show = {"slide_type": kind, **({"data": {"shape": shape}} if shape else {})}
    return nbformat.v4.new_markdown_cell(text, metadata={"slideshow": show})
