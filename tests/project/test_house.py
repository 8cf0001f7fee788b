"""The house: few parts, one order of imports, and rooms that keep to themselves what is theirs."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "cxrlib"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
FRONT = sorted(path.stem for path in PACKAGE.glob("[!_]*.py"))
USERS = ("cxrlib", "tests", "benchmarks", "docs", "data", ".ci", "binder", "notebooks")
SCRIPTS = sorted(path for name in USERS for path in (ROOT / name).rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))


def test_there_are_few_parts():
    assert len(FRONT) <= 15, FRONT
    wanted = {"sources", "phantom", "paper", "shortcuts", "plots", "audit", "interactive"}
    assert set(ROOMS) == wanted | {"course", "compute", "parallel", "metrics"}


def test_imports_keep_their_order():
    code = "import sys; from importlinter.cli import lint_imports_command as go; sys.exit(go())"
    command = [sys.executable, "-c", code, "--no-cache"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_drawing_is_that_of_the_code():
    command = [sys.executable, "docs/_site/architecture.py", "--check"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_its_purpose_and_has_what_it_hands_out(room):
    module = importlib.import_module(f"cxrlib.{room}")
    first = module.__doc__.splitlines()[0]
    assert first.endswith(".") and len(first) <= 100
    assert module.__all__, "a room hands out something"
    for name in module.__all__:
        assert not name.startswith("_")
        assert getattr(module, name) is not None


def code_of(path: Path) -> str:
    """Text of a script, or of a notebook's cells without their magic."""
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    lines = [
        line for cell in cells if cell["cell_type"] == "code" for line in ["".join(cell["source"])]
    ]
    plain = "\n".join(lines).split("\n")
    return "\n".join(
        line[: len(line) - len(line.lstrip())] + "pass" if line.lstrip()[:1] in ("%", "!") else line
        for line in plain
    )


def home(path: Path) -> str | None:
    """Room that a file of the package or of its tests belongs to."""
    parts = path.relative_to(ROOT).parts
    inside = parts[0] in ("cxrlib", "tests") and len(parts) > 2
    return parts[1] if inside and parts[1] in ROOMS else None


def trespasses(path: Path):
    """Give the imports that reach past what a room hands out, and private names of others."""
    for node in ast.walk(ast.parse(code_of(path))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("cxrlib"):
            continue
        _, *parts = node.module.split(".")
        names = [alias.name for alias in node.names]
        private = [name for name in names if name.startswith("_") and not name.startswith("__")]
        if private:
            yield f"{path.name}:{node.lineno} takes {private[0]} from {node.module}"
        if not parts or parts[0] not in ROOMS or parts[0] == home(path):
            continue
        handed = importlib.import_module(f"cxrlib.{parts[0]}").__all__
        if len(parts) > 1:
            yield f"{path.name}:{node.lineno} reaches into {node.module}"
        for name in names:
            if len(parts) == 1 and name not in handed:
                yield f"{path.name}:{node.lineno} takes {name}, which {node.module} keeps"


@pytest.mark.parametrize("path", [*SCRIPTS, *NOTEBOOKS], ids=lambda path: path.stem)
def test_nobody_reaches_past_what_a_room_hands_out(path):
    assert [*trespasses(path)] == []


@pytest.mark.parametrize("room", ROOMS)
def test_tests_stand_where_their_module_stands(room):
    modules = {path.stem for path in (PACKAGE / room).glob("*.py")} | {room}
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / room).glob("test_*.py")}
    assert tests <= modules, tests - modules
