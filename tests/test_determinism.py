"""The same seed gives the same results: bit for bit here, within stated bounds on other backends.

Each backend draws starting weights and the order of images with a generator of its own. From the
same start and in the same order they agree; otherwise they differ as two seeds do.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cxrlib import results
from cxrlib.backbone import features, find_weights
from helpers import tiny_cohort

ROOT = Path(__file__).resolve().parent.parent
LESSON = "03_custom_cnn"  # the one that trains convolutions, dropout and normalisation
ONCE = {"command", "created", "seconds"}  # what two runs may differ in
FEATURES, SAID, SCORES = 1e-4, 1e-3, 0.02  # of features, probabilities, metrics
SMALL = ["stage1_epochs=1", "stage2_epochs=2"]
# Trains a head from given weights on whole batches, so that no order matters.
OTHER = """
import sys, numpy as np
sys.path.insert(0, {tests!r})
from helpers import tiny_cohort
from cxrlib import backbone, metrics, training
cohort = tiny_cohort(patients=40, per_patient=1, side=96)
found = backbone.features(cohort.images, "MobileNet", 64, "random", progress=False)
target = cohort.targets(["healthy", "covid"])
head = training.dense_head(found, seed=0)
rng = np.random.default_rng(0)
head.set_weights([one if "standardise" in v.path else rng.normal(0, 0.05, one.shape)
                  for v, one in zip(head.weights, head.get_weights())])
training.fit(head, (found[:24], target[:24]), (found[24:], target[24:]), epochs=30,
             learning_rate=1e-3, batch_size=24, seed=0)
said = training.predict(head, found[24:])[:, 1]
scores = metrics.binary_scores(target[24:], said, resamples=20)["value"]
np.savez({path!r}, features=found, scores=scores.astype(float), said=said)
"""


def run_lesson(folder):
    around = os.environ | {"CXR_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cxrlib.cli", "run", "--profile", "smoke", "--only", "03"]
    for setting in SMALL:
        command += ["--set", setting]
    command += ["--out", str(folder / "run")]
    ended = subprocess.run(command, cwd=ROOT, env=around, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    return folder / "run"


@pytest.mark.slow
def test_two_runs_give_the_same_bits(tmp_path, record_property):
    """In two processes with empty caches: results, training curves, predictions and weights."""
    runs = [run_lesson(tmp_path / name) for name in ("one", "two")]
    texts = [(run / "results" / f"{LESSON}.json").read_text(encoding="utf-8") for run in runs]
    first, second = map(json.loads, texts)
    assert {name for name in first if first[name] != second[name]} <= ONCE
    assert first["histories"]["stage 1"]["data"] and first["scores"]["clean"]["data"]
    tables = [(run / "predictions" / f"{LESSON}.csv").read_bytes() for run in runs]
    assert tables[0] == tables[1] and len(tables[0]) > 500
    found = [results.load(run, LESSON).predictions for run in runs]
    assert found[0]["p_covid"].nunique() > 5  # not one number for all
    record_property("what", "runs of a lesson with the same seed: the same bits")
    record_property("tried", 2)
    record_property("survived", 2)


def on_backend(name, folder, python=sys.executable):
    path = folder / f"{name}.npz"
    code = OTHER.format(tests=str(ROOT / "tests"), path=str(path))
    around = os.environ | {
        "KERAS_BACKEND": name,
        "CXR_CACHE": str(folder / name),
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    subprocess.run([str(python), "-c", code], cwd=folder, env=around, check=True)
    with np.load(path) as found:
        return {key: found[key] for key in found.files}


@pytest.mark.slow
def test_backends_agree(tmp_path, record_property):
    """Features and metrics of one small head, on each backend that is installed here."""
    there = [name for name in ("tensorflow", "jax", "torch") if find_spec(name)]
    if len(there) < 2:
        pytest.skip(f"only {there} is installed; backends cannot be compared")
    first, *others = (on_backend(name, tmp_path) for name in there)
    for one in others:
        largest = np.abs(first["features"]).max()
        assert np.abs(one["features"] - first["features"]).max() <= FEATURES * largest
        assert np.abs(one["said"] - first["said"]).max() <= SAID
        assert np.nanmax(np.abs(one["scores"] - first["scores"])) <= SCORES
    what = f"backends ({', '.join(there)}): features within {FEATURES}, metrics within {SCORES}"
    record_property("what", what)
    record_property("tried", len(there))
    record_property("survived", len(there))


def test_another_process_and_cache_give_the_same_features(tmp_path, monkeypatch):
    images = tiny_cohort(patients=6, per_patient=1, side=64).images
    weights, found = find_weights("MobileNet", "random"), []
    for batch, folder in ((2, "a"), (6, "b"), (6, "c")):
        monkeypatch.setenv("CXR_CACHE", str(tmp_path / folder))
        found.append(features(images, "MobileNet", 48, weights, batch, False))
    assert found[1].tobytes() == found[2].tobytes()
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-5)
