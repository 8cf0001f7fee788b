"""What the patients' facts tell: against labels made from them, and counts by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrlib import sources
from cxrlib.shortcuts import people


def films(patients=60, gap=0.0, each=2, seed=0, **columns):
    """Patients in turn of each label, the ill `gap` years older, with `each` films apiece."""
    rng = np.random.default_rng(seed)
    ill = np.arange(patients) % 2 == 1
    table = pd.DataFrame(
        {
            "patient": [f"p{number}" for number in range(patients)],
            "label": np.where(ill, "covid", "healthy"),
            "age": rng.normal(50, 15, patients) + gap * ill,
            "sex": rng.choice(["F", "M"], patients),
            "view": "PA",
        }
    )
    table = table.assign(**{name: make(table) for name, make in columns.items()})
    return table.loc[table.index.repeat(each)].reset_index(drop=True)


def by_fact(table, classes=("healthy", "covid"), **options):
    found = people.who_they_are(table, classes, **{"permutations": 199} | options)
    return found.set_index("fact")


def test_a_gap_in_age_is_found_and_none_is_not():
    """Two normal ages 20 years apart with a deviation of 15: the area is 0.83 in theory."""
    found = by_fact(films(200, 20))
    assert found.loc["age", "auc"] == pytest.approx(0.83, abs=0.07)
    assert found.loc["age", "p"] == pytest.approx(1 / 200)
    assert found.loc["sex", "p"] > 0.05
    assert list(found.index) == ["age", "sex", "age, sex"]  # all are PA: no view to tell
    assert (by_fact(films(200))["p"] > 0.05).all()


def test_a_patient_is_one_row_however_many_films():
    one, many = by_fact(films(60, 10, 1)), by_fact(films(60, 10, 7))
    pd.testing.assert_frame_equal(one, many)
    assert (many["patients"] == 60).all()


def test_each_fact_tells_by_itself():
    ill = lambda table: table["label"] == "covid"  # noqa: E731
    table = films(
        80,
        view=lambda table: np.where(ill(table), "AP", "PA"),
        date=lambda table: np.where(ill(table), "March 10, 2020", "20170301"),
    )
    found = by_fact(table)
    assert list(found.index) == ["age", "sex", "view", "date", "age, sex, view, date"]
    assert (found.loc[["view", "date"], "auc"] == 1).all()
    assert (found["told"] == "covid").all()


def test_that_a_fact_is_unknown_tells_nothing():
    """Unknown of all but twelve of the ill, of none of the others: no association else."""
    table = films(120)
    late = table["patient"].str[1:].astype(int) >= 24
    table.loc[(table["label"] == "covid") & late, "age"] = np.nan
    found = by_fact(table)
    assert found.loc["age", "patients"] == 60 + 12 and found.loc["age", "p"] > 0.05
    table["age"] = table["age"].where(table["label"] == "healthy")
    assert "age" not in by_fact(table).index  # nothing to compare with


def test_a_class_whose_age_is_unknown_leaves_the_others():
    table = pd.concat([films(80, 30), films(30, seed=1).assign(label="pneumonia", age=np.nan)])
    found = by_fact(table, ("healthy", "pneumonia", "covid"))
    assert found.loc["age", ["classes", "told"]].to_list() == ["healthy, covid", "covid"]
    assert found.loc["sex", "classes"] == "healthy, pneumonia, covid"


def test_nothing_known_gives_an_empty_table():
    assert people.who_they_are(films(60)[["label", "patient"]]).empty
    assert by_fact(films(16)).empty  # eight patients a class


def test_age_alone_tells_the_courses_classes():
    """The cross-validated area is near that of 'the older, the iller', by scikit-learn."""
    table = sources.manifest("open")
    found = by_fact(table)
    known = table[table["label"].isin(["healthy", "covid"]) & table["age"].notna()]
    people_ = known.groupby(["patient", "label"])["age"].mean().reset_index()
    plain = roc_auc_score(people_["label"] == "covid", people_["age"])
    assert len(people_) == found.loc["age", "patients"] == 381
    assert found.loc["age", "auc"] == pytest.approx(plain, abs=0.03)
    assert plain == pytest.approx(0.80, abs=0.005)


def test_people_are_counted_by_label():
    table = pd.DataFrame(
        [
            ("a", "x", 20, "M", "PA"),
            ("a", "x", 22, "M", "AP"),
            ("b", "x", 41, "F", None),
            ("c", "x", np.nan, None, "PA"),
            ("d", "y", 70, "M", "PA"),
        ],
        columns=["patient", "label", "age", "sex", "view"],
    )
    x, y = (people.people_by_label(table).loc[label] for label in "xy")
    assert x[["patients", "mean age", "youngest", "oldest"]].to_list() == [3, 31, 21, 41]
    assert x[["age unknown", "men", "sex unknown"]].to_list() == [1, 0.5, 1]
    assert x["views"] == "PA 50%, AP 25%, unknown 25%"
    assert y[["patients", "men", "age unknown"]].to_list() == [1, 1, 0]
    assert list(people.people_by_label(table.drop(columns=["age", "sex"]))) == ["patients", "views"]
    assert list(people.people_by_label(table[["patient", "label"]])) == ["patients"]
