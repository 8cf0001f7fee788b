"""cxrlib.bulk: features of many files in a sharded store; what kills do is in test_cluster."""

import os
import shutil

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from cxrlib import backbone, bulk, images
from cxrlib.cli import main
from cxrlib.parallel import cluster

NETWORK = {"name": "MobileNet", "size": 32, "weights": "random"}
BAD = (3, 50)  # rows whose files cannot be read


@pytest.fixture(autouse=True)
def keras(monkeypatch):
    """Leave it to Keras, which is ready at once; test_engine has the others."""
    monkeypatch.setenv("CXR_ENGINE", "keras")
    monkeypatch.setattr(bulk, "CHUNK", 16)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """80 films of 64 x 64, two of them cut off."""
    folder, rng = tmp_path_factory.mktemp("films"), np.random.default_rng(0)
    found = []
    for number in range(80):
        film = cv2.resize(rng.integers(0, 256, (8, 8), np.uint8), (64, 64))
        found.append(folder / f"{number:03}.png")
        cv2.imwrite(str(found[-1]), film)
    for row in BAD:
        found[row].write_bytes(found[row].read_bytes()[:200])
    return found


@pytest.fixture(scope="module")
def expected(paths, tmp_path_factory):
    """What the course's own way gives: decode all, then extract all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("CXR_ENGINE", "keras")
        decoded = images.decode(paths, progress=False)
        found = backbone.features(decoded.images, **NETWORK, progress=False)
    found[list(BAD)] = np.nan
    return found


def agrees(found, expected):
    """Features in batches of another size differ in their last digits, on some processors."""
    np.testing.assert_allclose(found.features[:], expected, rtol=0, atol=1e-5)
    assert set(found.failures()) == set(BAD)
    return True


@pytest.mark.slow
def test_store_holds_what_decode_and_features_give(paths, expected, tmp_path):
    place = tmp_path / "a.zarr"
    found = bulk.extract(paths, place, **NETWORK, pixels=True, shard=20)
    assert agrees(found, expected)
    assert len(list((place / "shards").glob("[0-9]*.json"))) == 3  # 20 is rounded up to 32
    assert found.names() == [str(path) for path in paths]
    assert str(paths[3]) in found.failures()[3]
    assert not found.images[3].any()
    film = images.resize(cv2.imread(str(paths[79]), 0))
    np.testing.assert_array_equal(found.images[79], film)
    assert found.settings["weights_are"] == "random"
    assert agrees(bulk.open_store(place), expected)


@pytest.mark.slow
def test_only_what_is_missing_changed_or_damaged_is_done_again(
    paths, expected, tmp_path, monkeypatch
):
    place, done = tmp_path / "a.zarr", []
    compute = backbone.compute_features
    monkeypatch.setattr(
        backbone, "compute_features", lambda *given: done.append(len(given[0])) or compute(*given)
    )

    def again():
        done.clear()
        assert agrees(bulk.extract(paths, place, **NETWORK, shard=32), expected)
        return done

    backbone.features(np.zeros((1, 64, 64), np.uint8), **NETWORK, progress=False)
    assert again() == [31, 31, 16]
    assert again() == []
    (place / "shards" / "000001.json").unlink()
    with pytest.raises(bulk.StoreError, match="shard 1 is not done"):
        bulk.open_store(place).failures()
    assert again() == [31]
    (place / "features" / "c" / "2" / "0").write_bytes(b"damaged")
    assert again() == [16]
    os.utime(paths[0])
    assert again() == [31]


@pytest.mark.slow
def test_a_store_of_something_else_is_left_alone(paths, tmp_path):
    place = tmp_path / "a.zarr"
    bulk.extract(paths[:20], place, **NETWORK)
    for change, told in (({"size": 64}, "its size is 32, not 64"), ({"pixels": True}, "pixels")):
        with pytest.raises(bulk.StoreError, match=told):
            bulk.extract(paths[:20], place, **NETWORK | change)
    with pytest.raises(bulk.StoreError, match="its images is 20, not 21"):
        bulk.extract(paths[:21], place, **NETWORK)
    with pytest.raises(bulk.StoreError, match="no store of features"):
        bulk.open_store(tmp_path / "nothing.zarr")
    with pytest.raises(bulk.StoreError, match="no file"):
        bulk.extract([], tmp_path / "b.zarr", **NETWORK)


def test_weights_that_a_worker_has_other_than_the_store_are_refused(paths, tmp_path, monkeypatch):
    bulk.extract(paths[:5], tmp_path / "a.zarr", **NETWORK)
    facts = bulk.open_store(tmp_path / "a.zarr").settings | {"weights": "another"}
    monkeypatch.setattr(cluster, "collect", lambda *_, **__: [facts])
    with pytest.raises(bulk.StoreError, match=r"\(another\).*CXR_WEIGHTS"):
        bulk.extract(paths[:5], tmp_path / "b.zarr", **NETWORK)


def test_command_writes_a_store_and_names_what_it_could_not_read(paths, expected, tmp_path):
    few, place = tmp_path / "few", tmp_path / "a.zarr"
    few.mkdir()
    for path in paths[:5]:
        shutil.copy(path, few)
    options = ["--backbone", "MobileNet", "--size", "32", "--weights", "random"]
    done = CliRunner().invoke(main, ["features", str(few), str(place), *options])
    assert done.exit_code == 1, done.output
    assert "5 images, 1,024 features each" in done.output
    assert "random weights; keras on" in done.output
    assert "1 of the images could not be read" in done.output
    assert "003.png" in done.output
    found = bulk.open_store(place).features[:]
    np.testing.assert_allclose(found, expected[:5], rtol=0, atol=1e-5)
    # The same images by a list, relative to it
    listed = few / "list.txt"
    listed.write_text("000.png\n002.png\n\n", encoding="utf-8")
    done = CliRunner().invoke(main, ["features", str(listed), str(tmp_path / "b.zarr"), *options])
    assert done.exit_code == 0, done.output
    again = bulk.open_store(tmp_path / "b.zarr").features[:]
    np.testing.assert_allclose(again, expected[[0, 2]], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "holds no image"), (b"", "is empty"), (b"\x89PNG\xff\xfe", "is no text")],
)
def test_command_names_files_that_hold_no_image(tmp_path, content, message):
    place = tmp_path / "films"
    place.mkdir() if content is None else place.write_bytes(content)
    done = CliRunner().invoke(main, ["features", str(place), str(tmp_path / "a.zarr")])
    assert done.exit_code == 1
    assert "Error:" in done.output
    assert message in done.output
    assert not (tmp_path / "a.zarr").exists()
