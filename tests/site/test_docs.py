"""Numbers in the README are those that the course measured."""

from pathlib import Path

import pandas as pd

from cxrlib import results
from cxrlib.shortcuts import headline

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TOP = README.split("## Start")[0]


def test_the_headline_leads_and_is_the_measured_one():
    scores = results.load(ROOT / "docs" / "results", "07_evaluation").tables["headline"]
    accuracy = scores[scores["metric"] == "accuracy"].set_index("condition")
    places = []
    for condition in headline.CONDITIONS:
        said = f"{100 * accuracy.loc[condition, 'value']:.1f} %"
        assert said in TOP, (condition, said)
        places.append(TOP.index(said))
    assert places == sorted(places)
    outside = accuracy.loc["another hospital"]
    assert f"{100 * outside['baseline']:.1f} %" in TOP
    inside = accuracy.loc["clean protocol"]
    assert f"{inside['images']} of {inside['patients']} patients" in TOP
    assert f"{outside['images']} of {outside['patients']} other patients" in TOP
    assert "headline.png" in TOP and TOP.index("headline.png") < places[0]


def test_the_audit_s_rates_are_the_measured_ones():
    rates = pd.read_csv(ROOT / "docs" / "audit" / "rates.csv")
    is_red = (rates.drop(columns=["setting", "seed"]) == "red").any(axis=1)
    told = {one: f"{is_red[part].sum()} of {len(part)}" for one, part in
            rates.groupby("setting").groups.items()}  # fmt: skip
    assert f"{told['knob 0']} audits raised a red light" in README
    assert f"{told['knob 0.8']} did" in README


def test_every_file_that_the_readme_links_is_there():
    import re

    links = re.findall(r"\]\((?!http)([^)#]+)", README)
    assert len(links) > 15
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_first_screen_says_what_to_do_next():
    """What, for whom, read online, then the buttons, then the figure; the commands just below."""
    order = ["# Can a network", "For learners", "[Read it online]", "Open in Colab", "headline.png"]
    places = [TOP.index(words) for words in order]
    assert places == sorted(places)
    assert len(TOP.split()) < 250
    below = README.split("## Start")[1][:400]
    assert "make course" in below and "make test" in below
