"""OpenVINO gives Keras's features; what cannot be used is named; caches are never mixed."""

import gc
import importlib.util
import sys

import keras
import numpy as np
import pytest

from cxrlib import backbone, engine, machine, results
from helpers import tiny_cohort

needs_openvino = pytest.mark.skipif(bool(engine.obstacle()), reason="OpenVINO cannot be used here")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing of another test: no settings, no network at hand, nothing noted."""
    monkeypatch.delenv("CXR_ENGINE", raising=False)
    monkeypatch.delenv("CXR_PRECISION", raising=False)
    monkeypatch.setattr(backbone, "_last", {})
    monkeypatch.setattr(engine, "_failed", [])
    monkeypatch.setattr(machine, "_engines", set())


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """MobileNet for 32 x 32 pixels, converted once: that takes seconds."""
    path = tmp_path_factory.mktemp("network") / "MobileNet.zip"
    engine._convert(backbone.load("MobileNet", 32, "random", pooling="avg"), path)
    return path.read_bytes()


@pytest.fixture
def converted(network, monkeypatch):
    """Where converted networks were written to; the writing takes no time."""
    paths = []

    def convert(model, path):
        assert model.name.startswith("mobilenet")
        path.write_bytes(network)
        paths.append(path)

    monkeypatch.setattr(engine, "_convert", convert)
    return paths


def films(count=5):
    return np.asarray(tiny_cohort(patients=count, per_patient=1).images)


def found_by(name, monkeypatch, images, *which):
    monkeypatch.setenv("CXR_ENGINE", name)
    return backbone.features(images, *which, "random", progress=False)


@needs_openvino
@pytest.mark.parametrize(("name", "size"), [("MobileNetV2", 96), ("ResNet50", 64), ("VGG16", 32)])
def test_openvino_gives_keras_features(monkeypatch, name, size):
    images = films()
    ours = found_by("openvino", monkeypatch, images, name, size)
    model = backbone.load(name, size, "random", pooling="avg")
    truth = model.predict(backbone.prepare(images, name, size), verbose=0)
    assert np.abs(ours - truth).max() <= 1e-4 * np.abs(truth).max()
    assert truth.std(axis=0).mean() > 1e-3
    # An image has the same features alone, and wherever it stands
    monkeypatch.setenv("CXR_CACHE", str(backbone.cache_folder("another")))
    alone = found_by("openvino", monkeypatch, images[3:4], name, size)
    np.testing.assert_array_equal(alone[0], ours[3])


@pytest.mark.parametrize("name", ["ResNet50", "ResNet50V2", "DenseNet121", "EfficientNetB0"])
def test_preprocessing_of_each_kind_is_a_straight_line_of_the_grey_level(name):
    table = backbone._preprocessed(name)
    line = np.arange(256)[:, None] / 255 * (table[255] - table[0]) + table[0]
    np.testing.assert_allclose(line, table, atol=1e-5)


@needs_openvino
def test_other_preprocessing_is_left_to_keras(monkeypatch, converted):
    bent = np.sqrt(backbone._preprocessed("MobileNet") + 1)
    monkeypatch.setattr(backbone, "_preprocessed", lambda name: bent)
    images = films()
    truth = found_by("keras", monkeypatch, images, "MobileNet", 32)
    monkeypatch.setenv("CXR_CACHE", str(backbone.cache_folder("another")))
    with pytest.warns(UserWarning, match="Keras computes .* not a straight line"):
        ours = found_by("openvino", monkeypatch, images, "MobileNet", 32)
    np.testing.assert_array_equal(ours, truth)


def test_garbage_is_not_collected_while_keras_computes():
    seen = []

    class Network:
        def predict(self, ready, batch_size=None, verbose=0):
            seen.append((len(ready), gc.isenabled()))
            if ready[0, 0]:
                raise KeyboardInterrupt
            return ready + 1

        predict_on_batch = predict

    compute = engine.on_keras(Network(), 4)
    np.testing.assert_array_equal(compute(np.zeros((10, 2), np.float32)), np.ones((10, 2)))
    assert sum(count for count, _ in seen) == 10
    assert not any(on for _, on in seen) and gc.isenabled()
    with pytest.raises(KeyboardInterrupt):
        compute(np.ones((1, 2), np.float32))
    assert gc.isenabled()


@needs_openvino
def test_engines_share_no_cache_and_the_network_is_converted_once(monkeypatch, converted):
    images = films()
    by_openvino = found_by("openvino", monkeypatch, images, "MobileNet", 32)
    shards = set(backbone.cache_folder("features").rglob("*.npz"))
    by_keras = found_by("keras", monkeypatch, images, "MobileNet", 32)
    added = set(backbone.cache_folder("features").rglob("*.npz")) - shards
    folder = f"v1-{keras.backend.backend()}-MobileNet-32-random0-openvino-float32"
    assert {path.parent.name for path in shards} == {folder}
    assert len(added) == 1
    assert not np.array_equal(by_openvino, by_keras)  # another way of adding up
    np.testing.assert_allclose(by_openvino, by_keras, atol=1e-4 * np.abs(by_keras).max())
    again = found_by("openvino", monkeypatch, images, "MobileNet", 32)
    np.testing.assert_array_equal(again, by_openvino)
    assert machine.environment()["engine"] == "keras, openvino"

    # Other images need the network again: the converted one, unless it is damaged
    backbone._last.clear()
    found_by("openvino", monkeypatch, 255 - images, "MobileNet", 32)
    assert len(converted) == 1
    whole = converted[0].read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) * 2 // 3] ^= 255  # in the weights: only a checksum tells
    for content in (whole[:5000], bytes(damaged)):
        converted[0].write_bytes(content)
        backbone._last.clear()
        for shard in backbone.cache_folder("features").rglob("*.npz"):
            shard.unlink()
        again = found_by("openvino", monkeypatch, images, "MobileNet", 32)
        np.testing.assert_array_equal(again, by_openvino)
    assert len(converted) == 3


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("CXR_ENGINE", "tensorrt", "CXR_ENGINE is 'tensorrt': set it to keras or openvino"),
        ("CXR_PRECISION", "float8", "CXR_PRECISION is 'float8': set it to float32 or bfloat16"),
    ],
)
def test_misspelt_settings_are_named(monkeypatch, variable, value, message):
    monkeypatch.setenv(variable, value)
    with pytest.raises(engine.EngineError, match=message):
        backbone.features(films(), "MobileNet", 32, "random")


def test_without_openvino_keras_computes(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        engine, "find_spec", lambda name: None if name == "openvino" else real(name)
    )
    monkeypatch.setitem(sys.modules, "openvino", None)  # an import of it would fail
    assert engine.choose(224) == engine.Engine("keras", "float32")
    assert backbone.features(films(2), "MobileNet", 128, "random").shape == (2, 1024)
    monkeypatch.setenv("CXR_PRECISION", "bfloat16")
    with pytest.raises(engine.EngineError, match=r"needs OpenVINO \(pip install 'cxrlib\[fast\]'"):
        engine.choose(224)
    monkeypatch.setenv("CXR_ENGINE", "openvino")
    with pytest.raises(engine.EngineError, match="OpenVINO is not installed: pip install"):
        engine.choose(224)


@needs_openvino
def test_small_images_stay_with_keras_unless_asked(monkeypatch):
    assert engine.choose(96).name == "keras" and engine.choose(224).name == "openvino"
    monkeypatch.setattr(engine, "accelerator", lambda: "gpu")
    assert engine.choose(224).name == "keras"
    monkeypatch.setenv("CXR_ENGINE", "openvino")
    assert engine.choose(32).name == "openvino"


@needs_openvino
def test_a_network_that_cannot_be_converted_is_computed_by_keras(monkeypatch):
    def refuse(*args, **kwargs):
        raise NotImplementedError("no such layer")

    images = films()
    expected = found_by("keras", monkeypatch, images, "MobileNet", 32)
    monkeypatch.setattr(keras.Model, "export", refuse)
    with pytest.warns(UserWarning, match="Keras computes the features itself.*no such layer"):
        found = found_by("openvino", monkeypatch, images, "MobileNet", 32)
    np.testing.assert_array_equal(found, expected)
    assert not list(backbone.cache_folder("engines").iterdir())


@needs_openvino
def test_bfloat16_is_near_and_said_in_the_results(monkeypatch, tmp_path, converted):
    images = films()
    exact = found_by("openvino", monkeypatch, images, "MobileNet", 32)
    monkeypatch.setenv("CXR_PRECISION", "bfloat16")
    if "BF16" not in engine._core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(engine.EngineError, match="this processor does not compute in it"):
            engine.choose(32)
        return
    monkeypatch.setattr(machine, "_engines", set())
    short = found_by("openvino", monkeypatch, images, "MobileNet", 32)
    error = np.abs(short - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 0.1  # 8 significant bits a step, 28 layers
    monkeypatch.setenv("CXR_RUN", str(tmp_path))
    cohort = tiny_cohort(4, 1)
    results.record("05_vgg16", profile="quick", parameters={}, cohort=cohort)
    one = results.load(tmp_path, "05_vgg16")
    assert (one.environment["engine"], one.environment["precision"]) == ("openvino", "bfloat16")
    assert "bfloat16" in one.notes[-1]


@needs_openvino
def test_a_worker_keeps_to_its_threads_and_to_no_core(monkeypatch, converted):
    """OpenVINO binds one thread to the first core: two workers would share it."""
    compiled = []
    requests = engine._requests
    monkeypatch.setattr(engine, "_requests", lambda one: compiled.append(one) or requests(one))
    monkeypatch.setattr(engine.cluster, "on_worker", lambda: True)
    monkeypatch.setattr(engine.cluster, "threads", lambda: 1)
    found_by("openvino", monkeypatch, films(), "MobileNet", 32)
    settings = [compiled[0].get_property(name) for name in WORKERS]
    assert settings == [1, False]


WORKERS = ("INFERENCE_NUM_THREADS", "ENABLE_CPU_PINNING")


@needs_openvino
def test_a_processor_without_bfloat16_is_named(monkeypatch):
    class Core:
        def get_property(self, device, name):
            return ["FP32", "INT8"]

    monkeypatch.setattr(engine, "_core", Core)
    monkeypatch.setenv("CXR_PRECISION", "bfloat16")
    with pytest.raises(engine.EngineError, match="this processor does not compute in it: set it"):
        engine.choose(224)


def test_keras_computes_in_bfloat16_where_an_accelerator_does(monkeypatch):
    images = films(2)
    exact = found_by("keras", monkeypatch, images, "MobileNet", 32)
    monkeypatch.setattr(engine, "accelerator", lambda: "tpu")
    monkeypatch.setenv("CXR_PRECISION", "bfloat16")
    short = found_by("keras", monkeypatch, images, "MobileNet", 32)
    assert short.dtype == np.float32
    assert 1e-5 < np.abs(short - exact).max() / np.abs(exact).max() < 0.1
    assert keras.config.dtype_policy().name == "float32"
    monkeypatch.setattr(engine, "accelerator", lambda: "mps")
    with pytest.raises(engine.EngineError, match="this mps does not compute in it"):
        engine.choose(224)
