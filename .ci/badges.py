"""Write the repository's address into pyproject.toml, README, pages and notebooks.

    make badges REPOSITORY=ada/course               # once, after a copy is put on GitHub
    make badges REPOSITORY=ada/course BRANCH=term-2
    make badges                                     # the address that pyproject.toml has

Colab and GitHub show a notebook as it is, so that badges and set-up cells must repeat the
address. It stands in ``[project.urls] Repository``, the branch in ``[tool.cxr] branch``. Only
badges, set-up cells and links to the course are touched; a test compares. While there is no
address, badges and set-up cells say so.
"""

import re
import sys
import tomllib
from pathlib import Path

GITHUB = "https://github.com"
PLACEHOLDER = "OWNER/REPOSITORY"  # until the course is hosted somewhere
PATTERNS = ("README.md", "docs/*.md", "notebooks/**/*.md", "notebooks/**/*.ipynb")

NAME = r"[\w.-]+/[\w.-]+"
COLAB = rf"(https://colab\.research\.google\.com/github/){NAME}/blob/[^/\s)\"]+/([^\s)\"\\]+)"
BINDER = (
    rf"(https://mybinder\.org/v2/gh/){NAME}/[^/?\s)\"]+"
    r"(\?urlpath=(?:lab/tree|voila/render)/)([^\s)\"\\]+)"
)
NOWHERE = (
    " *These links lead nowhere until this copy has an address: "
    "`make badges REPOSITORY=OWNER/NAME`.*"
)
BADGE = rf"(\[!\[[^\]]*\]\([^)]*\)\]\({BINDER}\))(?:{re.escape(NOWHERE)})?"
SETUP = r"(except ImportError:  # in Colab)[^\"\n\\]*"
ADDS = ": adds cxrlib alone, TensorFlow, Keras, NumPy and OpenCV stay"
NO_SETUP = ", once `make badges REPOSITORY=OWNER/NAME` has given an address"
INSTALL = rf'(--no-deps \\?"git\+){GITHUB}/{NAME}?(?:@[\w.-]+)?(?=\\?")'


def settings(root: Path) -> tuple[str, str]:
    """Read OWNER/NAME of the repository and the branch that badges open from pyproject.toml."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    address = project["project"]["urls"]["Repository"]
    branch = project.get("tool", {}).get("cxr", {}).get("branch", "main")
    return address.removeprefix(f"{GITHUB}/"), branch


def site(repository: str) -> str:
    """Give the address where GitHub shows the site of a repository."""
    owner, name = repository.split("/")
    own = name.lower() == f"{owner.lower()}.github.io"
    return f"https://{owner}.github.io/" + ("" if own else f"{name}/")


def revised(root: Path, repository: str, branch: str) -> dict[Path, str]:
    """Give the new text of every file that would change."""
    known = {PLACEHOLDER, settings(root)[0]}
    names = "|".join(map(re.escape, known))
    sites = "|".join(re.escape(site(name)) for name in known)
    is_nowhere = repository == PLACEHOLDER
    found = {path for pattern in PATTERNS for path in root.glob(pattern)}
    texts = {root / "pyproject.toml": None}
    texts |= dict.fromkeys(p for p in sorted(found) if ".ipynb_checkpoints" not in p.parts)
    for path in texts:
        text = path.read_bytes().decode("utf-8")  # read_text would change line ends
        # The badges of a notebook open itself; those of an exercise's master the students' copy.
        page = (
            path.relative_to(root).as_posix().replace("/exercises/source/", "/exercises/release/")
        )
        own = page if path.suffix == ".ipynb" else None
        text = re.sub(COLAB, lambda m, p=own: f"{m[1]}{repository}/blob/{branch}/{p or m[2]}", text)
        text = re.sub(
            BINDER, lambda m, p=own: f"{m[1]}{repository}/{branch}{m[2]}{p or m[3]}", text
        )
        text = re.sub(BADGE, rf"\g<1>{NOWHERE if is_nowhere else ''}", text)
        text = re.sub(SETUP, rf"\g<1>{NO_SETUP if is_nowhere else ADDS}", text)
        text = re.sub(rf"(?:{sites})(?!\w)", site(repository), text)
        text = re.sub(INSTALL, rf"\g<1>{GITHUB}/{repository}@{branch}", text)
        text = re.sub(rf"(?<!\+)({GITHUB}/)(?:{names})(?![\w-]|\.\w)", rf"\g<1>{repository}", text)
        texts[path] = text
    project = root / "pyproject.toml"
    texts[project] = _with_branch(texts[project], branch)
    return {path: text for path, text in texts.items() if text != path.read_bytes().decode("utf-8")}


def _with_branch(text: str, branch: str) -> str:
    """Put the branch into the text of pyproject.toml, where it is not main already."""
    line = r'(\[tool\.cxr\][^\[]*?^branch\s*=\s*)"[^"\n]*"'
    if branch == "main" or re.search(line, text, re.MULTILINE):
        return re.sub(line, rf'\g<1>"{branch}"', text, count=1, flags=re.MULTILINE)
    return f'{text}\n[tool.cxr]\nbranch = "{branch}"\n'


def main(repository: str = "", branch: str = "", root: Path = Path(__file__).parents[1]) -> str:
    """Rewrite the files of a checkout; returns what to print, or why nothing was done."""
    there = settings(root)
    repository, branch = repository or there[0], branch or there[1]
    if not re.fullmatch(r"[A-Za-z0-9-]{1,39}/(?!\.+$)[\w.-]{1,100}(?<!\.git)", repository, re.A):
        sys.exit(f"{repository!r} is no repository: make badges REPOSITORY=OWNER/NAME, no .git.")
    if not re.fullmatch(r"(?![.-])[\w.-]+", branch, re.A):
        sys.exit(f"{branch!r} cannot be a branch in a badge: a '/' would end its name there.")
    changed = revised(root, repository, branch)
    for path, text in changed.items():
        path.write_bytes(text.encode("utf-8"))
    told = [f"changed: {path.relative_to(root).as_posix()}" for path in changed]
    return "\n".join([*told, f"All badges and addresses are those of {repository} ({branch})."])


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
