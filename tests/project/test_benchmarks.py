"""The benchmark for a GPU counts rightly, and works without one; faults are planted as said."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from cxrlib import machine
from helpers import tiny_cohort

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Import a module of benchmarks/, which is no part of the package."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def gpu(benchmark):
    return benchmark("gpu")


COUNT = """
import sys
sys.path.insert(0, "benchmarks")
import keras
import parts
from keras import layers
shapes = [keras.Input((32, 32, 64)), layers.Conv2D(64, 3, activation="relu"), layers.Conv2D(64, 3)]
network = keras.Sequential([*shapes, layers.Flatten(), layers.Dense(10)])
print(parts.count(network), parts.count(network, training=True))
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_operations_are_counted_as_by_hand(backend):
    """Forwards; and a step of training, which needs no gradient of the images."""
    if not find_spec(backend):
        pytest.skip(f"no {backend}")
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    told = subprocess.run(
        [sys.executable, "-c", COUNT], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    products = [30 * 30 * 9 * 64 * 64, 28 * 28 * 9 * 64 * 64, 28 * 28 * 64 * 10]
    forwards, step = map(float, told.stdout.split())
    assert forwards == pytest.approx(2 * sum(products), rel=0.01)
    assert step == pytest.approx(2 * (3 * sum(products) - products[0]), rel=0.01)


def test_operations_of_a_network_are_counted(benchmark):
    """By the table in torchvision's documentation, less VGG16's dense layers, which we drop."""
    build = machine.start_keras().applications.VGG16
    model = build(include_top=False, weights=None, input_shape=(224, 224, 3), pooling="avg")
    counted = benchmark("parts").count(model) / 2e9
    border = 0.04 if machine.start_keras().backend.backend() == "jax" else 0.001
    assert counted == pytest.approx(15.47 - 0.124, rel=border)


def test_the_peak_is_that_of_the_precision_named(benchmark):
    """By TensorFlow's own switch, which is as before in the end."""
    switch = pytest.importorskip("tensorflow").config.experimental
    asked, parts = switch.tensor_float_32_execution_enabled, benchmark("parts")
    before, seen = asked(), []
    for precision in ("tf32", "float32"):
        with parts.products(precision):
            seen.append(asked())
    assert seen == [True, False] and asked() == before
    assert parts.peak("float32", 1, True) > 1e6


def test_nothing_is_measured_without_a_gpu(gpu, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "choose_backend", lambda: "")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--write"])
    assert gpu.main() == 1
    assert "No GPU was found, so nothing is measured" in capsys.readouterr().out


@pytest.mark.slow
def test_the_benchmark_goes_the_whole_way_in_small(gpu, smoke, tmp_path, monkeypatch, capsys):
    """The command itself, on a copy of the run that all tests share: its lessons are done."""
    page, out = ROOT / "docs" / "performance.md", tmp_path / "run"
    before = page.read_text(encoding="utf-8")
    shutil.copytree(smoke[0], out)
    states = {path.name: path.read_bytes() for path in (out / "state").iterdir()}
    monkeypatch.setattr(gpu, "choose_backend", lambda: "")
    words = ["gpu.py", "--tiny", "--write", "--rounds", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    assert gpu.main() == 0, capsys.readouterr().out
    assert "A try of the command, no measurement: nothing is written." in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (out / "state").iterdir()} == states
    told = (out / "gpu.md").read_text(encoding="utf-8")
    for row in ("features from files, MobileNet", "training, custom CNN", "2 heads in 5 folds"):
        assert f"| {row}" in told
    lessons = re.findall(r"^\| (\d\d)_\w+ \| \d+ \|", told, re.MULTILINE)
    assert lessons == [f"{number:02}" for number in range(10)]
    assert page.read_text(encoding="utf-8") == before


@pytest.mark.parametrize(("code", "broken"), [(0, ""), (1, "03"), (1, "")])
def test_a_try_tells_what_failed_and_takes_nothing_old(gpu, monkeypatch, tmp_path, code, broken):
    from cxrlib.course import lessons

    found = lessons.find(ROOT / "notebooks")
    (tmp_path / "state").mkdir()
    for one in found:
        state = {"status": "failed" if one.name[:2] == broken else "done", "seconds": 7.0}
        (tmp_path / "state" / f"{one.name}.json").write_text(json.dumps(state))
    monkeypatch.setattr(gpu, "run_lesson", lambda name, *_: [name, "5", "", "", ""])
    monkeypatch.setattr(gpu, "cxr", lambda *_: code)
    seen = {name[:2]: told for name, told, *_ in gpu.try_lessons(found, tmp_path)}
    failed = {name for name, told in seen.items() if "failed" in told}
    assert failed == ({broken} if broken else set(seen) - {"08"} if code else set())
    assert seen["08"] == "5" and len(seen) == 10


@pytest.mark.parametrize("code", [0, 1])
def test_a_report_that_cannot_be_written_is_told(gpu, monkeypatch, tmp_path, code):
    row = {"work": "a", "images/s": 1.0, "flop": 1.0, "peak": 1.0, "precision": "float32"}
    row |= {"reading": 1.0, "copying": 1.0, "computing": 1.0, "device": "H0", "backend": "jax"}
    monkeypatch.setattr(gpu, "choose_backend", lambda: "gpu")
    monkeypatch.setattr(gpu, "measured", lambda *_: iter([row]))
    monkeypatch.setattr(gpu, "run_lesson", lambda name, *_: [name, "7", "", "", ""])
    monkeypatch.setattr(gpu, "cxr", lambda *_: code)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path)])
    assert gpu.main() == code
    assert ("could not be written" in (tmp_path / "gpu.md").read_text(encoding="utf-8")) == code


def test_a_cut_leaves_what_is_known_and_a_failure_stops_nothing(gpu, monkeypatch, tmp_path):
    """Cut in the second lesson; before it a part failed, and papermill is there."""
    good = {"work": "a", "images/s": 100.0, "flop": 2e9, "peak": 1e12, "precision": "TF32"}
    good |= {"reading": 125.0, "copying": 1000.0, "computing": 500.0}
    known = {"device": "H0", "backend": "jax"}
    rows = [good | known, {"work": "b", "problem": "OSError: no"} | known]
    ran = []

    def run_lesson(name, *_):
        if ran:
            raise KeyboardInterrupt
        ran.append(name)
        return [name, "7", "90%", "10%", "the device"]

    monkeypatch.setattr(gpu, "choose_backend", lambda: "gpu")
    monkeypatch.setattr(gpu, "measured", lambda *_: iter(rows))
    monkeypatch.setattr(gpu, "run_lesson", run_lesson)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path)])
    with pytest.raises(KeyboardInterrupt):
        gpu.main()
    told = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    # 100 images/s of 2 GFLOP are a fifth of 1 TFLOP/s, and 80 % of what reading alone does
    assert "| a | TF32 | 100 | 125 | 1,000 | 500 | 80% | 2.000 | 20.00% | reading |" in told
    assert "| b | OSError: no |" in told
    assert "| 00_how_a_network_learns | 7 | 90% | 10% | the device |" in told


def test_without_papermill_the_lessons_are_left_out_and_it_says_so(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "choose_backend", lambda: "gpu")
    monkeypatch.setattr(gpu, "measured", lambda *_: iter([]))
    monkeypatch.setattr(gpu, "find_spec", lambda name: None if name == "papermill" else True)
    monkeypatch.setattr(gpu, "run_lesson", lambda *_: pytest.fail("a lesson was run"))
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path)])
    gpu.main()
    assert "left out: papermill is not installed" in (tmp_path / "gpu.md").read_text()


def test_a_lesson_that_takes_too_long_is_ended_and_named(gpu, tmp_path):
    row = gpu.run_lesson("01_data_retrieval", [], tmp_path, 0.5)
    assert row[:2] == ["01_data_retrieval", "not done in 0 s"]


def test_every_lesson_is_given_the_parameters_that_it_takes(gpu):
    """`cxr run` refuses others; so do we, without running."""
    from cxrlib.course import lessons

    profile, used = lessons.read_profile(ROOT / "notebooks", "paper"), set()
    for lesson in lessons.find(ROOT / "notebooks"):
        for full in (True, False):
            words = gpu.words(lesson, gpu.settings(full))
            given = lessons.parse_settings(words[words.index("--only") + 3 :: 2])
            lessons.check_settings([lesson], profile, given)
            assert {given[name] for name in given if name.endswith("source")} <= {"phantom"}
            used |= set(given)
    assert used == set(gpu.settings(False))


def test_faults_are_planted_as_they_are_counted(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    planting = importlib.import_module("planted")
    monkeypatch.setattr(planting, "EACH", 1)
    monkeypatch.setattr(planting, "GOOD", 20)
    planted = planting.plant(tiny_cohort(), tmp_path)
    counts = Counter(planted.values())
    assert counts.pop("") + counts.pop("original") == 20
    assert set(counts.values()) == {1} and len(counts) == 11
    names = list(planted)
    copied = names[list(planted.values()).index("exact copy") :]
    assert (tmp_path / copied[0]).read_bytes() == (tmp_path / copied[1]).read_bytes()


def test_demonstrations_are_counted_over_seeds(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    held = importlib.import_module("held")
    runs = {
        "one": {"04_resnet50": pd.DataFrame({"lesson": ["a", "b"], "held": [True, True]})},
        "two": {"04_resnet50": pd.DataFrame({"lesson": ["a", "b"], "held": [True, False]})},
        "stopped": {"01_data_retrieval": None},
    }

    def load(run):
        tables = {
            name: {} if one is None else {"lessons held": one} for name, one in runs[run].items()
        }
        return {name: SimpleNamespace(tables=one) for name, one in tables.items()}

    monkeypatch.setattr(held.check, "find_runs", lambda folders: list(runs))
    monkeypatch.setattr(held.results, "load_all", load)
    monkeypatch.setattr(held.check, "read_reference", lambda: {"lessons held": {"09_x: c": True}})
    expected = [["04", "a", "2 of 3"], ["04", "b", "1 of 3"], ["09", "c", "0 of 3"]]
    assert held.count(Path("runs")) == (expected, 3)


def test_studies_by_folds_are_judged_by_hand(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    folds = importlib.import_module("folds")

    def table(value, low, high):
        return pd.DataFrame({"value": value, "low": low, "high": high}, index=folds.SCORES)

    one = {"clean": table(0.7, 0.6, 0.8), "paper": table(0.9, 0.85, 0.95)}
    one |= {"paper minus clean": table(0.2, -0.1, 0.4), "elsewhere": table(0.65, 0.6, 0.7)}
    two = one | {"elsewhere": table(0.95, 0.9, 1.0)}  # its models are better than its folds say
    rows = folds.judge([one, two], 30)
    assert rows[0] == ["clean", "accuracy", 60, "0.700", "0.800", "1.000", "0.500", "0.20", "1.00"]
    assert rows[1][3:7] == ["0.900", "0.800", "0.000", "–"]
    assert rows[2][3:] == ["0.200", "0.200", "1.000", "–", "0.50", "0.00"]
