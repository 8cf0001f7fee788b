"""What Keras inherits from a user's settings must not shape what the course finds."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from cxrlib import machine, training
from faults import ROOT

PROBE = """
import sys, warnings
import numpy as np
import keras  # before cxrlib, as in a notebook that somebody opened by hand
keras.config.set_dtype_policy("mixed_float16")
from cxrlib import machine, training

with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    training.set_seed(0)
    training.set_seed(0)
told = [str(one.message) for one in told if "Keras was set" in str(one.message)]
assert len(told) == 1, told
for name in ("floatx=float16", "mixed_float16", "epsilon", "channels_first", "max_epochs"):
    assert name.split("=")[-1] in told[0], (name, told)
train = np.load(sys.argv[1]), np.array([0, 1] * 20)
head = training.dense_head(train[0], hidden_layers=1, neurons=8, seed=0)
assert {one.dtype for one in head.weights} == {"float32"}
assert len(training.fit(head, train, train, 4, seed=0)) == 4  # epochs
layer = keras.layers.Conv2D(2, 3)
assert tuple(layer(np.zeros((1, 8, 9, 1), "float32")).shape) == (1, 6, 7, 2)
assert machine.environment()["keras_settings"] == machine.KERAS
np.save(sys.argv[2], training.predict(head, train[0]))
"""


def test_keras_json_and_the_shell_change_no_score(tmp_path):
    odd = {"floatx": "float16", "image_data_format": "channels_first", "epsilon": 0.01}
    (tmp_path / "keras.json").write_text(json.dumps(odd))
    x = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    around = {"KERAS_HOME": str(tmp_path), "KERAS_MAX_EPOCHS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", PROBE, str(tmp_path / "x.npy"), str(tmp_path / "found.npy")]
    around |= {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=os.environ | around, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]

    train = x, np.array([0, 1] * 20)
    head = training.dense_head(x, hidden_layers=1, neurons=8, seed=0)
    training.fit(head, train, train, 4, seed=0)
    assert np.allclose(np.load(tmp_path / "found.npy"), training.predict(head, x), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("floatx", "float64"), ("image_data_format", "channels_first"), ("epsilon", 1e-3)],
)
def test_each_setting_is_set_back_with_a_note(name, value):
    keras = machine.start_keras()
    getattr(keras.config, f"set_{name}")(value)
    with pytest.warns(UserWarning, match=f"{name}.*{value}"):
        machine._set_up.__wrapped__(keras)
    assert machine.keras_settings(keras) == machine.KERAS
