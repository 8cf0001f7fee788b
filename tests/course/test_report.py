"""The report: honest about where its numbers come from, self-contained, safe and complete."""

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
        self.feed(path.read_text(encoding="utf-8"))
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.addresses += [attrs[key] for key in ("src", "href", "data") if key in attrs]
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
        weights={"VGG16": {"kind": kind, "sha256": "ab" * 32}},
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
    four = page.text[page.text.index("Model 4") : page.text.index("Table II")]
    assert f"{8 / 9:.3f}" in four
    table2 = page.text[page.text.index("Ours, clean protocol") :]
    low, high = metrics.wilson(3.5, 4)  # 7 of 8 images, two of each of 4 patients
    assert f"8 87.5 % {100 * low:.1f} % to {100 * high:.1f} % 0.0 % 12.5 %" in table2[:200]


def test_verdicts_stand_beside_the_papers_figures(run):
    record("05_vgg16", 3, "sirm", "imagenet")
    record("06_densenet", 4, "phantom", "random", ("healthy", "pneumonia", "covid"))
    page = Page(report.write(run))
    part = page.text[page.text.index("Verdicts on the paper") : page.text.index("Notebook by")]
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
