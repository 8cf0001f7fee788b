"""Tables that the pages hold, each made from what it tells of.

A line ``<!-- site: NAME -->`` in a page of ``docs/`` is where the table goes; some take a word
more: ``<!-- site: modules plots -->``.
"""

import json
import re

import link_terms
import yaml

from . import pages, project

_MARK = re.compile(r"^<!-- site: (\w+)(?: (\w+))? -->$", re.MULTILINE)
_TITLE = re.compile(r"^# +(.*)$", re.MULTILINE)
_MINUTES = re.compile(r"(\d+(?: to \d+)?) minutes")
_POINTS = re.compile(r"(\d+) points")
_TASK = re.compile(r"^## (.+)\n\n?\*(.+), \d+ points?, about \d+ minutes?\*", re.MULTILINE)
_RUBRIC = re.compile(r"\*\*Rubric.*?\n\n?(.*?)\n### END SOLUTION", re.DOTALL)
_OUTCOMES = re.compile(r"^After this lesson you can\s*\n\n?((?:- .*\n?)+)", re.MULTILINE)


def fill(text: str) -> str:
    """Put the tables where a page asks for them."""
    return _MARK.sub(lambda found: TABLES[found[1]](*filter(None, [found[2]])), text)


def _prose(name: str) -> str:
    """Give the Markdown cells of a notebook, without its links to the glossary."""
    cells = json.loads((project.ROOT / name).read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    return link_terms.unlink("\n\n".join(texts))


def _opening(name: str) -> str:
    """Give the first Markdown cells of a notebook, up to its first section."""
    return re.split(r"^## ", _prose(name), maxsplit=1, flags=re.MULTILINE)[0]


def _yaml(name: str):
    path = project.ROOT / name
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}


def _said(pattern: re.Pattern, text: str, default: str = "") -> str:
    found = pattern.search(text)
    return found.group(1).strip() if found else default


def _rows(head: list[str], rows) -> str:
    ruler = ["---"] * len(head)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ruler, *rows])


def _launch(name: str) -> str:
    return f"[Colab](colab:{name}){{.launch}} [Binder](binder:{name}){{.launch}}"


def lessons() -> str:
    """One section a lesson: its page, its minutes, where to run it, and what it teaches."""
    parts = []
    for name in pages.lessons():
        text = _opening(name)
        parts.append(
            f"## [{_said(_TITLE, text, name)}](/{name})\n\n"
            f"{_said(_MINUTES, text)} minutes {_launch(name)}\n\n"
            f"After it you can\n\n{_said(_OUTCOMES, text)}\n"
        )
    return "\n".join(parts)


def minutes() -> str:
    """One row a lesson: its page and its minutes."""
    texts = {name: _opening(name) for name in pages.lessons()}
    rows = [[f"[{_said(_TITLE, text, name)}](/{name})", _said(_MINUTES, text)]
            for name, text in texts.items()]  # fmt: skip
    return _rows(["lesson", "minutes"], rows)


def outcomes() -> str:
    """One table a lesson: its outcomes, with sections, quiz, tasks and level."""
    where, parts = _yaml("docs/teaching/outcomes.yml"), []
    for name in pages.lessons():
        opening, lesson = _opening(name), name.split("/")[-1].removesuffix(".ipynb")
        said = _said(_OUTCOMES, opening).removeprefix("- ").split("\n- ")
        places = where.get(lesson, [{"sections": [], "tasks": [], "level": ""}] * len(said))
        tasks = _TASK.findall(_prose(_exercise(lesson))) if any(p["tasks"] for p in places) else []
        quiz = _yaml(f"notebooks/quizzes/{lesson}.yml").get("questions", [])
        under = _sections(_prose(name))
        rows = []
        for outcome, place in zip(said, places, strict=True):
            asked = [q["id"] for q in quiz if under.get(q["section"]) in place["sections"]]
            tried = [f"{tasks[k - 1][0]}{_open(tasks[k - 1][1])}" for k in place["tasks"]]
            found = [", ".join(map(str, place["sections"])), ", ".join(asked), "; ".join(tried)]
            rows.append([outcome.rstrip(";."), *(one or "–" for one in found), place["level"]])
        head = ["after it you can", "sections", "quiz", "exercise", "level"]
        parts.append(f"## [{_said(_TITLE, opening, name)}](/{name})\n\n{_rows(head, rows)}\n")
    return "\n".join(parts)


def _sections(prose: str) -> dict[str, int]:
    """Give the number of the section that each heading stands in, or is."""
    found, number = {}, 0
    for title in re.findall(r"^###? (.+)$", prose, re.MULTILINE):
        number = int(own[1]) if (own := re.match(r"(\d+) · ", title)) else number
        found[title] = number
    return found


def _exercise(lesson: str, step: str = "release") -> str:
    return f"notebooks/exercises/{step}/{lesson}/{lesson}.ipynb"


def _open(kind: str) -> str:
    """Mark a task that a person reads."""
    return " (open)" if kind.lower() in ("open question", "in your own words") else ""


def rubrics() -> str:
    """One section an open question: what earns its points, from the exercises' masters."""
    parts = []
    for name in pages.find([_exercise("*", "source")]):
        text = _prose(name)
        title = next(title for title, kind in _TASK.findall(text) if _open(kind))
        lesson = _said(_TITLE, text).removeprefix("Exercises ")
        parts.append(f"### {lesson}: {title.split('· ')[1]}\n\n{_said(_RUBRIC, text)}\n")
    return "\n".join(parts)


def exercises() -> str:
    """One row a lesson's exercises: their page, minutes, points, and where to do them."""
    rows, names = [], pages.find([pages.EXERCISES])
    for name in names:
        text = _opening(name)
        title = _said(_TITLE, text, name).removeprefix("Exercises ")
        facts = _said(_MINUTES, text), _said(_POINTS, text)
        rows.append([f"[{title}](/{name})", *facts, _launch(name)])
    if not rows:
        return "*No exercises are in this checkout: `make student` writes them.*"
    return f"{_rows(['exercises', 'minutes', 'points', 'do them'], rows)}\n\n{_contents(names)}"


def measured() -> str:
    """List the pages of measurements that stand beside the page that asks."""
    names = [name for name in pages.find(["docs/measured/*.md"]) if "/index." not in name]
    return _contents(names, hidden=False) if names else ""


def _contents(names, hidden: bool = True) -> str:
    lines = [f"/{name.rsplit('.', 1)[0]}" for name in names]
    return "\n".join(["```{toctree}", *([":hidden:"] if hidden else []), "", *lines, "```"])


def address() -> str:
    """Say that links lead nowhere, while the course is hosted nowhere."""
    if project.repository() != project.PLACEHOLDER:
        return ""
    return (
        "*The links to Colab and Binder lead nowhere until this copy has an address: "
        "`make badges REPOSITORY=OWNER/NAME`.*"
    )


def headline() -> str:
    """Tell the headline figure's four scores, and where they come from."""
    from cxrlib import results
    from cxrlib.shortcuts import headline as figure

    found = results.load(project.ROOT / "docs" / "results", "07_evaluation")
    table = found.tables["headline"]
    scores = table[table["metric"] == "accuracy"].set_index("condition")
    rows = []
    for name in figure.CONDITIONS:
        one = scores.loc[name]
        ends = f"{100 * one['low']:.1f} to {_percent(one['high'])}"
        films = f"{one['images']} ({one['patients']})"
        right = f"**{_percent(one['value'])}**"
        rows.append([name, right, ends, _percent(one["baseline"]), films])
    head = ["test", "right", "95 % interval", "a rule that never looks", "films (patients)"]
    return f"{_rows(head, rows)}\n\n{_origin(found)}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def plain(text) -> str:
    """Word a name so that neither Markdown nor HTML is seen in it."""
    return re.sub(r"([^\w\s.,-])", r"\\\1", " ".join(str(text).split()))


def _origin(found) -> str:
    """Say on which films, with which weights, on which machine and with which seed."""
    sources = plain(", ".join(found.data["sources"]))
    backbone = found.parameters["probe_backbone"]
    weights = {"imagenet": "ImageNet weights", "random": "RANDOM weights"}
    kind = weights.get(found.weights[backbone]["kind"], found.weights[backbone]["kind"])
    kinds = "Synthetic films" if found.data["synthetic"] else "Real films"
    there = found.environment
    return (
        f"{kinds} ({sources}; the other hospital: source "
        f"{plain(found.parameters['outside_source'])}), {backbone} with {kind}, frozen; "
        f"{there['backend']} {there['backend_version']} on {there['device']}, seed {found.seed}. "
        "The commands and all numbers: [results on real films](results/README.md)."
    )


def commands() -> str:
    """Repeat what ``cxr --help`` says, and each of its commands."""
    import click

    from cxrlib.cli import main

    parts = []

    def tell(command, context, names):
        said = command.get_help(context)
        said = re.sub(r"\x1b\[[0-9;]*m", "", said)
        parts.append(f"## `{' '.join(names)}`\n\n```text\n{said}\n```\n")
        for name, one in getattr(command, "commands", {}).items():
            tell(one, click.Context(one, context, name), [*names, name])

    tell(main, click.Context(main, info_name="cxr", max_content_width=88), ["cxr"])
    return "\n".join(parts)


def modules(room: str = "") -> str:
    """Describe the modules of a room, or those of the front, by their docstrings."""
    names = sorted(path.stem for path in (project.ROOT / "cxrlib" / room).glob("[!_]*.py"))
    parts = ["cxrlib", *filter(None, [room])]
    opening = (
        [f"```{{eval-rst}}\n.. automodule:: cxrlib.{room}\n   :no-members:\n```\n"] if room else []
    )
    return "\n".join(
        opening
        + [
            f"## `{'.'.join([*parts, name])}`\n\n"
            f"```{{eval-rst}}\n.. automodule:: {'.'.join([*parts, name])}\n```\n"
            for name in names
        ]
    )


def explorer(name: str) -> str:
    """Bring the numbers of an explorer, for ``_static/explorers.js``, and its sheets of films."""
    folder = project.ROOT / "docs" / "explorers"
    data = (folder / f"{name}.json").read_text(encoding="utf-8")
    parts = [f'<script type="application/json">{data.strip()}</script>']
    for path in sorted(folder.glob(f"{name}-*.webp")):
        level = f"{int(path.stem[-3:]) / 100:g}"
        said = f"Six phantoms with the knob at {level}: above three healthy ones, below three with "
        said += "COVID-19; what speaks for it in orange, against it in blue"
        picture = f"![{said}](explorers/{path.name})"
        parts += ['<div class="sheet">', f"Knob at {level}", picture, "</div>"]
    return "\n\n".join(parts)


_MAKERS = (
    lessons,
    minutes,
    address,
    outcomes,
    rubrics,
    exercises,
    headline,
    measured,
    commands,
    modules,
    explorer,
)
TABLES = {make.__name__: make for make in _MAKERS}
