"""The explorers of the page Play, moved by the keyboard; their numbers are the package's own."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import browser
from cxrlib import metrics, results, split
from cxrlib.paper import reconstruct
from cxrlib.phantom import make_cohort

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
sys.path[:0] = [str(DOCS), str(DOCS / "explorers")]

markdown_it = pytest.importorskip("markdown_it")

import make  # noqa: E402
from _site import tables  # noqa: E402

SHARES = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page as it is written, with the explorers' own script and style alone."""
    text = tables.fill((DOCS / "explorers.md").read_text(encoding="utf-8"))
    body = markdown_it.MarkdownIt("commonmark").render(text)
    head = f"<base href='{DOCS.as_uri()}/'><meta name='viewport' content='width=device-width'>"
    head += "<title>Play</title><link rel='stylesheet' href='_static/explorers.css'>"
    head += "<style>:root { color-scheme: light dark } body { background: Canvas }"
    head += " img { max-width: 100% }</style>"
    page = tmp_path_factory.mktemp("play") / "play.html"
    script = "<script src='_static/explorers.js'></script>"
    page.write_text(f"<!doctype html><html lang='en'>{head}<main>{body}</main>{script}", "utf-8")
    return page.as_uri()


@pytest.fixture(scope="module")
def one_browser():
    """A tab that stays: so all tests share one browser."""
    with browser.page():
        yield


@pytest.fixture
def tab(address, one_browser):
    with browser.page() as tab:
        tab.goto(address)
        yield tab
        browser.assert_clean(tab)


def box(tab, name):
    return tab.locator(f".explorer[data-explorer={name}]")


def slider(place, label):
    return place.get_by_role("slider", name=re.compile(label))


def move(slider, steps):
    """Go to a slider's first value, then so many steps up, by keys."""
    slider.press("Home")
    for _ in range(steps):
        slider.press("ArrowRight")


def shown(place):
    """Read the numbers of an explorer's tables, shares as shares."""
    cells = place.locator("[data-score]")
    read = "all => all.map(one => [one.dataset.score, one.textContent.replace('\u2212', '-')])"
    texts = dict(cells.evaluate_all(read))
    texts = {key: text for key, text in texts.items() if "(" not in text}  # none with an interval
    return {key: float(v.strip(" %")) / (100 if "%" in v else 1) for key, v in texts.items()}


def recorded_as(name):
    return json.loads((DOCS / "explorers" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def recorded():
    answers = results.load(ROOT / "data" / "reference", "04_resnet50").predictions
    answers = answers[answers["protocol"] == "clean"]
    return answers.assign(ill=(answers["label"] == "covid").astype(int))


@pytest.mark.parametrize(("cut", "share"), [(0.5, 0.5), (0.07, 0.1), (0.31, 0.002), (0.99, 0.02)])
def test_the_threshold_tells_what_the_package_measures(tab, recorded, cut, share):
    place = box(tab, "threshold")
    move(slider(place, "Threshold"), round(cut * 100) - 1)
    move(slider(place, "Prevalence"), SHARES.index(share))
    told, truth, p = shown(place), recorded["ill"], recorded["p_covid"]

    matrix = metrics.confusion(truth, (p >= cut).astype(int), [0, 1]).to_numpy()
    counts = [[told["spared"], told["alarms"]], [told["missed"], told["found"]]]
    assert np.array_equal(counts, matrix)
    scores = metrics.binary_scores(truth, p, cut)["value"]
    assert told["sensitivity"] == pytest.approx(scores["recall"], abs=6e-4)
    assert told["specificity"] == pytest.approx(scores["specificity"], abs=6e-4)
    benefit = metrics.net_benefit(truth, p, [cut], share).iloc[0]
    assert told["benefit"] == pytest.approx(benefit["model"], abs=6e-5)
    assert told["everybody"] == pytest.approx(benefit["everybody"], abs=6e-5)

    ill, well = share * matrix[1] / matrix[1].sum(), (1 - share) * matrix[0] / matrix[0].sum()
    assert told["ppv"] == pytest.approx(ill[1] / (ill[1] + well[1]), abs=6e-4)
    assert told["npv"] == pytest.approx(well[0] / (ill[0] + well[0]), abs=6e-4)


def test_the_threshold_counts_films_and_patients(tab, recorded):
    place = box(tab, "threshold")
    move(slider(place, "Threshold"), 49)
    called = recorded.assign(called=recorded["p_covid"] >= 0.5)
    people = called.groupby(["ill", "patient"])["called"].any()
    missed, alarmed = (~people[1]).sum(), people[0].sum()
    films = called.groupby("ill")["called"].sum()
    said = place.locator(".said").inner_text()
    assert f"{74 - films[1]} of 74 films of the ill are missed" in said
    assert f"({missed} of 40 ill patients on every film)" in said
    assert f"{films[0]} of 74 films of the healthy raise an alarm" in said
    assert f"({alarmed} of 40 healthy patients at least once)" in said


def test_the_dot_stands_on_the_decision_curve(tab):
    place = box(tab, "threshold")
    move(slider(place, "Threshold"), 19)
    here = place.locator("circle.here")
    x, y = (here.get_attribute(key) for key in ("cx", "cy"))
    curve = place.locator("polyline:not(.other)").get_attribute("points")
    assert f"{x},{y}" in curve.split()


def test_the_knob_tells_what_was_recorded_and_shows_its_sheet(tab):
    data, place = recorded_as("knob"), box(tab, "knob")
    sheets = place.locator(".sheet img").evaluate_all("all => all.map(one => one.src)")
    assert len(sheets) == len(data["level"]) == 11
    for step in (0, 7, 10):
        move(slider(place, "Knob"), step)
        for score in ("auc_inside", "auc_new"):
            ends = [f"{data[score + end][step]:.2f}" for end in ("", "_low", "_high")]
            said = "{} ({} to {})".format(*ends)
            assert place.locator(f"[data-score={score}]").inner_text() == said
            assert said in place.locator(".said").inner_text()
        assert shown(place)["finding"] == pytest.approx(data["finding"][step], abs=6e-4)
        film = place.locator(".shown img")
        assert film.get_attribute("src") in sheets[step]
        assert f"knob at {data['level'][step]:g}:" in film.get_attribute("alt")
        assert film.evaluate("one => one.naturalWidth") == 480


@pytest.mark.slow
def test_what_speaks_at_each_place_adds_up_to_the_answer():
    """Of an untrained network of the same kind: with its bias, the places make the logit."""
    from cxrlib.machine import start_keras
    from cxrlib.shortcuts import knob

    start_keras()
    cohort = make_cohort(8, (1, 1), knob.LABELS, 1.0, knob.INSIDE, 64, 3)
    model = knob.build_cnn(64, seed=1)
    films, speaks, p = make.evidence(model, cohort)
    assert [film in cohort.images[:] for film in films] == [True] * 6
    bias = float(model.layers[-1].get_weights()[1][0])
    assert speaks.sum(axis=(1, 2)) + bias == pytest.approx(np.log(p / (1 - p)), abs=1e-3)


@pytest.mark.sweep
@pytest.mark.slow
def test_the_knob_was_measured_by_the_package():
    from cxrlib.shortcuts import knob

    data, found = recorded_as("knob"), knob.knob([0.0, 1.0])
    for row, place in ((0, 0), (1, 10)):  # another processor rounds otherwise, so trains otherwise
        for score in ("auc_inside", "auc_new", "finding", "area_inside"):
            assert found[score][row] == pytest.approx(data[score][place], abs=0.08), score


@pytest.fixture(scope="module")
def dealt():
    """The 40 patients of the split, three films each; who they are hangs on no size."""
    whole = make_cohort(40, (4, 4), ("healthy", "covid"), 0.0, size=64, seed=0)
    return whole.take(whole.table.groupby("patient").cumcount().to_numpy() < 3)


@pytest.mark.parametrize("way", ["films", "patients"])
def test_the_split_deals_as_the_package_does(tab, dealt, way):
    place, deal = box(tab, "split"), 5
    place.get_by_role("radio", name=way, exact=True).check()
    move(slider(place, "Films of each"), 2)
    move(slider(place, "Deal number"), deal)
    parts = {"films": split.by_image, "patients": split.by_patient}[way](dealt, seed=deal)
    assert place.locator("rect.test").count() == len(parts.test)
    assert place.locator("rect.training").count() == len(parts.train) + len(parts.validation)
    people = split.overlap(parts).loc["patient"]
    torn = people["also in training or validation"]
    said = place.locator(".said").inner_text()
    assert f"{people['in test']:.0f} patients, and {torn:.0f} of them stand in training" in said
    if way == "patients":
        assert torn == 0 and place.locator("rect.torn").count() == 0
    tested = dealt.table["image"].isin(parts.test.table["image"]).astype(int)
    assert recorded_as("split")["dealt"][f"3 true {way}"][deal] == "".join(map(str, tested))


def test_the_split_shows_the_scores_of_its_deals(tab):
    place, scores = box(tab, "split"), recorded_as("split")["scores"]
    place.get_by_role("radio", name=re.compile("shuffled")).check()
    move(slider(place, "Films of each"), 3)
    told = shown(place)
    assert told["accuracy"] == pytest.approx(scores["4 shuffled films"][0], abs=6e-4)
    for way in ("films", "patients"):
        assert told[way] == pytest.approx(np.mean(scores[f"4 shuffled {way}"]), abs=6e-4)
    assert told["films"] > 0.8 and abs(told["patients"] - 0.5) < 0.05  # memory, and a coin


@pytest.mark.slow
def test_the_scores_of_the_split_are_measured_on_its_films():
    """By other means: features and labels of the package, a classifier of our own."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import scale

    from cxrlib.shortcuts import views

    whole = make_cohort(40, (4, 4), ("healthy", "covid"), 0.0, size=96, seed=0)
    seen, label = scale(views.features(whole).astype(float)), whole.table["label"].to_numpy()
    data = recorded_as("split")
    for way in ("films", "patients"):
        tested = np.array([*data["dealt"][f"4 true {way}"][0]]) == "1"
        model = LogisticRegression(max_iter=1000).fit(seen[~tested], label[~tested])
        score = model.score(seen[tested], label[tested])
        # scaled by all films here, by those of training there: a film or two may change
        assert score == pytest.approx(data["scores"][f"4 true {way}"][0], abs=2.1 / tested.sum())


def fill_in(place, **values):
    for label, value in values.items():
        place.get_by_label(label).fill(value)
    return place.locator(".said").inner_text()


@pytest.mark.parametrize(("hits", "n"), [(12, 12), (0, 7), (45, 48), (1, 1000)])
def test_wilson_s_interval_is_the_package_s(tab, hits, n):
    said = fill_in(box(tab, "wilson"), Hits=str(hits), Patients=str(n))
    share, *ends = map(float, re.findall(r"([\d.]+) %", said.replace("95 % interval", "")))
    assert share == pytest.approx(100 * hits / n, abs=0.05)
    assert ends == pytest.approx([100 * end for end in metrics.wilson(hits, n)], abs=0.05)
    for end, true in zip(ends, metrics.wilson(hits, n), strict=True):
        assert (end in (0, 100)) == (true in (0, 1)), "what is nearly 0 or 1 is not printed so"


@pytest.mark.parametrize("printed", ["0.9375", "0.94", ".5", "1.00", "0.0", "0.9063", "0.12345"])
def test_the_sizes_that_print_a_score_are_the_package_s(tab, printed):
    fits = {
        n: next((k for k in range(n + 1) if reconstruct.prints_as(k, n, printed)), None)
        for n in range(1, 61)
    }
    found = [f"{count} of {n}" for n, count in fits.items() if count is not None]
    said = fill_in(box(tab, "rounding"), Printed=printed, **{"Images at most": "60"})
    assert said.startswith(f"{len(found)} of 60 sizes can print {printed}")
    assert ", ".join(found[:8]) in said


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("wilson", {"Hits": "13"}), ("wilson", {"Patients": "many"}), ("rounding", {"Printed": "94"})],
)
def test_a_calculator_says_what_it_wants(tab, name, wrong):
    assert fill_in(box(tab, name), **wrong).startswith("Give ")


NAMES = ["threshold", "knob", "split"]


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_with_keys_and_a_voice_alone_gets_everything(tab, name):
    place = box(tab, name)
    said, before = place.locator(".said"), place.locator(".said").inner_text()
    told = place.get_by_role("status")
    assert len(before) > 60
    tab.keyboard.press("Tab")
    for _ in range(20):  # to the first control of this explorer
        if place.locator(":focus").count():
            break
        tab.keyboard.press("Tab")
    tab.keyboard.press("ArrowRight")
    assert place.locator(":focus").count() and said.inner_text() != before
    tab.wait_for_timeout(700)  # a voice hears where the slider rests, not each step
    assert told.text_content() == said.text_content()
    assert "Not for clinical use" in place.inner_text()
    assert "synthetic" in place.inner_text().lower()
    for drawn in place.locator("svg").all():
        assert len(drawn.get_attribute("aria-label")) > 15
    assert place.locator("input[type=range]").first.get_attribute("aria-valuetext")


@pytest.mark.parametrize("name", NAMES)
def test_print_and_readers_without_script_get_the_still(tab, name):
    place = box(tab, name)
    still, moving = place.locator(".still"), place.locator(".moving")
    assert moving.is_visible() and not still.is_visible()
    tab.emulate_media(media="print")
    assert still.is_visible() and not moving.is_visible()
    with browser.page(java_script_enabled=False) as plain:
        plain.goto(tab.url)
        assert box(plain, name).locator(".still img").is_visible()
        assert all(sheet.is_visible() for sheet in box(plain, name).locator(".sheet").all())
        assert box(plain, name).locator(".moving").count() == 0


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_the_page_fits_and_is_accessible(address, one_browser, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    with browser.page(width, 844, color_scheme=scheme) as tab:
        asked = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(address)
        assert all(url.startswith(("file:", "data:")) for url in asked)
        assert tab.evaluate("document.scrollingElement.scrollWidth") <= width
        found = Axe().run(tab).response["violations"]
        assert [rule["id"] for rule in found if rule["impact"] in ("serious", "critical")] == []


@pytest.mark.parametrize("name", NAMES)
def test_an_explorer_is_small(name):
    files = [*(DOCS / "explorers").glob(f"{name}*"), DOCS / "_static" / "explorers.js"]
    assert sum(path.stat().st_size for path in files) < 300_000


def test_the_explorers_have_the_colours_of_the_figures():
    from cxrlib.plots import style

    known = {value for value in vars(style).values() if str(value).startswith("#")}
    for name in ("explorers.js", "explorers.css"):
        used = re.findall(r"#[0-9A-F]{6}\b", (DOCS / "_static" / name).read_text(encoding="utf-8"))
        assert used and set(used) <= known


def test_the_recorded_answers_are_those_of_the_reference(recorded):
    data = recorded_as("threshold")
    assert data["p"] == recorded["p_covid"].tolist() and data["ill"] == recorded["ill"].tolist()
    assert data["patient"] == recorded["patient"].factorize()[0].tolist()
