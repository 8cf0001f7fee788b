"""Which files of the repository become pages, and where; and the links between them.

Pages lie in the site where they lie in the repository, so that links which work there work here
too. Only the start page moves, from ``docs/index.md`` to the top.
"""

import os
import posixpath
import re
from pathlib import Path

from . import project

START = "docs/index.md"
TEXTS = ("docs/*.md", "docs/api/*.md", "docs/measured/*.md", "docs/results/*.md",
         "docs/audit/*.md", "docs/teaching/*.md", "data/README.md")  # fmt: skip
PICTURES = ("docs/*.png", "docs/*.svg", "docs/*/*.png", "docs/*/*.svg")
EXERCISES = "notebooks/exercises/release/*/*.ipynb"
HIDDEN = re.compile(r"/[._]")  # drafts, checkpoints, the site's own workshop

_CODE = re.compile(r"(^ {0,3}(```+|~~~+).*?^ {0,3}\2`*~*\s*$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^()\s#:]+)(#[^()\s]*)?(\))")
_BADGE = re.compile(r"\[!\[([^\]]*)\]\([^)]*\)\]\(([^)]*)\)")
_DOI = re.compile(r"(?<!\]\()(?<![\w/\[])doi:(10\.\d{4,9}/[^\s,;]*[^\s.,;:)*])")


def find(patterns) -> list[str]:
    """List the files of these patterns, as paths from the repository's top."""
    found = {path for pattern in patterns for path in project.ROOT.glob(pattern)}
    names = sorted(path.relative_to(project.ROOT).as_posix() for path in found)
    return [name for name in names if not HIDDEN.search(f"/{name}")]


def lessons() -> list[str]:
    """List the lessons' notebooks."""
    return find(["notebooks/[0-9]*.ipynb"])


def mapping() -> dict[str, str]:
    """Say of each file that is in the site where it lies there."""
    names = [*find([*TEXTS, *PICTURES]), *lessons(), *find([EXERCISES])]
    return {name: "index.md" if name == START else name for name in names}


def rewrite(text: str, origin: str, places: dict[str, str]) -> str:
    """Make a Markdown text of the file `origin` right for its place in the site.

    Links to files that are no pages lead to the repository; badges, which are pictures from other
    hosts, become plain buttons; a DOI becomes a link. Code stays as it is.
    """
    parts = _CODE.split(text)
    # Each match of _CODE brings two groups: the code, and its fence (or None)
    for number in range(0, len(parts), 3):
        plain = _BADGE.sub(r"[\1](\2){.launch}", parts[number])
        plain = _LINK.sub(lambda found: _moved(found, origin, places), plain)
        parts[number] = _DOI.sub(r"[doi:\1](https://doi.org/\1)", plain)
    return "".join(part for number, part in enumerate(parts) if number % 3 != 2)


def _moved(found: re.Match, origin: str, places: dict[str, str]) -> str:
    before, path, anchor, after = found.groups(default="")
    if path.startswith("/"):
        return found.group()
    target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
    if target == "README.md":
        target = START  # the start page takes its place in the site
    page = next((p for p in (target, f"{target}/README.md") if p in places), None)
    if page:
        here = posixpath.dirname(places[origin]) or "."
        return before + posixpath.relpath(places[page], here) + anchor + after
    there = project.ROOT / target
    if not there.exists():
        return found.group()  # Sphinx complains, and names the line
    kind = "tree" if there.is_dir() else "blob"
    return f"{before}{project.address()}/{kind}/{project.branch()}/{target}{anchor}{after}"


def write(path: Path, content: bytes | str) -> bool:
    """Write a file unless it holds just this already, so that Sphinx sees what changed."""
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return True


def prune(folder: Path, keep) -> int:
    """Remove files that are no longer made, and folders that became empty; count the files."""
    keep = {folder / name for name in keep}
    gone = 0
    for top, _, names in os.walk(folder, topdown=False):
        for name in names:
            if (path := Path(top) / name) not in keep:
                path.unlink()
                gone += 1
        if Path(top) != folder and not any(Path(top).iterdir()):
            Path(top).rmdir()
    return gone
