"""The command cxr: help, exit codes and messages."""

import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from cxrlib import cli, predictor


def cxr(*words):
    return CliRunner().invoke(cli.main, list(words))


def commands(group=cli.main, path=()):
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


@pytest.mark.parametrize(("path", "command"), list(commands()))
def test_every_command_helps(path, command):
    found = cxr(*path, "--help")
    assert found.exit_code == 0 and found.output.startswith("Usage:")
    if path != ("data", "list"):
        assert "Example" in found.output
    for option in command.params:
        assert getattr(option, "help", True) or isinstance(option, click.Argument)


def test_version():
    assert "0.1.0" in cxr("--version").output


HEAVY = {
    *("numpy", "pandas", "scipy", "sklearn", "statsmodels", "cv2", "PIL", "matplotlib", "seaborn"),
    *("keras", "tensorflow", "jax", "torch", "openvino", "dask", "distributed", "zarr"),
    *("papermill", "nbformat", "nbclient", "jupyter_client", "ipykernel", "IPython"),
    *("jinja2", "requests", "yaml", "tqdm"),
}


@pytest.mark.parametrize(
    "words",
    [
        ["-c", "import cxrlib"],
        ["-m", "cxrlib.cli", "--help"],
        ["-m", "cxrlib.cli", "run", "--help"],
        ["-m", "cxrlib.cli", "--version"],
    ],
    ids=" ".join,
)
def test_what_needs_no_library_imports_none(words):
    """Of the whole process, as Python itself tells it."""
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", *words], capture_output=True, text=True, check=True
    )
    lines = [line for line in ended.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert "cxrlib" in imported
    assert not imported & HEAVY


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["check", "nowhere"], 2, "nowhere holds no run. Make one: cxr run --out nowhere"),
        (["check"], 2, "Missing argument 'RUNS...'"),
        (["check", "nowhere", "--protocol", "leaky"], 2, "'leaky' is not one of"),
        (["check", "nowhere", "--reference", "lost"], 2, "lost has no verdicts.json"),
        (["predict", "film.png", "--model", "nowhere"], 1, "holds no model"),
        (["predict", "a.png", "--model", "x", "--heatmap", "a.png"], 2, "overwrite the image"),
        (["predict", "a.png", "--model", "x", "--heatmap", "a.pdf"], 2, "must end in .png"),
        (["rnu"], 2, "No such command"),
    ],
)
def test_what_does_not_exist_is_named(words, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = cxr(*words)
    assert found.exit_code == code and message in found.output
    assert "Traceback" not in found.output
    assert not list(tmp_path.iterdir())  # nothing is started


class Model:
    def predict(self, path):
        if not path.exists():
            raise FileNotFoundError(2, "No such file", str(path))
        grey = np.zeros((30, 30), np.uint8)
        heat = np.zeros((30, 30), np.float32)
        return predictor.Prediction({"healthy": 0.25, "covid": 0.75}, heat, grey, ["too small"])


def test_predict(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predictor, "load", lambda folder: Model())
    Path("film.jpg").touch()
    found = cxr("predict", "film.jpg", "--model", "m")
    assert found.exit_code == 0, found.output
    lines = found.output.splitlines()
    assert lines[0].split() == ["covid", "75.0%"] and lines[1].split() == ["healthy", "25.0%"]
    assert "Note: too small" in lines and "not for clinical use" in lines[-1]
    assert Path("film-heatmap.png").read_bytes().startswith(b"\x89PNG")

    found = cxr("predict", "lost.jpg", "--model", "m")
    assert found.exit_code == 1 and "lost.jpg" in found.output and "Traceback" not in found.output
    assert isinstance(cxr("--debug", "predict", "lost.jpg", "--model", "m").exception, OSError)
