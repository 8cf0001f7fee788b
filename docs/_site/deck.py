"""What of an executed lesson goes onto its slides, and what into the speaker's notes.

By rule: a slide for the title; for each section its heading, the sentence that says what it is
for, its guess, and its first figure (or table) with the sentence that reads it; then more figures
while there is room; what was learned; the exercise. All prose goes into the notes. Jupyter's own
`slideshow` metadata overrides: `skip` or `notes` keep a cell off (`skip` on a heading its whole
section), `slide`, `subslide` or `fragment` put it on.
"""

import ast
import base64
import html
import re
import struct
import textwrap
from dataclasses import dataclass

import nbformat
from bs4 import BeautifulSoup

MOST = 25  # slides of a lesson
ROWS, CHARACTERS, CELL = 9, 800, 110  # of a table, and of a cell
RANKS = {"figure": 1, "ask": 2, "table": 3}  # what a section shows beside its main thing; no 3
ROOM = {"figure": 170, "table": 250, "ask": 300, "prose": 420}  # characters of a piece of text
LEAST = 200  # characters that a section without figure or table has to say
SIDE = 1.85  # a figure that is not wider than this times its height stands beside its text
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)(?: \"[^\"]*\")?\)")
_BADGE = re.compile(r"\[!\[.*?\]\(.*?\)\]\(.*?\)|<!--.*?-->", re.S)
_SENTENCE = re.compile(r"(?:(?<=[.?!])|(?<=[.?!][*)])|(?<=[.?!]\*\*))\s+(?=[A-Z*`\"'(])")
_DRAWN = re.compile(r"\b(figure|panel|curve|line|dot|bar|colour)s?\b")
_POINTS = re.compile(  # a sentence about another place of the notebook, or an aside
    r"\b(next|last) (cell|box|table|figure)\b|\b(cell|box|table|figure) below\b|"
    r"\b[Tt]he (box|table) (is|beside|gives|shows|says)\b|[Cc]ommit yourself|^\("
)
_READS = re.compile(r"(^|-)read(-|$)")  # the id of a cell that reads what stands before it


@dataclass
class Part:
    """A cell of a section: prose, a guess that is asked, what it found, a figure or a table."""

    kind: str
    cell: object
    place: int
    wanted: str = "-"  # its own `slide_type`
    asks: "Part | None" = None  # the guess about this figure, on its slide

    @property
    def forced(self) -> bool:
        return self.wanted in ("slide", "subslide", "fragment")


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
    title, *sections, learned = _sections(notebook)
    parts = [found for one in sections if (found := _parts(one)) and not _is_idle(one, found)]
    slides = _title(title[0].source, facts)
    for section, chosen in zip(parts, _choose(parts, MOST - 3), strict=True):
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


def _is_idle(section, parts) -> bool:
    """Tell whether a section only stores results, or says too little to fill a slide."""
    kinds = {part.kind for part in parts}
    if any("results.record(" in cell.source for cell in section):
        return "figure" not in kinds
    said = sum(len(part.cell.source) for part in parts if part.kind == "prose")
    return kinds == {"prose"} and said < LEAST and not any(part.forced for part in parts)


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
        if wanted == "skip" and not place:
            return []
        kind = "prose" if cell.cell_type == "markdown" else _kind(cell)
        if kind and wanted != "skip" and (kind == "prose" or wanted != "notes"):
            parts.append(Part(kind, cell, place, wanted))
    return parts


def _kind(cell) -> str:
    if ".ask(" in cell.source:
        return "ask"
    held = [output.get("data", {}) for output in cell.outputs]
    if any("image/png" in data for data in held):
        return "figure"
    if any("<table" in data.get("text/html", "") for data in held):
        return "table"
    return "found" if _answers(cell) else ""


def _choose(sections, room: int) -> list[list[Part]]:
    """Pick of each section what is shown: the main thing first, more while there is room."""
    ranked = []
    for number, parts in enumerate(sections):
        seen = [one for one in parts if one.kind in ("ask", "figure", "table")]
        figures = [one for one in seen if one.kind == "figure"]
        asked = [one for one in seen if one.kind == "ask"][:1]
        answers = [one for one in seen if asked and one.place > asked[0].place]
        first = (figures or [one for one in seen if one.kind == "table"])[:1] + asked
        first += ([one for one in answers if one.kind == "figure"] or answers)[:1]
        for one in seen or parts[:1]:
            rank = 0 if one.forced or one in first or not seen else RANKS[one.kind]
            ranked.append((not one.forced, rank, number, one.place))
        ranked += [(False, 0, number, one.place) for one in parts if one.forced]
    taken = {(number, place) for _, rank, number, place in sorted(set(ranked))[:room] if rank < 3}
    return [
        _merge([one for one in parts if (number, one.place) in taken])
        for number, parts in enumerate(sections)
    ]


def _merge(chosen) -> list[Part]:
    """Put a guess about the figure right before it onto the slide of that figure."""
    kept = []
    for one in chosen:
        last = kept[-1] if kept else None
        if last and (last.kind, one.kind) == ("figure", "ask") and one.place == last.place + 1:
            last.asks = one
        else:
            kept.append(one)
    return kept


def _section(parts, chosen) -> list:
    """Write the slides of a section: before, what is shown, after, and the notes."""
    slides, notes, found = [], _notes(parts, chosen), _found(parts, chosen)
    shows = [one.place for one in parts if one.kind in RANKS]
    for number, one in enumerate(chosen):
        told = [n for n in notes[number] if n.wanted != "notes" and _speaks_of(n, one, shows)]
        before = [note.cell.source for note in told if note.place <= one.place][-1:]
        if not number:
            before.insert(0, parts[0].cell.source)
        after = [n.cell.source for n in told if n.place > one.place and _READS.search(n.cell.id)]
        if one.kind == "prose":
            before, after = [one.cell.source], [n.cell.source for n in told if n is not one]
        intent = [short(text, ROOM[one.kind], one.kind) for text in dict.fromkeys(before)]
        reading = found[number] + [short(text, ROOM[one.kind]) for text in after[:2]]
        asks = one if one.kind == "ask" else one.asks
        cells, shape = _output(one) if one.kind in ("figure", "table") else ([], one.kind)
        if shape == "side" and not any([*intent, *reading, asks]):
            shape = "wide"
        near = parts if number and one.kind != "ask" else parts[:1]
        heads = [
            _heading(p.cell.source) for p in near if p.kind == "prose" and p.place <= one.place
        ]
        words = f"## {list(filter(None, heads))[-1]}\n\n{_block('before', intent)}"
        slides += [_markdown(words, "slide", shape), *cells]
        if asks:
            said = [note.cell.source for note in notes[number] if note.place < asks.place]
            slides.append(_markdown(_block("ask", [_question(asks.cell, said)]), "-"))
        said = [note.cell.source for note in notes[number]]
        slides.append(_markdown("\n\n".join(said) or words, "notes"))
        if any(reading):  # last: what follows a fragment is part of it, notes too
            slides.append(_markdown(_block("after", reading), "fragment"))
    return slides


def _speaks_of(note: Part, one: Part, shows: list[int]) -> bool:
    """Tell whether prose is about `one`: nothing else is shown between, or it names a drawing."""
    low, high = sorted((note.place, one.place))
    return not any(low < place < high for place in shows) or (
        one.kind == "figure" and low == one.place and bool(_DRAWN.search(note.cell.source))
    )


def _found(parts, chosen) -> list[list[str]]:
    """Give for each slide what it answers of a guess: what was found right after, or before it."""
    found = [[] for _ in chosen]
    for part in parts if chosen else []:
        for said in _answers(part.cell):
            earlier = sum(one.place < part.place for one in chosen)
            after = earlier and chosen[earlier - 1].place == part.place - 1
            found[min(earlier - bool(after), len(chosen) - 1)].append(said)
    return found


def _answers(cell) -> list[str]:
    texts = [output.get("data", {}).get("text/html", "") for output in cell.get("outputs", [])]
    told = [said for text in texts for said in re.findall(r"<p[^>]*>([^<]*Found[^<]*)</p>", text)]
    return [said.replace("Found", "**Found**") for said in told]


def _notes(parts, chosen) -> list[list[Part]]:
    """Deal the prose of a section out to its slides: to the one that it reads, or introduces."""
    notes = [[] for _ in chosen]
    for part in parts:
        if part.kind == "prose" and chosen:
            earlier = sum(one.place <= part.place for one in chosen)
            ends = part in chosen or earlier == len(chosen) or _READS.search(part.cell.id)
            reads = earlier and ends
            notes[earlier - 1 if reads else earlier].append(part)
    return notes


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
    return [cell], shape


def trimmed(table: str) -> str:
    """Keep of an HTML table what fits on a slide, and say how much of it that is."""
    soup = BeautifulSoup(table, "html.parser")
    for cell in soup.select("tbody :is(td, th)"):
        if len(text := cell.get_text(" ", strip=True)) > CELL:
            cell.string = textwrap.shorten(text, CELL, placeholder=" …")
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
    return str(soup)


def short(text: str, room: int, kind: str = "") -> str:
    """Take whole sentences from the first paragraph, as many as `room` characters hold.

    Beside a question (`kind` "ask") or alone ("prose"), a list that follows comes with them; and
    what points to another cell, or asks what the slide asks anyway, stays away.
    """
    text = re.sub(r"^#+ .*$", "", text, flags=re.M).strip()
    first, *rest = text.split("\n\n")
    listed = rest[0] if kind and rest and re.match(r"[-\d]", rest[0]) else ""
    sentences, taken = _SENTENCE.split(" ".join(first.split())), ""
    if first.endswith(":") and not listed:
        sentences.pop()
    for sentence in sentences:
        if _POINTS.search(sentence) or (kind == "ask" and "?" in sentence):
            continue
        if taken and len(taken) + len(sentence) > room and taken.count("**") % 2 == 0:
            break
        taken = f"{taken} {sentence}".strip()
    return f"{taken}\n\n{listed}".strip()


def _question(cell, said) -> str:
    """Give what a guess asks: the second argument of `ask`, else the last question in the prose."""
    tree = ast.parse(re.sub(r"^%.*$", "", cell.source, flags=re.M))
    names = {n.targets[0].id: n.value for n in tree.body
             if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "ask" and node.args[1:]:
            asked = names.get(getattr(node.args[1], "id", ""), node.args[1])
            if isinstance(asked, ast.Constant):
                return asked.value
    questions = [one for text in said for one in _SENTENCE.split(text) if "?" in one]
    return questions[-1].replace("**", "") if questions else "What do you expect?"


def _title(text: str, facts: str) -> list:
    heading, *blocks = re.split(r"\n\n+", text.strip())
    outcomes = next((b for b in blocks if b.startswith("- ")), "")
    rows = [heading, "After this lesson you can", outcomes, _block("facts", [facts])]
    return [_markdown("\n\n".join(rows), "slide", "title"), _markdown("\n\n".join(blocks), "notes")]


def _end(text: str) -> list:
    heading, *blocks = text.strip().split("\n\n")
    bullets = [b for b in blocks if re.match(r"[-\d]", b)]
    others = [b for b in blocks if b not in bullets]
    last = "## Practise, and read on\n\n" + "\n\n".join(others)
    return [
        _markdown("\n\n".join([heading, *bullets]), "slide", "words"),
        _markdown("Ask for an example of each from this lesson.", "notes"),
        _markdown(last, "slide", "end"),
        _markdown("Hand out the exercise. Its checks say what is wrong.", "notes"),
    ]


def _block(name: str, texts) -> str:
    return f'<div class="{name}">\n\n' + "\n\n".join(texts) + "\n\n</div>"


def _heading(text: str) -> str:
    found = re.findall(r"^#+ +(.*)$", text, re.M)
    return html.escape(found[-1], quote=False) if found else ""


def _markdown(text: str, kind: str, shape: str = ""):
    show = {"slide_type": kind, **({"data": {"shape": shape}} if shape else {})}
    return nbformat.v4.new_markdown_cell(text, metadata={"slideshow": show})
