"""Radiographs and cohorts: truth, seeds, confounding, and whether lessons can be learned."""

import hashlib
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrlib.parallel import disk
from cxrlib.phantom import radiograph
from cxrlib.phantom.radiograph import SCANNERS, PhantomError, make_cohort, render

SMALL = 60
PINNED = "cde343a35740ee37b620393571c86342252e6d72813284a9ee1d1ecc339ddb6d"


def border(cohort, size=SMALL):
    """Outer tenth of each image, as columns."""
    strip = np.ones((size, size), dtype=bool)
    strip[size // 10 : -size // 10, size // 10 : -size // 10] = False
    return cohort.images[:][:, strip]


def ill(cohort):
    return (cohort.table["label"] != "healthy").to_numpy()


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(60, size=100, seed=7)


def test_masks_match_the_findings(cohort):
    lungs, lesions = cohort.masks["lungs"][:], cohort.masks["lesions"][:]
    assert lungs.shape == lesions.shape == cohort.images.shape
    assert lungs.dtype == lesions.dtype == bool
    assert cohort.images.dtype == np.uint8
    assert not (lesions & ~lungs).any()
    assert not lesions[~ill(cohort)].any()
    assert lesions[ill(cohort)].any(axis=(1, 2)).all()


def test_images_of_one_patient_share_the_anatomy(cohort):
    table, lungs = cohort.table, cohort.masks["lungs"][:]

    def overlap(i, j):
        return (lungs[i] & lungs[j]).sum() / (lungs[i] | lungs[j]).sum()

    same = [
        overlap(rows[0], rows[1])
        for rows in table.groupby("patient").indices.values()
        if len(rows) > 1
    ]
    first = table.drop_duplicates("patient").index.to_numpy()
    different = [overlap(i, j) for i, j in pairwise(first)]
    assert np.mean(same) > np.mean(different) + 0.04
    assert (table.groupby("patient")[["label", "scanner", "view"]].nunique() == 1).all(axis=None)
    assert set(table.groupby("patient").size()) == {1, 2, 3}


def test_patients_do_not_depend_on_how_many_there_are():
    few, many = make_cohort(6, size=40, seed=2), make_cohort(12, size=40, seed=2)
    np.testing.assert_array_equal(few.images[:], many.images[: len(few)])
    assert few.table.equals(many.table.iloc[: len(few)])


def test_labels_are_balanced_and_the_order_tells_nothing(cohort):
    patients = cohort.table.drop_duplicates("patient")
    assert (patients["label"].value_counts() == 20).all()
    assert len(set(patients["label"][::3])) > 1


def test_confounding_ties_the_scanner_to_the_label_as_far_as_asked():
    from scipy.stats import chi2_contingency

    def patients(knob):
        table = make_cohort(300, (1, 1), confounding=knob, size=32, seed=1).table
        return table.groupby(["label", "scanner"]).size().unstack(fill_value=0)

    free, tied = patients(0.0), patients(1.0)
    assert chi2_contingency(free).pvalue > 0.01
    assert ((tied > 0).sum(axis=1) == 1).all() and ((tied > 0).sum(axis=0) == 1).all()
    half = patients(0.5)
    # The tied half, and one in five of the rest by chance.
    assert half.max(axis=1).sum() / 300 == pytest.approx(0.5 + 0.5 / len(SCANNERS), abs=0.07)


def test_confounding_changes_the_scanners_and_not_the_bodies():
    free, tied = (make_cohort(9, size=60, seed=3, confounding=knob) for knob in (0.0, 1.0))
    assert free.table["label"].equals(tied.table["label"])
    same = (free.table["scanner"] == tied.table["scanner"]).to_numpy()
    assert not same.all()
    np.testing.assert_array_equal(free.images[same], tied.images[same])


def test_same_bits_with_any_number_of_threads():
    import cv2

    before, found = cv2.getNumThreads(), []
    try:
        for threads in (1, 2, 4):
            cv2.setNumThreads(threads)
            found.append(make_cohort(3, (1, 2), size=300, seed=1).images[:])
    finally:
        cv2.setNumThreads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_same_bits_on_every_platform():
    """The one pinned output: a change here changes every phantom result of the course."""
    digest = hashlib.sha256()
    for size in (75, 300):
        made = make_cohort(15, (1, 2), size=size, seed=0)
        for pixels in (made.images[:], made.masks["lungs"][:], made.masks["lesions"][:]):
            digest.update(np.ascontiguousarray(pixels).tobytes())
    assert digest.hexdigest() == PINNED


def test_the_border_strip_says_nothing_at_zero_and_everything_at_one():
    """A linear model on the outer tenth, trained and tested on different patients."""

    def aucs(knob, seeds):
        cohorts = [
            make_cohort(150, (1, 1), confounding=knob, size=SMALL, seed=seed)
            for seed in range(seeds)
        ]
        for train, test in zip(cohorts, cohorts[1:] + cohorts[:1], strict=True):
            model = make_pipeline(
                StandardScaler(), PCA(20, random_state=0), LogisticRegression(C=0.1, max_iter=500)
            ).fit(border(train), ill(train))
            yield roc_auc_score(ill(test), model.predict_proba(border(test))[:, 1])

    chance = np.array(list(aucs(0.0, 5)))
    error = chance.std(ddof=1) / np.sqrt(len(chance))
    assert abs(chance.mean() - 0.5) < 2.78 * max(error, 0.02)  # 95 %, 4 degrees of freedom
    assert min(aucs(1.0, 2)) > 0.98


def test_lesions_stay_out_of_the_border_strip(cohort):
    lungs = cohort.masks["lungs"][:].copy()
    lungs[:, 10:-10, 10:-10] = False
    assert not lungs.any()


def test_the_mean_grey_value_does_not_tell_the_ill(cohort):
    grey = cohort.images[:].mean(axis=(1, 2))
    assert 0.3 < roc_auc_score(ill(cohort), grey) < 0.7


def zones(cohort):
    """Grey values in 4 x 4 parts of the lungs, as ranks among all of the image."""
    found = []
    for image, lungs in zip(cohort.images[:], cohort.masks["lungs"][:], strict=True):
        rank = np.searchsorted(np.sort(image.ravel()), image) / image.size
        rows, columns = (np.flatnonzero(lungs.any(axis=axis)) for axis in (1, 0))
        parts = [rank[lungs]]
        for band in np.array_split(np.arange(rows[0], rows[-1] + 1), 4):
            for strip in np.array_split(np.arange(columns[0], columns[-1] + 1), 4):
                where = np.ix_(band, strip)
                parts.append(np.append(rank[where][lungs[where]], 0.5))
        found.append([f(part) for part in parts for f in (np.mean, np.std, np.max)])
    return np.array(found)


def test_a_linear_model_finds_the_ill_among_new_patients_by_their_lungs():
    train, test = (make_cohort(count, (1, 1), size=75, seed=count) for count in (400, 150))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    model.fit(zones(train), ill(train))
    assert roc_auc_score(ill(test), model.predict_proba(zones(test))[:, 1]) > 0.9


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"label": "flu"}, "flu.*covid"),
        ({"scanner": "toaster"}, "toaster.*digital"),
        ({"size": 8}, "8"),
        ({"severity": 0}, "severity"),
        ({"seed": -1}, "seed"),
        ({"image": -1}, "image"),
    ],
)
def test_render_refuses_and_says_why(wrong, names):
    with pytest.raises(PhantomError, match=names):
        render(**wrong)


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"labels": ("healthy", "flu")}, "flu"),
        ({"labels": ()}, "label"),
        ({"labels": ("covid", "covid")}, "once"),
        ({"scanners": ("toaster",)}, "toaster"),
        ({"scanners": ()}, "scanner"),
        ({"scanners": ("film",), "confounding": 0.5}, "give away"),
        ({"confounding": 1.2}, "1.2"),
        ({"confounding": float("nan")}, "nan"),
        ({"patients": 2}, "2 patients"),
        ({"images_per_patient": (0, 2)}, "images_per_patient"),
        ({"images_per_patient": (3, 2)}, "images_per_patient"),
        ({"images_per_patient": 2}, "images_per_patient"),
        ({"size": 5}, "5"),
        ({"seed": -1}, "seed"),
    ],
)
def test_make_cohort_refuses_and_says_why(wrong, names):
    with pytest.raises(PhantomError, match=names):
        make_cohort(**wrong)


def test_lessons_draw_a_cohort_once(monkeypatch, own_cache):
    drawn, draw = [], radiograph.render
    monkeypatch.setattr(radiograph, "MANY", 5)
    monkeypatch.setattr(radiograph, "render", lambda *plan: drawn.append(plan) or draw(*plan))
    known = []
    for _ in range(2):
        known.append(make_cohort(5, (1, 1), size=97, seed=3))
    (kept,) = own_cache.rglob("*.npz")
    kept.write_bytes(kept.read_bytes()[:-5000])
    known += [make_cohort(5, (1, 1), size=97, seed=3), make_cohort(5, (1, 1), size=97, seed=4)]
    assert len(drawn) == 15  # once, again where the file is damaged, and other patients
    for cohort in known[1:3]:
        np.testing.assert_array_equal(cohort.images[:], known[0].images[:])
        for mask in ("lungs", "lesions"):
            assert cohort.masks[mask][:].dtype == bool
            np.testing.assert_array_equal(cohort.masks[mask][:], known[0].masks[mask][:])
    assert known[0].masks["lesions"][:].any() and known[0].masks["lungs"][:].mean() < 0.9


def test_without_a_cache_a_cohort_is_drawn(monkeypatch, tmp_path):
    monkeypatch.setattr(radiograph, "MANY", 2)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "file"))
    assert len(make_cohort(3, (1, 1), size=97)) == 3


def on_disk(monkeypatch, **changed):
    """Make a cohort as if it were large, three images to a block."""
    monkeypatch.setattr(radiograph, "LARGE", 0)
    monkeypatch.setattr(disk, "BLOCK", 3)
    return make_cohort(5, (1, 2), size=40, seed=3, **changed)


def test_a_large_cohort_has_the_same_bits(monkeypatch):
    small = make_cohort(5, (1, 2), size=40, seed=3)
    large = on_disk(monkeypatch)
    assert isinstance(large.images.array, np.memmap) and not isinstance(
        small.images.array, np.memmap
    )
    assert large.table.equals(small.table) and large.name == small.name
    assert large.images[:].tobytes() == small.images[:].tobytes()
    part, same = (each.where(label="covid") for each in (large, small))
    for mask in ("lungs", "lesions"):
        assert large.masks[mask].shape == small.masks[mask].shape
        for key in (1, slice(1, 3), [2, 0], small.table["label"].to_numpy() == "covid"):
            drawn = large.masks[mask][key]
            assert drawn.dtype == bool
            np.testing.assert_array_equal(drawn, small.masks[mask][key])
        np.testing.assert_array_equal(part.masks[mask][:], same.masks[mask][:])


def test_a_large_cohort_is_made_once_and_goes_on_where_it_stopped(monkeypatch, own_cache):
    calls, draw = [], radiograph.render

    def stopping(*plan):
        calls.append(plan)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return draw(*plan)

    monkeypatch.setattr(radiograph, "share", lambda work, count, *_: list(map(work, range(count))))
    monkeypatch.setattr(radiograph, "render", stopping)
    with pytest.raises(KeyboardInterrupt):
        on_disk(monkeypatch)
    monkeypatch.setattr(radiograph, "render", lambda *plan: calls.append(plan) or draw(*plan))
    cohort = on_disk(monkeypatch)
    assert len(calls) == 5 + len(cohort) - 3  # the first block was kept
    on_disk(monkeypatch)
    assert len(calls) == 5 + len(cohort) - 3
    assert len(list(own_cache.glob("phantoms/*"))) == 1
    on_disk(monkeypatch, confounding=1.0)
    assert len(list(own_cache.glob("phantoms/*"))) == 2


def test_a_large_cohort_says_that_there_is_no_room(monkeypatch, own_cache):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(
        OSError, match=rf"{own_cache}.*disk is full.*CXR_CACHE.*Making .* images takes"
    ):
        on_disk(monkeypatch)
