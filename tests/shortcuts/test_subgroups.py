"""Subgroups against counts by hand; what is unknown or too small says so."""

import numpy as np
import pandas as pd
import pytest

from cxrlib import metrics
from cxrlib.shortcuts import subgroups


@pytest.fixture
def films():
    """48 patients of two films: 24 men found rightly, 24 women by chance; half have an age."""
    patient = np.repeat(np.arange(48), 2)
    truth, man = patient % 2, patient < 24
    chance = np.random.default_rng(0).random(96)
    table = pd.DataFrame({"image": [f"film{row}" for row in range(96)], "patient": patient})
    answers = table.assign(truth=truth, probability=np.where(man, 0.1 + 0.8 * truth, chance))
    age = np.where(patient % 4 < 2, 30 + 10 * (patient % 3), np.nan)
    return answers, table.assign(sex=np.where(man, "M", "F"), age=age, view=np.nan)


def test_each_group_has_the_scores_of_its_patients(films):
    answers, table = films
    found = subgroups(answers, table.sample(frac=1, random_state=1)).set_index(["group", "metric"])
    assert set(found["fact"]) == {"sex", "age"}, "a fact that no film has is left out"
    men = found.loc["M"]
    assert men["value"].tolist() == [1, 1, 1] and (men["low"].iloc[:2] < 1).all()
    assert men["images"].tolist() == [24, 24, 48] and men["patients"].tolist() == [12, 12, 24]
    women = answers[table["sex"] == "F"]
    ill = women[women["truth"] == 1]
    assert found.loc[("F", "recall"), "value"] == (ill["probability"] >= 0.5).mean()
    scores = metrics.binary_scores(
        women["truth"], women["probability"], patients=women["patient"]
    ).loc["auc", ["value", "low", "high"]]
    assert found.loc[("F", "auc"), ["value", "low", "high"]].tolist() == scores.tolist()


def test_ages_are_cut_and_small_or_unknown_groups_say_so(films):
    answers, table = films
    found = subgroups(answers, table, ["age"]).set_index(["group", "metric"])
    assert set(found.index.get_level_values(0)) == {"under 40", "40 to 59", "not recorded"}
    young, unknown = found.loc["under 40"], found.loc["not recorded"]
    assert (young["note"] == "too few").all() and young["value"].isna().all()
    assert (unknown["note"] == "").all() and unknown["patients"].tolist() == [12, 12, 24]
    assert subgroups(answers, table, ["age"], fewest=1)["value"].notna().all()


def test_one_class_in_a_group_is_too_few_for_the_other(films):
    answers, table = films
    table = table.assign(view=np.where(answers["truth"] == 1, "AP", "PA"))
    found = subgroups(answers, table, ["view"]).set_index(["group", "metric"])["note"]
    assert found["AP"].tolist() == ["", "too few", "too few"]
    assert found["PA"].tolist() == ["too few", "", "too few"]


def test_a_table_without_facts_gives_an_empty_table(films):
    answers, table = films
    assert subgroups(answers, table[["image"]]).empty
