"""Facts about the project, each from the one place that holds it."""

from functools import cache
from pathlib import Path

from cxrlib import badges

ROOT = Path(__file__).resolve().parents[2]


@cache
def repository() -> str:
    """Give OWNER/NAME of the repository, from ``pyproject.toml``."""
    return badges.read_repository(ROOT)


@cache
def branch() -> str:
    """Give the branch that links lead to."""
    return badges.read_branch(ROOT)


def address() -> str:
    """Give the repository's address in the web, without a slash at its end."""
    return f"{badges.GITHUB}/{repository()}"
