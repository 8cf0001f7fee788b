"""An executed notebook, made ready to be read as a page."""

import json
import re

import link_terms

_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
WIDGET = "application/vnd.jupyter.widget-view+json"
EXPLORER = re.compile(r"^widgets\.\w+\(", re.MULTILINE)
STILL = (
    "{{.still}}\nHere the picture stands still. Move it yourself in the live notebook: "
    "[in Colab](colab:{0}) or [in Binder](binder:{0})."
)
DEEPER = "\n\n{.deeper}\nThis section goes deeper.\n"
PARAMETERS = "Values of this run, instead of those above"


def page(text: str, rewrite, name: str = "") -> str:
    """Turn an executed notebook into what the site shows.

    Parameters
    ----------
    text : str
        The notebook's JSON.
    rewrite : callable
        What is done to each Markdown cell's text.
    name : str, optional
        The notebook's path in the repository, for links to where its explorers move.

    Returns
    -------
    str
        JSON: no installation cell, values of the run folded away, no traces of the machine that
        ran it, and a description for each figure.
    """
    notebook = json.loads(text)
    kept = {key: notebook["metadata"][key] for key in ("kernelspec", "language_info")
            if key in notebook["metadata"]}  # fmt: skip
    notebook["metadata"] = kept
    heading, cells = "", []
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cell["source"] = rewrite(cell["source"])
            heading = (_HEADING.findall(cell["source"]) or [heading])[-1]
            if "go-deeper" in cell["metadata"].get("tags", []):
                title, rest = cell["source"].split("\n", 1)
                cell["source"] = f"{title}{DEEPER}{rest}"
        elif name and EXPLORER.search(cell["source"]):
            note = {"cell_type": "markdown", "id": f"{cell['id']}-still", "metadata": {}}
            cells.append(note | {"source": STILL.format(name)})
        if (ready := _ready(cell, heading, cells)) is not None:
            cells.append(ready)
    notebook["cells"] = cells
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True)


def _ready(cell: dict, heading: str, before: list) -> dict | None:
    tags = cell["metadata"].get("tags", [])
    cell["metadata"] = {"tags": tags} if tags else {}
    if "setup" in tags or not cell["source"].strip():
        return None  # it installs the course where the course is not
    if "injected-parameters" in tags:
        cell["metadata"] = {"tags": ["hide-input"], "mystnb": {"code_prompt_show": PARAMETERS}}
    if cell["cell_type"] == "code":
        cell["outputs"] = [kept for output in cell["outputs"] if (kept := _clean(output))]
        described = [_described(o, heading, before) for o in cell["outputs"] if _is_picture(o)]
        if described:
            image = {"alt": " / ".join(described)}
            cell["metadata"].setdefault("mystnb", {})["image"] = image
    return cell


def _clean(output: dict) -> dict | None:
    """Leave out the progress bars and warnings of that one run, and widgets without a kernel."""
    if output.get("name") == "stderr":
        return None
    if "data" in output:
        output["data"].pop(WIDGET, None)
        output["data"] = {key: value for key, value in output["data"].items() if value}
        return output if output["data"] else None
    return output


def _is_picture(output: dict) -> bool:
    return any(kind.startswith("image/") for kind in output.get("data", {}))


def _described(output: dict, heading: str, before: list) -> str:
    """Take the figure's own description; without one, what was said before it."""
    for held in output.get("metadata", {}).values():
        if isinstance(held, dict) and held.get("alt"):
            return " ".join(held["alt"].split())
    texts = [cell["source"] for cell in before if cell["cell_type"] == "markdown"]
    said = _HEADING.sub("", link_terms.unlink(texts[-1])).strip().splitlines() if texts else []
    plain = re.sub(r"[*`_\[\]]|\([^)]*\)", "", said[-1]) if said else ""
    return f"Figure in the section {heading}. {plain}".strip()[:300]
