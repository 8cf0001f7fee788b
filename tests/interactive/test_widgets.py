"""The explorers, moved by setting values; what they show is held against independent truth."""

import base64
import html
import io
import json
import os
import re
from types import SimpleNamespace

import cv2
import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

from cxrlib import NOT_CLINICAL, augment, phantom, predictor, results
from cxrlib.images import ImageError
from cxrlib.interactive import explorer, frontend, widgets
from cxrlib.interactive import phantoms as phantomwidget
from cxrlib.interactive import prediction as predictionwidget
from cxrlib.metrics import MetricsError
from helpers import tiny_cohort

ipywidgets = pytest.importorskip("ipywidgets")
HOSTILE = '<img src=x onerror="alert(1)">.png'


@pytest.fixture
def live(monkeypatch):
    """Somebody sits in front of the kernel."""
    monkeypatch.setattr(frontend, "is_live", lambda: True)


@pytest.fixture
def film():
    return phantom.render("covid", size=96).image


def pictures(box):
    """What a browser would show: a list of (alt, pixels)."""
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]*)"', box.shown.value)
    flag = cv2.IMREAD_UNCHANGED
    return [
        (html.unescape(alt), cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), flag))
        for data, alt in found
    ]


def cells(box):
    """Texts of the cells of all tables, in order."""
    return re.findall(r"<td[^>]*>([^<]*)</td>", box.shown.value)


def said(box):
    return html.unescape(re.sub(r"<[^>]+>", " ", box.shown.value))


# Who is there


def test_nobody_is_there_in_plain_python_or_under_nbclient():
    assert frontend.is_live() is False
    lines = [
        "import numpy as np\nfrom cxrlib.interactive import frontend, widgets",
        "print(frontend.is_live())\nwidgets.augmentation(np.zeros((32, 32), np.uint8))",
    ]
    cell = nbformat.v4.new_code_cell("\n".join(lines))
    nbclient.execute(nbformat.v4.new_notebook(cells=[cell]), kernel_name="python3", timeout=600)
    told, shown = cell.outputs
    assert told["text"] == "False\n"
    assert "image/png" in shown["data"]
    assert "application/vnd.jupyter.widget-view+json" not in shown["data"]


@pytest.mark.parametrize(
    ("server", "allowed", "expected"),
    [("", True, True), ("", False, False), ("voila/0.5.13", False, True), ("jupyter", None, False)],
)
def test_who_asks_decides(monkeypatch, server, allowed, expected):
    """Messages as the Jupyter protocol has them; None is a request without the field."""

    class Kernel:
        def get_parent(self, channel=None):
            content = {} if allowed is None else {"allow_stdin": allowed}
            return {"header": {"msg_type": "execute_request"}, "content": content}

    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=Kernel()))
    monkeypatch.setenv("SERVER_SOFTWARE", server)
    assert frontend.is_live() is expected


@pytest.mark.parametrize("name", ["augmentation", "threshold", "anatomy", "knob", "phantoms"])
def test_the_figure_says_where_to_move_it(name, film):
    arguments = {"augmentation": [film], "threshold": [[0, 1], [0.2, 0.7]]}.get(name, [])
    figure = getattr(widgets, name)(*arguments)
    assert explorer.MOVE_IT in figure.get_supxlabel().replace("\n", " ")
    with io.BytesIO() as file:
        figure.savefig(file, format="png")
        picture = Image.open(file).convert("L")
    assert picture.width > 300 and len(np.unique(np.asarray(picture))) > 20


# What all share


def test_a_picture_carries_exactly_its_pixels_and_its_words(film):
    for image in (film, np.stack([film, film // 2, film // 3], axis=-1)):
        made = explorer.picture(image, 'a "film" & more', "<b>", 100)
        assert 'alt="a &quot;film&quot; &amp; more"' in made and "&lt;b&gt;" in made
        packed = base64.b64decode(re.search(r"base64,([^\"]+)", made)[1])
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(packed))), image)


def every_control(box):
    if getattr(box, "children", ()):
        return [control for child in box.children for control in every_control(child)]
    return [] if isinstance(box, ipywidgets.HTML) else [box]


def test_every_control_has_a_label_and_a_keyboard(live, film, asked):
    boxes = [widgets.augmentation(film), widgets.threshold([0, 1], [0.2, 0.7]), widgets.phantoms()]
    controls = [control for box in [*boxes, asked] for control in every_control(box)]
    assert len(controls) == 4 + 1 + 6 + 2 + 4
    assert all(control.description.strip() for control in controls)
    usable = ("FloatSlider", "IntSlider", "Dropdown", "Checkbox", "FileUpload")
    assert {type(control).__name__ for control in controls} == set(usable)


def test_what_arithmetic_leaves_in_a_browsers_slider_is_rounded_off(live, answers):
    truth, probability = answers
    probability[0] = 0.3
    box = widgets.threshold(truth, probability)
    box.controls["threshold"].value = 0.1 + 0.2
    called = probability >= 0.3
    assert list(map(int, cells(box)[:4])) == confusion_matrix(truth, called).ravel().tolist()
    assert called[0] and probability[0] < 0.1 + 0.2


# Augmentation


def test_augmentation_shows_what_the_package_makes(live, film):
    box = widgets.augmentation(film, "A note.")
    for name, value in {"share": 0.7, "flip": False, "sigma": 20, "seed": 3}.items():
        box.controls[name].value = value
    rng = np.random.default_rng(3)
    expected = augment.noise(augment.crop(film, 0.7, rng), 20, rng)
    (_, original), (alt, copy) = pictures(box)
    np.testing.assert_array_equal(original, film)
    np.testing.assert_array_equal(copy, expected)
    assert alt == "The same film changed: 49% of the area, not mirrored, noise of 20 grey levels."
    apart = np.abs(expected.astype(float) - film).mean()
    assert f"{apart:.1f} grey levels" in said(box) and "A note." in said(box)
    box.controls["flip"].value = True
    assert "mirrored" in pictures(box)[1][0] and "not mirrored" not in pictures(box)[1][0]


# Threshold


@pytest.fixture
def answers():
    rng = np.random.default_rng(1)
    truth = np.arange(60) % 3 == 0
    probability = np.clip(rng.normal(0.4 + 0.25 * truth, 0.2), 0, 1).round(2)
    return truth, probability


@pytest.mark.parametrize("threshold", [0.0, 0.37, 1.0])
def test_threshold_counts_as_sklearn_does(live, answers, threshold):
    truth, probability = answers
    box = widgets.threshold(truth, probability)
    before = pictures(box)[0][1]
    box.controls["threshold"].value = threshold
    assert (before != pictures(box)[0][1]).any(), "the point moves on the curve"
    called = probability >= box.controls["threshold"].value
    matrix = confusion_matrix(truth, called)
    assert list(map(int, cells(box)[:4])) == matrix.ravel().tolist()
    recall, spared = recall_score(truth, called), recall_score(~truth, ~called)
    f1 = f1_score(truth, called)
    shown = [f"{value:.0%}" for value in (recall, spared)]
    precise = f"{precision_score(truth, called):.0%}" if called.any() else "undefined"
    assert cells(box)[4:] == [*shown, precise, f"{f1:.0%}"]
    missed, alarms = matrix[1, 0], matrix[0, 1]
    assert f"Of 20 images of the ill, {missed} are missed" in said(box)
    assert f"of 40 images of the healthy, {alarms} raise an alarm" in said(box)
    alt = pictures(box)[0][0]
    assert f"sensitivity {recall:.0%} and {1 - spared:.0%} false alarms" in alt
    assert NOT_CLINICAL in said(box)


def test_threshold_counts_patients_by_hand(live):
    truth = [1, 1, 1, 0, 0, 0]
    probability = [0.9, 0.1, 0.3, 0.8, 0.2, 0.1]
    box = widgets.threshold(truth, probability, ["a", "a", "b", "c", "c", "d"])
    assert "Of 2 ill patients, 1 are missed on every image" in said(box)
    assert "of 2 healthy ones, 1 are alarmed at least once" in said(box)


def test_threshold_compares_images_of_one_model_only(monkeypatch):
    """Two models, each in perfect order on a scale of its own; pooled, 3 of 4 pairs are right."""
    monkeypatch.setattr(widgets, "is_movable", lambda: False)
    answers = [0, 1, 0, 1], [0.1, 0.3, 0.6, 0.8]
    for fold, area in ((None, "AUC 0.750"), ([0, 0, 1, 1], "AUC 1.000")):
        figure = widgets.threshold(*answers, fold=fold)
        labels = figure.axes[0].get_legend_handles_labels()[1]
        assert area in labels


@pytest.mark.parametrize(
    ("truth", "probability", "told"),
    [
        ([1, 1], [0.2, 0.3], "only one"),
        ([0, 1], [0.2], "Lengths differ"),
        ([0, 1], [0.2, 1.3], "1.3"),
    ],
)
def test_threshold_refuses_what_has_no_curve(truth, probability, told):
    with pytest.raises((ValueError, MetricsError), match=told):
        widgets.threshold(truth, probability)


# Phantoms


def test_a_body_is_the_phantom_of_its_values(live):
    box = widgets.anatomy()
    values = {"severity": 0.3, "scanner": "portable", "patient": 4, "image": 1}
    for name, value in values.items():
        box.controls[name].value = value
    made = phantom.render("covid", "portable", 4, 256, 0.3, 1)
    (alt, shown), share = pictures(box)[0], made.lesions.sum() / made.lungs.sum()
    np.testing.assert_array_equal(shown, made.image)
    assert "patient 4, image 1: covid, severity 0.30, machine portable, view AP" in alt
    assert f"Lesions cover {share:.0%} of the lungs" in alt
    box.controls["label"].value = "healthy"
    assert "No lesion." in pictures(box)[0][0]


def test_the_outlines_lie_on_the_edges_of_the_masks(live):
    box = widgets.anatomy()
    box.controls["outlines"].value = True
    alt, shown = pictures(box)[0]
    assert "outlined in blue" in alt
    made = phantom.render("covid", size=256)
    orange = (shown[..., ::-1] == phantomwidget.LESIONS).all(axis=-1)
    blue = (shown[..., ::-1] == phantomwidget.LUNGS).all(axis=-1)
    inner = cv2.erode(made.lesions.astype(np.uint8), np.ones((5, 5))) > 0
    assert orange.any() and made.lesions[orange].all() and not orange[inner].any()
    assert blue.any() and made.lungs[blue].all()


@pytest.mark.parametrize("confounding", [0.5, 1.0])
def test_the_knob_counts_the_films_that_it_shows(live, confounding):
    box = widgets.knob()
    box.controls["confounding"].value = confounding
    cohort = phantom.make_cohort(
        20, (1, 1), ["healthy", "covid"], confounding, ["digital", "computed", "film"], 80, 0
    )
    sheet, table = pictures(box)[0][1], cohort.table
    for row, label in enumerate(["healthy", "covid"]):
        for column, film in enumerate(cohort.where(label=label).images[:]):
            top, left = 84 * row, 84 * column
            np.testing.assert_array_equal(sheet[top : top + 80, left : left + 80], film)
    counts = [
        int(((table["label"] == label) & (table["scanner"] == machine)).sum())
        for label in ("healthy", "covid")
        for machine in ("digital", "computed", "film")
    ]
    assert cells(box) == [f"{count} ({count / 10:.0%})" for count in counts]
    most = sum(max(pair) for pair in zip(counts[:3], counts[3:], strict=True))
    assert f"the machine alone gives {most} of 20 labels" in said(box)
    if confounding == 1:
        assert most == 20


# Prediction


@pytest.fixture(scope="module")
def model():
    import keras

    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((32, 32, 1)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(2, "softmax"),
    ]
    classes, origin = ["healthy", "covid"], {"synthetic": True}
    return predictor.Predictor(keras.Sequential(layers), classes, provenance=origin)


@pytest.fixture
def asked(live, model):
    return widgets.prediction(model, tiny_cohort(patients=4))


def upload(box, name, content):
    """Hand a file over as the browser does, in the shape of this ipywidgets."""
    if ipywidgets.__version__.startswith("7"):
        value = {name: {"metadata": {"name": name}, "content": content}}
    else:
        value = ({"name": name, "type": "", "size": len(content), "content": memoryview(content)},)
    # the trait itself is set by the front end only, and then tells its observers
    box.upload.notify_change(
        {"name": "value", "old": None, "new": value, "owner": box.upload, "type": "change"}
    )


def test_prediction_shows_what_the_model_says(asked, model):
    cohort = tiny_cohort(patients=4)
    assert len(asked.controls["film"].options) == len(cohort)
    for row in (0, 3):
        asked.controls["film"].value = asked.controls["film"].options[row]
        expected = model.predict(cohort.images[row])
        alt, shown = pictures(asked)[0]
        for name, p in expected.probabilities.items():
            assert f"{name} {p:.0%}" in alt and f"{p:.1%}" in said(asked)
        assert shown.shape == (64, 64, 3), "the film as it is"
        assert expected.warnings[0] in said(asked)
    assert NOT_CLINICAL in asked.children[0].value


def test_opacity_lays_the_heat_over_the_film(asked, model):
    film = tiny_cohort(patients=4).images[0]
    expected = model.predict(film)
    asked.controls["opacity"].value = 0
    np.testing.assert_array_equal(pictures(asked)[0][1][..., 0], film)
    asked.controls["opacity"].value = 1
    colours = pictures(asked)[0][1]
    assert "100% opacity" in pictures(asked)[0][0]
    heat = cv2.resize(expected.heat_map, film.shape)
    if heat.any():
        assert colours[heat == heat.max()].mean() > colours[heat < 0.1].mean()


@pytest.mark.parametrize(("shape", "shown"), [((1024, 400), (512, 200)), ((90, 120), (90, 120))])
def test_a_film_keeps_its_proportions_and_the_heat_its_place(shape, shown):
    heat = np.zeros((300, 300), np.float32)
    heat[:75, 225:] = 1
    colours = predictionwidget.overlay(np.zeros(shape, np.uint8), heat, 1)
    assert colours.shape == (*shown, 3)
    hot = colours.sum(axis=2) > 600
    rows, columns = np.flatnonzero(hot.any(axis=1)), np.flatnonzero(hot.any(axis=0))
    assert rows[0] == 0 and rows[-1] == pytest.approx(shown[0] / 4, abs=3)
    assert columns[0] == pytest.approx(shown[1] * 3 / 4, abs=3) and columns[-1] == shown[1] - 1


def test_a_film_that_is_not_square_is_told_to_be_squeezed(asked, film):
    upload(asked, "tall.png", cv2.imencode(".png", film[:, :64])[1].tobytes())
    assert pictures(asked)[0][1].shape == (96, 64, 3)
    assert "squeezed to a square" in said(asked)
    upload(asked, "square.png", cv2.imencode(".png", film)[1].tobytes())
    assert "squeezed" not in said(asked)


@pytest.mark.parametrize("kind", [".png", ".jpg"])
def test_an_uploaded_film_is_asked_about(asked, model, film, kind):
    name = f"{HOSTILE}{kind}"
    for image in (film, 255 - film):  # the new file takes the place of the old one
        content = cv2.imencode(kind, image)[1].tobytes()
        upload(asked, name, content)
        assert asked.controls["film"].value == f"your file: {name}"
        assert len(asked.controls["film"].options) == 9, "eight of the set and the newest file"
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
        expected = model.predict(decoded)
        assert f"covid {expected.probabilities['covid']:.0%}" in pictures(asked)[0][0]
        assert asked.message.value == ""
        assert asked.shown.value.count("<img") == 1 and "onerror=&quot;" in asked.shown.value
        asked.controls["opacity"].value = 0
        np.testing.assert_allclose(pictures(asked)[0][1].mean(), decoded.mean(), atol=3)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file is empty"),
        (b"GIF89a nothing", "its header makes no sense"),
        (b"x" * (predictionwidget.MOST_BYTES + 1), "8.0 MB is more than 8 MB"),
        (cv2.imencode(".png", np.zeros((9, 9), np.uint8))[1].tobytes(), "too small"),
        (cv2.imencode(".png", np.eye(64, dtype=np.uint8))[1].tobytes()[:60], "damaged"),
    ],
)
def test_a_bad_file_gets_a_sentence_and_changes_nothing(asked, content, told):
    before = asked.shown.value
    upload(asked, HOSTILE, content)
    assert told in asked.message.value and 'role="alert"' in asked.message.value
    assert "<img" not in asked.message.value and html.escape(HOSTILE) in asked.message.value
    assert "/tmp" not in asked.message.value
    assert asked.shown.value == before


def test_dicom_is_taken_by_its_name():
    pytest.importorskip("pydicom")
    told = r"^x\.dcm: this DICOM file cannot be read \(the letters DICM"
    with pytest.raises(ImageError, match=told):
        predictionwidget.read_upload(({"name": "x.dcm", "content": b"no DICOM\0"},))


def test_a_model_that_fails_gives_a_sentence(asked, model, monkeypatch):
    monkeypatch.setattr(predictor.Predictor, "predict", lambda *_: 1 / 0)
    asked.controls["film"].value = asked.controls["film"].options[-1]
    assert "The model gave no answer. division by zero" in asked.message.value
    assert asked.shown.value == ""


def test_models_of_a_run_are_offered_and_loaded_when_chosen(live, tmp_path, model):
    for name in ("03_a", "04_b"):
        model.save(tmp_path / "models" / name)
    (tmp_path / "models" / "04_b" / "model.weights.h5").write_bytes(b"broken")
    box = widgets.prediction(tmp_path / "models", tiny_cohort(patients=4))
    assert box.controls["model"].options == ("03_a", "04_b")
    assert len(pictures(box)) == 1
    box.controls["model"].value = "04_b"
    assert "is damaged: run the notebook again" in box.message.value


def test_without_a_model_a_sentence_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_RUN", str(tmp_path / "<i>"))
    assert widgets.newest_models() == tmp_path / "<i>" / "models"
    shown = widgets.prediction(widgets.newest_models())._repr_html_()
    assert "Run lesson 3" in shown and NOT_CLINICAL in shown and "<i>" not in shown


def test_the_newest_run_is_taken(tmp_path, monkeypatch):
    monkeypatch.delenv("CXR_RUN", raising=False)
    monkeypatch.setattr(results, "run_folder", lambda: tmp_path / "interactive")
    for age, name in enumerate(["new", "old"]):
        card = tmp_path / name / "models" / "03" / "predictor.json"
        card.parent.mkdir(parents=True)
        card.write_text(json.dumps({}))
        os.utime(card, (1000 - age, 1000 - age))
    assert widgets.newest_models() == tmp_path / "new" / "models"


def test_headless_prediction_is_a_figure_that_says_what_it_is(model):
    figure = widgets.prediction(model, tiny_cohort(patients=4))
    foot = figure.get_supxlabel().replace("\n", " ")
    assert NOT_CLINICAL in foot and explorer.MOVE_IT in foot
    assert "covid" in figure.get_suptitle()
