import numpy as np
import pandas as pd
import pytest

from cxrlib import phantom
from cxrlib.cohort import Cohort
from cxrlib.shortcuts import views


def cohort_of(images, **columns):
    names = [f"i{number}" for number in range(len(images))]
    given = {"image": names, "patient": names, "label": ["a", "b"] * (len(images) // 2)}
    table = pd.DataFrame(given | columns)
    return Cohort(table.assign(source="test", view="PA", licence="none"), images)


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (4, 96, 96), dtype=np.uint8)


@pytest.mark.parametrize("side", [96, 100, 300])
def test_a_cover_hides_the_centre_and_keeps_the_edge(side):
    white = np.full((1, side, side), 255, np.uint8)
    for view in ("lungs covered", "border", "corners"):
        seen = views.cover(white, view)[0]
        assert seen[side // 2, side // 2] == 0
        assert seen[0, 0] == seen[-1, -1] == 255
        assert (seen == seen.T).all() and (seen == seen[::-1]).all()


def test_views_leave_the_shares_that_they_state():
    shares = {view: views.visible(view, 240).mean() for view in views.VIEWS}
    assert shares["border"] == pytest.approx(1 - (22 / 24) ** 2)
    assert shares["lungs covered"] == pytest.approx(1 - (20 / 24) ** 2)
    assert shares["corners"] == pytest.approx(4 * (3 / 24) ** 2)
    assert shares["whole image"] == 1


def test_no_phantom_lung_shows_where_lungs_are_covered():
    cohort = phantom.make_cohort(patients=24, size=120, seed=3)
    for view in ("lungs covered", "border", "corners"):
        assert not cohort.masks["lungs"][:][:, views.visible(view, 120)].any(), view


@pytest.mark.parametrize("view", ["lungs covered", "border", "corners"])
def test_what_is_hidden_changes_no_feature(noise, view):
    changed = noise.copy()
    changed[:, ~views.visible(view, 96)] = 7
    before, after = (views.features(cohort_of(images), view) for images in (noise, changed))
    np.testing.assert_array_equal(before, after)
    assert not np.array_equal(before, views.features(cohort_of(255 - noise), view))


def test_whole_image_features_are_means_and_steps_of_squares():
    image = np.zeros((1, 48, 48), np.uint8)
    image[0, :2, :2] = [[10, 20], [30, 40]]
    found = views.features(cohort_of(np.repeat(image, 2, axis=0)))[0]
    assert found.shape == (2 * 24 * 24,)
    assert found[0] == 25
    assert found[576] == pytest.approx(np.log1p(20 + 10))  # vertical steps 20, horizontal 10
    assert found[1:576].max() == 0


def test_histogram_knows_no_places_and_thumbnail_no_detail(noise):
    mixed = noise.reshape(4, -1)[:, np.random.default_rng(1).permutation(96 * 96)]
    mixed = mixed.reshape(noise.shape)
    both = [views.features(cohort_of(images), "histogram") for images in (noise, mixed)]
    np.testing.assert_allclose(both[0], both[1])
    assert (both[0] ** 2).sum(axis=1) == pytest.approx(1)
    thumbnail = views.features(cohort_of(noise), "thumbnail")
    assert thumbnail.shape == (4, 64)
    assert thumbnail[0, 0] == pytest.approx(noise[0, :12, :12].mean(), abs=0.51)


def test_file_facts_see_no_pixel(noise):
    facts = {"format": ["PNG", "JPEG"] * 2, "height": [10, 20, 10, 20], "width": 30}
    found = views.features(cohort_of(noise, **facts), "file")
    np.testing.assert_array_equal(found, views.features(cohort_of(255 - noise, **facts), "file"))
    np.testing.assert_array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[1])


def test_a_backbone_sees_covered_images(noise):
    seen = []

    def extract(images):
        seen.append(images[:])
        return np.asarray(images[:]).reshape(len(images), -1)[:, :5]

    views.features(cohort_of(noise), "border", extract)
    np.testing.assert_array_equal(seen[0], views.cover(noise, "border"))
    views.features(cohort_of(noise), "histogram", extract)
    assert len(seen) == 1


def test_unknown_views_and_unknown_files_are_named(noise):
    with pytest.raises(views.ShortcutError, match=r"no view 'lung'.*border"):
        views.features(cohort_of(noise), "lung")
    with pytest.raises(views.ShortcutError, match="lacks format, height, width"):
        views.features(cohort_of(noise), "file")
