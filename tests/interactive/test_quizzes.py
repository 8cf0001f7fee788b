"""Reading a quiz: what is right is kept, what is wrong is named."""

import re
from html.parser import HTMLParser

import pytest
import yaml

from cxrlib import interactive, results
from cxrlib.files import shipped
from cxrlib.interactive import quizzes

CLEAN = ["04_resnet50", "scores", "clean", "accuracy", "value"]
BASE = {"level": "judgement", "section": "7 · Both protocols"}
RIGHT = {"text": "Right one", "right": True, "feedback": "Good."}
WRONG = {"text": "Wrong one", "misses": "overlap-decides", "feedback": "No."}
SINGLE = {"id": "one", "kind": "single", "ask": "Which?", "answers": [RIGHT, WRONG]} | BASE
NUMBER = {
    "id": "two",
    "kind": "number",
    "ask": "It was {clean} of 100. How many were wrong?",
    "results": {"clean": CLEAN},
    "value": "clean",
    "tolerance": 0.01,
    "feedback": "So {clean}.",
    "wrong": [{"value": 123, "misses": "accuracy-suffices", "feedback": "These were right."}],
    "otherwise": "Count again.",
} | BASE


@pytest.fixture(scope="module", autouse=True)
def headings():
    """A lesson's heading, whatever the lessons call theirs today."""
    real = quizzes._headings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quizzes, "_headings", lambda lesson: {*real(lesson), BASE["section"]})
        yield


def read(tmp_path, *questions, name="04_resnet50", **more):
    path = tmp_path / f"{name}.yml"
    content = {"lesson": name, "questions": list(questions)} | more
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return quizzes.read(path)


def test_a_number_comes_from_the_recorded_results(tmp_path):
    (one,) = read(tmp_path, NUMBER).questions
    value = results.load(shipped("data") / "reference", "04_resnet50").scores["clean"]
    value = value.loc["accuracy", "value"]
    assert one.ask == f"It was {value:.2f} of 100. How many were wrong?"
    assert [answer.value for answer in one.answers] == [value, 123, None]
    assert one.answers[0].feedback == f"So {value:.2f}." and one.answers[0].text == f"{value:.2f}"
    assert [answer.right for answer in one.answers] == [True, False, False]


def test_counts_keep_no_decimals(tmp_path):
    counted = {"results": {"clean": [*CLEAN[:4], "n"]}, "value": 1}
    (one,) = read(tmp_path, NUMBER | counted).questions
    assert re.fullmatch(r"It was \d+ of 100\. .+", one.ask)


def test_the_order_of_answers_depends_on_the_names_alone(tmp_path):
    many = [WRONG | {"text": f"Wrong {n}"} for n in range(4)]
    orders, places = set(), set()
    for number in range(40):
        one = SINGLE | {"id": f"q{number}", "answers": [RIGHT, *many]}
        turned = one | {"answers": one["answers"][::-1]}
        first, second = (read(tmp_path, each).questions[0].answers for each in (one, turned))
        assert first == second
        orders.add(tuple(answer.text for answer in first))
        places.add([answer.right for answer in first].index(True))
    assert len(orders) > 20 and places == set(range(5))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "essay"}, "kind is 'essay': write single, multiple, number"),
        ({"level": "easy"}, "level is 'easy'"),
        ({"points": 3}, "points is unknown: take it out"),
        ({"section": "7 Both"}, "'7 Both' is no heading of 04_resnet50: copy one word for word"),
        ({"ask": "Is it {x}?"}, "{x} has no number: name it under results"),
        ({"ask": 5}, "5 is no text"),
        ({"answers": [RIGHT, WRONG | {"feedback": " "}]}, "' ' is no text"),
        ({"results": {"x": [*CLEAN[:4], "none"]}}, "not in data/reference"),
        ({"results": {"x": ["04_resnet50", "scores"]}}, "not in data/reference"),
        ({"answers": [RIGHT, RIGHT]}, "2 of 2 answers are right: give one right answer"),
        ({"answers": [RIGHT, RIGHT, WRONG]}, "2 of 3 answers are right"),
        ({"answers": [WRONG, WRONG]}, "0 of 2 answers are right"),
        ({"kind": "multiple", "answers": [RIGHT, RIGHT]}, "2 of 2 answers are right: give both"),
        ({"answers": [RIGHT, WRONG | {"misses": "luck"}]}, "'luck' is no key of misconceptions"),
        ({"answers": [RIGHT, WRONG | {"misses": None}]}, "None is no key of misconceptions"),
        ({"answers": [RIGHT, {"text": "a", "feedback": "b"}]}, "misses is missing: add it"),
        ({"answers": [RIGHT, {"text": "a", "misses": "b"}]}, "feedback is missing"),
        ({"answers": "ab"}, "'a' has no keys"),
        ({"answers": None}, "not iterable"),
    ],
)
def test_a_wrong_question_is_named_with_its_file(tmp_path, change, said):
    with pytest.raises(quizzes.QuizError) as caught:
        read(tmp_path, SINGLE | change)
    assert str(caught.value).startswith("04_resnet50.yml, question one: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"value": "dirty"}, "value is 'dirty': write a number, or the name of a result"),
        ({"value": True}, "value is True"),
        ({"value": 123}, "a wrong value lies within the tolerance"),
        ({"tolerance": "wide"}, "write a number, 0 or more"),
        ({"tolerance": float("nan")}, "write a number, 0 or more"),
        ({"tolerance": -1}, "write a number, 0 or more"),
        ({"value": float("inf")}, "write a number, or the name"),
        ({"answers": []}, "answers is unknown"),
        ({"wrong": [{"value": 1}]}, "feedback, misses is missing"),
    ],
)
def test_a_wrong_number_is_named(tmp_path, change, said):
    with pytest.raises(quizzes.QuizError, match="question two: ") as caught:
        read(tmp_path, NUMBER | change)
    assert said in str(caught.value)


def test_files_that_are_no_quiz_are_named(tmp_path):
    late = SINGLE | {"id": "three", "level": "recall"}
    with pytest.raises(quizzes.QuizError, match="question one: it stands too late"):
        read(tmp_path, late, SINGLE)
    with pytest.raises(quizzes.QuizError, match="question one: this id stands twice"):
        read(tmp_path, SINGLE, SINGLE)
    with pytest.raises(quizzes.QuizError, match="question 2: kind is None"):
        read(tmp_path, SINGLE, "what?")
    with pytest.raises(quizzes.QuizError, match=r"11_more\.yml: there is no lesson 11_more"):
        read(tmp_path, SINGLE, name="11_more")
    with pytest.raises(quizzes.QuizError, match="write the file's own name"):
        read(tmp_path, SINGLE, lesson="05_vgg16")
    with pytest.raises(quizzes.QuizError, match="title is unknown"):
        read(tmp_path, SINGLE, title="x")
    with pytest.raises(quizzes.QuizError, match=r"none\.yml"):
        quizzes.read(tmp_path / "none.yml")
    with pytest.raises(quizzes.QuizError, match="03_custom_cnn"):
        interactive.quiz("3_custom_cnn")


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a *b* **c** `d*e*f`", "a <em>b</em> <strong>c</strong> <code>d*e*f</code>"),
        ("[x](https://a.org/b_c) & <b>", '<a href="https://a.org/b_c">x</a> &amp; &lt;b&gt;'),
        ("2 * 3 * 4 isn't", "2 * 3 * 4 isn't"),
        ("[x](../docs/a.md#b)", '<a href="../docs/a.md#b">x</a>'),
        ("[x](javascript:run)", "[x](javascript:run)"),
    ],
)
def test_markdown_becomes_html_and_html_stays_text(text, html):
    assert quizzes.to_html(text) == html


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.seen = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def count(self, tag, **wanted):
        return sum(t == tag and wanted.items() <= a.items() for t, a in self.seen)


def test_a_cell_shows_forms_and_plain_text_names_no_answer_as_right():
    quiz = interactive.quiz("03_custom_cnn")
    tags = Tags(quiz._repr_html_())
    kinds = [question.kind for question in quiz.questions]
    assert tags.count("form") == tags.count("legend") == tags.count("details") == len(kinds)
    assert tags.count("input", type="number") == kinds.count("number") > 0
    answers = {kind: [q for q in quiz.questions if q.kind == kind] for kind in kinds}
    for kind, look in {"single": "radio", "multiple": "checkbox"}.items():
        shown = sum(len(question.answers) for question in answers[kind])
        assert tags.count("input", type=look) == shown > 0
    assert not [a for _, a in tags.seen if {"src", "action"} & a.keys()], "nothing is fetched"
    text = repr(quiz)
    assert text.count("?\n") >= 8 and not re.search("(?i)feedback|right:", text)


def test_a_recorded_text_that_is_not_there_is_named(monkeypatch):
    with pytest.raises(quizzes.QuizError, match=r"'04_resnet50 / curve'\. Did you mean"):
        interactive.recorded("04_resnet50", "curve")
    lost = {"text": "It was {x}.", "weights": True, "places": {"x": ["pretraining", 999, "value"]}}
    monkeypatch.setattr(quizzes, "recordings", lambda: {"04_resnet50": {"curves": lost}})
    with pytest.raises(quizzes.QuizError, match=r"recorded\.yml, 04_resnet50 / .*correct the path"):
        interactive.recorded("04_resnet50", "curves")
