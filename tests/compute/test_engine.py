"""OpenVINO gives Keras's features; what cannot be used is named; caches are never mixed."""

import gc
import importlib.util
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from cxrlib import backbone, machine, results
from cxrlib.compute import engine
from helpers import tiny_cohort

needs_openvino = pytest.mark.skipif(bool(engine.obstacle()), reason="OpenVINO cannot be used here")
NAME, SIZE = "MobileNet", 32


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing of another test: no network at hand, nothing noted."""
    backbone.forget_network()
    monkeypatch.setattr(engine, "failures", [])
    monkeypatch.setattr(machine, "engines_used", set())


@pytest.fixture(scope="module")
def images():
    return np.asarray(tiny_cohort(patients=5, per_patient=1).images)


@pytest.fixture(scope="module")
def network(tmp_path_factory, images):
    """A network that was really converted, and its features: that takes seconds."""
    folder = tmp_path_factory.mktemp("converted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_CACHE", str(folder))
        found = found_by("openvino", patch, images)
    (path,) = (folder / "engines").iterdir()
    return path, found


@pytest.fixture
def exports(network, monkeypatch):
    """Count the conversions, which take no time: all give the network of :func:`network`."""
    done = []

    def export(model, path, **_):
        done.append(model.name)
        with zipfile.ZipFile(network[0]) as both:
            both.extractall(Path(path).parent)

    monkeypatch.setattr(keras.Model, "export", export)
    return done


def found_by(name, patch, images, backbone_name=NAME, size=SIZE):
    patch.setenv("CXR_ENGINE", name)
    return backbone.features(images, backbone_name, size, "random", progress=False)


def assert_equal_to_keras(found, images, name, size):
    model = backbone.load(name, size, "random", pooling="avg")
    truth = model.predict(backbone.prepare(images, name, size), verbose=0)
    assert np.abs(found - truth).max() <= 1e-4 * np.abs(truth).max()
    assert truth.std(axis=0).max() > 0.05 * truth.max()  # films differ: blank ones would not pass


@needs_openvino
def test_openvino_gives_keras_features(network, images):
    assert_equal_to_keras(network[1], images, NAME, SIZE)


@needs_openvino
@pytest.mark.sweep
@pytest.mark.parametrize(("name", "size"), [("MobileNetV2", 96), ("ResNet50", 64), ("VGG16", 32)])
def test_openvino_gives_keras_features_of_other_networks(monkeypatch, images, name, size):
    found = found_by("openvino", monkeypatch, images, name, size)
    assert_equal_to_keras(found, images, name, size)


@needs_openvino
def test_an_image_has_the_same_features_alone_and_among_many(monkeypatch, images, network, exports):
    alone = found_by("openvino", monkeypatch, images[3:4])
    np.testing.assert_allclose(alone[0], network[1][3], rtol=1e-5)
    many = np.concatenate([images, 255 - images, images[:, ::-1]])  # more than one request
    np.testing.assert_allclose(found_by("openvino", monkeypatch, many)[:5], network[1], rtol=1e-5)


def test_garbage_is_not_collected_while_keras_computes(monkeypatch):
    seen = []

    class Network:
        def ask(self, ready):
            seen.append((len(ready), gc.isenabled()))
            if ready[0, 0]:
                raise KeyboardInterrupt
            return ready + 1

    monkeypatch.setattr(engine, "_asker", lambda network: network.ask)
    compute = engine.on_keras(Network(), 4)
    np.testing.assert_array_equal(compute(np.zeros((10, 2), np.float32)), np.ones((10, 2)))
    assert seen == [(4, False), (4, False), (2, False)] and gc.isenabled()
    with pytest.raises(KeyboardInterrupt):
        compute(np.ones((1, 2), np.float32))
    assert gc.isenabled()


def test_no_answer_is_waited_for_before_all_batches_are_asked(monkeypatch):
    events, convert = [], keras.ops.convert_to_numpy

    def ask(batch):
        events.append((batch.dtype, batch.shape))
        return keras.ops.convert_to_tensor(batch[:, :1, 0] + 1.0)

    monkeypatch.setattr(engine, "_asker", lambda network: ask)
    monkeypatch.setattr(
        keras.ops, "convert_to_numpy", lambda one: events.append("waited") or convert(one)
    )
    grey = np.arange(7 * 9, dtype=np.uint8).reshape(7, 3, 3)
    for kind, last in {"": 1, "gpu": 3}.items():  # there the last batch is filled up
        monkeypatch.setattr(engine, "accelerator", lambda kind=kind: kind)
        found = engine.on_keras(None, 3)(grey)
        np.testing.assert_array_equal(found, grey[:, :1, 0] + np.float32(1))
        batches = [(np.uint8, (count, 3, 3)) for count in (3, 3, last)]
        assert events == [*batches, *["waited"] * 3]
        events.clear()


@needs_openvino
def test_engines_share_no_cache_and_a_network_is_converted_once(monkeypatch, images, exports):
    by_openvino = found_by("openvino", monkeypatch, images)
    shards = set(backbone.cache_folder("features").rglob("*.npz"))
    by_keras = found_by("keras", monkeypatch, images)
    added = set(backbone.cache_folder("features").rglob("*.npz")) - shards
    folders = [{path.parent.name for path in found} for found in (shards, added)]
    for (folder,), name in zip(folders, ("openvino", "keras"), strict=True):
        assert folder.startswith(f"v{backbone.VERSION}-{keras.backend.backend()}-{name}-float32-")
    assert not np.array_equal(by_openvino, by_keras)  # another way of adding up
    assert machine.environment()["engine"] == "keras, openvino"

    # Other images need the network again: the converted one, unless it is damaged
    backbone.forget_network()
    found_by("openvino", monkeypatch, 255 - images)
    assert len(exports) == 1
    (path,) = backbone.cache_folder("engines").iterdir()
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) * 2 // 3] ^= 255  # in the weights: only a checksum tells
    for number, content in enumerate((whole[:5000], bytes(damaged)), 2):
        path.write_bytes(content)
        backbone.forget_network()
        for shard in backbone.cache_folder("features").rglob("*.npz"):
            shard.unlink()
        again = found_by("openvino", monkeypatch, images)
        np.testing.assert_allclose(again, by_openvino, rtol=1e-5)
        assert len(exports) == number


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("CXR_ENGINE", "tensorrt", "CXR_ENGINE is 'tensorrt': set it to keras or openvino"),
        ("CXR_PRECISION", "float8", "CXR_PRECISION is 'float8': set it to float32 or bfloat16"),
    ],
)
def test_misspelt_settings_are_named(monkeypatch, images, variable, value, message):
    monkeypatch.setenv(variable, value)
    with pytest.raises(engine.EngineError, match=message):
        backbone.features(images, NAME, SIZE, "random")


def test_without_openvino_keras_computes(monkeypatch, images):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        engine, "find_spec", lambda name: None if name == "openvino" else real(name)
    )
    monkeypatch.setitem(sys.modules, "openvino", None)  # an import of it would fail
    monkeypatch.setattr(engine, "SMALLEST", SIZE)
    assert engine.choose(224) == engine.Engine("keras", "float32")
    assert backbone.features(images, NAME, SIZE, "random").shape == (5, 1024)
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
def test_a_network_that_cannot_be_converted_is_computed_by_keras(monkeypatch, images):
    def refuse(*args, **kwargs):
        raise NotImplementedError("no such layer")

    expected = found_by("keras", monkeypatch, images)
    monkeypatch.setattr(keras.Model, "export", refuse)
    with pytest.warns(UserWarning, match="Keras computes the features itself.*no such layer"):
        found = found_by("openvino", monkeypatch, images)
    np.testing.assert_array_equal(found, expected)
    assert not list(backbone.cache_folder("engines").iterdir())
    with pytest.warns(UserWarning, match="no such layer"):  # said again, not tried again
        assert engine.choose(SIZE).name == "keras"


@needs_openvino
def test_bfloat16_is_near_and_said_in_the_results(monkeypatch, tmp_path, images, network, exports):
    monkeypatch.setenv("CXR_PRECISION", "bfloat16")
    if not engine.computes_bfloat16("openvino", ""):
        with pytest.raises(engine.EngineError, match="this processor does not compute in it"):
            engine.choose(32)
        return
    short, exact = found_by("openvino", monkeypatch, images), network[1]
    error = np.abs(short - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 0.1  # 8 significant bits a step, 28 layers
    monkeypatch.setenv("CXR_RUN", str(tmp_path))
    results.record("05_vgg16", profile="quick", parameters={}, cohort=tiny_cohort(4, 1))
    one = results.load(tmp_path, "05_vgg16")
    assert (one.environment["engine"], one.environment["precision"]) == ("openvino", "bfloat16")
    assert "bfloat16" in one.notes[-1]


@needs_openvino
def test_a_worker_keeps_to_its_threads_and_to_no_core(monkeypatch, images, exports):
    """OpenVINO binds one thread to the first core: two workers would share it."""
    import openvino

    compiled, queue = [], openvino.AsyncInferQueue
    monkeypatch.setattr(openvino, "AsyncInferQueue", lambda one: compiled.append(one) or queue(one))
    monkeypatch.setattr(engine.cluster, "on_worker", lambda: True)
    monkeypatch.setattr(engine.cluster, "threads", lambda: 1)
    found_by("openvino", monkeypatch, images)
    names = ("INFERENCE_NUM_THREADS", "ENABLE_CPU_PINNING")
    assert [compiled[0].get_property(name) for name in names] == [1, False]


@needs_openvino
def test_a_processor_without_bfloat16_is_named(monkeypatch):
    monkeypatch.setattr(engine, "computes_bfloat16", lambda name, kind: False)
    monkeypatch.setenv("CXR_PRECISION", "bfloat16")
    with pytest.raises(engine.EngineError, match="this processor does not compute in it: set it"):
        engine.choose(224)


def test_keras_computes_in_bfloat16_where_an_accelerator_does(monkeypatch, images):
    exact = found_by("keras", monkeypatch, images)
    monkeypatch.setattr(engine, "accelerator", lambda: "tpu")
    monkeypatch.setenv("CXR_PRECISION", "bfloat16")
    short = found_by("keras", monkeypatch, images)
    assert short.dtype == np.float32
    assert 1e-5 < np.abs(short - exact).max() / np.abs(exact).max() < 0.1
    assert keras.config.dtype_policy().name == "float32"
    monkeypatch.setattr(engine, "accelerator", lambda: "mps")
    with pytest.raises(engine.EngineError, match="this mps does not compute in it"):
        engine.choose(224)
