import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import binom
from sklearn.kernel_ridge import KernelRidge
from sklearn.preprocessing import StandardScaler

from cxrlib.metrics import area
from cxrlib.shortcuts import probes
from cxrlib.shortcuts.views import ShortcutError


def people(n=60, images=2, seed=0):
    """Features, targets and patients of n people in two classes, without any signal."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n), images)
    targets = np.repeat(rng.permutation(np.arange(n) % 2), images)
    return rng.normal(size=(n * images, 8)), targets, patients


def test_scores_are_those_of_kernel_ridge_regression_on_other_patients():
    features, targets, patients = people(20)
    features[:, 3] = 1  # says nothing
    scores = probes.probe(features, targets, patients, folds=20, permutations=1).scores[:, 1]
    scaled = StandardScaler().fit_transform(features)
    model = KernelRidge(alpha=1, kernel="rbf", gamma=1 / np.median(pdist(scaled, "sqeuclidean")))
    for number in range(20):
        out, rest = patients == number, patients != number
        mean = targets[rest].mean()
        model.fit(scaled[rest], targets[rest] - mean)
        np.testing.assert_allclose(scores[out], model.predict(scaled[out]) + mean, atol=1e-9)


def test_areas_of_columns_are_those_of_one_column_after_another():
    rng = np.random.default_rng(1)
    truth, scores = rng.random((50, 4)) < 0.4, rng.integers(0, 9, (50, 4)).astype(float)  # ties
    for fold in (np.zeros(50, int), np.arange(50) % 3):
        found = probes.fold_areas(scores, truth, fold)
        for column in range(4):
            once = area(truth[:, column], scores[:, column], np.arange(50), fold=fold)
            assert found[column] == pytest.approx(once.value)


def test_only_images_that_one_model_scored_are_compared():
    features, targets, patients = people(20, 1)
    features[:, 0] += targets
    found = probes.probe(features, targets, patients, folds=20)  # a fold a patient: no pair at all
    assert np.isnan(found.auc) and np.isnan(found.p)


def test_a_signal_is_found_and_its_absence_too():
    features, targets, patients = people()
    assert probes.probe(features, targets, patients).p > 0.01
    features[:, 0] += 3 * targets
    found = probes.probe(features, targets, patients)
    assert found.auc > 0.9 and found.low > 0.8 and found.p == pytest.approx(1 / 1000)
    assert (found.images, found.patients) == (120, 60)
    assert found.scores.shape == (120, 2)


@pytest.mark.parametrize(("classes", "told"), [(3, 2), (6, 0)])
def test_of_many_classes_the_one_told_best_is_named(classes, told):
    rng = np.random.default_rng(8)
    targets, features = np.arange(90) % classes, rng.normal(size=(90, 4))
    assert probes.probe(features, targets, np.arange(90), permutations=99).p > 0.01
    features[:, 0] += 4 * (targets == told)
    found = probes.probe(features, targets, np.arange(90), permutations=99)
    assert found.best == told and found.auc > 0.8 and found.p == pytest.approx(1 / 100)


def test_the_search_for_the_best_class_raises_no_false_alarms():
    small = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        targets, features = rng.permutation(np.arange(32) % 4), rng.normal(size=(32, 5))
        small += probes.probe(features, targets, np.arange(32), permutations=19).p <= 0.2
    assert small <= binom.ppf(0.9995, 60, 0.2)


@pytest.mark.parametrize("signal", [0.0, 3.0])
@pytest.mark.parametrize("both", [1.0, 0.5])
def test_patients_with_images_of_both_classes(signal, both):
    """Each of them was healthy and ill; a mark on the ill images is a shortcut all the same."""
    rng = np.random.default_rng(6)
    patients = np.repeat(np.arange(30), 2)
    own = np.arange(30) % 2
    targets = np.where(rng.random(30)[patients] < both, np.tile([0, 1], 30), own[patients])
    features = rng.normal(size=(60, 4)) + signal * targets[:, None]
    found = probes.probe(features, targets, patients)
    assert (found.p <= 0.01) == (signal > 0), found.p


def test_recognising_a_patient_is_no_help():
    """Images of one patient are the same, patients have nothing in common."""
    rng = np.random.default_rng(4)
    patients = np.repeat(np.arange(40), 5)
    targets = np.repeat(np.arange(40) % 2, 5)
    features = rng.normal(size=(40, 6))[patients]
    assert probes.probe(features, targets, patients).p > 0.01
    assert probes.probe(features, targets, np.arange(200)).auc > 0.95  # were they unknown


def test_p_is_small_no_more_often_than_it_says():
    """Of 120 probes without signal, at most so many reach 0.2 as a fair coin would give."""
    found = [probes.probe(*people(16, 2, seed), permutations=19, seed=seed) for seed in range(120)]
    small = sum(one.p <= 0.2 for one in found)
    assert binom.ppf(0.0005, 120, 0.2) <= small <= binom.ppf(0.9995, 120, 0.2)


def test_images_that_all_look_the_same_are_at_chance():
    _, targets, patients = people()
    found = probes.probe(np.ones((120, 3)), targets, patients)
    assert found.auc == pytest.approx(0.5) and found.p > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, t, p: (f[:5], t, p), "don't fit"),
        (lambda f, t, p: (f * np.nan, t, p), "missing"),
        (lambda f, t, p: (f, t * 0, p), "two classes"),
        (lambda f, t, p: (f, t * 2, p), "two classes"),
        (lambda f, t, p: (f, t, [None] * len(p)), "no patient"),
        (lambda f, t, p: (f[:3], [0, 1, 1], [1, 2, 3]), "two patients"),
        (lambda f, t, p: (f, t, p, 61), "folds=61"),
    ],
)
def test_what_cannot_be_probed_is_named(change, message):
    with pytest.raises(ShortcutError, match=message):
        probes.probe(*change(*people()))
