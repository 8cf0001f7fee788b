"""The cards of docs/: as measured, complete, and never out of step with what they describe."""

import csv
import importlib
import json
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrlib import results, sources
from cxrlib.phantom import make_cohort
from cxrlib.shortcuts import headline as four_scores

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = ("model_card.md", "data_card.md", "claim_checklist.md")
SECTIONS = {
    "model_card.md": [  # as Mitchell et al. 2019 name them
        *("Model details", "Intended use", "Out-of-scope uses", "Factors", "Metrics"),
        *("Evaluation data", "Training data", "Quantitative analyses", "Ethical considerations"),
        *("Caveats and recommendations", "Two protocols", "Calibration", "Another hospital"),
    ],
    "data_card.md": [
        *("Motivation", "phantom", "open", "external", "Labels, and the noise in them"),
        *("Who is represented", "Preprocessing", "Uses, and what must not be done"),
        *("Distribution and licences", "Maintenance"),
    ],
    "claim_checklist.md": ["Reference standard", "Partitions and their size", "Evaluation"],
}
MISSING = "Not measured yet: run `cxr run"
each_page = pytest.mark.parametrize("name", PAGES)


@pytest.fixture(scope="module")
def write():
    sys.path.insert(0, str(DOCS / "cards"))
    try:
        yield importlib.import_module("write")
    finally:
        sys.path.remove(str(DOCS / "cards"))
        for name in ("write", "inventory", "flow"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def fresh(write):
    return write.render()


@pytest.fixture
def run(tmp_path):
    """Copy the measured results of lessons 1 to 7 without the headline, to be changed."""
    shutil.copytree(DOCS / "results" / "results", tmp_path / "results")
    (tmp_path / "results" / "09_shortcuts.json").unlink()
    lesson7 = tmp_path / "results" / "07_evaluation.json"
    content = json.loads(lesson7.read_text(encoding="utf-8"))
    lesson7.write_text(json.dumps(content | {"tables": {}}), encoding="utf-8")
    return tmp_path


def change(run, notebook, **changes):
    """Change a lesson's results: tables by name, or another field."""
    path = run / "results" / f"{notebook}.json"
    like = path if path.exists() else path.with_name("07_evaluation.json")
    content = json.loads(like.read_text(encoding="utf-8")) | {"notebook": notebook}
    content["tables"] = {} if like != path else content["tables"]
    for name, value in changes.items():
        if isinstance(value, pd.DataFrame):
            content["tables"][name.replace("_", " ")] = results.pack(value)
        else:
            content[name] = value
    path.write_text(json.dumps(content), encoding="utf-8")


def headline(values):
    rows = [
        (condition, metric, value, value - 0.1, value + 0.05, 40, 31)
        for condition, value in zip(four_scores.CONDITIONS, values, strict=True)
        for metric in ("auc", "accuracy", "sensitivity", "specificity")
    ]
    names = ["condition", "metric", "value", "low", "high", "images", "patients"]
    return pd.DataFrame(rows, columns=names)


def section(text, title):
    """Text below a heading, up to the next."""
    return re.split(rf"^#+ {re.escape(title)}.*$", text, flags=re.M)[1].split("\n#")[0]


def cells(text):
    """Rows of the Markdown tables in a text, as lists of cells."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@each_page
def test_the_committed_page_is_what_would_be_written_now(fresh, name):
    committed = (DOCS / name).read_text(encoding="utf-8")
    assert committed == fresh[name], "Run: python docs/cards/write.py"


@each_page
def test_every_section_is_there_and_says_something(fresh, name):
    for title in SECTIONS[name]:
        heading = re.search(rf"^#+ {re.escape(title)}.*\n+(.*)", fresh[name], re.M)
        assert heading and heading[1].strip(), title


@each_page
def test_the_page_is_clean(fresh, name):
    text = fresh[name]
    assert "not for clinical use" in text.splitlines()[2].lower()
    assert not re.search(r"\b(nan|None|NaN|NaT|inf|Undefined)\b|<NA>|\{\{|\{%|\n\n\n", text)


@each_page
def test_tables_have_as_many_cells_in_every_row(fresh, name):
    for block in re.findall(r"(?:^\|.*\n)+", fresh[name], re.M):
        rows = cells(block)
        assert len({len(row) for row in rows}) == 1, rows[0]
        assert all(re.fullmatch("-+:?", cell) for cell in rows[1])


def slug(heading):
    """Anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@each_page
def test_links_lead_somewhere(fresh, name):
    for target in re.findall(r"\]\(([^)]+)\)", fresh[name]):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        assert (DOCS / path).exists(), target
        if anchor:
            assert anchor in map(slug, re.findall(r"^#+ (.+)$", fresh[path], re.M)), target


def test_the_scores_are_those_of_the_results(fresh):
    path = DOCS / "results" / "results" / "05_vgg16.json"
    measured = json.loads(path.read_text(encoding="utf-8"))["scores"]
    shown = {row[0]: row[1:] for row in cells(section(fresh["model_card.md"], "Two protocols"))}
    for place, protocol in enumerate(("paper", "clean")):
        rows = zip(measured[protocol]["index"], measured[protocol]["data"], strict=True)
        for metric, (value, low, high, *_) in rows:
            assert shown[metric][place] == f"{value:.3f} [{low:.3f}, {high:.3f}]"
    assert shown["precision"][-1] == "0.8039" and shown["auc"][-1] == "–"  # Table I prints no AUC


@pytest.mark.parametrize("name", ["open", "external"])
def test_counts_are_those_of_the_manifest(fresh, name):
    with (ROOT / "data" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    text = section(fresh["data_card.md"], name)
    images = Counter((row["label"], row["source"]) for row in rows)
    views = Counter((row["label"], row["source"], row["view"]) for row in rows)
    shown = [tuple(row) for row in cells(text)]
    for key, number in (images | views).items():
        people = {
            row["patient"]
            for row in rows
            if key == tuple(row[part] for part in ("label", "source", "view"))[: len(key)]
        }
        assert (*key, str(number), str(len(people))) in shown
    labels = {}
    for row in rows:
        labels.setdefault(row["patient"], set()).add(row["label"])
    both = sum(len(found) > 1 for found in labels.values())
    assert f"{both or 'nobody'} " in text and (name != "open" or both == 21)
    silent = sum(not row["licence"] for row in rows)
    assert f"{silent:,} of {len(rows):,}" in section(fresh["data_card.md"], "Distribution")


def test_the_file_that_gives_the_label_away(fresh):
    with (ROOT / "data" / "open.csv").open(encoding="utf-8", newline="") as file:
        known = [row for row in csv.DictReader(file) if row["height"]]
    square = [float(row["height"]) == float(row["width"]) == 1024 for row in known]
    right = sum((row["label"] != "covid") == same for row, same in zip(known, square, strict=True))
    text = section(fresh["data_card.md"], "What gives the label away")
    assert f"names {right:,} of the {len(known):,} files" in text


def test_who_is_represented_is_what_the_manifests_say(fresh):
    """Means of patients, not of films; Hannover's ages are unknown, and no number stands there."""
    shown = cells(section(fresh["data_card.md"], "Who is represented"))
    for name in ("open", "external"):
        table = sources.manifest(name)
        for label, part in table.groupby("label"):
            one = part.groupby("patient").agg({"age": "mean", "sex": "first"})
            (row,) = (r for r in shown if r[:2] == [label, str(len(one))])
            mean = one["age"].mean()
            assert row[2] == ("–" if np.isnan(mean) else f"{mean:.3f}")
            assert row[5:7] == [str(one["age"].isna().sum()), f"{(one['sex'] == 'M').mean():.3f}"]
    assert "Ethnicity is unknown" in fresh["data_card.md"]


def test_what_age_tells_is_the_same_on_every_page(fresh):
    """As scikit-learn has it, in data card, model card and README."""
    table = sources.manifest("open").query("label in ['healthy', 'covid']").dropna(subset="age")
    one = table.groupby(["patient", "label"])["age"].mean().reset_index()
    auc = roc_auc_score(one["label"] == "covid", one["age"])
    shown = cells(section(fresh["data_card.md"], "Who is represented"))
    (rule,) = (row for row in shown if row[0].startswith("age: the older"))
    assert rule[1].startswith(f"{auc:.3f} [") and rule[2] == str(len(one))
    assert f"an AUC of {rule[1]}" in section(fresh["model_card.md"], "By group")
    numbers = [f"{float(number):.2f}" for number in re.findall(r"\d\.\d+", rule[1])]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "AUC {} [{}, {}]".format(*numbers) in readme
    one = (
        sources.manifest("open").groupby(["label", "patient"]).agg({"age": "mean", "sex": "first"})
    )
    ill, well = one.loc["covid"], one.loc["healthy"]
    men = [f"{(part['sex'] == 'M').mean():.0%}".replace("%", " %") for part in (ill, well)]
    assert f"{ill['age'].mean():.0f} years old on average and {men[0]} men" in readme
    assert f"the healthy {well['age'].mean():.0f} and {men[1]}" in readme


def test_the_knob_is_measured(write):
    found = write.inventory.knob(60)
    assert found["confounding"].tolist() == [0, 0.5, 1]
    v = found.iloc[:, 2]
    assert v[0] < 0.35 < v[1] < 0.75 and v[2] == pytest.approx(1)
    cohort = make_cohort(60, (1, 1), size=32, confounding=0.5)
    table = pd.crosstab(cohort.table["scanner"], cohort.table["label"]).to_numpy()
    expected = np.outer(table.sum(1), table.sum(0)) / 60
    chi2 = ((table - expected) ** 2 / expected).sum()
    assert v[1] == pytest.approx(np.sqrt(chi2 / 60 / (min(table.shape) - 1)))


def test_claim_answers_all_items_and_admits_what_was_not_done(fresh):
    rows = [row for row in cells(fresh["claim_checklist.md"]) if row[0].isdigit()]
    assert [int(row[0]) for row in rows] == list(range(1, 45))
    answers = Counter(row[2].strip("*") for row in rows)
    assert set(answers) == {"yes", "in part", "no", "not applicable"}
    for answer, number in answers.items():
        assert f"{number} {answer}" in fresh["claim_checklist.md"]
    assert all(all(row) for row in rows)


def test_the_drawing_counts_as_manifests_and_results_do(fresh):
    assert (DOCS / "flow.svg").read_text(encoding="utf-8") == fresh["flow.svg"]
    told = re.search("<desc>(.*)</desc>", fresh["flow.svg"])[1]
    fetched = results.load(DOCS / "results", "01_data_retrieval").data
    for name in ("open", "external"):
        table = sources.manifest(name)
        assert f"{len(table):,} images of {table['patient'].nunique():,} patients" in told
    assert f"{fetched['images']} images of {fetched['patients']} patients" in told
    assert f"{len(sources.manifest('open')) - fetched['images']} images out: not on" in told


def test_the_card_shows_its_own_model_by_group(write, run):
    one = results.load(run, "05_vgg16").model
    rows = [[one, "sex", "F", "auc", 40, 21, 0.8, 0.6, 0.9, ""]]
    rows += [["another", "sex", "M", "auc", 3, 3, np.nan, np.nan, np.nan, "too few"]]
    names = ["model", "fact", "group", "metric", "images", "patients", "value", "low", "high"]
    change(run, "07_evaluation", subgroups=pd.DataFrame(rows, columns=[*names, "note"]))
    shown = cells(section(write.render(run)["model_card.md"], "By group"))
    assert shown[2] == ["sex", "F", "auc", "40", "21", "0.800 [0.600, 0.900]", ""]
    assert len(shown) == 3


def test_so_many_patients_know_a_recall(write):
    z, n = 1.959964, write.planned()
    assert z * np.sqrt(0.9 * 0.1 / n) <= 0.05 < z * np.sqrt(0.9 * 0.1 / (n - 1))


def test_what_is_not_measured_says_how(write, run):
    change(run, "07_evaluation", tables={})
    pages = write.render(run)
    for title in ("The headline", "What tells the classes apart", "Another hospital"):
        text = section(pages["model_card.md"], title)
        assert MISSING in text and not cells(text)
    assert "--only 09" in section(pages["model_card.md"], "Another hospital")
    outside = next(row for row in cells(pages["claim_checklist.md"]) if row[0] == "33")
    assert "no" in outside[2] and "not measured" in outside[3]


def test_what_is_measured_fills_its_section(write, run):
    change(run, "07_evaluation", headline=headline([0.91, 0.82, 0.73, 0.64]))
    views = {"view": ["border"], "auc": [0.9], "low": [0.8], "high": [np.nan], "p": [1e-4]}
    remedy = {"remedy": ["crop"], "inside auc": [0.9], "inside low": [0.8], "inside high": [1.0]}
    remedy |= {"gap": [0.1], "gap low": [-0.1], "gap high": [0.3], "note": ["nothing helps"]}
    change(
        run,
        "09_shortcuts",
        shortcuts=pd.DataFrame(views | {"images": [78], "patients": [63]}),
        external_scores=pd.DataFrame({"value": [0.7], "low": [0.6], "high": [0.8]}, ["auc"]),
        remedies=pd.DataFrame(remedy),
        calibration=pd.DataFrame(),
        knob=pd.DataFrame({"level": [0.0], "auc": [0.9], "low": [0.8], "high": [0.95]}),
    )
    pages = write.render(run)
    shown = cells(section(pages["model_card.md"], "The headline"))
    assert shown[0][:4] == ["condition", "images", "patients", "auc"]
    assert [row[0] for row in shown[2:]] == list(four_scores.CONDITIONS)
    assert shown[4][1:4] == ["40", "31", "0.730 [0.630, 0.780]"]
    shown = cells(section(pages["model_card.md"], "What tells the classes apart"))
    assert shown[0] == ["view", "auc", "p", "images", "patients"]
    assert shown[2] == ["border", "0.900 [0.800, –]", "0.0001", "78", "63"]
    shown = cells(section(pages["model_card.md"], "Another hospital"))
    assert shown[2] == ["auc", "0.700 [0.600, 0.800]"]
    assert "table is empty" in section(pages["model_card.md"], "Calibration")
    shown = cells(section(pages["model_card.md"], "Leakage"))
    assert shown[0] == ["remedy", "inside auc", "gap", "note"]
    assert shown[2][1:3] == ["0.900 [0.800, 1.000]", "0.100 [-0.100, 0.300]"]
    told = section(pages["data_card.md"], "phantom").split("What the knob does")[1]
    assert ["0.000", "0.900 [0.800, 0.950]"] in cells(told)
    assert "**synthetic phantoms**" in told and "imagenet" not in told and "`open`" not in told
    answers = {row[0]: row[2] for row in cells(pages["claim_checklist.md"])}
    assert answers["30"] == "yes" and answers["33"] == "in part"


def test_phantoms_are_called_synthetic_and_answer_no_item(write, run):
    data = {"name": "phantom", "sources": ["phantom"], "synthetic": True, "images": 9}
    data |= {"patients": 9, "counts": {}}
    why = "the images are synthetic (phantoms)"
    change(run, "05_vgg16", data=data, comparable=False, why_not_comparable=why)
    change(run, "07_evaluation", data=data, headline=headline([0.9, 0.8, 0.7, 0.6]))
    pages = write.render(run)
    assert f"**Not comparable with the paper: {why}.**" in pages["model_card.md"]
    assert "synthetic phantoms" in section(pages["model_card.md"], "The headline")
    answers = {row[0]: row[2] for row in cells(pages["claim_checklist.md"])}
    assert answers["33"] == "**no**"


def test_repeats_are_averaged_and_long_tables_left_out(write):
    table = pd.DataFrame({"level": [0.0, 0, 1, 1], "seed": [0, 1, 0, 1], "auc": [0.5, 0.7, 1, 1]})
    table["auc_low"] = 0.1
    shown = cells(write.markdown(table))
    assert shown[0] == ["level", "auc", "seeds"]
    assert shown[2:] == [["0.000", "0.600", "2"], ["1.000", "1.000", "2"]]
    assert "too many" in write.markdown(pd.DataFrame({"value": np.linspace(0, 1, 99)}))


def test_cells_are_worded_for_readers(write):
    assert write.cell(np.nan) == write.cell(pd.NA) == write.cell(None) == "–"
    assert write.cell("a|b") == r"a\|b" and write.cell(np.True_) == "yes"
    assert write.cell(np.int64(1061)) == "1,061" and write.cell(0.98765) == "0.988"


def test_no_results_is_an_error_that_says_what_to_do(write, tmp_path):
    with pytest.raises(ValueError, match="05_vgg16"):
        write.render(tmp_path)
