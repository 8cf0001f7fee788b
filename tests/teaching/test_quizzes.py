"""The quizzes as a whole, and what other programs read in the files made of them."""

import ast
import functools
import importlib.util
import json
import re
import zipfile
from functools import cache
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from scipy.stats import binomtest

from cxrlib import interactive, results
from cxrlib.interactive import quizzes
from grading import ROOT

FOLDER = ROOT / "notebooks" / "quizzes"
FILES = sorted(FOLDER.glob("[0-9]*.yml"))
each_quiz = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
SITE = "https://a.example/course/"

read = cache(quizzes.read)


@pytest.fixture(scope="module")
def exports():
    spec = importlib.util.spec_from_file_location("make_exports", FOLDER / "make_exports.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- the questions ----------------------------------------------------------------------------


@each_quiz
def test_a_lesson_asks_a_few_questions_and_judgement_first(path):
    questions = read(path).questions
    least = 5 if path.stem.startswith("00") else 8
    assert least <= len(questions) <= 12
    assert questions[0].level == "judgement"


@each_quiz
def test_the_lesson_shows_its_quiz_once(path):
    cells = json.loads((ROOT / "notebooks" / f"{path.stem}.ipynb").read_text("utf-8"))["cells"]
    shows = f'interactive.quiz("{path.stem}")'
    lines = [line.strip() for cell in cells for line in cell["source"]]
    found = [line.removeprefix(shows) for line in lines if line.startswith(shows)]
    assert found in ([""], [".part(0, 5)", ".part(5)"])  # whole, or five before the lesson


def choices():
    every = (question for path in FILES for question in read(path).questions)
    return [question.answers for question in every if question.kind != "number"]


PICKS = {
    "longest": lambda answers: max(answers, key=lambda one: len(one.text)),
    "shortest": lambda answers: min(answers, key=lambda one: len(one.text)),
    "first": lambda answers: answers[0],
    "last": lambda answers: answers[-1],
}


@pytest.mark.parametrize("pick", PICKS)
def test_who_goes_by_length_or_place_is_right_no_more_often_than_chance(pick):
    """Of different chances the mean serves: hits then vary less than the binomial says."""
    questions = choices()
    hits = sum(PICKS[pick](answers).right for answers in questions)
    chances = [sum(one.right for one in answers) / len(answers) for answers in questions]
    found = binomtest(hits, len(questions), sum(chances) / len(chances), alternative="greater")
    assert found.pvalue > 0.05, f"{pick}: {hits} of {len(questions)}, chance {sum(chances):.0f}"


def test_typed_answers_still_fit_the_recorded_results():
    """Where an answer is computed from results, and typed."""
    by_id = {one.id: one for one in read(FOLDER / "03_custom_cnn.yml").questions}
    share, films = re.search(r"calls ([\d.]+) of (\d+)", by_id["missed-by-stage-1"].ask).groups()
    missed, found = (answer.value for answer in by_id["missed-by-stage-1"].answers[:2])
    assert found == round(float(share) * int(films)) and missed == int(films) - found


def test_verdicts_in_words_still_fit_the_recorded_results():
    """Rows that a question picks by number, and what it says of an interval."""
    load = functools.partial(results.load, ROOT / "data" / "reference")
    grid = load("04_resnet50").tables["grid"]["val_accuracy"]
    assert (grid.idxmax(), grid.idxmin(), len(grid)) == (3, 16, 20)
    assert load("03_custom_cnn").tables["protocol_difference"].loc["accuracy", "low"] > 0
    pair = load("05_vgg16").tables["VGG16 and VGG19"].loc[0]
    assert pair["low"] < 0 < pair["high"]
    six = load("06_densenet121_multiclass")
    rule = six.tables["baseline"].loc["always the most frequent / accuracy", "value"]
    assert six.scores["clean"].loc["accuracy", "value"] < rule


def test_every_belief_is_named_well():
    for key, known in quizzes.misconceptions().items():
        assert re.fullmatch(r"[a-z-]+", key) and set(known) == {"belief", "against"}, key


# --- Moodle XML -------------------------------------------------------------------------------


@each_quiz
def test_moodle_xml_has_all_points_and_all_feedback(path, exports):
    quiz = read(path)
    root = ET.fromstring(exports.moodle(quiz, SITE).encode())
    category, *found = root.findall("question")
    assert category.get("type") == "category" and path.stem in category.findtext("category/text")
    assert len(found) == len(quiz.questions)
    for one, wanted in zip(found, quiz.questions, strict=True):
        kind = {"number": "numerical"}.get(wanted.kind, "multichoice")
        assert one.get("type") == kind and wanted.id in one.findtext("name/text")
        assert f'href="{SITE}notebooks/{path.stem}.html#' in one.findtext("generalfeedback/text")
        answers = one.findall("answer")
        points = [float(answer.get("fraction")) for answer in answers]
        assert sum(max(0, p) for p in points) == pytest.approx(100, abs=1e-4)
        assert [p > 0 for p in points] == [answer.right for answer in wanted.answers]
        assert sum(points) == pytest.approx(0 if wanted.kind == "multiple" else 100, abs=1e-4)
        assert all(answer.findtext("feedback/text") for answer in answers)
        if wanted.kind == "number":
            assert [a.findtext("text") for a in answers][-1] == "*"
            assert float(answers[0].findtext("text")) == pytest.approx(wanted.answers[0].value)
            assert float(answers[0].findtext("tolerance")) == wanted.tolerance
        else:
            assert one.findtext("single") == str(wanted.kind == "single").lower()


def test_links_lead_to_the_headings_of_the_site(exports):
    nodes = pytest.importorskip("docutils.nodes")  # which names them
    for path in FILES:
        quiz = read(path)
        for one in quiz.questions:
            wanted = f"]({SITE}notebooks/{path.stem}.html#{nodes.make_id(one.section)})."
            assert exports.read_again(quiz, one, SITE).endswith(wanted)
            assert "](" not in exports.read_again(quiz, one, "")


# --- GIFT: read by the rules of Moodle's page "GIFT format" -----------------------------------


def read_gift(text):
    """Read strictly: (title, question, numerical?, [(mark, weight, answer, feedback)], general)."""
    head, *blocks = re.split(r"\n\n+", text.strip())
    assert head.startswith("$CATEGORY: ")
    held = {}

    def hide(found):
        held[name := chr(0xE000 + len(held))] = found[1]
        return name

    def show(part):
        return "".join(held.get(letter, letter) for letter in part).strip()

    for block in blocks:
        held.clear()
        plain = re.sub(r"\\([~=#{}:\\])", hide, block)
        title, asked, numerical, inside = re.fullmatch(
            r"::([^:]+)::\[html\]([^{}~=#:]+)\{(#?)\n(.*)\n\}", plain, re.DOTALL
        ).groups()
        body, general = inside.split("####")
        answers = re.findall(
            r"^([=~])(?:%(-?[\d.]+)%)?((?!%)[^#~={}]*)#([^#~={}]+)$", body, re.MULTILINE
        )
        assert len(answers) == len(body.strip().splitlines()), body
        yield (
            show(title),
            show(asked),
            bool(numerical),
            [(mark, weight, show(answer), show(told)) for mark, weight, answer, told in answers],
            show(general),
        )


@each_quiz
def test_gift_says_the_same_as_the_quiz(path, exports):
    quiz = read(path)
    found = [*read_gift(exports.gift(quiz, SITE))]
    for (title, asked, numerical, answers, general), wanted in zip(
        found, quiz.questions, strict=True
    ):
        assert wanted.id in title and asked == quizzes.to_html(wanted.ask)
        assert numerical == (wanted.kind == "number") and f"{path.stem}.html#" in general
        assert [a[3] for a in answers] == [quizzes.to_html(one.feedback) for one in wanted.answers]
        rights = [one.right for one in wanted.answers]
        if wanted.kind == "multiple":
            weights = [float(weight) for _, weight, *_ in answers]
            assert [weight > 0 for weight in weights] == rights
            assert sum(max(0, w) for w in weights) == pytest.approx(100, abs=1e-4)
        elif wanted.kind == "single":
            assert [mark == "=" for mark, *_ in answers] == rights
            assert [a[2] for a in answers] == [quizzes.to_html(one.text) for one in wanted.answers]
        else:
            *numbers, (mark, _, rest, _) = answers
            assert (mark, rest) == ("~", "") and [a[1] for a in numbers[1:]] == ["0"] * (
                len(numbers) - 1
            )
            value, tolerance = map(float, numbers[0][2].split(":"))
            assert (value, tolerance) == (
                pytest.approx(wanted.answers[0].value),
                wanted.tolerance,
            )


# --- QTI for Canvas ---------------------------------------------------------------------------

QTI = {"q": "http://www.imsglobal.org/xsd/ims_qtiasiv1p2"}


@each_quiz
def test_the_zip_for_canvas_holds_what_its_manifest_names(path, exports, tmp_path):
    pytest.importorskip("text2qti", reason="text2qti is missing (extra teach)")
    quiz = read(path)
    exports.write_qti(quiz, tmp_path / "one.zip", SITE)
    with zipfile.ZipFile(tmp_path / "one.zip") as packed:
        manifest = ET.fromstring(packed.read("imsmanifest.xml"))
        named = {one.get("href") for one in manifest.iter() if one.tag.endswith("}file")}
        assert named | {"imsmanifest.xml"} == {
            name for name in packed.namelist() if not name.endswith("/")
        }
        (name,) = [one for one in named if "meta" not in one]
        items = ET.fromstring(packed.read(name)).findall(".//q:item", QTI)
    kinds = {"single": "multiple_choice", "multiple": "multiple_answers", "number": "numerical"}
    for item, wanted in zip(items, quiz.questions, strict=True):
        fields = [one.text for one in item.findall(".//q:fieldentry", QTI)]
        assert item.get("title") == wanted.id and f"{kinds[wanted.kind]}_question" in fields
        feedback = item.findall("q:itemfeedback", QTI)
        told = " ".join("".join(one.itertext()) for one in feedback)
        assert f"{path.stem}.html#" in told
        labels = item.findall(".//q:response_label", QTI)
        if wanted.kind == "number":
            bounds = (item.findtext(f".//q:{name}", None, QTI) for name in ("vargte", "varlte"))
            low, high = map(float, bounds)
            assert low <= wanted.answers[0].value <= high
            assert high - low == pytest.approx(2 * wanted.tolerance, abs=2e-4)
        else:
            assert len(labels) == len(wanted.answers)
            named = {one.get("ident") for one in feedback}
            assert {f"{one.get('ident')}_fb" for one in labels} <= named
            (scored,) = [
                part
                for part in item.findall(".//q:respcondition", QTI)
                if part.find("q:setvar", QTI) is not None
            ]
            refused = {one.text for one in scored.findall(".//q:not/q:varequal", QTI)}
            right = {one.text for one in scored.findall(".//q:varequal", QTI)} - refused
            rights = {
                label.get("ident")
                for label, answer in zip(labels, wanted.answers, strict=True)
                if answer.right
            }
            assert right == rights


# --- the table for teachers, and the command --------------------------------------------------


class Cells(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.rows, self.inside = [], False
        self.feed(text)

    def handle_starttag(self, tag, _):
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
        self.inside = self.inside or tag == "td"

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "td"

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def test_the_table_names_for_each_belief_the_questions_that_show_it(exports):
    found = [read(path) for path in FILES]
    pages = exports.misconceptions(found)
    rows = [row for row in Cells(pages["misconceptions.html"]).rows if len(row) == 3]
    assert len(rows) == len(quizzes.misconceptions())
    by_belief = {belief: names for belief, _, names in rows}
    text = (FOLDER / "01_data_retrieval.yml").read_text("utf-8")
    showing = re.findall(r"- id: ([\w-]+)|misses: public-is-free", text)
    assert showing.count("") == 3 and showing[showing.index("") - 1] == "no-licence"
    said = by_belief[quizzes.misconceptions()["public-is-free"]["belief"]]
    assert said.split(", ").count("01 no-licence") == 1
    lines = [line for line in pages["misconceptions.md"].splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(rows) and all(line.count(" | ") == 2 for line in lines)


def test_the_command_writes_a_lesson_and_says_what_is_missing(exports, tmp_path, capsys):
    code = exports.main(["--out", str(tmp_path), "--only", "02"])
    names = {path.name for path in tmp_path.iterdir()}
    wanted = {"02_augmentation.moodle.xml", "02_augmentation.gift"}
    assert wanted | {"misconceptions.md", "misconceptions.html"} == names - {
        "02_augmentation.qti.zip"
    }
    if importlib.util.find_spec("text2qti"):
        assert code == 0 and "02_augmentation.qti.zip" in names
    else:
        assert code == 1 and "text2qti is missing" in capsys.readouterr().err


RECORDED = {  # what the sentences conclude from the numbers between them
    "recorded-misfits": lambda few, dropout, films: few - films > few - dropout,
    "recorded-curves": lambda low, high, first, last, **rest: low > high and last < first,
    "recorded-gap": lambda whole, half, quarter, well, badly, wider, low, high: (
        whole < half < quarter and badly < well and low > 0
    ),
    "recorded-pairs": lambda missed, wrong, patches: True,
    "recorded-fine-tuning": lambda before, other, below, above, area_low, area_high, **rest: (
        other >= before > 0.9 and below < 0 < above < 0.01 and area_low < 0 < area_high
    ),
    "recorded-search": lambda picked, usual, honest, average, flattered: (
        picked - usual > honest - average and flattered > honest
    ),
    "recorded-headline": lambda low, high, clean_low, **rest: low > high and clean_low > 0,
    "recorded-promise": lambda kept, mean, worst: worst < mean < kept,
    "recorded-widths": lambda films, people: films < people,
    "recorded-lungs": lambda lungs, area, other: abs(lungs - other) < 0.02 < area - lungs,
    "recorded-shortcuts": lambda whole, covered, border, file: min(covered, border, file) > 0.9,
    "recorded-heat": lambda finding, machine, before, after, area: (
        machine < finding / 4 and max(abs(before - area), abs(after - area)) < 0.05
    ),
    "recorded-abroad": lambda low, promised, missed_high, alarmed_low, **rest: (
        low > 0 and missed_high < promised and alarmed_low > 0
    ),
    "recorded-remedies": lambda plain, crop, gain, low, high, little: low < 0 < gain > 2 * little,
    "recorded-reweigh": lambda often, less, seldom, more: less < often and seldom < more,
}


def test_what_lessons_say_of_the_recorded_run_is_so():
    cells = [
        cell
        for path in FILES
        for cell in json.loads((ROOT / "notebooks" / f"{path.stem}.ipynb").read_text())["cells"]
        if cell["id"].startswith("recorded-")
    ]
    assert {cell["id"] for cell in cells} == set(RECORDED)
    shown = [
        (lesson, f"recorded-{name}")
        for lesson, told in quizzes.recordings().items()
        for name in told
    ]
    assert len(shown) == len(cells), "a text that no cell shows"
    for cell in cells:
        call = ast.parse("".join(cell["source"])).body[-1].value
        lesson, name = map(ast.literal_eval, call.args)
        assert (lesson, cell["id"]) in shown and cell["id"] == f"recorded-{name}"
        given = quizzes.recordings()[lesson][name]
        tables = results.load(ROOT / "data" / "reference", lesson).tables
        places = given["places"].items()
        found = {name: tables[t].loc[row, column] for name, (t, row, column) in places}
        assert RECORDED[cell["id"]](**found), (cell["id"], found)
        said = repr(interactive.recorded(lesson, name))
        assert "seed 0" in said and ("weights in place" in said) <= given["weights"]
        for value in found.values():
            if value > 10:
                assert f"{value:.0f} %" in said
            elif abs(value) < 0.005:  # one digit that is not 0, in full
                numbers = [float(one) for one in re.findall(r"-?\d+\.\d+", said)]
                assert float(f"{value:.1g}") in numbers and "e-" not in said
            else:
                assert f"{value:.2f}" in said
