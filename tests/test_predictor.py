import json

import keras
import numpy as np
import pytest

from cxrlib import backbone, explain, predictor, training
from helpers import tiny_cohort

CLASSES = ["healthy", "covid"]


@pytest.fixture(scope="module")
def images():
    return np.asarray(tiny_cohort(patients=8, side=300).images)


def head_on_backbone(images):
    weights = backbone.find_weights("MobileNet", "random")
    features = backbone.features(images, "MobileNet", 48, weights)
    head = training.dense_head(features, neurons=8)
    return predictor.Predictor(head, CLASSES, "MobileNet", 48, weights, {"synthetic": True})


def small_cnn():
    layers = keras.layers
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(3, "softmax"),
        ]
    )
    return predictor.Predictor(model, ["healthy", "pneumonia", "covid"])


@pytest.mark.parametrize("kind", ["backbone", "cnn"])
def test_a_saved_model_says_the_same(kind, images, tmp_path):
    original = head_on_backbone(images) if kind == "backbone" else small_cnn()
    training.compile_model(original.model, 1e-3)  # as after training
    loaded = predictor.load(original.save(tmp_path / "model"))
    np.testing.assert_allclose(
        loaded.probabilities(images), original.probabilities(images), atol=1e-6
    )
    assert loaded.classes == original.classes and loaded.provenance == original.provenance


def test_prediction_has_probabilities_heat_map_and_warnings(images, tmp_path):
    import cv2

    path = tmp_path / "film.png"
    cv2.imwrite(str(path), images[0][:200, :90])
    found = head_on_backbone(images).predict(path)
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert found.label in CLASSES
    assert found.heat_map.shape == found.image.shape == (300, 300)
    assert found.heat_map.min() >= 0 and found.heat_map.max() <= 1
    text = " ".join(found.warnings)
    assert "synthetic" in text and "random weights" in text and "small (90 x 200" in text
    assert "far from square" in text


def test_what_is_odd_about_a_film_is_among_the_warnings(images, tmp_path):
    from PIL import Image

    first, then = (Image.fromarray(image) for image in images[:2])
    first.save(tmp_path / "film.tif", save_all=True, append_images=[then])
    found, same = (small_cnn().predict(film) for film in (tmp_path / "film.tif", images[0]))
    assert found.probabilities == same.probabilities
    assert found.warnings == ["The film: the first of several frames or pages."]


def test_no_model_damaged_model_and_foreign_model_are_told_apart(images, tmp_path):
    with pytest.raises(predictor.PredictorError, match="holds no model"):
        predictor.load(tmp_path)
    folder = small_cnn().save(tmp_path / "model")
    card = json.loads((folder / predictor.CARD).read_text())
    card["architecture"]["class_name"] = "FromTheFuture"
    (folder / predictor.CARD).write_text(json.dumps(card))
    with pytest.raises(predictor.PredictorError, match="cannot be read by Keras"):
        predictor.load(folder)
    weights = folder / predictor.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(predictor.PredictorError, match="damaged"):
        predictor.load(folder)


def test_a_head_is_not_put_on_other_weights_than_its_own(images, tmp_path, monkeypatch):
    files = [tmp_path / "own.weights.h5", tmp_path / "mobilenet_notop.weights.h5"]
    for seed, path in enumerate(files):
        backbone.load("MobileNet", 48, "random", seed=seed).save_weights(path)
    weights = backbone.find_weights("MobileNet", str(files[0]))
    features = backbone.features(images, "MobileNet", 48, weights)
    head = training.dense_head(features, neurons=8)
    folder = predictor.Predictor(head, CLASSES, "MobileNet", 48, weights).save(tmp_path / "model")
    monkeypatch.setenv("CXR_WEIGHTS", str(tmp_path))
    with pytest.raises(predictor.PredictorError, match=r"trained on the backbone weights in own"):
        predictor.load(folder)


def test_an_interrupted_save_leaves_no_model(images, tmp_path, monkeypatch):
    model = small_cnn()
    model.save(tmp_path)
    monkeypatch.setattr(predictor, "write_json", lambda *a: (_ for _ in ()).throw(OSError(28)))
    with pytest.raises(OSError):
        model.save(tmp_path)
    with pytest.raises(predictor.PredictorError, match="holds no model"):
        predictor.load(tmp_path)


@pytest.mark.parametrize("kind", ["backbone", "cnn"])
def test_one_image_is_told_what_many_are_told_and_leaves_nothing_behind(kind, images, own_cache):
    model = head_on_backbone(images) if kind == "backbone" else small_cnn()
    before = {path: path.stat().st_mtime_ns for path in own_cache.rglob("*")}
    rng = np.random.default_rng(3)
    for film in [*images[:3], rng.integers(0, 255, (300, 300)).astype(np.uint8)]:
        found = model.predict(film)
        assert {path: path.stat().st_mtime_ns for path in own_cache.rglob("*")} == before
        told = np.array(list(found.probabilities.values()))
        number = int(told.argmax())
        heat = model.heat_maps(film[None], number)[0]  # made anew, not with what was kept
        np.testing.assert_allclose(found.heat_map, heat, atol=1e-4)
        again = explain.enlarge(explain.weigh(*model.evidence(film[None], number)), 300)[0]
        np.testing.assert_allclose(again, heat, atol=1e-6)
        if kind == "cnn":
            np.testing.assert_allclose(told, model.probabilities(film[None])[0], atol=1e-6)
    if kind == "backbone":
        expected = model.probabilities(images[:1])[0]
        told = list(model.predict(images[0]).probabilities.values())
        np.testing.assert_allclose(told, expected, atol=1e-5)
