"""The course itself: every notebook executed for real, and what it leaves behind."""

import json
import os
import re
import sys
import venv

import pytest

from courserun import ROOT, run
from cxrlib import results
from cxrlib.files import shipped

NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
MODELS = ["03_custom_cnn", "04_resnet50", "05_vgg16", "06_densenet121_multiclass"]

pytestmark = pytest.mark.slow


def test_all_lessons_run(smoke):
    out, said = smoke
    assert len(NOTEBOOKS) >= 10
    for name in NOTEBOOKS:
        executed = json.loads((out / "notebooks" / f"{name}.ipynb").read_text())
        code = [c for c in executed["cells"] if c["cell_type"] == "code" and c["source"]]
        assert all(cell["execution_count"] for cell in code), name
        assert name in said
    assert "report.html" in said


def test_every_notebook_shows_figures_that_say_what_they_are(smoke):
    for name in NOTEBOOKS:
        text = (smoke[0] / "notebooks" / f"{name}.ipynb").read_text()
        assert "image/png" in text, name
        assert re.search(r"not(hing here is)? for clinical use", text), name


def test_no_lesson_shows_what_only_programmers_read(smoke):
    for name in NOTEBOOKS:
        executed = json.loads((smoke[0] / "notebooks" / f"{name}.ipynb").read_text())
        for cell in executed["cells"]:
            shown = [output for output in cell.get("outputs", ()) if output.get("name") == "stderr"]
            assert not shown, (name, cell["id"], shown)
            assert "np.float64(" not in json.dumps(cell.get("outputs", "")), (name, cell["id"])


def test_every_lesson_on_shortcuts_is_demonstrated(smoke):
    held = results.load(smoke[0], "09_shortcuts").tables["lessons held"]
    assert len(held) >= 12 and held["held"].all(), held[~held["held"]]["lesson"].tolist()


def test_the_run_stands_up_to_the_recorded_verdicts(smoke, tmp_path):
    """Exit code 0 here; a lesson that is not held any more would make it 1.

    On so few films lessons 2 to 6 claim nothing.
    """
    check = [sys.executable, "-m", "cxrlib.cli", "check", "--only-present", smoke[0]]
    assert "No verdict is worse" in run(check, tmp_path)
    recorded = json.loads((shipped("data") / "reference" / "verdicts.json").read_text("utf-8"))
    for name in ("07_evaluation", "08_paper_audit", "09_shortcuts"):  # these claim everything here
        held = results.load(smoke[0], name).tables["lessons held"]
        said = {f"{name}: {one}" for one in held.loc[held["held"].astype(bool), "lesson"]}
        assert {one for one in recorded["lessons held"] if one.startswith(name)} <= said


def test_lesson_7_leads_with_one_model_and_four_scores(smoke):
    scores = results.load(smoke[0], "07_evaluation").tables["headline"]
    auc = scores[scores["metric"] == "auc"].set_index("condition")["value"]
    assert auc["paper's protocol"] > auc["another hospital"]
    text = (smoke[0] / "notebooks" / "07_evaluation.ipynb").read_text()
    assert text.index("One model, four scores") < text.index("Whose results are these")


@pytest.mark.parametrize("name", MODELS)
def test_both_protocols_are_recorded_and_the_scores_agree_with_the_predictions(smoke, name):
    from sklearn.metrics import accuracy_score

    result = results.load(smoke[0], name)
    assert set(result.scores) == {"paper", "clean"}
    for protocol, scores in result.scores.items():
        rows = result.predictions[result.predictions["protocol"] == protocol]
        expected = accuracy_score(rows["label"], rows["predicted"])
        assert scores.loc["accuracy", "value"] == pytest.approx(expected)
    assert result.data["synthetic"] and not result.comparable


def test_both_protocols_test_every_film_once_and_no_copy(smoke):
    result = results.load(smoke[0], "04_resnet50")
    table = result.predictions
    clean, paper = (table[table["protocol"] == name] for name in ("clean", "paper"))
    assert len(clean) == clean["image"].nunique() == result.data["images"]
    assert set(clean["image"]) == set(paper["image"]) and (table["image"] == table["origin"]).all()
    assert "protocol_difference" in result.tables


def test_a_model_of_the_run_predicts_an_image_file(smoke, tmp_path):
    import cv2

    from cxrlib.phantom import render

    film = tmp_path / "film.png"
    cv2.imwrite(str(film), render("covid", seed=5).image)
    heat = tmp_path / "heat.png"
    model = smoke[0] / "models" / "04_resnet50"
    command = [sys.executable, "-m", "cxrlib.cli", "predict", film, "--model", model]
    said = run([*command, "--heatmap", heat], tmp_path)
    assert "healthy" in said and "covid" in said and "not for clinical use" in said
    assert cv2.imread(str(heat)).ndim == 3


def test_plain_papermill_is_enough(smoke, tmp_path):
    command = [sys.executable, "-m", "papermill", "notebooks/05_vgg16.ipynb"]
    command += [tmp_path / "out.ipynb", "-f", "notebooks/profiles/smoke.yaml", "-k", "python3"]
    there = {"CXR_CACHE": str(smoke[0].parent / "cache"), "CXR_RUN": str(tmp_path / "run")}
    run(command, tmp_path, **there)
    by_hand, by_runner = (results.load(f, "05_vgg16") for f in (tmp_path / "run", smoke[0]))
    for protocol, scores in by_hand.scores.items():
        assert scores["value"].equals(by_runner.scores[protocol]["value"])


def check_on_jax(python, tmp_path, **environment):
    command = [python, "-m", "cxrlib.cli", "run", "--profile", "smoke", "--only", "04"]
    run([*command, "--out", tmp_path / "run"], tmp_path, KERAS_BACKEND="jax", **environment)
    assert results.load(tmp_path / "run", "04_resnet50").environment["backend"] == "jax"


@pytest.mark.sweep  # JAX itself is tried by test_determinism each time
def test_resnet_runs_on_jax_without_tensorflow(tmp_path):
    """TensorFlow is there, as a module that cannot be imported."""
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "tensorflow.py").write_text(
        "raise ImportError('TensorFlow is asked for')"
    )
    paths = filter(None, [str(tmp_path / "absent"), os.environ.get("PYTHONPATH")])
    check_on_jax(sys.executable, tmp_path, PYTHONPATH=os.pathsep.join(paths))


@pytest.mark.sweep
def test_resnet_runs_where_only_jax_is_installed(tmp_path):
    """A fresh environment, as on a machine where TensorFlow cannot be had."""
    venv.create(tmp_path / "jax", with_pip=True)
    python = tmp_path / "jax" / "bin" / "python"
    run([python, "-m", "pip", "install", "-q", "-e", f"{ROOT}[jax,run]"], tmp_path)
    absent = [python, "-c", "import importlib.util as u; assert not u.find_spec('tensorflow')"]
    run(absent, tmp_path)
    check_on_jax(python, tmp_path)


def test_lesson_7_alone_shows_the_reference_results_and_says_so(tmp_path):
    command = [sys.executable, "-m", "cxrlib.cli", "run", "--profile", "smoke", "--only", "07"]
    films = "source_options={patients: 120, confounding: 0.0}"  # those of the saved model
    run([*command, "--set", films, "--out", tmp_path / "run"], tmp_path)
    text = (tmp_path / "run" / "notebooks" / "07_evaluation.ipynb").read_text()
    outputs = [cell["outputs"] for cell in json.loads(text)["cells"] if "outputs" in cell]
    assert "reference" in text and "image/png" in text
    assert "Skipped" not in json.dumps(outputs), "a section is empty"
    found = results.load(tmp_path / "run", "07_evaluation")
    assert found.data["synthetic"] and len(found.tables["heat inside"]) == 2
