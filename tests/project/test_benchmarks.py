"""The benchmark for a GPU counts rightly, and works without one; faults are planted as said."""

import importlib
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from cxrlib import machine
from helpers import tiny_cohort

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    """Import the module benchmarks/gpu.py, which is no part of the package."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("gpu")


def test_operations_of_a_network_are_counted(gpu):
    """By the table in torchvision's documentation, less VGG16's dense layers, which we drop."""
    build = machine.start_keras().applications.VGG16
    model = build(include_top=False, weights=None, input_shape=(224, 224, 3), pooling="avg")
    assert gpu.flops(model) / 2e9 == pytest.approx(15.47 - 0.124, rel=0.001)


def test_operations_of_nested_networks_and_dense_layers_are_counted(gpu):
    keras = machine.start_keras()
    inner = keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Conv2D(5, 3)])
    whole = keras.Sequential([inner, keras.layers.Flatten(), keras.layers.Dense(7)])
    whole.build((None, 6, 6, 2))
    assert gpu.flops(whole) == 2 * (3 * 3 * 2 * 5 * 4 * 4 + 4 * 4 * 5 * 7)


def test_nothing_is_measured_without_a_gpu(gpu, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "choose_backend", lambda: "")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--write"])
    assert gpu.main() == 1
    assert "No GPU was found, so nothing is measured" in capsys.readouterr().out


@pytest.mark.slow
def test_the_benchmark_works_in_small(gpu, smoke, monkeypatch, capsys):
    """On the run that all tests share, which is only read."""
    page = BENCHMARKS.parent / "docs" / "performance.md"
    before = page.read_text(encoding="utf-8")
    monkeypatch.setattr(gpu, "choose_backend", lambda: "")
    monkeypatch.setattr(gpu, "run_course", lambda out, tiny: None)
    words = ["gpu.py", "--tiny", "--write", "--rounds", "1", "--out", str(smoke[0])]
    monkeypatch.setattr(sys, "argv", words)
    assert gpu.main() == 0
    said = capsys.readouterr().out
    assert "A try of the command, no measurement: nothing is written." in said
    for row in ("| 01_data_retrieval | ", "| features, MobileNet | ", "| training, custom CNN | "):
        assert row in said
    assert page.read_text(encoding="utf-8") == before


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
