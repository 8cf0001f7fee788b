"""Facts about the project, each from the one place that holds it."""

import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GITHUB = "https://github.com"
PLACEHOLDER = "OWNER/REPOSITORY"  # until the course is hosted somewhere


@cache
def _settings() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def repository() -> str:
    """Give OWNER/NAME of the repository, from ``pyproject.toml``."""
    return _settings()["project"]["urls"]["Repository"].removeprefix(f"{GITHUB}/")


def branch() -> str:
    """Give the branch that links lead to."""
    return _settings()["tool"].get("cxr", {}).get("branch", "main")


def address() -> str:
    """Give the repository's address in the web, without a slash at its end."""
    return f"{GITHUB}/{repository()}"


def colab(path: str) -> str:
    """Give the address that opens a notebook (from the root, with slashes) in Colab."""
    return f"https://colab.research.google.com/github/{repository()}/blob/{branch()}/{path}"


def binder(path: str) -> str:
    """Give the address that opens a file in Binder."""
    return f"https://mybinder.org/v2/gh/{repository()}/{branch()}?urlpath=lab/tree/{path}"
