"""The lights of an audit are wrong no more often than its documentation says."""

import importlib
import sys
from pathlib import Path

import pandas as pd
import pytest

from cxrlib import metrics

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "audit"
sys.path.append(str(FOLDER))  # the scripts there share a module


@pytest.fixture(scope="module")
def calibrate():
    return importlib.import_module("calibrate")


@pytest.fixture(scope="module")
def two_lights():
    return importlib.import_module("two_lights")


@pytest.fixture(scope="module")
def two():
    return pd.read_csv(FOLDER / "two_lights.csv")


@pytest.fixture(scope="module")
def rates():
    return pd.read_csv(FOLDER / "rates.csv")


def is_red(table):
    return (table.drop(columns=["setting", "seed"]) == "red").any(axis=1)


@pytest.mark.parametrize("named", ["", "scanner named, "])
def test_false_alarms_are_few_and_confounding_is_found(rates, named):
    without, confounded = (
        rates[rates["setting"] == f"{named}knob {knob}"] for knob in ("0", "0.8")
    )
    assert len(without) >= 100 and len(confounded) >= 100
    assert without["seed"].is_unique and confounded["seed"].is_unique
    assert is_red(without).mean() <= 0.05
    assert is_red(confounded).mean() >= 0.95


def test_the_page_shows_the_recorded_rates(calibrate, rates):
    shown = (FOLDER / "README.md").read_text(encoding="utf-8").split(calibrate.MARK)[1]
    assert shown.strip().splitlines() == calibrate.rates(rates)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [0, *(pytest.param(one, marks=pytest.mark.sweep) for one in range(1, 5))]
)
@pytest.mark.parametrize("setting", ["knob 0", "scanner named, knob 0.8"])
def test_the_recorded_lights_can_be_had_again(calibrate, rates, setting, number):
    """The code of today gives the lights that were recorded, for a few of the seeds."""
    recorded = rates[rates["setting"] == setting].iloc[[number]]
    lights = pd.Series(calibrate.lights(setting, recorded["seed"].item()))
    assert (lights == "red").any() == is_red(recorded).item()


def test_two_more_lights_are_seldom_wrong_and_find_what_is_there(two, rates):
    alarm = {"patients' names shuffled": "amber", "sites by hearsay": "red"}
    for setting, colour in alarm.items():
        seen = two[two["setting"] == setting]
        assert len(seen) >= 50 and seen["seed"].is_unique
        assert (seen["light"] == colour).mean() <= 0.05
    there = two[two["setting"] == "scanner named, knob 0.4"]
    assert (there["light"] == "red").mean() >= 0.8
    leaky = rates.loc[rates["setting"] == "knob 0", "Image-level split"]
    assert (leaky == "amber").mean() >= 0.8


def test_every_light_stands_in_the_table(two_lights, two, rates, made_up):
    lines = two_lights.table(rates, two, made_up)
    shown = (FOLDER / "README.md").read_text(encoding="utf-8").split(two_lights.MARK)[1]
    assert shown.strip().splitlines() == lines, "Run: python docs/audit/two_lights.py --table"
    probes = set(rates.columns) - {"setting", "seed"} | {"Who they are"}
    assert {line.split("|")[1].strip() for line in lines[2:]} == probes


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_the_two_lights_can_be_had_again(two_lights, two, number):
    recorded = two.iloc[number]
    assert two_lights.light(recorded["setting"], recorded["seed"]) == recorded["light"]


@pytest.fixture(scope="module")
def people():
    return importlib.import_module("people")


@pytest.fixture(scope="module")
def made_up():
    return pd.read_csv(FOLDER / "people.csv")


def test_made_up_people_who_differ_in_nothing_raise_few_lights(made_up):
    """By the rule at most 0.05 of them: what was counted may not contradict that."""
    nothing = made_up[made_up["setting"].str.startswith("no")]  # one also with unknown ages
    assert len(nothing) >= 400
    for _, part in nothing.groupby("setting"):
        alarms = part["light"].isin(["red", "amber"])
        assert metrics.wilson(int(alarms.sum()), len(part))[0] <= 0.05 and alarms.mean() <= 0.065
        assert (part["light"] == "red").mean() <= 0.02
    older = made_up.query("setting == 'the ill 20 years older' and `patients a class` == 60")
    assert (older["light"] == "red").mean() >= 0.9


def test_the_page_shows_the_rates_of_people(people, made_up):
    shown = (FOLDER / "README.md").read_text(encoding="utf-8").split(people.MARK)[1]
    assert shown.strip().splitlines() == people.rates(made_up)


@pytest.mark.parametrize("row", [0, -1])
def test_the_recorded_light_of_people_can_be_had_again(people, made_up, row):
    setting, patients, seed, light = made_up.iloc[row]
    assert people.light(setting, patients, seed) == light
