import numpy as np
import pytest

from cxrlib import augment
from cxrlib.cohort import CohortError
from helpers import tiny_cohort

RAMP = np.tile(np.arange(0, 250, dtype=np.uint8), (250, 1))


def test_flip_mirrors_left_and_right():
    assert np.array_equal(augment.flip(RAMP), RAMP[:, ::-1])


def test_crop_keeps_size_and_magnifies():
    rng = np.random.default_rng(0)
    window = augment.crop(RAMP, 0.5, rng)
    assert window.shape == RAMP.shape
    # half as many grey levels over the same width: the slope of the ramp is halved
    assert np.diff(window[0, 10:-10].astype(float)).mean() == pytest.approx(0.5, abs=0.02)
    assert np.array_equal(augment.crop(RAMP, 1.0, rng), RAMP)


def test_noise_has_the_spread_that_was_asked_for():
    grey = np.full((400, 400), 128, np.uint8)
    noisy = augment.noise(grey, 8.0, np.random.default_rng(0)).astype(float)
    assert noisy.mean() == pytest.approx(128, abs=0.1)
    # rounding to whole grey levels adds a variance of 1/12
    assert noisy.std() == pytest.approx(np.sqrt(64 + 1 / 12), rel=0.01)
    assert np.array_equal(augment.noise(grey, 0.0, np.random.default_rng(0)), grey)


@pytest.mark.parametrize("sigma", [0.4, 3.0, 8.0])
def test_noise_is_rounded_gaussian_noise(sigma):
    from scipy.stats import chisquare, norm

    grey = np.full((1000, 1000), 128, np.uint8)
    found = augment.noise(grey, sigma, np.random.default_rng(0)).astype(int) - 128
    last = int(3 * sigma + 1)  # what lies further out counts as one more level
    edges = np.concatenate([[-np.inf], np.arange(-last, last + 2) - 0.5, [np.inf]])
    expected = np.diff(norm.cdf(edges / sigma)) * found.size
    counts = np.histogram(found, np.nan_to_num(edges, posinf=1e9, neginf=-1e9))[0]
    assert chisquare(counts, expected).pvalue > 1e-3


def test_noise_of_neighbours_is_independent():
    from scipy.stats import norm

    grey = np.full((500, 500), 128, np.uint8)
    found = augment.noise(grey, 8, np.random.default_rng(1)).astype(float) - 128
    limit = norm.ppf(1 - 1e-4) / np.sqrt(grey.size)
    for down, right in [(0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 1)]:
        one, other = found[down:, right:], found[: 500 - down, : 500 - right]
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < limit


def test_noise_stops_at_black_and_white():
    for grey, sigma in [(0, 8), (255, 8), (100, 1e6)]:
        noisy = augment.noise(np.full((99, 77), grey, np.uint8), sigma, np.random.default_rng(0))
        assert noisy.shape == (99, 77) and noisy.dtype == np.uint8
        # half of the noise goes beyond the end, or all of it to one end or the other
        ends = [(noisy == 0).mean(), (noisy == 255).mean()]
        assert 0.45 < max(ends) < 0.56
        assert sigma == 8 or sum(ends) > 0.99


@pytest.mark.parametrize("share", [0, -1, 1.2])
def test_impossible_crops_are_refused(share):
    with pytest.raises(ValueError, match="share"):
        augment.crop(RAMP, share, np.random.default_rng(0))


def test_negative_noise_is_refused():
    with pytest.raises(ValueError, match="standard deviation"):
        augment.noise(RAMP, -1, np.random.default_rng(0))


def test_expand_adds_copies_and_remembers_the_origin():
    cohort = tiny_cohort(patients=6)
    more = augment.expand(cohort, copies=3)
    assert len(more) == 4 * len(cohort)
    assert more.table["image"].is_unique
    assert (more.table.groupby("origin")["copy"].apply(list).map(tuple) == (0, 1, 2, 3)).all()
    originals = more.take((more.table["copy"] == 0).to_numpy())
    assert np.array_equal(np.asarray(originals.images), np.asarray(cohort.images))
    first = np.asarray(more.images)[:4]
    assert len({image.tobytes() for image in first}) == 4


def test_a_copy_does_not_depend_on_what_else_is_expanded():
    cohort = tiny_cohort(patients=6)
    whole = augment.expand(cohort, copies=2)
    part = augment.expand(cohort.take([5, 7]), copies=2)
    for row, name in enumerate(part.table["image"]):
        place = whole.table.index[whole.table["image"] == name][0]
        assert np.array_equal(part.images[row], whole.images[place])


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_copies_do_not_depend_on_the_number_of_threads(monkeypatch, threads):
    more = augment.expand(tiny_cohort(patients=6), copies=3)
    one_by_one = np.stack([more.images[row] for row in range(len(more))])
    monkeypatch.setattr("cxrlib.parallel.threads.cores", lambda: threads)
    assert np.array_equal(more.images[:], one_by_one)


def test_copies_of_copies_and_negative_numbers_are_refused():
    with pytest.raises(CohortError, match="already"):
        augment.expand(augment.expand(tiny_cohort(4), 1), 1)
    with pytest.raises(CohortError, match="0 or more"):
        augment.expand(tiny_cohort(4), -1)
