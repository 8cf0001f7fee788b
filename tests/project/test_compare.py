"""Comparing two runs: a changed number is found, where it was made is left out."""

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "compare.py"


@pytest.fixture
def compare():
    spec = importlib.util.spec_from_file_location("compare", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_folder(folder, auc=0.9, seconds=1, probability="0.25"):
    (folder / "results").mkdir(parents=True)
    (folder / "predictions").mkdir()
    found = {"scores": {"auc": [auc, None]}, "seconds": seconds, "environment": {"device": "x"}}
    (folder / "results" / "05.json").write_text(json.dumps(found))
    (folder / "predictions" / "05.csv").write_text(f"image,p_covid\na,{probability}\n")
    return folder


@pytest.mark.parametrize(
    ("changed", "tolerance", "code"),
    [
        ({"seconds": 9}, "0", 0),
        ({"auc": 0.9 + 1e-9}, "0", 1),
        ({"auc": 0.9 + 1e-9}, "1e-6", 0),
        ({"auc": None}, "1e-6", 1),
        ({"probability": "0.35"}, "1e-6", 1),
    ],
)
def test_two_runs(compare, tmp_path, capsys, changed, tolerance, code):
    before = run_folder(tmp_path / "before")
    after = run_folder(tmp_path / "after", **changed)
    assert compare.main([str(before), str(after), "--tolerance", tolerance]) == code
    assert f"{code} differ" in capsys.readouterr().out.splitlines()[-1]


def test_a_file_that_is_missing_differs(compare, tmp_path):
    before, after = run_folder(tmp_path / "before"), run_folder(tmp_path / "after")
    (after / "predictions" / "05.csv").unlink()
    assert compare.main([str(before), str(after)]) == 1
    assert compare.main([str(tmp_path / "nothing"), str(tmp_path / "no")]) == 1
