"""The repository itself: floors, licences, notebooks and their style."""

import ast
import json
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml

from cxrlib import __version__, results
from cxrlib.course import lessons
from helpers import KEEP

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ALL_NOTEBOOKS = NOTEBOOKS + sorted((ROOT / "tests" / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
any_notebook = pytest.mark.parametrize("path", ALL_NOTEBOOKS, ids=lambda path: path.stem)


def floors(lines) -> dict[str, str]:
    return dict(re.fullmatch(r"([\w-]+)(.*)", line).groups() for line in lines)


def extra(name) -> list[str]:
    """Requirements of an extra, those of extras that it names included."""
    found = []
    for line in PROJECT["optional-dependencies"][name]:
        inner = re.fullmatch(r"cxrlib\[(.+)\]", line)
        found += extra(inner[1]) if inner else [line]
    return found


def conda(path) -> tuple[dict, dict]:
    """Requirements of an environment file: conda's own, and pip's."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
    own = floors(line for line in content if isinstance(line, str))
    return own, floors(next(one["pip"] for one in content if isinstance(one, dict)))


def test_conda_and_pip_ask_for_the_same():
    own, by_pip = conda(ROOT / "environment.yml")
    assert own.pop("python") == PROJECT["requires-python"]
    assert own == {"pip": ""}
    wanted = [*PROJECT["dependencies"], *extra("tensorflow"), *extra("dicom"), *extra("course")]
    assert by_pip == floors(wanted)


def test_the_python_range_is_the_same_everywhere():
    assert PROJECT["requires-python"] == ">=3.11,<3.14"
    finder = (ROOT / ".ci" / "find-python").read_text(encoding="utf-8")
    assert "(3, 11) <= sys.version_info[:2] < (3, 14)" in finder


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell script")
def test_a_python_that_does_not_fit_gets_a_message(tmp_path):
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 && exit 0\nexit 1\n')
    old.chmod(0o755)
    find = ["sh", str(ROOT / ".ci" / "find-python")]
    found = subprocess.run(find, env={"PYTHON": str(old)}, capture_output=True, text=True)
    assert found.returncode == 1 and "3.11, 3.12 or 3.13" in found.stderr
    assert "Python 3.9.1" in found.stderr
    found = subprocess.run(find, env={"PYTHON": sys.executable}, capture_output=True, text=True)
    assert found.stdout.strip() == sys.executable


def test_licence_and_citation():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "MIT License" in text and "https://creativecommons.org/licenses/by/4.0" in text
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__ == PROJECT["version"]
    assert citation["references"][0]["title"] == "COVID-19 detection through X-Ray chest images"


def test_no_image_weight_or_foreign_address_is_in_the_repository():
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("no git checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = [Path(line) for line in listed.stdout.splitlines()]
    pictures = {path for path in files if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".dcm")}
    assert all(path.parts[0] == "docs" for path in pictures), pictures
    weights = [path for path in files if path.suffix in (".h5", ".keras", ".npy", ".npz")]
    small, model = (
        Path("data", name)
        for name in ("pretrained.npz", "reference/models/03_custom_cnn/model.weights.h5")
    )
    assert weights == [small, model]
    card = json.loads((ROOT / model).with_name("predictor.json").read_text(encoding="utf-8"))
    assert card["provenance"]["synthetic"] and card["weights"] is None, "made here, of phantoms"
    with np.load(ROOT / small, allow_pickle=False) as kept:  # data/make_pretrained.py's
        assert sum(array.size for array in kept.values()) == 98_257
    assert all((ROOT / path).stat().st_size < 1e6 for path in weights)


def test_profiles_use_known_parameters_and_agree_on_them():
    profiles = {
        path.stem: lessons.read_profile(ROOT / "notebooks", path.stem)
        for path in (ROOT / "notebooks" / "profiles").glob("*.yaml")
    }
    assert set(profiles) >= {"smoke", "quick", "paper"}
    for name, values in profiles.items():
        assert values["profile"] == name
        assert set(values) == set(profiles["quick"])
        for key, value in values.items():
            assert type(value) is type(profiles["quick"][key]), (name, key)
    if len(NOTEBOOKS) >= 7:
        taken = {key for path in NOTEBOOKS for key in lessons.read(path).defaults}
        assert set(profiles["quick"]) <= taken, set(profiles["quick"]) - taken


@each_notebook
def test_the_defaults_are_the_quick_profile(path):
    quick = lessons.read_profile(ROOT / "notebooks", "quick")
    for name, value in lessons.read(path).defaults.items():
        if name in quick:
            assert value == quick[name], name


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def code(path) -> list[str]:
    return ["".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code"]


@any_notebook
def test_cell_ids_are_unique_and_the_kernel_is_named(path):
    # On the raw JSON: nbformat repairs duplicates silently.
    ids = [cell["id"] for cell in cells(path)]
    assert len(ids) == len(set(ids))
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert "display_name" in content["metadata"]["kernelspec"]


def test_notebooks_are_stripped_of_outputs():
    command = [sys.executable, "-m", "nbstripout", "--verify", "--keep-id", "--extra-keys", KEEP]
    found = subprocess.run([*command, *ALL_NOTEBOOKS], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


@each_notebook
def test_notebooks_keep_the_contract(path):
    assert re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem)
    tags = [cell["metadata"].get("tags", []) for cell in cells(path)]
    places = {
        tag: [place for place, mine in enumerate(tags) if tag in mine]
        for tag in ("setup", "parameters")
    }
    assert len(places["setup"]) == len(places["parameters"]) == 1
    assert places["setup"] < places["parameters"]
    assert cells(path)[0]["cell_type"] == "markdown"
    assert "".join(cells(path)[0]["source"]).startswith("# ")
    assert recorded(path) == [path.stem], "the last step is results.record of this notebook"


def recorded(path) -> list[str]:
    """Names that a notebook records its results under."""
    found = []
    for source in code(path):
        plain = re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)  # no magic
        for node in ast.walk(ast.parse(plain)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("results.record"):
                found.append(ast.literal_eval(node.args[0]))
    return found


@each_notebook
def test_cells_are_short(path):
    lengths = [len(source.splitlines()) for source in code(path)]
    assert statistics.median(lengths) <= 6 and max(lengths) <= 30


@each_notebook
def test_needs_name_notebooks_that_come_before(path):
    names = [other.stem for other in NOTEBOOKS]
    for need in lessons.read(path).needs:
        assert need in names and need < path.stem


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_ruff_is_content(command):
    words = [sys.executable, "-m", "ruff", *command, "--no-cache", "."]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_app_opens_the_apps_in_a_folder_with_a_space(tmp_path):
    place = tmp_path / "my course"
    (place / ".venv" / "bin").mkdir(parents=True)
    (place / "notebooks" / "apps").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", place)
    for name in ("python", "voila"):
        program = place / ".venv" / "bin" / name
        program.write_text('#!/bin/sh\necho "$PWD"\n')
        program.chmod(0o755)
    (place / "pyproject.toml").touch()
    (place / ".venv" / ".installed").touch()
    words = ["make", "--no-print-directory", "app"]
    found = subprocess.run(words, cwd=place, capture_output=True, text=True)
    assert found.stdout.splitlines()[-1:] == [str(place / "notebooks" / "apps")], found.stderr


def test_the_readme_quotes_the_reference_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    quoted = re.search(r"phantoms with random weights (.+?), each with an interval above 0", text)
    differences = [
        results.load(ROOT / "data" / "reference", path.stem).tables["protocol_difference"]
        for path in NOTEBOOKS
        if path.stem[:2] in ("03", "04", "05", "06")
    ]
    found = [table.loc["accuracy"] for table in differences]
    assert re.findall(r"\d\.\d+", quoted[1]) == [f"{one['value']:.2f}" for one in found]
    assert all(one["low"] > 0 for one in found)
