"""The phantom's physics, truth, scanners and seeds, and whether lessons can be learned on it."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrlib.phantom.radiograph import SCANNERS, PhantomError, make_cohort, render
from cxrlib.phantom.scanner import transmission

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


# Physics


def test_transmission_is_beer_lambert():
    depth = np.linspace(0, 5, 200)
    once = transmission(depth) / 65535
    np.testing.assert_allclose(once, np.exp(-depth), atol=2e-4)
    np.testing.assert_allclose(transmission(2 * depth) / 65535, once * once, atol=5e-4)


def test_fluid_in_the_lung_is_brighter_and_air_outside_black():
    well, sick = (render(label, seed=3, severity=1.0) for label in ("healthy", "pneumonia"))
    where = sick.lesions
    difference = sick.image.astype(int) - well.image
    assert difference[where].mean() > 20
    assert abs(difference[~sick.lungs]).mean() < 3
    assert well.image[150, :3].mean() < 40 or well.image[299, :3].mean() < 40


def test_anatomy_stands_where_it_should():
    for seed in range(12):
        phantom = render(seed=seed, scanner="digital")
        image, lungs = phantom.image.astype(float), phantom.lungs
        assert 0.12 < lungs.mean() < 0.4
        middle = image[100:200, 145:155].mean()
        assert middle > image[lungs].mean() + 40  # mediastinum against lungs
        right, left = lungs[:, :150].sum(), lungs[:, 150:].sum()
        assert right > left  # the heart takes its room from the patient's left lung


# Truth


def test_masks_match_the_findings(cohort):
    lungs, lesions = cohort.masks["lungs"][:], cohort.masks["lesions"][:]
    assert lungs.shape == lesions.shape == cohort.images.shape
    assert lungs.dtype == lesions.dtype == bool
    assert cohort.images.dtype == np.uint8
    assert not (lesions & ~lungs).any()
    assert not lesions[~ill(cohort)].any()
    assert lesions[ill(cohort)].any(axis=(1, 2)).all()


def sides(phantom):
    """Lesion pixels to the left and right of the middle between the lungs."""
    columns = np.flatnonzero(phantom.lungs.any(axis=0))
    middle = (columns[0] + columns[-1]) // 2
    return phantom.lesions[:, :middle].sum(), phantom.lesions[:, middle:].sum()


@pytest.mark.parametrize("seed", range(10))
def test_pneumonia_is_one_sided_and_covid_bilateral_and_low(seed):
    one, other = sorted(sides(render("pneumonia", seed=seed)))
    assert one == 0 < other
    covid = render("covid", seed=seed)
    assert min(sides(covid)) > 0
    assert np.nonzero(covid.lesions)[0].mean() > np.nonzero(covid.lungs)[0].mean() - 15


def test_covid_lies_further_out_than_pneumonia():
    def offset(label):
        away = []
        for seed in range(25):
            columns = np.nonzero(render(label, seed=seed, size=100).lesions)[1]
            away.append(np.abs(columns - 50).mean())
        return np.mean(away)

    assert offset("covid") > offset("pneumonia") + 3


@pytest.mark.parametrize("scanner", SCANNERS)
def test_a_disease_changes_the_lungs_and_not_the_border_strip(scanner):
    """The same patient well and ill: what is left outside the lungs is scattered light."""
    for seed in range(8):
        well, sick = (render(label, scanner, seed, severity=1.0) for label in ("healthy", "covid"))
        np.testing.assert_array_equal(well.lungs, sick.lungs)
        difference = np.abs(sick.image.astype(int) - well.image)
        difference[30:-30, 30:-30] = 0
        assert difference.sum() / (300 * 300 - 240 * 240) < 0.1  # grey values


def test_severity_grows_the_opacity():
    mild, grave = (render("covid", seed=5, severity=value) for value in (0.1, 1.0))
    assert grave.image[grave.lesions].mean() > mild.image[grave.lesions].mean() + 10


# Patients and scanners


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


def test_images_of_one_patient_are_not_copies():
    first, second = (render("covid", seed=4, image=image).image for image in (0, 1))
    assert np.mean(first != second) > 0.3


def test_patients_do_not_depend_on_how_many_there_are():
    few, many = make_cohort(6, size=40, seed=2), make_cohort(12, size=40, seed=2)
    np.testing.assert_array_equal(few.images[:], many.images[: len(few)])
    assert few.table.equals(many.table.iloc[: len(few)])


def test_labels_are_balanced_and_the_order_tells_nothing(cohort):
    patients = cohort.table.drop_duplicates("patient")
    assert (patients["label"].value_counts() == 20).all()
    assert len(set(patients["label"][::3])) > 1


def test_the_table_describes_the_file_of_the_scanner(cohort):
    for row in cohort.table.itertuples():
        machine = SCANNERS[row.scanner]
        assert (row.format, row.height, row.width) == (
            machine.format,
            machine.height,
            machine.width,
        )
        assert row.view == ("AP" if machine.portable else "PA")
    assert set(cohort.table["scanner"]) == set(SCANNERS)
    assert len(SCANNERS) >= 4


def test_confounding_ties_the_scanner_to_the_label_as_far_as_asked():
    from scipy.stats import chi2_contingency

    def patients(knob):
        table = make_cohort(450, (1, 1), confounding=knob, size=32, seed=1).table
        return table.groupby(["label", "scanner"]).size().unstack(fill_value=0)

    free, tied = patients(0.0), patients(1.0)
    assert chi2_contingency(free).pvalue > 0.01
    assert ((tied > 0).sum(axis=1) == 1).all() and ((tied > 0).sum(axis=0) == 1).all()
    half = patients(0.5)
    # The tied half, and one in five of the rest by chance.
    assert half.max(axis=1).sum() / 450 == pytest.approx(0.5 + 0.5 / len(SCANNERS), abs=0.07)


def test_confounding_changes_the_scanners_and_not_the_bodies():
    free, tied = (make_cohort(9, size=60, seed=3, confounding=knob) for knob in (0.0, 1.0))
    assert free.table["label"].equals(tied.table["label"])
    same = (free.table["scanner"] == tied.table["scanner"]).to_numpy()
    assert not same.all()
    np.testing.assert_array_equal(free.images[same], tied.images[same])


# Seeds


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


def test_another_seed_is_another_patient():
    assert np.mean(render(seed=1).image != render(seed=2).image) > 0.5


# What can be learned


def test_the_border_strip_says_nothing_at_zero_and_everything_at_one():
    """A linear model on the outer tenth, trained and tested on different patients."""

    def auc(knob, seed):
        train, test = (
            make_cohort(150, (1, 1), confounding=knob, size=SMALL, seed=number)
            for number in (seed, seed + 100)
        )
        model = make_pipeline(
            StandardScaler(), PCA(20, random_state=0), LogisticRegression(C=0.1, max_iter=500)
        ).fit(border(train), ill(train))
        return roc_auc_score(ill(test), model.predict_proba(border(test))[:, 1])

    chance = np.array([auc(0.0, seed) for seed in range(5)])
    error = chance.std(ddof=1) / np.sqrt(len(chance))
    assert abs(chance.mean() - 0.5) < 2.78 * max(error, 0.02)  # 95 %, 4 degrees of freedom
    assert min(auc(1.0, seed) for seed in range(2)) > 0.98


def test_lesions_stay_out_of_the_border_strip(cohort):
    lungs = cohort.masks["lungs"][:].copy()
    lungs[:, 10:-10, 10:-10] = False
    assert not lungs.any()


def test_the_mean_grey_value_does_not_tell_the_ill(cohort):
    grey = cohort.images[:].mean(axis=(1, 2))
    assert 0.3 < roc_auc_score(ill(cohort), grey) < 0.7


@pytest.mark.slow
def test_a_small_network_finds_the_ill_among_new_patients():
    import keras

    keras.utils.set_random_seed(0)
    side, epochs, batch = 75, 12, 16
    train, test = (make_cohort(count, size=side, seed=count) for count in (250, 120))
    x, y = train.images[:][..., None].astype("float32") / 255, ill(train).astype("float32")
    x, y = np.concatenate([x, x[:, :, ::-1]]), np.concatenate([y, y])
    layers = [keras.layers.Input((side, side, 1))]
    for filters in (16, 32, 48, 64):
        layers += [
            keras.layers.Conv2D(filters, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(2),
        ]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1, "sigmoid")]
    model = keras.Sequential(layers)
    steps = epochs * -(-len(x) // batch)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy")
    model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0)
    found = model.predict(test.images[:][..., None].astype("float32") / 255, verbose=0)[:, 0]
    assert roc_auc_score(ill(test), found) > 0.95


# Bad input


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"label": "flu"}, "flu.*covid"),
        ({"scanner": "toaster"}, "toaster.*digital"),
        ({"size": 8}, "8"),
        ({"size": 100_000}, "100000"),
        ({"severity": 0}, "severity"),
        ({"severity": 1.5}, "1.5"),
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
        ({"confounding": -0.1}, "-0.1"),
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
