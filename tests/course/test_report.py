"""The report: honest about where its numbers come from, self-contained, safe and complete."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from cxrlib import metrics, results
from cxrlib.cohort import Cohort
from cxrlib.course import report
from cxrlib.files import write_json
from helpers import tiny_cohort

EVIL = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Tags, addresses, alternative texts and the text of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.addresses, self.images, self.text = [], [], [], ""
        self.boxes, self.links = [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.addresses += [attrs[key] for key in ("src", "data") if key in attrs]
        if "href" in attrs:
            self.links.append(attrs["href"])
        if attrs.get("class") == "scroll":
            self.boxes.append(attrs)
        if tag == "img":
            self.images.append(attrs)

    def handle_data(self, data):
        if self.tags and self.tags[-1] != "style":
            self.text += " " + data


def record(notebook, model, source, kind, classes=("healthy", "covid"), note="one"):
    cohort = tiny_cohort(12, 2, classes)
    cohort = Cohort(cohort.table.assign(source=source), cohort.images, "ours")
    truth = cohort.targets(classes)
    # Certain and right, but for the first image.
    sure = np.eye(len(classes))[truth] * 0.8 + 0.1
    sure /= sure.sum(axis=1, keepdims=True)
    sure[0] = sure[0][::-1]
    if len(classes) == 2:
        scores = metrics.binary_scores(truth, sure[:, 1])
    else:
        scores = metrics.class_scores(truth, sure, classes)
    results.record(
        notebook,
        model=model,
        profile="quick",
        parameters={"seed": 3, "marked": EVIL},
        cohort=cohort,
        weights={results.BACKBONES[model]: {"kind": kind, "sha256": "ab" * 32}},
        scores={"clean": scores},
        predictions=results.predictions(cohort, sure, classes, "clean"),
        histories={
            "head": pd.DataFrame({"epoch": [1, 2], "loss": [2, 1], "val_loss": [3, 2]}).assign(
                accuracy=[0.5, 0.6], val_accuracy=[0.4, 0.5]
            )
        },
        tables={
            "grid": pd.DataFrame({"layers": range(100), "name": EVIL}),
            "mixed": pd.DataFrame({"guess": [None, 0.25], "found": ["words", 1 / 3]}, dtype=object),
        },
        notes=note,
    )


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_RUN", str(tmp_path))
    monkeypatch.setenv("CXR_COMMAND", "cxr run --profile quick")
    return tmp_path


def test_synthetic_and_random_results_are_told_apart_from_real_ones(run):
    record("05_vgg16", 3, "phantom", "random", note=EVIL)
    state = {"notebook": "02_x", "status": "failed", "seconds": 62, "profile": "quick"}
    failure = {"cell": "In [7]", "heading": EVIL, "line": "x = 1", "error": EVIL}
    write_json(run / "state" / "02_x.json", state | {"failure": failure})
    page = Page(report.write(run))
    assert "SYNTHETIC DATA" in page.text and "RANDOM WEIGHTS" in page.text
    assert "not comparable" in page.text and "not for clinical use" in page.text
    assert "In [7]" in page.text and "1:02" in page.text
    # Self-contained, without JavaScript, nothing unescaped.
    assert "script" not in page.tags and EVIL in page.text
    assert page.addresses and all(one.startswith("data:image/png") for one in page.addresses)
    assert page.images and all("synthetic" in image["alt"] for image in page.images)
    assert all(re.fullmatch(r"#[\w]+|(notebooks|failed)/\w+\.ipynb", one) for one in page.links)
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "http" not in html and "@import" not in html and "url(" not in html
    # Where the numbers come from.
    for fact in (
        "VGG16: random",
        "cxr run --profile quick",
        "seed=3",
        "24 images",
        "Backend",
        "Frozen features",
        "Device",
    ):
        assert fact in page.text, fact
    assert "first 60 of 100 rows" in page.text


def test_what_a_gpu_multiplied_in_is_shown(run, monkeypatch):
    there = results.environment() | {"keras": "3", "backend": "jax", "precision": "tf32"}
    there |= {"engine": "keras", "training_precision": "float32", "training_multiplies_in": "tf32"}
    monkeypatch.setattr(results, "environment", lambda: there)
    record("05_vgg16", 3, "sirm", "imagenet")
    text = Page(report.write(run)).text
    assert "float32 (multiplied in tf32)" in text and "keras, tf32" in text


def test_real_results_with_imagenet_weights_carry_no_banner(run):
    record("05_vgg16", 3, "sirm", "imagenet")
    page = Page(report.write(run))
    assert "SYNTHETIC" not in page.text and "RANDOM" not in page.text
    assert "not comparable" not in page.text.lower().replace("not comparable with", "")


def test_tables_stand_beside_the_papers(run):
    record("05_vgg16", 3, "sirm", "imagenet")
    record("06_densenet", 4, "sirm", "imagenet", ("healthy", "pneumonia", "covid"))
    page = Page(report.write(run))
    for printed in (".68", ".9063", ".8541", ".7619", "41.7 %", "20.8 %"):
        assert printed in page.text
    # 23 of 24 right; healthy image 1 was called covid: precision 12/13, recall 12/12.
    ours = page.text[page.text.index("Model 3") : page.text.index("Model 4")]
    assert "0.958" in ours and f"{12 / 13:.3f}" in ours and "1.000" in ours
    low, high = metrics.share(np.arange(24) > 0, np.full(24, True), np.arange(24))[1:3]
    assert f"{low:.3f} to {high:.3f}" in ours and " 24 " in ours and " 12 " in ours
    # Model 4: COVID-19 against the rest, 8 images of 24; one healthy image called covid.
    four = page.text[page.text.index("Model 4") : page.text.index("Table II:")]
    assert f"{8 / 9:.3f}" in four
    table2 = page.text[page.text.index("Ours, clean protocol") :]
    low, high = metrics.wilson(3.5, 4)  # 7 of 8 images, two of each of 4 patients
    assert f"8 87.5 % {100 * low:.1f} % to {100 * high:.1f} % 0.0 % 12.5 %" in table2[:200]


def test_verdicts_stand_beside_the_papers_figures(run):
    record("05_vgg16", 3, "sirm", "imagenet")
    record("06_densenet", 4, "phantom", "random", ("healthy", "pneumonia", "covid"))
    page = Page(report.write(run))
    part = page.text[page.text.index("Verdicts on the paper") : page.text.index("Lesson by")]
    # 23 of 24 right, 2 images of each of 12 patients: Wilson of 11.5 in 12.
    low, high = metrics.wilson(11.5, 12)
    row = part[part.index("table1.model3.accuracy") : part.index("table1.model3.precision")]
    assert "0.8229 – – 0.958" in row and f"{low:.3f} to {high:.3f}" in row
    assert row.rstrip().endswith("undecidable at this n")
    assert "without the spread over five nothing is decided" in part
    assert "Not comparable with the paper: 13 claims, because the images are synthetic" in part
    assert "table1.model4" not in part and "table2" not in part


def test_a_partial_run_and_none(run, tmp_path):
    state = {"notebook": "07_x", "status": "not run", "why": "needs 03_y", "profile": "quick"}
    write_json(run / "state" / "07_x.json", state)
    (run / "results").mkdir()
    (run / "results" / "04_z.json").write_text('{"schema": 1')
    page = Page(report.write(run))
    assert "not run" in page.text and "needs 03_y" in page.text
    assert "No result in this run." in page.text
    assert "04_z.json is damaged" in page.text
    with pytest.raises(results.ResultsError, match="holds no run"):
        report.write(tmp_path / "nothing")


def record_findings(run):
    """Lessons 8 and 9 as they record, in tables made by hand."""
    readings = {"accuracy": [0.5, 0.75], "consistent": [False, True]}
    counts = pd.DataFrame(
        [[5, 4, 3], [8, 11, 5], [4, 3, 5]], index=list("abc"), columns=list("abc")
    )
    how = {"profile": "quick", "scores": {}}
    results.record(
        "08_paper_audit",
        parameters={},
        cohort=None,
        tables={
            "Model 4, readings of Table II": pd.DataFrame(readings),
            "Table II, counts": counts,
            "lessons held": pd.DataFrame({"lesson": ["a", "b", "c"], "held": [True, False, True]}),
        },
        **how,
    )
    view = {"view": "lungs covered", "auc": 0.81, "low": 0.71, "high": 0.91, "told": "covid"}
    drop = {"inside": 0.95, "outside": 0.65, "drop": 0.3, "low": 0.1, "high": 0.5}
    cohort = tiny_cohort(4)
    results.record(
        "09_shortcuts",
        parameters={"outside_source": "elsewhere"},
        cohort=Cohort(cohort.table.assign(source="phantom"), cohort.images, "ours"),
        tables={
            "shortcuts": pd.DataFrame([view]),
            "external drop": pd.DataFrame([drop], index=["auc"]),
        },
        **how,
    )


def test_it_opens_with_what_was_found(run):
    record_findings(run)
    write_json(run / "state" / "07_x.json", {"status": "failed", "profile": "quick"})
    page = Page(report.write(run))
    opening = page.text[: page.text.index("What ran")]
    for said in (
        "2 of 3 lessons have results (07_x failed); their images are synthetic",
        "a probe of synthetic images tells covid apart with an AUC of 0.810 [0.710, 0.910]",
        "0.950 on whole images there has 0.650 on those of another hospital (elsewhere), "
        "difference 0.300 [0.100, 0.500]",
        # 5 + 11 + 5 of 12 + 24 + 12 images; what Table I prints is in the paper
        "an accuracy of 0.834 for Model 4, Table II comes to 0.438 (21 of 48 images), and 1 of 2",
        "Of 3 statements that lessons check on their own results, 2 held.",
    ):
        assert said in opening, said
    assert page.images[0]["alt"].startswith("What was found, What tells the classes apart")
    kept = json.loads((run / "finding.json").read_text(encoding="utf-8"))
    assert " ".join(kept["finding"]) in opening and len(kept["finding"]) == 4
    assert kept["lessons"] == {
        "07_x": "failed",
        "08_paper_audit": "run by hand",
        "09_shortcuts": "run by hand",
    }
    assert kept["synthetic"] == ["09_shortcuts"] and kept["random_weights"] == []
    assert kept["title_block"]["Data"] == "the paper's printed figures; ours (synthetic images)"


def test_both_protocols_and_their_difference_open_it(run):
    ours = [("04_resnet50", 2, "phantom", "random", 0.1), ("05_vgg16", 3, "sirm", "imagenet", -0.1)]
    for name, number, source, weights, low in ours:
        record(name, number, source, weights)
        path = run / "results" / f"{name}.json"
        kept = json.loads(path.read_text(encoding="utf-8"))
        kept["scores"]["paper"] = kept["scores"]["clean"]
        ends = pd.DataFrame({"value": [0.2], "low": [low], "high": [0.5]}, index=["accuracy"])
        kept["tables"]["protocol_difference"] = results.pack(ends)
        write_json(path, kept)
    page = Page(report.write(run))
    opening = page.text.split("What ran")[0]
    for said in (
        "images are synthetic in 04_resnet50, else real and the weights of ResNet50 random, so",
        "SYNTHETIC DATA: phantoms, made by a computer, of no patient (04_resnet50)",
        "RANDOM WEIGHTS: backbones that learned nothing (04_resnet50)",
        "Model 2 0.958 and 0.958, difference 0.200 [0.100, 0.500]; "
        "Model 3 0.958 and 0.958, difference 0.200 [-0.100, 0.500]; 1 of 2 differences leave out",
    ):
        assert said in opening, said
    # What needs a name has one of its own.
    for names in (
        [image["alt"] for image in page.images],
        [box["aria-label"] for box in page.boxes],
    ):
        assert len(names) > 6 and len(set(names)) == len(names)
    assert all(box["tabindex"] == "0" and box["role"] == "region" for box in page.boxes)
    accuracy = json.loads((run / "finding.json").read_text(encoding="utf-8"))["accuracy"]
    assert [one["protocol"] for one in accuracy] == ["paper", "clean"] * 2
    for one in accuracy:
        recorded = [*kept["scores"]["clean"]["data"][0][:3], 24]
        assert [one[key] for key in ("value", "low", "high", "n")] == recorded


def test_a_table_of_another_version_says_nothing(run):
    record_findings(run)
    path = run / "results" / "09_shortcuts.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    kept["tables"]["shortcuts"]["data"][0][1] = None  # an AUC that is not defined
    write_json(path, kept)
    assert "lungs covered, a probe" not in Page(report.write(run)).text
    kept["tables"] = {"shortcuts": results.pack(pd.DataFrame({"seen": ["lungs covered"]}))}
    write_json(path, kept)
    page = Page(report.write(run))
    assert "lungs covered, a probe" not in page.text and "Table II comes to" in page.text


def test_lessons_link_to_what_was_executed(run):
    for name in ("02_x", "05_y", "06_own lesson"):
        write_json(run / "state" / f"{name}.json", {"status": "done", "profile": "quick"})
    for place in ("notebooks/06_own lesson", "failed/02_x"):
        write_json(run / f"{place}.ipynb", {})
    links = Page(report.write(run)).links
    assert [one for one in links if one.endswith("ipynb")] == [
        "failed/02_x.ipynb",
        "notebooks/06_own%20lesson.ipynb",
    ]
