"""The repository's address in badges and set-up cells, and the command ``cxr badges``.

The address stands in one place, ``[project.urls] Repository`` of pyproject.toml, and the branch,
where it is not main, in ``[tool.cxr] branch``. Badges and set-up cells must repeat them, because
Colab and GitHub show a notebook as it is: :func:`plan` says what they should hold,
:func:`rewrite` writes it, a test compares.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import click

from cxrlib.files import whole_file

GITHUB = "https://github.com"
PLACEHOLDER = "OWNER/REPOSITORY"  # until the course is hosted somewhere
PATTERNS = ("README.md", "docs/*.md", "notebooks/**/*.md", "notebooks/**/*.ipynb")
LAB, VOILA = "lab/tree", "voila/render"
START = "notebooks/START.md"

_NAME = r"[\w.-]+/[\w.-]+"
_BADGE = re.compile(
    rf"https://colab\.research\.google\.com/github/{_NAME}/blob/[^/\s)\"]+/(?P<colab>[^\s)\"\\]+)"
    rf"|https://mybinder\.org/v2/gh/{_NAME}/[^/?\s)\"]+"
    rf"\?urlpath=(?P<view>{LAB}|{VOILA})/(?P<binder>[^\s)\"\\]+)"
)
_INSTALL = re.compile(
    rf'(--no-deps \\?"git\+){GITHUB}/[\w.-]+/[\w.-]+?(?:\.git)?(?:@[\w.-]+)?(?=\\?")'
)
_LINE = re.compile(r'^(Repository\s*=\s*)"[^"\n]*"', re.MULTILINE)
_BRANCH = re.compile(r'(\[tool\.cxr\][^\[]*?^branch\s*=\s*)"[^"\n]*"', re.MULTILINE)
_REMOTE = re.compile(
    r"(?:https?://(?:[^/@\s]+@)?github\.com/|(?:ssh://)?git@github\.com[:/])"
    r"(?P<name>[^/\s]+/[^/\s]+?)(?:\.git)?/?"
)


class BadgeError(ValueError):
    """An address that is none, or a folder that is no checkout of the course."""


def checked(repository: str, branch: str = "main") -> str:
    """Give `repository` back if it and `branch` can stand in an address.

    Parameters
    ----------
    repository : str
        OWNER/NAME, as GitHub has it.
    branch : str

    Raises
    ------
    BadgeError
        If one of them is not of that form.
    """
    owner, _, name = repository.partition("/")
    fits = re.fullmatch(r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}", owner, re.ASCII)
    if not fits or not re.fullmatch(r"(?!\.+$)[\w.-]{1,100}", name, re.ASCII):
        raise BadgeError(
            f"{repository!r} is no repository. Write OWNER/NAME as in its address on GitHub, "
            "such as: cxr badges --repository ada/cxr-course"
        )
    if name.endswith(".git"):
        raise BadgeError(f"Write {repository.removesuffix('.git')}, without .git.")
    if not re.fullmatch(r"(?![.-])[\w.-]+", branch, re.ASCII):
        raise BadgeError(
            f"{branch!r} cannot be a branch in a badge: only letters, digits, '.', '_' and '-'; "
            "Colab and Binder read a '/' as the end of its name."
        )
    return repository


def read_repository(root: Path) -> str:
    """Read OWNER/NAME from ``[project.urls] Repository`` of pyproject.toml."""
    address = _project(root)["project"]["urls"]["Repository"]
    return checked(address.removeprefix(f"{GITHUB}/"))


def read_branch(root: Path) -> str:
    """Read ``[tool.cxr] branch`` of pyproject.toml: the branch that badges open, or main."""
    return _project(root).get("tool", {}).get("cxr", {}).get("branch", "main")


def _project(root: Path) -> dict:
    return tomllib.loads((Path(root) / "pyproject.toml").read_text(encoding="utf-8"))


def from_git(root: Path) -> str:
    """Read OWNER/NAME from the address of git's remote ``origin``.

    Raises
    ------
    BadgeError
        If there is no such remote, or it is not on GitHub (Colab opens notebooks from there).
    """
    remedy = "Say where the course will live: cxr badges --repository OWNER/NAME"
    try:
        command = ["git", "-C", str(root), "remote", "get-url", "origin"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BadgeError(f"git cannot be run ({error.strerror}). {remedy}") from error
    if asked.returncode:
        raise BadgeError(f"This checkout has no git remote named origin. {remedy}")
    address = asked.stdout.strip()
    found = _REMOTE.fullmatch(address)
    if not found:
        raise BadgeError(f"git's remote origin is {address}, which is not on GitHub. {remedy}")
    return checked(found["name"])


def find_root(start: Path) -> Path:
    """Find the checkout of the course that `start` lies in."""
    for folder in (Path(start).resolve(), *Path(start).resolve().parents):
        project = folder / "pyproject.toml"
        if project.exists() and 'name = "cxrlib"' in project.read_text(encoding="utf-8"):
            return folder
    raise BadgeError(f"{start} is in no checkout of the course. Go into yours and try again.")


def page_of(path: str) -> str:
    """Say which notebook the badges of notebook `path` open: itself; for a master, its release."""
    return path.replace("notebooks/exercises/source/", "notebooks/exercises/release/")


def colab(repository: str, path: str, branch: str = "main") -> str:
    """Address that opens `path` (from the root, with slashes) in Colab."""
    return f"https://colab.research.google.com/github/{repository}/blob/{branch}/{path}"


def binder(repository: str, path: str, branch: str = "main", view: str = LAB) -> str:
    """Address that opens `path` in Binder, in JupyterLab or (``VOILA``) as an app."""
    return f"https://mybinder.org/v2/gh/{repository}/{branch}?urlpath={view}/{path}"


def plan(root: Path, repository: str, branch: str = "main") -> dict[Path, str]:
    """Say what each file with an address should hold.

    Parameters
    ----------
    root : Path
        The checkout.
    repository, branch : str

    Returns
    -------
    dict of Path to str
        The whole new text of every file that would change.
    """
    checked(repository, branch)
    root = Path(root)
    project = root / "pyproject.toml"
    old = {PLACEHOLDER, read_repository(root)}
    texts = {project: _configured(_read(project), repository, branch)}
    for path in files(root):
        texts[path] = _revised(_read(path), path.relative_to(root).as_posix(), repository, branch)
        texts[path] = _links(texts[path], old, repository)
    return {path: text for path, text in texts.items() if text != _read(path)}


def _configured(text: str, repository: str, branch: str) -> str:
    """Put the address, and the branch if need be, into the text of pyproject.toml."""
    text = _LINE.sub(rf'\g<1>"{GITHUB}/{repository}"', text, count=1)
    if _BRANCH.search(text) or branch == "main":
        return _BRANCH.sub(rf'\g<1>"{branch}"', text, count=1)
    return f'{text}\n[tool.cxr]\nbranch = "{branch}"\n'


def files(root: Path) -> list[Path]:
    """Files whose badges, set-up cells and links are kept up to date."""
    found = {path for pattern in PATTERNS for path in Path(root).glob(pattern)}
    hidden = [path for path in found if any(p[0] == "." for p in path.relative_to(root).parts)]
    return sorted(found.difference(hidden))


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8")  # as it is: read_text would change line ends


def _revised(text: str, path: str, repository: str, branch: str) -> str:
    """Put the address, and in a notebook its own path, into badges and the set-up cell."""

    def badge(found: re.Match) -> str:
        own = page_of(path) if path.endswith(".ipynb") else None
        if found["colab"]:
            return colab(repository, own or found["colab"], branch)
        return binder(repository, own or found["binder"], branch, found["view"])

    text = _BADGE.sub(badge, text)
    return _INSTALL.sub(rf"\g<1>{GITHUB}/{repository}@{branch}", text)


def _links(text: str, old: set[str], repository: str) -> str:
    """Turn plain links to the old address into links to the new one."""
    names = "|".join(re.escape(name) for name in sorted(old))
    return re.sub(rf"(?<!\+)({GITHUB}/)(?:{names})(?![\w-]|\.\w)", rf"\g<1>{repository}", text)


def rewrite(root: Path, repository: str, branch: str = "main") -> list[Path]:
    """Carry out :func:`plan`, each file whole; returns the files that were changed."""
    texts = plan(root, repository, branch)
    for path, text in texts.items():
        with whole_file(path) as partial:
            partial.write_bytes(text.encode("utf-8"))
            partial.chmod(path.stat().st_mode)
    return list(texts)


@click.command()
@click.option("--repository", metavar="OWNER/NAME", help="Where.  [default: git's remote origin]")
@click.option("--branch", metavar="NAME", help="What badges open.  [default: as before, or main]")
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 if something differs.")
@click.pass_context
def badges(ctx, repository, branch, check):
    """Write the repository's address into pyproject.toml, README and notebooks.

    Do it once after you have put a copy of the course on GitHub; then the Colab and Binder badges
    open your copy, and the set-up cells install it. Only badges, set-up cells and links to the
    course are touched, in the checkout that you stand in.

    \b
    Examples:
      cxr badges
      cxr badges --repository ada/cxr-course --branch term-2027
      cxr badges --check
    """  # noqa: D301 (click wants a real backspace before lines that it shall not wrap)
    root = find_root(Path.cwd())
    if repository is None:
        repository = read_repository(root) if check else from_git(root)
    branch = branch or read_branch(root)
    changed = list(plan(root, repository, branch)) if check else rewrite(root, repository, branch)
    for path in changed:
        click.echo(f"{'differs' if check else 'changed'}: {path.relative_to(root).as_posix()}")
    if not changed:
        click.echo(f"All badges and addresses are those of {GITHUB}/{repository} ({branch}).")
    elif check:
        click.echo(f"Put it right with: cxr badges --repository {repository} --branch {branch}")
    else:
        click.echo(f"Now commit this and push it to {GITHUB}/{repository}.")
    ctx.exit(1 if check and changed else 0)
