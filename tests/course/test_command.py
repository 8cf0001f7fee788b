"""The commands cxr run and cxr report: what they refuse, and what they say at the end."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cxrlib import cli
from cxrlib.course import folder as runfolder

NOTEBOOKS = str(Path(__file__).parent / "notebooks")


def cxr(*words):
    return CliRunner().invoke(cli.main, list(words))


def test_a_run_that_is_refused_imports_no_runner(tmp_path):
    code = "import sys; from cxrlib import cli\n"
    code += "try: cli.main(['run', '--profile', 'quik'])\n"
    code += "except SystemExit as end: print(end.code, {'papermill', 'pandas'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout.strip() == "2 set()", ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "--profile", "quik"], 2, "Did you mean quick?"),
        (["run", "--only", "99"], 2, "no notebook '99'"),
        (["run", "--set", "sedd=1"], 2, "Did you mean seed?"),
        (["run", "--set", "seed"], 2, "name=value"),
        (["run", "--set", "seed=one"], 2, "a whole number"),
        (["run", "--set", "profile=paper"], 2, "with --profile"),
        (["report", "nowhere"], 1, "holds no run"),
    ],
)
def test_what_does_not_exist_is_named(words, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if words[0] == "run":
        words = [*words, "--notebooks", NOTEBOOKS]
    found = cxr(*words)
    assert found.exit_code == code and message in found.output
    assert "Traceback" not in found.output
    assert not list(tmp_path.iterdir())  # nothing is started


def test_an_unknown_backend_is_bad_usage(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_BACKEND", "theano")
    found = cxr("run", "--notebooks", NOTEBOOKS, "--out", str(tmp_path))
    assert found.exit_code == 2 and "tensorflow, jax, torch" in found.output


def test_a_run_ends_with_its_report_and_its_failures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["run", "--notebooks", NOTEBOOKS, "--out", "mine", "--only", "03", "--only", "07"]
    found = cxr(*words)
    assert found.exit_code == 0, found.output
    assert "Notebooks: 2 done" in found.output
    assert found.output.rstrip().endswith(f"Report: {Path('mine', 'report.html')}")
    page = (tmp_path / "mine" / "report.html").read_text(encoding="utf-8")
    assert "cxr run --profile quick --only 03 --only 07 --out mine" in page

    (tmp_path / "mine" / "report.html").unlink()
    found = cxr(*words, "--no-report")
    assert found.exit_code == 0 and "Report: " not in found.output
    assert not (tmp_path / "mine" / "report.html").exists()

    found = cxr(*words, "--set", "broken=true")
    assert found.exit_code == 1
    assert "03_model failed in cell In [4]" in found.output
    assert "ValueError: the films are lost" in found.output
    assert f"See {Path('mine', 'failed', '03_model.ipynb')}" in found.output
    assert "07_reads  not run, needs 03_model" in found.output
    assert "Report: " in found.output


def test_two_runs_at_once_are_bad_usage(tmp_path):
    with runfolder.locked(tmp_path):
        found = cxr("run", "--notebooks", NOTEBOOKS, "--out", str(tmp_path))
    assert found.exit_code == 2 and "Another run" in found.output
