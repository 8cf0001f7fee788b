"""The explorers in a real browser: JupyterLab and Voila, moved by the keyboard."""

import base64
import json
import re

import cv2
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from browser import assert_clean, page, run_all
from cxrlib import NOT_CLINICAL, augment, predictor, results, sources
from cxrlib.files import shipped
from cxrlib.phantom import render
from cxrlib.shortcuts import knob
from servers import ROOT, jupyter_lab, voila

pytestmark = pytest.mark.slow
CELLS = {  # of the lessons: what an explorer needs, and the explorer
    "02_augmentation": "setup parameters set-seed load-cohort take-film try",
    "07_evaluation": "collect notes test-set try-threshold",
    "09_shortcuts": "try-knob",
}
SMALL = {"patients": 12, "confounding": 0.0}
BEFORE = {  # what other cells of the lesson have set by then
    "set-seed": f"source_options = {SMALL}\n",
    "test-set": 'import pandas as pd\nexample = "04_resnet50"\n',
}


def real_cells():
    """Copy the cells as they stand in the lessons."""
    chosen = []
    for name, wanted in CELLS.items():
        notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8"))
        cells = {cell["id"]: cell for cell in notebook["cells"]}
        for key in wanted.split():
            source = BEFORE.get(key, "") + "".join(cells[key]["source"])
            chosen.append(cells[key] | {"id": f"{name[:2]}-{key}", "source": source})
    return notebook | {"cells": chosen}


def slider(tab, label):
    """Find what the keyboard moves, beside the label that people read."""
    row = tab.locator(".widget-slider").filter(has=tab.get_by_text(label, exact=True))
    return row.locator(".noUi-handle")


def wait_for_alt(tab, pattern):
    """Wait until a picture on the page is described so; return it."""
    tab.wait_for_function(
        "p => [...document.images].some(i => new RegExp(p).test(i.alt))", arg=pattern
    )
    number = tab.evaluate(
        "p => [...document.images].findIndex(i => new RegExp(p).test(i.alt))", pattern
    )
    return tab.locator("img").nth(number)


def upload(tab, name, content):
    """Press the button by the keyboard, and choose a file."""
    with tab.expect_file_chooser() as chooser:
        tab.get_by_role("button", name=re.compile("Upload a film")).press("Enter")
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


def pixels(picture):
    data = picture.get_attribute("src").split(",")[1]
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_GRAYSCALE)


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    """A tab with the explorers of the lessons in JupyterLab, all cells run."""
    folder = tmp_path_factory.mktemp("lab")
    root = folder / "notebooks"
    root.mkdir()
    (root / "explorers.ipynb").write_text(json.dumps(real_cells()), "utf-8")
    own = {"CXR_CACHE": str(folder / "cache"), "CXR_RUN": str(folder / "run")}
    with page(height=1400) as tab, jupyter_lab(folder, root, **own) as address:
        run_all(tab, address, "explorers.ipynb")
        tab.wait_for_function(
            "document.querySelectorAll('.jp-OutputArea-output .widget-vbox').length >= 3"
        )
        yield tab


def test_augmentation_follows_the_arrow_keys(lesson):
    first = wait_for_alt(lesson, "^The same film changed: .*noise of 8 ").get_attribute("src")
    slider(lesson, "noise, sigma").press("ArrowRight")
    moved = wait_for_alt(lesson, "^The same film changed: .*noise of 10 ")
    assert moved.get_attribute("src") != first
    everyone = sources.load("phantom", **SMALL)
    film = everyone.where(label="covid").images[0]
    rng = np.random.default_rng(0)
    expected = augment.noise(augment.flip(augment.crop(film, 0.85, rng)), 10, rng)
    np.testing.assert_array_equal(pixels(moved), expected)
    np.testing.assert_array_equal(pixels(wait_for_alt(lesson, "^The original film")), film)


def test_threshold_follows_the_arrow_keys(lesson):
    first = wait_for_alt(lesson, "^ROC curve.* At threshold 0.50").get_attribute("src")
    handle = slider(lesson, "threshold")
    for _ in range(10):
        handle.press("ArrowRight")
    moved = wait_for_alt(lesson, "^ROC curve.* At threshold 0.60")
    assert moved.get_attribute("src") != first
    said = results.load(shipped("data") / "reference", "04_resnet50").predictions
    said = said[said["protocol"] == "clean"]
    matrix = confusion_matrix(said["label"] == "covid", said["p_covid"] >= 0.6)
    table = moved.locator("xpath=ancestor::*[contains(@class, 'widget-html')][1]//table").first
    assert [int(cell) for cell in table.locator("td").all_inner_texts()] == matrix.ravel().tolist()


def test_the_knob_follows_the_arrow_keys(lesson):
    first = wait_for_alt(lesson, "knob at 0.00").get_attribute("src")
    slider(lesson, "knob (confounding)").press("End")
    moved = wait_for_alt(lesson, "knob at 1.00")
    assert moved.get_attribute("src") != first
    told = "Machines: healthy: 10 digital; covid: 10 computed."
    assert moved.get_attribute("alt").endswith(told)
    assert lesson.get_by_text("the machine alone gives 20 of 20 labels").count() == 1


def test_a_body_keeps_its_shape_when_its_finding_changes(lesson):
    ill = pixels(wait_for_alt(lesson, "^Synthetic film of patient 0, image 0: covid"))
    lesson.get_by_label("finding", exact=True).select_option("healthy")
    well = wait_for_alt(lesson, "^Synthetic film of patient 0, image 0: healthy")
    np.testing.assert_array_equal(ill, render("covid", size=256).image)
    np.testing.assert_array_equal(pixels(well), render("healthy", size=256).image)
    # the last of the tests in this tab: nothing of the above left an error behind
    assert_clean(lesson)


@pytest.fixture(scope="module")
def apps(tmp_path_factory):
    """Address of the apps, with a small untrained network for a model."""
    folder = tmp_path_factory.mktemp("voila")
    predictor.Predictor(
        knob.build_cnn(64, 0), ["healthy", "covid"], provenance={"synthetic": True}
    ).save(folder / "run" / "models" / "03_custom_cnn")
    own = {"CXR_CACHE": str(folder / "cache"), "CXR_RUN": str(folder / "run")}
    with voila(folder, ROOT / "notebooks" / "apps", **own) as address:
        yield address


def test_the_apps_open_on_a_page_that_says_what_they_are(apps):
    for path in sorted((ROOT / "notebooks" / "apps").glob("*.ipynb")):
        title = json.loads(path.read_text())["metadata"]["title"]
        with page() as tab:
            tab.goto(apps)
            assert NOT_CLINICAL[:-1] in tab.get_by_role("main").inner_text()
            tab.get_by_role("link", name=title, exact=True).click()
            tab.get_by_role("heading", name=title, exact=True).wait_for()
            tab.locator("figure img").first.wait_for()
            assert tab.title() == title
            back = tab.get_by_role("link", name="Both apps")
            assert back.evaluate("link => link.href") == f"{apps}/"
            assert_clean(tab)


def test_the_predictor_app_answers_and_takes_files(apps):
    with page() as tab:
        tab.goto(f"{apps}/voila/render/predictor.ipynb")
        first = wait_for_alt(tab, "heat map at 40% opacity").get_attribute("src")
        assert tab.get_by_text(NOT_CLINICAL, exact=True).first.is_visible()
        tab.get_by_role("slider", name="opacity of the heat").press("ArrowRight")
        assert wait_for_alt(tab, "heat map at 45% opacity").get_attribute("src") != first

        hostile = "<img src=x onerror=document.title='bad'>.png"
        upload(tab, hostile, b"no film")
        alarm = tab.get_by_role("alert")
        alarm.wait_for()
        assert alarm.inner_text() == (
            f"{hostile}: text, not an image. Check the name, or fetch the image again."
        )
        tall = cv2.resize(render("covid", size=300).image, (200, 300))
        upload(tab, "mine.png", cv2.imencode(".png", tall)[1].tobytes())
        shown = wait_for_alt(tab, "^your file: mine.png, with a heat map").bounding_box()
        assert shown["height"] == pytest.approx(1.5 * shown["width"], abs=2)
        assert tab.get_by_role("alert").count() == 0
        assert tab.title() != "bad"
        assert_clean(tab)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_phantoms_app_turns_its_knob_in_sight_of_the_films(apps, width):
    with page() as tab:
        tab.set_viewport_size({"width": width, "height": 760})
        tab.goto(f"{apps}/voila/render/phantoms.ipynb")
        wait_for_alt(tab, "knob at 0.00")
        assert tab.get_by_text(NOT_CLINICAL, exact=True).first.is_visible()
        knob = tab.get_by_role("slider", name="knob (confounding)", exact=True)
        knob.press("ArrowRight")
        films = wait_for_alt(tab, "knob at 0.05").bounding_box()
        top = min(knob.bounding_box()["y"], films["y"])
        assert films["y"] + films["height"] - top < 760, "who turns the knob doesn't see the films"
        assert films["x"] + films["width"] <= width
        assert_clean(tab)
