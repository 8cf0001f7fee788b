"""What a notebook records comes back as it was, and says what it can be compared with."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from cxrlib import results
from cxrlib.cohort import Cohort
from helpers import tiny_cohort


class Weights:
    """As little of backbone.Weights as results need."""

    def __init__(self, kind, backbone="VGG16"):
        self.facts = {"backbone": backbone, "kind": kind, "sha256": None}

    def describe(self):
        return self.facts


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_RUN", str(tmp_path))
    return tmp_path


def cohort_of(source):
    cohort = tiny_cohort(4, 1)
    table = cohort.table.assign(source=source)
    return Cohort(table, cohort.images, "ours")


def record(cohort, **more):
    usual = {"profile": "quick", "parameters": {"seed": 3}, "cohort": cohort}
    return results.record("05_vgg16", **(usual | more))


def test_all_that_is_recorded_comes_back(run):
    cohort = cohort_of("phantom")
    cohort.table.loc[0, "patient"] = "007"
    said = results.predictions(cohort, [0.1, 0.5, 0.7, 0.9], cohort.labels, "clean")
    scores = pd.DataFrame(
        {"value": [0.75, np.nan], "count": pd.array([3, None], dtype="Int64")},
        index=pd.Index(["accuracy", "auc"], name="score"),
    )
    history = pd.DataFrame({"epoch": [1, 2], "loss": np.array([0.5, 0.25], np.float32)})
    grid = pd.DataFrame({"layers": [1], "stopped": [True], "optimiser": ["Adam"]})
    path = record(
        cohort,
        model=3,
        parameters={"seed": np.int64(3), "grid_layers": (1, 2)},
        weights=Weights("random"),
        scores={"clean": scores},
        predictions=said,
        histories={"head": history},
        tables={"grid": grid},
        notes="one",
        seconds=np.float32(2.5),
    )
    assert path == run / "results" / "05_vgg16.json"
    one = results.load_all(run)["05_vgg16"]
    assert (one.model, one.model_number, one.seed, one.seconds) == ("Model 3", 3, 3, 2.5)
    assert one.parameters == {"seed": 3, "grid_layers": [1, 2]}
    assert one.classes == ["healthy", "covid"] and one.notes == ["one"]
    found = one.scores["clean"]
    assert found.loc["accuracy", "count"] == 3 and found.index.name == "score"
    assert np.isnan(found.loc["auc", "value"]) and found["value"].dtype == float
    pd.testing.assert_frame_equal(one.histories["head"], history, check_dtype=False)
    assert one.tables["grid"].to_dict("records") == grid.to_dict("records")
    assert one.tables["grid"]["stopped"].dtype == bool
    pd.testing.assert_frame_equal(one.predictions, said, check_dtype=False)
    assert one.predictions["patient"][0] == "007"
    assert list(one.predictions["predicted"]) == ["healthy", "covid", "covid", "covid"]
    assert one.data["counts"]["covid"] == {"images": 2, "patients": 2}
    assert one.environment["python"] == ".".join(map(str, sys.version_info[:3]))
    record(cohort)  # without predictions: no old ones are left
    assert results.load(run, "05_vgg16").predictions is None


def test_json_has_no_nan_and_only_plain_values(run):
    path = record(cohort_of("x"), tables={"t": pd.DataFrame({"a": [np.nan, np.inf, 1]})})

    def refuse(name):
        raise AssertionError(f"{name} in JSON")

    content = json.loads(path.read_text(), parse_constant=refuse)
    assert content["tables"]["t"]["data"] == [[None], [None], [1.0]]
    assert results.to_native([pd.NA, np.bool_(True), np.float32(0.5), pd.Timestamp(0)]) == [
        None,
        True,
        0.5,
        "1970-01-01 00:00:00",
    ]


@pytest.mark.parametrize(
    ("source", "kind", "comparable", "why"),
    [
        ("sirm", "imagenet", True, ""),
        ("sirm", None, True, ""),
        ("sirm", "random", False, "random"),
        ("sirm", "file", False, "file"),
        ("phantom", "imagenet", False, "synthetic"),
        ("phantom", "random", False, "synthetic (phantoms) and the backbone's weights are random"),
    ],
)
def test_only_real_images_and_imagenet_weights_are_comparable(run, source, kind, comparable, why):
    record(cohort_of(source), weights=Weights(kind) if kind else None)
    one = results.load(run, "05_vgg16")
    assert one.comparable is comparable
    assert why in one.why_not_comparable and bool(one.why_not_comparable) != comparable
    assert one.has_random_weights == (kind == "random")


def test_one_phantom_or_another_backbone_is_not_comparable(run):
    assert results.describe_data(cohort_of(["sirm", "sirm", "phantom", "nih"]))["synthetic"]
    record(cohort_of("sirm"), model="Model 2 (ResNet50+)", weights=Weights("imagenet", "Xception"))
    one = results.load(run, "05_vgg16")
    assert not one.comparable
    assert one.why_not_comparable == "the backbone is Xception, the paper's is ResNet50"


@pytest.mark.parametrize(
    ("probabilities", "classes", "protocol", "message"),
    [
        ([0.1] * 4, ["healthy", "covid"], "fair", "no protocol 'fair'"),
        ([0.1] * 3, ["healthy", "covid"], "clean", "don't fit 4 test images"),
        (np.ones((4, 2)), ["a", "b", "c"], "clean", "don't fit"),
        ([0.1, 0.2, np.nan, 0.3], ["healthy", "covid"], "clean", "between 0 and 1"),
        ([0.1, 0.2, 1.5, 0.3], ["healthy", "covid"], "clean", "between 0 and 1"),
    ],
)
def test_predictions_that_do_not_fit(probabilities, classes, protocol, message):
    with pytest.raises(results.ResultsError, match=message):
        results.predictions(tiny_cohort(4, 1), probabilities, classes, protocol)


def test_predictions_name_the_fold_that_tested_an_image(run):
    cohort = tiny_cohort(4, 1)
    answers = (cohort, [0.1, 0.5, 0.7, 0.9], cohort.labels, "clean")
    assert "fold" not in results.predictions(*answers)
    record(cohort, predictions=results.predictions(*answers, fold=[1, 0, 2, 1]))
    one = results.load(run, "05_vgg16")
    assert one.predictions["fold"].tolist() == [1, 0, 2, 1] and one.classes == cohort.labels
    for wrong in ([0, 1], [0, 1, -1, 0], [0.5, 1.0, 0.0, 1.0]):
        with pytest.raises(results.ResultsError, match="one fold for each of 4 images"):
            results.predictions(*answers, fold=wrong)


def test_record_refuses_unknown_protocols_and_odd_predictions(run):
    with pytest.raises(results.ResultsError, match="no protocol 'fair'"):
        record(cohort_of("x"), scores={"fair": pd.DataFrame()})
    with pytest.raises(results.ResultsError, match="lack protocol"):
        record(cohort_of("x"), predictions=pd.DataFrame({"image": ["a"]}))
    assert not list(run.rglob("*.*"))


def test_results_that_are_missing_damaged_or_of_another_version(run):
    with pytest.raises(results.ResultsError, match="Run that notebook first"):
        results.load(run, "05_vgg16")
    path = record(cohort_of("x"))
    whole = path.read_text()
    path.write_text(whole[:-40])
    with pytest.raises(results.ResultsError, match="damaged"):
        results.load(run, "05_vgg16")
    path.write_text(whole.replace('"schema": 1', '"schema": 99'))
    with pytest.raises(results.ResultsError, match="another version of the course"):
        results.load(run, "05_vgg16")


def test_model_numbers():
    known = {1: 1, "Model 4 (DenseNet121+)": 4, "VGG16": None, None: None, "16": None}
    assert {model: results.model_number(model) for model in known} == known


def test_without_a_run_folder_results_go_to_interactive(monkeypatch):
    monkeypatch.delenv("CXR_RUN", raising=False)
    assert results.run_folder().parts[-2:] == ("runs", "interactive")


def test_keras_is_not_imported_for_a_notebook_without_it():
    code = "import sys; from cxrlib import results; e = results.environment();"
    code += "assert e['keras'] is None and 'keras' not in sys.modules and e['device']"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_reference_results_are_whole_and_say_that_they_are_synthetic():
    from cxrlib.files import shipped

    found = results.load_all(shipped("data") / "reference")
    assert [one.notebook[:2] for one in found.values()] == [f"0{n}" for n in range(10)]
    assert all(one.profile == "quick" and not one.comparable for one in found.values())
    models = [one for one in found.values() if one.model_number]
    assert [one.model_number for one in models] == [1, 2, 3, 4]
    for one in models:
        assert set(one.predictions["protocol"]) == {"paper", "clean"} and one.data["synthetic"]


def test_the_reference_results_have_the_intervals_of_today():
    """Whoever opens lesson 7 alone sees what `metrics` gives for the predictions beside them."""
    from cxrlib import metrics
    from cxrlib.files import shipped

    found = results.load_all(shipped("data") / "reference").values()
    for one in (one for one in found if one.model_number):
        for protocol, rows in one.predictions.groupby("protocol"):
            asked = rows[[f"p_{name}" for name in one.classes]].to_numpy()
            numbers = rows["label"].map(one.classes.index)
            if len(one.classes) == 2:
                found = metrics.binary_scores(
                    numbers, asked[:, 1], patients=rows["patient"], fold=rows["fold"]
                )
            else:
                found = metrics.class_scores(
                    numbers, asked, one.classes, rows["patient"], fold=rows["fold"]
                )
            shown, ends = one.scores[protocol], ["value", "low", "high"]
            np.testing.assert_allclose(
                shown.loc[found.index, ends].astype(float), found[ends], atol=1e-6
            )


def test_a_notebook_that_only_reads_the_paper_has_no_images_and_compares_nothing(run):
    record(None, tables={"t": pd.DataFrame({"a": [1]})})
    one = results.load(run, "05_vgg16")
    assert one.data["name"] == "the paper's printed figures" and not one.data["synthetic"]
    assert (one.data["images"], one.data["patients"], one.data["counts"]) == (0, 0, {})
    assert not one.comparable and one.why_not_comparable == results.NOTHING
    assert results.why_not_comparable(one.data, {}, 4) == results.NOTHING
