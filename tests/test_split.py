import numpy as np
import pytest

from cxrlib import split
from cxrlib.augment import expand
from helpers import tiny_cohort


def names(part):
    return set(part.table["image"])


@pytest.mark.parametrize("divide", [split.by_image, split.by_patient])
def test_parts_are_disjoint_complete_and_sized_as_the_paper_says(divide):
    cohort = tiny_cohort(patients=100, per_patient=1)
    parts = divide(cohort)
    assert [len(part) for part in parts] == [64, 16, 20]
    assert set.union(*map(names, parts)) == names(cohort)
    for part in parts:
        assert (part.table["label"] == "covid").mean() == pytest.approx(0.5, abs=0.04)


def test_by_patient_keeps_patients_whole_and_seeds_decide():
    cohort = tiny_cohort(patients=20, per_patient=3)
    for seed in range(20):
        patients = [set(part.table["patient"]) for part in split.by_patient(cohort, seed=seed)]
        assert sum(map(len, patients)) == len(set.union(*patients)) == 20
    tests = [names(split.by_patient(cohort, seed=seed).test) for seed in (1, 1, 2)]
    assert tests[0] == tests[1] != tests[2]


def test_paper_protocol_leaks_and_clean_protocol_does_not():
    cohort = tiny_cohort(patients=40, per_patient=2)
    leaky = split.overlap(split.paper_protocol(cohort, copies=3))
    # all three other copies of a test image stay out with probability about 0.2**3
    assert leaky.loc["origin", "share"] > 0.9
    parts = split.clean_protocol(cohort, copies=3)
    clean = split.overlap(parts)
    assert clean["also in training or validation"].sum() == 0
    assert "copy" not in parts.test.table and "copy" not in parts.validation.table
    assert (parts.train.table["copy"] > 0).mean() == 0.75


def test_a_film_in_the_validation_part_counts_as_seen():
    cohort = tiny_cohort(patients=4, per_patient=2)
    parts = split.Parts(cohort.take([0, 1]), cohort.take([2]), cohort.take([3, 4, 6]))
    found = split.overlap(parts)  # rows 2 and 3 are the second patient's
    assert found.loc["patient"].tolist() == [3, 1, 1 / 3]
    assert found.loc["origin"].tolist() == [3, 0, 0]


def test_balance_keeps_all_of_the_rarest_and_whole_patients():
    cohort = tiny_cohort(patients=30, per_patient=2, labels=("healthy", "healthy", "covid"))
    even = split.balance(cohort, seed=1)
    assert even.table["label"].value_counts().to_dict() == {"healthy": 20, "covid": 20}
    assert set(even.table.groupby("patient").size()) == {2}
    assert names(split.balance(cohort, seed=1)) == names(even) != names(split.balance(cohort, 2))


def test_a_patient_on_both_sides_is_named():
    cohort = tiny_cohort(patients=4, per_patient=2)
    parts = split.Parts(cohort.take([0, 2]), cohort.take([4]), cohort.take([1, 6]))
    with pytest.raises(split.SplitError, match=r"'p00'.*train and test.*by_patient"):
        split.check_patients(parts)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: split.by_image(c, test=1.5), "between 0 and 1"),
        (lambda c: split.by_image(c.take([0, 2, 1])), "Take more images or patients"),
        (lambda c: split.by_patient(c.where(patient=["p00", "p01"])), "Take more"),
    ],
)
def test_impossible_splits_say_why(call, message):
    with pytest.raises(split.SplitError, match=message):
        call(tiny_cohort())


def test_images_without_label_or_patient_are_refused():
    cohort = tiny_cohort()
    cohort.table.loc[0, "label"] = np.nan
    with pytest.raises(split.SplitError, match="has no label"):
        split.by_image(cohort)
    cohort = tiny_cohort()
    cohort.table.loc[0, "patient"] = np.nan
    with pytest.raises(split.SplitError, match="name no patient"):
        split.by_patient(cohort)


@pytest.fixture(scope="module")
def whole():
    return expand(tiny_cohort(patients=24, per_patient=3), copies=2)


@pytest.mark.parametrize("protocol", ["clean", "paper"])
def test_folds_test_every_film_once(whole, protocol):
    table, found = whole.table, split.folds(whole, protocol, 4, seed=3)
    tested = np.concatenate([fold.test for fold in found])
    assert sorted(tested) == np.flatnonzero(table["copy"] == 0).tolist()
    for fold in found:
        rows = np.concatenate(fold)
        assert len(rows) == len(set(rows)), "a row stands in two parts"
        assert table["label"].iloc[fold.test].value_counts().between(8, 10).all()
    again = split.folds(whole, protocol, 4, seed=3)
    assert all(
        np.array_equal(*pair)
        for one, two in zip(found, again, strict=True)
        for pair in zip(one, two, strict=True)
    )


def test_clean_folds_hold_whole_patients_and_only_training_sees_copies(whole):
    table = whole.table
    for fold in split.folds(whole, "clean", 4):
        people = [set(table["patient"].iloc[rows]) for rows in fold]
        assert sum(map(len, people)) == len(set.union(*people)) == 24
        assert (table["copy"].iloc[np.concatenate(fold[1:])] == 0).all()
        assert table["copy"].iloc[fold.train].value_counts().nunique() == 1
        # nobody is left out, and validation has about a fifth of the patients
        assert len(fold.train) == 3 * 3 * len(people[0]) and len(people[1]) == 4


def test_the_papers_folds_learn_from_copies_of_what_they_are_tested_with(whole):
    table = whole.table
    for fold in split.folds(whole, "paper", 4):
        seen = set(table["origin"].iloc[np.concatenate(fold[:2])])
        assert table["origin"].iloc[fold.test].isin(seen).mean() > 0.7
        assert sum(map(len, fold)) < len(whole)  # copies that fall into a test part test nothing


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"number": 1}, "1 folds cannot be made"),
        ({"number": 13}, r"rarest label has patients \(12\)"),
        ({"protocol": "papers"}, "no protocol 'papers'; there are paper, clean"),
    ],
)
def test_folds_that_cannot_be_say_why(whole, options, message):
    with pytest.raises(split.SplitError, match=message):
        split.folds(whole, **options)
