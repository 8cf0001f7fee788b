"""Guesses: committed before the result shows, kept with the run, never in the way of a run."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from IPython.display import Image

from cxrlib import results
from cxrlib.interactive import forms, frontend, guesses
from cxrlib.interactive.forms import GuessError, Kind
from cxrlib.interactive.guesses import read
from cxrlib.plots import style

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
RUDE = "<script>alert(1)</script> & \"quotes\" '../..'"


@pytest.fixture
def screen(monkeypatch, tmp_path):
    """Everything that is displayed, in order; the run folder is ``tmp_path``."""
    displayed = []
    monkeypatch.setenv("CXR_RUN", str(tmp_path))
    monkeypatch.setattr(forms, "show", lambda *things: displayed.extend(things))
    return displayed


@pytest.fixture
def live(monkeypatch, screen):
    pytest.importorskip("ipywidgets")
    monkeypatch.setattr(frontend, "is_live", lambda: True)
    return screen


def restart():
    """Open the notebook's guesses anew, as another kernel does."""
    return guesses.Guesses(guesses.of("02_x").path)


def everything(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from everything(child)


def parts(form, kind):
    return [one for one in everything(form) if type(one).__name__ == kind]


def button(form, label):
    return next(one for one in parts(form, "Button") if one.description == label)


def words(form):
    return " ".join(one.value for one in parts(form, "HTML"))


def ask_number(**more):
    return guesses.of("02_x").ask("kept", "What is kept?", low=0, high=1, **more)


def test_a_result_appears_when_the_guess_is_committed_and_not_before(live, tmp_path):
    guess = ask_number()
    (form,) = live
    figure, _ = style.subplots()
    guess.check(np.float64(0.75), pd.DataFrame({"x": [0.75]}), figure)
    guess.reveal("also <b>this</b>")
    box, other = live[1:]
    assert "0.75" not in box.value and "<img" not in box.value and "Commit" in box.value
    assert guess.found == 0.75 and type(guess.found) is float, "the code has it at once"

    (field,) = parts(form, "Text")
    field.value = " 0,5 "
    button(form, "Commit").click()
    assert box.value.count("<td>0.75</td>") == 1 and box.value.count("<img") == 1
    assert "Your guess: 0.5. Found: 0.75. They lie 0.25 apart." in box.value
    assert "also &lt;b&gt;this" in other.value
    assert field.disabled and "Your guess: 0.5" in words(form)
    entry = json.loads((tmp_path / "guesses" / "02_x.json").read_text())["guesses"]["kept"]
    assert (entry["question"], entry["guess"]) == ("What is kept?", 0.5) and entry["time"]


def test_figures_that_wait_have_an_alternative_text(live):
    figure, _ = style.subplots()
    style.finish(figure, 'A "title" & more')
    png = b"\x89PNG\r\n\x1a\n"
    guess = ask_number()
    guess.check(1, figure)
    guess.reveal(Image(png, format="png"))  # a picture that says nothing of itself
    guess.commit(None)
    named, bare = live[1:]
    assert 'alt="A &quot;title&quot; &amp; more' in named.value and "base64,iVBOR" in named.value
    assert '<img alt="What is kept?" src="data:image/png;base64,iVBOR' in bare.value


def enter(field, text):
    """Type a text and press Enter: a browser tells of the key before it sends the text."""
    pressed = {"method": "custom", "content": {"event": "submit"}}
    field.comm.handle_msg({"content": {"data": pressed}, "buffers": []})
    field.value = text


def test_enter_commits_and_a_wrong_entry_does_not(live):
    guess = ask_number()
    (form,) = live
    (field,) = parts(form, "Text")
    assert not field.continuous_update, "or a half-written number could be committed"
    for text in ("much", "1.01", "-0.1", "nan", "inf", "50", ""):
        enter(field, text)
        assert not guess.committed and "Please write a number from 0 to 1" in words(form)
    field.value = "0.3"
    assert not guess.committed, "leaving the field is not yet a commitment"
    enter(field, "50 %")
    assert guess.committed and guess.answer == 0.5


def test_what_a_busy_kernel_learns_of_after_the_click_counts(live):
    number = ask_number()
    (field,) = parts(live[0], "Text")
    enter(field, "0")
    field.value = "0.5"
    assert number.answer == 0.5, "half a number was all that the kernel had heard of"
    guess = guesses.of("02_x").ask("which", "Which?", choices=["a", "b"])
    guess.check("b")
    form, box = live[1:]
    (field,) = parts(form, "RadioButtons")
    field.value = "a"
    button(form, "Commit").click()
    field.value = "b"
    assert guess.answer == "b" and "Your guess: b." in words(form) and "agree" in box.value
    button(form, "Guess again").click()
    field.value = "a"
    assert guess.answer == "b", "only Commit commits"
    button(form, "I don't know").click()
    field.value = "b"
    assert guess.answer is None


def test_not_knowing_is_an_answer_and_one_may_guess_again(live, tmp_path):
    guess = ask_number()
    guess.check(0.75)
    form, box = live
    button(form, "I don't know").click()
    assert "You left it open. Found: 0.75." in box.value
    assert guesses.of("02_x").table().loc["kept", "your guess"] == "don't know"
    button(form, "Guess again").click()
    (field,) = parts(form, "Text")
    assert not field.disabled and "Found" in box.value, "what was seen stays"
    field.value = "1"
    button(form, "Commit").click()
    assert "Your guess: 1. Found: 0.75" in box.value
    assert read(tmp_path / "guesses" / "02_x.json")["kept"]["guess"] == 1.0


def test_after_a_restart_the_guess_is_still_committed(live, monkeypatch):
    ask_number().commit(0.5)
    before = len(live)
    again = restart().ask("kept", "What is kept?", low=0, high=1)
    again.check(0.75, "the result")
    form, *shown = live[before:]
    assert "Your guess: 0.5" in words(form) and button(form, "Guess again")
    assert not [one for one in parts(form, "Button") if one.description == "Commit"]
    assert [str(one) for one in shown] == ["the result", again.comparison()]
    monkeypatch.setattr(frontend, "is_live", lambda: False)
    assert restart().ask("kept", "What is kept?", low=0, high=1).answer == 0.5
    assert str(live[-1]) == "Your guess (kept): 0.5."


def test_a_kept_answer_that_no_longer_fits_is_asked_again_and_stays_in_the_file(live, tmp_path):
    ask_number().commit(0.5)
    guess = restart().ask("kept", "Which?", choices=["a", "b"])
    assert not guess.committed
    assert read(tmp_path / "guesses" / "02_x.json")["kept"]["guess"] == 0.5


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"schema": 1}', '{"schema": 2, "guesses": {}}', "\x00"]
)
def test_a_damaged_file_is_told_of_and_set_aside(live, tmp_path, text):
    path = tmp_path / "guesses" / "02_x.json"
    path.parent.mkdir()
    path.write_text(text)
    guess = ask_number()
    warning, form = live
    assert f"{path} is damaged" in str(warning) and "02_x.damaged.json" in str(warning)
    assert path.read_text() == text, "asking alone changes nothing"
    button(form, "I don't know").click()
    assert guess.committed and set(read(path)) == {"kept"}
    assert path.with_name("02_x.damaged.json").read_text() == text


def test_a_guess_that_cannot_be_kept_counts_and_says_so(live, tmp_path):
    (tmp_path / "guesses").write_text("a file where the folder should be")
    guess = ask_number()
    form = live[-1]
    guess.check(0.75)
    parts(form, "Text")[0].value = "0.5"
    button(form, "Commit").click()
    assert guess.committed and "could not be kept" in words(form)
    assert "They lie 0.25 apart" in live[-1].value


def test_the_same_notebook_opened_twice_keeps_both_guesses(live, tmp_path):
    one = guesses.of("02_x")
    other = restart()
    assert one is not other
    one.ask("a", "A?").commit(1)
    other.ask("b", "B?").commit(2)
    assert set(read(tmp_path / "guesses" / "02_x.json")) == {"a", "b"}


def test_headless_shows_all_at_once_and_writes_nothing(screen, tmp_path):
    guess = ask_number()
    guess.check(0.75, "the result")
    guess.reveal("more")
    guesses.of("02_x").summary()
    line, shown, found, more, table = screen
    assert "asked in JupyterLab and Colab" in str(line)
    assert (shown, str(found), more) == ("the result", "Found (kept): 0.75.", "more")
    assert table.to_dict("index") == {"kept": {"your guess": "none", "found": 0.75}}
    assert not list(tmp_path.iterdir())


def test_the_summary_covers_what_is_not_guessed_yet_and_the_record_does_not(live):
    mine = guesses.of("02_x")
    for name in ("first", "second"):
        mine.ask(name, f"The {name}?", choices=["yes", "no"]).check("yes")
    mine.asked["first"].commit("no")
    mine.summary()
    box = live[-1]
    assert "<td>no</td>" in box.value and "<td>none</td>" in box.value
    assert box.value.count("after your guess") == 1
    assert mine.table()["found"].tolist() == ["yes", "yes"]
    mine.asked["second"].commit("yes")
    assert "after your guess" not in box.value and "<td>none</td>" not in box.value
    mine.summary()
    assert live[-1].equals(mine.table())


def test_the_table_survives_json(screen):
    mine = guesses.of("02_x")
    mine.ask("one", "?").check(np.float32(1 / 3))
    mine.ask("two", "?", whole=True).check(np.int64(7))
    mine.ask("three", "?", choices="ab", items=["A", "B"]).check(["a", "b"])
    mine.ask("four", "?").check(None, "Skipped: no masks.")
    assert list(map(str, screen[-2:])) == [
        "Skipped: no masks.",
        "four: this run did not measure it.",
    ]
    table = mine.table()
    again = results.unpack(json.loads(json.dumps(results.pack(table), allow_nan=False)))
    assert again["found"].tolist() == table["found"].tolist() == [0.333, 7, "a, b", None]
    assert again["your guess"].tolist() == ["none"] * 4


def test_rude_text_stays_text(live):
    mine = guesses.of("02_x")
    guess = mine.ask(RUDE, RUDE, choices=[RUDE, "tame"])
    guess.check(RUDE, RUDE)
    form, box = live
    parts(form, "RadioButtons")[0].value = RUDE
    button(form, "Commit").click()
    mine.ask("open", "?")
    mine.summary()
    for html in (words(form), box.value, live[-1].value):
        assert "<script" not in html and "&lt;script&gt;" in html
    assert "They agree" in box.value


@pytest.mark.parametrize("name", ["", "../02_x", "a/b", "a b", ".hidden"])
def test_names_that_are_no_notebooks_are_refused(screen, name):
    with pytest.raises(GuessError, match="no notebook's name"):
        guesses.of(name)


def test_two_questions_of_one_name_are_refused_and_a_cell_may_run_twice(live):
    guess = ask_number()
    guess.check(0.75)
    for answer in (2, "0.5", True, float("nan"), [0.5]):
        with pytest.raises(GuessError, match="Please write a number from 0 to 1"):
            guess.commit(answer)
    assert ask_number() is guess
    with pytest.raises(GuessError, match="Two questions are called 'kept'"):
        guesses.of("02_x").ask("kept", "Another?", low=0, high=1)
    first, box, second = live
    parts(second, "Text")[0].value = "0.5"
    button(second, "Commit").click()
    assert "Your guess: 0.5" in words(first) and "0.25 apart" in box.value


def test_several_things_get_a_choice_each(live):
    guess = guesses.of("02_x").ask("films", "Which?", choices=["well", "ill"], items="ABC")
    guess.check(["ill", "ill", "well"])
    form, box = live
    fields = parts(form, "Dropdown")
    assert [one.description for one in fields] == ["A", "B", "C"]
    fields[0].value = "ill"
    button(form, "Commit").click()
    assert not guess.committed and "an answer for each" in words(form)
    assert 'role="alert"' in words(form), "a screen reader says it at once"
    assert [one.label for one in fields] == ["ill", "choose ...", "choose ..."]
    for field in fields:
        field.value = "ill"
    button(form, "Commit").click()
    assert "2 of 3 agree" in box.value and guess.answer == ["ill"] * 3
    assert 'role="status"' in words(form) and "The result appears below." in words(form)


@pytest.mark.parametrize(
    ("kind", "text", "number"),
    [
        (Kind(0, 1), "25%", 0.25),
        (Kind(0, 1), ".5", 0.5),
        (Kind(whole=True), "1,200", 1200),
        (Kind(whole=True), "1 200", 1200),
        (Kind(low=-1), "-0,05", -0.05),
    ],
)
def test_numbers_as_people_write_them(kind, text, number):
    assert kind.number(text) == number


def calls(path):
    """Calls of a lesson's cells, in order: (cell, what is called, the call)."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for place, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            source = re.sub(r"^(\s*)[%!].*$", r"\1pass", "".join(cell["source"]), flags=re.M)
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                    name = node.targets[0].id if isinstance(node.targets[0], ast.Name) else ""
                    yield place, f"{name} = {ast.unparse(node.value.func)}", node.value
                if isinstance(node, ast.Call):
                    yield place, ast.unparse(node.func), node


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_question_of_a_lesson_is_checked_and_summed_up(path):
    assert "guessed_" not in path.read_text(encoding="utf-8")
    found = list(calls(path))
    asked = {
        name.removesuffix(" = my_guesses.ask"): (place, node.args[0].value)
        for place, name, node in found
        if name.endswith(" = my_guesses.ask")
    }
    # Lessons 1 to 9 ask two questions at least, each under a name of its own.
    assert len(asked) >= 2 and len({text for _, text in asked.values()}) == len(asked)
    assert sum(name == "my_guesses.ask" for _, name, _ in found) == len(asked)
    checks = {name[: -len(".check")]: place for place, name, _ in found if name.endswith(".check")}
    assert set(checks) == set(asked)
    for place, name, _ in found:
        if name.endswith((".check", ".reveal")):
            assert asked[name.split(".")[0]][0] < place, f"{name} comes before its question"
    summed = [place for place, name, _ in found if name == "my_guesses.summary"]
    recorded = [place for place, name, _ in found if name == "my_guesses.table"]
    assert len(summed) == len(recorded) == 1 and max(checks.values()) < summed[0] < recorded[0]
    of = [node.args[0].value for _, name, node in found if name == "guesses.of"]
    assert of == [path.stem]


def test_a_class_s_guesses_become_one_table(tmp_path, recwarn):
    """Three people: one with results, one without, one whose file is damaged."""
    reference = results.load(NOTEBOOKS[0].parents[1] / "data" / "reference", "04_resnet50")
    truth = reference.tables["guesses"]["found"]
    question = truth.index[0]
    for person, text in {"ada": 0.2, "bob": None, "eve": "{"}.items():
        place = tmp_path / person / "guesses" / "04_resnet50.json"
        place.parent.mkdir(parents=True)
        kept = {question: {"question": "How much?", "guess": text, "time": "2026-01-01"}}
        whole = json.dumps({"schema": guesses.SCHEMA, "notebook": "04_resnet50", "guesses": kept})
        place.write_text(text if person == "eve" else whole)
    (tmp_path / "ada" / "guesses" / "04_resnet50.damaged.json").write_text("{")
    (tmp_path / "ada" / "results").mkdir()
    own = NOTEBOOKS[0].parents[1] / "data" / "reference" / "results" / "04_resnet50.json"
    (tmp_path / "ada" / "results" / "04_resnet50.json").write_bytes(own.read_bytes())
    table = guesses.gather(sorted(tmp_path.iterdir()))
    assert table.to_dict("list") == {
        "run": ["ada", "bob"],
        "notebook": ["04_resnet50"] * 2,
        "question": [question] * 2,
        "guess": [0.2, None],
        "found": [truth[question], None],
    }
    (warning,) = [one for one in recwarn if "damaged" in str(one.message)]
    assert "eve" in str(warning.message) and "ada" not in str(warning.message)
    assert guesses.gather([]).empty
