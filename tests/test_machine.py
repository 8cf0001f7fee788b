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


# --- what the device multiplies in -------------------------------------------------------------
# There is no GPU where these tests run: the device is made up, the switches are the backends' own.


@pytest.fixture
def device(monkeypatch):
    """Pretend that Keras computes on a device, through a backend."""

    class Keras:
        config = None

    def pretend(backend, kind="gpu", capability="9.0"):
        keras = Keras()
        keras.config = type("config", (), {"backend": staticmethod(lambda: backend)})
        monkeypatch.setattr(machine, "start_keras", lambda: keras)
        monkeypatch.setattr(machine, "accelerator", lambda: kind)
        monkeypatch.setattr(machine, "ask_system", lambda *command: capability)

    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    return pretend


@pytest.mark.parametrize(
    ("kind", "capability", "policy", "expected"),
    [
        ("", "", "float32", "float32"),  # a processor
        ("gpu", "9.0", "float32", "tf32"),
        ("gpu", "9.0", "mixed_bfloat16", "bfloat16"),
        ("gpu", "7.5", "mixed_float16", "float16"),
        ("gpu", "7.5", "float32", "float32"),
        ("gpu", "9.0\n7.5", "float32", "float32"),  # the oldest decides
        ("gpu", "", "float32", "float32"),  # another maker's
        ("mps", "", "float32", "float32"),
        ("tpu", "", "float32", "bfloat16"),
    ],
)
def test_what_the_device_multiplies_in(device, kind, capability, policy, expected):
    pytest.importorskip("jax")
    device("jax", kind, capability)
    assert machine.multiplies_in(policy) == expected


def test_tf32_can_be_forbidden_to_the_driver(device, monkeypatch):
    device("jax")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert machine.multiplies_in() == "float32"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        *((None, "tf32"), ("default", "tf32"), ("tensorfloat32", "tf32"), ("high", "tf32")),
        *(("highest", "float32"), ("float32", "float32"), ("BF16_BF16_F32", "bfloat16")),
    ],
)
def test_jax_is_asked(device, asked, expected):
    jax = pytest.importorskip("jax")
    device("jax")
    before = jax.config.jax_default_matmul_precision
    try:
        jax.config.update("jax_default_matmul_precision", asked)
        assert machine.multiplies_in() == expected
    finally:
        jax.config.update("jax_default_matmul_precision", before)


def test_tensorflow_is_asked(device):
    switch = pytest.importorskip("tensorflow").config.experimental
    device("tensorflow")
    assert machine.multiplies_in() == "tf32"
    try:
        switch.enable_tensor_float_32_execution(False)
        assert machine.multiplies_in() == "float32"
    finally:
        switch.enable_tensor_float_32_execution(True)


def test_pytorch_is_asked(device):
    torch = pytest.importorskip("torch")
    device("torch")
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    try:
        for allowed in ((True, False), (False, True), (True, True), (False, False)):
            convolutions.allow_tf32, products.allow_tf32 = allowed
            assert machine.multiplies_in() == ("tf32" if any(allowed) else "float32"), allowed
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


def test_it_is_recorded(monkeypatch):
    machine.start_keras()
    monkeypatch.setattr(machine, "accelerator", lambda: "gpu")
    monkeypatch.setattr(machine, "ask_system", lambda *command: "8.0")
    assert machine.environment()["training_multiplies_in"] == "bfloat16"
    monkeypatch.setenv("CXR_PRECISION", "float32")
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    assert machine.environment()["training_precision"] == "float32"
    assert machine.environment()["training_multiplies_in"] == "tf32"
