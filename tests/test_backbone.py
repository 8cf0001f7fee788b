import keras
import numpy as np
import pytest

from cxrlib import augment, backbone, machine
from cxrlib.compute import engine
from helpers import tiny_cohort

SIZE = 48


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No weights anywhere: empty Keras home, no folder, no network."""
    import requests

    def refuse(*args, **kwargs):
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(requests, "head", refuse)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("CXR_WEIGHTS", raising=False)


@pytest.fixture
def local_weights(monkeypatch, tmp_path):
    """A folder with weights of VGG16's shape, as if they were ImageNet's."""
    folder = tmp_path / "weights"
    folder.mkdir()
    model = keras.applications.VGG16(include_top=False, weights=None)
    model.save_weights(folder / "vgg16_notop.weights.h5")
    monkeypatch.setenv("CXR_WEIGHTS", str(folder))
    return folder, model


def test_features_equal_the_plain_keras_pipeline():
    images = tiny_cohort(patients=6).images
    found = backbone.features(images, "MobileNet", 64, "random")
    model = backbone.load("MobileNet", 64, "random", pooling="avg")
    batch = np.repeat(np.asarray(images, np.float32)[..., None], 3, axis=-1)
    expected = model.predict(keras.applications.mobilenet.preprocess_input(batch), verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert expected.std(axis=0).mean() > 1e-3  # films differ: blank ones would not pass


def test_each_image_passes_the_backbone_once(monkeypatch):
    images = np.asarray(tiny_cohort(patients=6).images)
    seen = []
    resize = backbone.resize
    monkeypatch.setattr(
        backbone, "resize", lambda batch, *rest: seen.append(len(batch)) or resize(batch, *rest)
    )
    first = backbone.features(images[:8], "MobileNet", SIZE, "random")
    twice = backbone.features(np.concatenate([images, images]), "MobileNet", SIZE, "random")
    assert seen == [8, 4]
    np.testing.assert_array_equal(twice[:8], first)  # from the cache
    np.testing.assert_array_equal(twice[:12], twice[12:])


def test_what_another_version_or_setting_computed_is_computed_anew(monkeypatch):
    images, computed = np.asarray(tiny_cohort(patients=4).images), []
    compute = backbone.compute_features
    monkeypatch.setattr(
        backbone, "compute_features", lambda *given: computed.append(1) or compute(*given)
    )

    def passes():
        computed.clear()
        backbone.features(images, "MobileNet", SIZE, "random")
        return len(computed)

    assert [passes(), passes()] == [1, 0]
    monkeypatch.setattr(keras, "version", lambda: "3.0.0")
    assert [passes(), passes()] == [1, 0]
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert [passes(), passes()] == [1, 0]
    monkeypatch.setenv("CXR_HEADS", "numpy")  # trains heads, computes no feature
    assert passes() == 0


def test_reading_ahead_gives_the_same_features_and_keeps_what_is_done(monkeypatch):
    cohort = augment.expand(tiny_cohort(patients=6), copies=2)
    at_once = backbone.features(cohort.images, "MobileNet", SIZE, "random", progress=False)
    assert len(at_once) == 36 and len(np.unique(at_once, axis=0)) == 36
    monkeypatch.setenv("CXR_CACHE", str(backbone.cache_folder("second")))
    monkeypatch.setattr(backbone, "BLOCK", 8)
    computed, compute = [], backbone.compute_features

    def stop_at_third(ready, *given):
        computed.append(len(ready))
        if len(computed) == 3:
            raise KeyboardInterrupt
        return compute(ready, *given)

    monkeypatch.setattr(backbone, "compute_features", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        backbone.features(cohort.images, "MobileNet", SIZE, "random", progress=False)
    again = backbone.features(cohort.images, "MobileNet", SIZE, "random", progress=False)
    assert computed == [8, 8, 8, 8, 8, 4]  # two blocks were kept; the third is done again
    np.testing.assert_allclose(again, at_once, rtol=1e-5, atol=1e-6)


def test_random_weights_are_the_same_every_time_and_say_so():
    one, two = (backbone.load("MobileNet", SIZE, "random", seed=3) for _ in range(2))
    other = backbone.load("MobileNet", SIZE, "random", seed=4)
    kernel = [m.get_layer("conv1").get_weights()[0] for m in (one, two, other)]
    np.testing.assert_array_equal(kernel[0], kernel[1])
    assert not np.array_equal(kernel[0], kernel[2])
    # He et al. 2015: variance 2 / fan-in, here 3 x 3 x 3 inputs
    assert kernel[0].std() == pytest.approx(np.sqrt(2 / 27), rel=0.1)
    weights = backbone.find_weights("MobileNet", "random")
    assert "RANDOM WEIGHTS" in weights._repr_html_()
    assert one.trainable_weights == []


def test_auto_falls_back_to_random_and_imagenet_says_where_to_put_the_file(offline):
    assert backbone.find_weights("VGG16", "auto").kind == "random"
    with pytest.raises(backbone.WeightsError, match=r"vgg16_notop\.weights\.h5.*CXR_WEIGHTS"):
        backbone.find_weights("VGG16", "imagenet")


def test_local_folder_comes_first(offline, local_weights):
    folder, original = local_weights
    found = backbone.find_weights("VGG16", "auto")
    assert found.kind == "imagenet" and found.path == str(folder / "vgg16_notop.weights.h5")
    loaded = backbone.load("VGG16", SIZE, found)
    np.testing.assert_array_equal(loaded.get_weights()[0], original.get_weights()[0])
    assert str(folder) not in str(found.describe())
    assert backbone.find_weights("VGG19", "auto").kind == "random"


def test_weights_of_another_network_are_refused(offline, local_weights):
    folder, _ = local_weights
    path = str(folder / "vgg16_notop.weights.h5")
    for other in ("VGG19", "MobileNet"):
        with pytest.raises(backbone.WeightsError, match=f"does not hold the weights of {other}"):
            backbone.load(other, SIZE, path)


def test_damaged_weights_are_refused(offline, local_weights):
    folder, _ = local_weights
    path = folder / "vgg16_notop.weights.h5"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(backbone.WeightsError, match="damaged"):
        backbone.load("VGG16", SIZE, "imagenet")


@pytest.mark.parametrize(
    ("name", "file", "expected"),
    [
        ("ResNet50", "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", True),
        ("ResNet50", "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5", False),
        ("VGG16", "vgg16_weights_tf_dim_ordering_tf_kernels.h5", False),
        ("EfficientNetB0", "efficientnetb0_notop.h5", True),
        ("VGG16", "vgg16_notop.weights.h5", True),
        ("MobileNet", "mobilenet_1_0_224_tf_no_top.h5", True),
        ("MobileNetV3Small", "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5", True),
    ],
)
def test_weights_files_are_recognised_by_name(name, file, expected):
    assert backbone.is_weights_of(name, file) is expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: backbone.find_weights("ResNet5O"), "Did you mean"),
        (lambda: backbone.find_weights("VGG16", "/nowhere/w.h5"), "no weights file /nowhere/w.h5"),
        (lambda: backbone.load("VGG16", 8, "random"), "cannot take images of 8 x 8"),
    ],
)
def test_bad_names_and_sizes_are_named(call, message):
    with pytest.raises(backbone.WeightsError, match=message):
        call()


def test_a_weights_folder_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("CXR_WEIGHTS", "/nowhere")
    with pytest.raises(NotADirectoryError, match="CXR_WEIGHTS names /nowhere"):
        backbone.find_weights("VGG16", "auto")


@pytest.mark.parametrize(
    ("name", "module"),
    [
        *(("ResNet50", "resnet"), ("VGG16", "vgg16"), ("MobileNet", "mobilenet")),
        *(("DenseNet121", "densenet"), ("EfficientNetB0", "efficientnet")),
    ],
)
def test_images_are_prepared_as_keras_wants_them(name, module):
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 40), dtype=np.uint8)
    colours = np.repeat(images[..., None], 3, axis=3).astype(np.float32)
    expected = getattr(keras.applications, module).preprocess_input(colours)
    found = backbone.prepare(images, name, 40)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["MobileNet", "VGG16", "DenseNet121", "EfficientNetB0"])
def test_a_network_prepares_grey_images_as_keras_wants_them(name):
    grey = np.random.default_rng(0).integers(0, 256, (3, 40, 40), dtype=np.uint8)
    nothing = keras.Sequential([keras.Input((40, 40, 3)), keras.layers.Identity()])
    found = np.asarray(backbone.from_grey(nothing, name).predict(grey, verbose=0))
    np.testing.assert_allclose(found, backbone.prepare(grey, name, 40), rtol=1e-5, atol=1e-5)


def test_an_accelerator_gets_bytes_in_large_batches_and_the_next_block_is_read(monkeypatch):
    cohort = augment.expand(tiny_cohort(patients=6), copies=2)  # 36 images
    monkeypatch.setenv("CXR_ENGINE", "keras")
    plain = backbone.features(cohort.images, "MobileNet", SIZE, "random", progress=False)
    monkeypatch.setenv("CXR_CACHE", str(backbone.cache_folder("second")))
    monkeypatch.setattr(machine, "accelerator", lambda: "gpu")
    monkeypatch.setattr(engine, "accelerator", lambda: "gpu")
    monkeypatch.setattr(machine, "ask_system", lambda *command: "9.0")
    monkeypatch.setattr(machine, "engines_used", set())
    monkeypatch.setattr(backbone, "ON_DEVICE", 4)
    copied, read, make, resize = [], [], engine._asker, backbone.resize

    def asker(model):
        ask = make(model)
        return lambda batch: copied.append((batch.shape, batch.nbytes, len(read))) or ask(batch)

    def count(images, size):
        read.append(len(images))
        return resize(images, size)

    monkeypatch.setattr(engine, "_asker", asker)
    monkeypatch.setattr(backbone, "resize", count)
    found = backbone.features(cohort.images, "MobileNet", SIZE, "random", progress=False)
    np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-5)
    assert read == [16, 16, 4]  # blocks of four batches
    assert [shape for shape, *_ in copied] == [(4, SIZE, SIZE)] * 9
    assert {size for _, size, _ in copied} == {4 * SIZE * SIZE}  # a twelfth of float32, 3 channels
    assert machine.engines_used == {("keras", "tf32")}
