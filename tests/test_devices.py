"""Training in mixed precision and on several devices: the same network comes out.

There is no GPU where these tests run. Precisions are tried on the processor, which computes in
them too, slowly; and JAX plays two devices on one processor.
"""

import importlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cxrlib import devices, machine, training
from helpers import tiny_cohort

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
CLASSES = ["healthy", "covid"]
TWO_DEVICES = """
import contextlib, json, sys
import numpy as np
from cxrlib import devices, machine, training
from test_devices import data, network

keras = machine.start_keras()
used, twin, names = [], devices.twin, devices.sharing(16, 16)
thirds = devices.sharing(33)

@contextlib.contextmanager
def watched(*given):
    with twin(*given) as (copy, several):
        used.append((several, [len(w.value.sharding.device_set) for w in copy.weights]))
        yield copy, several

devices.twin = watched
found = {}
for name in ("two", "odd", "one"):
    if name == "one":
        devices.sharing = lambda *_: []
    train, held = data(left_out=name == "odd")
    model = network()
    history = training.fit(model, train, held, 2, 1e-2, 16)
    found[name] = {
        "history": history.to_numpy().tolist(),
        "answers": training.predict(model, held[0]).tolist(),
        "alone": len(model.weights[0].value.sharding.device_set),
    }
print(json.dumps({"there": keras.distribution.list_devices(), "names": names,
    "used": used, "thirds": thirds, "found": found}))
"""


def network():
    """Build a convolutional network with everything that the course's has."""
    keras = machine.start_keras()
    training.set_seed(0)
    return keras.Sequential(
        [
            keras.Input((24, 24, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(1, "sigmoid", name="output"),
        ]
    )


def data(left_out=False):
    """Make 48 films to train on and 16 held out; one less of each if asked."""
    films = tiny_cohort(patients=32)
    y, less = films.targets(CLASSES), int(left_out)
    return (films.images[less:48], y[less:48]), (films.images[48 + less :], y[48 + less :])


@pytest.mark.parametrize(
    ("kind", "capability", "asked", "expected"),
    [
        ("", "", None, "float32"),  # never on a processor
        ("", "", "bfloat16", "float32"),
        ("gpu", "8.0\n", None, "mixed_bfloat16"),
        ("gpu", "9.0\n7.5\n", None, "mixed_float16"),  # the oldest decides
        ("gpu", "10.0\n", None, "mixed_bfloat16"),
        ("gpu", "[N/A]\n", None, "mixed_float16"),
        ("gpu", "", None, "mixed_float16"),  # another maker's
        ("tpu", "", None, "mixed_bfloat16"),
        ("mps", "", None, "float32"),
        ("gpu", "8.0\n", "float32", "float32"),
        ("gpu", "8.0\n", "bfloat16", "mixed_bfloat16"),
    ],
)
def test_the_precision_fits_the_device_and_can_be_forbidden(
    kind, capability, asked, expected, monkeypatch
):
    monkeypatch.setattr(machine, "accelerator", lambda: kind)
    monkeypatch.setattr(machine, "_command_output", lambda command: capability)
    monkeypatch.delenv("CXR_PRECISION", raising=False)
    if asked:
        monkeypatch.setenv("CXR_PRECISION", asked)
    assert machine.training_precision() == expected
    machine.start_keras()
    assert machine.environment()["training_precision"] == expected


# float16's first steps are left out, until Keras has found by how much to scale the loss
@pytest.mark.parametrize(("policy", "bound"), [("mixed_bfloat16", 0.05), ("mixed_float16", 0.2)])
def test_mixed_precision_trains_a_twin_and_the_network_stays_float32(policy, bound, monkeypatch):
    keras = machine.start_keras()
    (train, held), exact, mixed = data(), network(), network()
    plain = training.fit(exact, train, held, 2, 1e-3, 16)
    compiled = []

    def watched(model, rate):
        compiled.append(training_compile(model, rate))
        return model

    training_compile = training.compile_model
    monkeypatch.setattr(devices, "training_precision", lambda: policy)
    monkeypatch.setattr(training, "compile_model", watched)
    start = [np.array(w) for w in mixed.get_weights()]
    history = training.fit(mixed, train, held, 2, 1e-3, 16)

    assert compiled[0] is mixed and len(compiled) == 2
    twin = compiled[1]
    short = policy.removeprefix("mixed_")
    assert [layer.compute_dtype for layer in twin.layers] == [short] * 6 + ["float32"]
    assert {str(weight.dtype) for weight in twin.weights} == {"float32"}
    scaled = isinstance(twin.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    assert keras.config.dtype_policy().name == "float32"  # whatever is built next
    assert {layer.compute_dtype for layer in mixed.layers} == {"float32"}
    for before, after, other in zip(start, mixed.get_weights(), twin.get_weights(), strict=True):
        assert not np.array_equal(before, after) and np.array_equal(after, other)
    assert 0 < np.abs(history["loss"] - plain["loss"]).max() < bound
    apart = training.predict(mixed, held[0]) - training.predict(exact, held[0])
    assert np.abs(apart).max() < bound


def test_an_interrupted_training_keeps_what_was_learned(monkeypatch):
    monkeypatch.setattr(devices, "training_precision", lambda: "mixed_bfloat16")
    keras, model = machine.start_keras(), network()
    with pytest.raises(KeyboardInterrupt), devices.twin(model, 16) as (twin, _):
        twin.set_weights([weight + 1 for weight in twin.get_weights()])
        learned = twin.get_weights()
        raise KeyboardInterrupt
    for mine, its in zip(model.get_weights(), learned, strict=True):
        assert np.array_equal(mine, its)
    assert keras.config.dtype_policy().name == "float32"


def test_without_an_accelerator_the_network_itself_is_trained():
    model = network()
    with devices.twin(model, 32) as (trained, several):
        assert trained is model and several == 1


@pytest.mark.parametrize(("images", "sizes"), [(10, [4, 4, 2]), (9, [4, 4]), (8, [4, 4])])
def test_batches_are_cut_to_what_two_devices_can_share(images, sizes):
    batches = training.batches(np.zeros((images, 8, 8), np.uint8), 8, np.zeros((images, 1)), 4)
    shared = devices.even(batches, images, 4, 2)
    found = [shared[number] for number in range(len(shared))]
    assert [len(x) for x, _ in found] == [len(y) for _, y in found] == sizes
    assert devices.even(batches, images, 4, 1) is batches


@pytest.fixture(scope="module")
def two_devices():
    """What a process with JAX and two devices found; needs JAX."""
    if find_spec("jax") is None:
        pytest.skip("needs JAX")
    places = [str(Path(devices.__file__).parents[1]), str(Path(__file__).parent)]
    settings = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": os.pathsep.join(places),
    }
    ended = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES], env=settings, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


def test_two_devices_learn_what_one_learns(two_devices):
    assert two_devices["there"] == two_devices["names"] == ["cpu:0", "cpu:1"]
    assert two_devices["thirds"] == ["cpu:0"]  # 33 images cannot be halved
    assert [several for several, _ in two_devices["used"]] == [2, 2, 1]
    assert [set(places) for _, places in two_devices["used"]] == [{2}, {2}, {1}]
    one, two = (two_devices["found"][name] for name in ("one", "two"))
    for kind in ("history", "answers"):
        assert np.abs(np.subtract(one[kind], two[kind])).max() < 1e-5
    assert one["alone"] == two["alone"] == 1  # afterwards it lies on one device, as before


def test_an_odd_number_of_films_is_shared_too(two_devices):
    odd = two_devices["found"]["odd"]
    assert np.shape(odd["answers"]) == (15, 2)  # none is left out of the answers
    assert np.isfinite(odd["history"]).all()


@pytest.fixture
def gpu_benchmark(monkeypatch):
    """Import the module benchmarks/gpu.py, which is no part of the package."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("gpu")


def test_the_benchmark_counts_the_operations_of_a_network(gpu_benchmark):
    """By the table in torchvision's documentation, less VGG16's dense layers, which we drop."""
    build = machine.start_keras().applications.VGG16
    model = build(include_top=False, weights=None, input_shape=(224, 224, 3), pooling="avg")
    assert gpu_benchmark.flops(model) / 2e9 == pytest.approx(15.47 - 0.124, rel=0.001)


def test_the_benchmark_counts_nested_networks_and_dense_layers(gpu_benchmark):
    keras = machine.start_keras()
    inner = keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Conv2D(5, 3)])
    whole = keras.Sequential([inner, keras.layers.Flatten(), keras.layers.Dense(7)])
    whole.build((None, 6, 6, 2))
    assert gpu_benchmark.flops(whole) == 2 * (3 * 3 * 2 * 5 * 4 * 4 + 4 * 4 * 5 * 7)


def test_the_benchmark_measures_nothing_without_a_gpu(gpu_benchmark, monkeypatch, capsys):
    monkeypatch.setattr(gpu_benchmark, "choose_backend", lambda: "")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--write"])
    assert gpu_benchmark.main() == 1
    assert "No GPU was found, so nothing is measured" in capsys.readouterr().out


@pytest.mark.slow
def test_the_benchmark_for_a_gpu_works_in_small(tmp_path):
    page = BENCHMARKS.parent / "docs" / "performance.md"
    before = page.read_text(encoding="utf-8")
    command = [sys.executable, BENCHMARKS / "gpu.py", "--tiny", "--write", "--rounds", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "A try of the command, no measurement: nothing is written." in ended.stdout
    for row in ("| 01_data_retrieval | ", "| features, ResNet50 | ", "| training, custom CNN | "):
        assert row in ended.stdout
    assert page.read_text(encoding="utf-8") == before
