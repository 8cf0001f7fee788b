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

import keras
import numpy as np
import pytest

from courserun import ROOT, run
from cxrlib import backbone, metrics, results, training
from helpers import tiny_cohort

LESSON = "03_custom_cnn"  # the one that trains convolutions, dropout and normalisation
ONCE = {"command", "created", "seconds"}  # what two runs may differ in
FEATURES, SAID, SCORES = 1e-4, 1e-3, 0.02  # of features, probabilities, metrics
BACKENDS = ("tensorflow", "jax", "torch")


@pytest.mark.slow
def test_two_runs_give_the_same_bits(smoke, tmp_path, record_property):
    """In two processes with caches of their own: results, training curves and predictions."""
    command = [sys.executable, "-m", "cxrlib.cli", "run", "--profile", "smoke", "--only", "03"]
    run([*command, "--out", tmp_path / "run"], tmp_path, PYTHONPATH=str(ROOT))
    runs = [smoke[0], tmp_path / "run"]
    texts = [(each / "results" / f"{LESSON}.json").read_text(encoding="utf-8") for each in runs]
    first, second = map(json.loads, texts)
    assert {name for name in first if first[name] != second[name]} <= ONCE
    assert first["histories"]["stage 1"]["data"] and first["scores"]["clean"]["data"]
    tables = [(each / "predictions" / f"{LESSON}.csv").read_bytes() for each in runs]
    assert tables[0] == tables[1] and len(tables[0]) > 500
    assert results.load(runs[0], LESSON).predictions["p_covid"].nunique() > 5  # not one for all
    record_property("what", "runs of a lesson with the same seed: the same bits")
    record_property("tried", 2)
    record_property("survived", 2)


def learn() -> dict:
    """Train a head from given weights on whole batches, so that no order matters."""
    cohort = tiny_cohort(patients=32, per_patient=1)
    weights, target = "random", cohort.targets(["healthy", "covid"])
    x = backbone.features(cohort.images, "MobileNet", 48, weights, progress=False)
    head = training.dense_head(x, seed=0)
    rng = np.random.default_rng(0)
    start = [
        one if "standardise" in variable.path else rng.normal(0, 0.05, one.shape)
        for variable, one in zip(head.weights, head.get_weights(), strict=True)
    ]
    head.set_weights(start)
    data = (x[:20], target[:20]), (x[20:], target[20:])
    training.fit(head, *data, epochs=20, learning_rate=1e-3, batch_size=20, seed=0)
    said = training.predict(head, x[20:])[:, 1]
    scores = metrics.binary_scores(target[20:], said)["value"]
    return {"features": x, "said": said, "scores": scores.to_numpy(float)}


def on_backend(name, folder) -> dict:
    """What :func:`learn` gives on another backend."""
    path, here = folder / f"{name}.npz", str(Path(__file__).parent)
    code = f"import numpy as np, test_determinism as t; np.savez({str(path)!r}, **t.learn())"
    around = os.environ | {
        "KERAS_BACKEND": name,
        "CXR_CACHE": str(folder / name),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support"), here]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=around, check=True)
    with np.load(path) as found:
        return {key: found[key] for key in found.files}


@pytest.mark.slow
def test_backends_agree(tmp_path, record_property):
    """Features and metrics of one small head, on each backend that is installed here."""
    others = [name for name in BACKENDS if find_spec(name) and name != keras.backend.backend()]
    if not others:
        pytest.skip("only one backend is installed; backends cannot be compared")
    here = learn()
    largest = np.abs(here["features"]).max()
    for name in others:
        there = on_backend(name, tmp_path)
        assert np.abs(there["features"] - here["features"]).max() <= FEATURES * largest
        assert np.abs(there["said"] - here["said"]).max() <= SAID
        assert np.nanmax(np.abs(there["scores"] - here["scores"])) <= SCORES
    names = ", ".join([keras.backend.backend(), *others])
    what = f"backends ({names}): features within {FEATURES}, metrics within {SCORES}"
    record_property("what", what)
    record_property("tried", 1 + len(others))
    record_property("survived", 1 + len(others))


def test_another_process_and_cache_give_the_same_features(tmp_path, monkeypatch):
    images = tiny_cohort(patients=6, per_patient=1, side=64).images
    found = []
    for batch, folder in ((2, "a"), (6, "b"), (6, "c")):
        monkeypatch.setenv("CXR_CACHE", str(tmp_path / folder))
        found.append(backbone.features(images, "MobileNet", 48, "random", batch, False))
    assert found[1].tobytes() == found[2].tobytes()  # the same computation, twice
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-5)
