"""Random files for the readers of tables, claims, manifests, lessons, profiles and settings.

Whatever is in them, a reader gives a table or one of its own errors, which names the file or the
field, soon. The examples are the same in each run.
"""

import json
from pathlib import Path

import click
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cxrlib import files, sources
from cxrlib.audit import AuditError, subject
from cxrlib.course import lessons
from cxrlib.paper import claims
from cxrlib.sources import chexpert, folders

CourseError = lessons.CourseError
FINDINGS = chexpert.FINDINGS

DEFAULTS = {"seed": 0, "rate": 0.1, "on": True, "list": []}
fuzz = settings(  # how many examples, a profile of tests/conftest.py says
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def tally(record_property):
    """Count what was tried, for docs/reliability.md; each that did not survive has failed."""
    seen = {"tried": 0, "refused": 0}
    yield seen
    record_property("tried", seen["tried"])
    record_property("survived", seen["tried"])
    assert 0 < seen["refused"] < seen["tried"]  # neither all sound nor all bad


def attempt(tally, read, errors, *names):
    """Read; an error has to be one of the reader's own and name what is wrong."""
    tally["tried"] += 1
    try:
        return read()
    except errors as error:
        tally["refused"] += 1
        assert type(error) in (errors if isinstance(errors, tuple) else (errors,))
        assert any(str(name) in str(error) for name in names), str(error)
        assert len(str(error)) < 5000
    return None


cell = st.one_of(
    st.sampled_from(
        ["", "a.png", "covid", "healthy", "1", "-1", "0.0", "nan", "unknown", "=1+1", "../x.png",
         "train/patient1/study1/v_frontal.jpg", '"', "\0", "a" * 3000, "\ud800", "\x1b[0m", "é"]
    ),
    st.text(max_size=8),
)  # fmt: skip


@st.composite
def tables(draw, columns):
    """A CSV file: mostly its own columns, and rows that need not fit them."""
    named = st.lists(st.sampled_from(columns), min_size=1, max_size=len(columns) + 2)
    head = draw(st.one_of(st.just(list(columns)), named, st.lists(cell, max_size=4)))
    rows = draw(st.lists(st.lists(cell, min_size=0, max_size=len(head) + 2), max_size=6))
    mark, end = draw(st.sampled_from([",", ",", ",", ";", "\t"])), draw(st.sampled_from("\n\r"))
    quote = draw(st.booleans())
    lines = [mark.join(f'"{one}"' if quote else one for one in row) for row in [head, *rows]]
    code = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    content = end.join(lines).encode(code, errors="replace")
    return draw(st.one_of(st.just(content), st.binary(max_size=200).map(lambda b: content + b)))


@fuzz
@given(tables(["image", "label", "patient", "source", "view", "split"]))
@example(b"image,label\na.png,covid\nb.png,healthy\n")
@example(b"image,label\na.png,covid,more\n")
@example(b"image,label,label\na.png,covid,x\n")
@example(b"\n\n\n")
def test_a_folders_table(tmp_path, tally, record_property, content):
    path = tmp_path / "films.csv"
    path.write_bytes(content)
    found = attempt(tally, lambda: folders.make_table(path), sources.SourceError, "films.csv")
    if found is not None:
        table, _ = found
        assert len(table) and table["image"].is_unique and table["path"].str.len().min() > 0
        wrong = sources.SourceError
        attempt(tally, lambda: sources.load("folder", folder=path, progress=False), wrong, tmp_path)
    record_property("what", "random CSV files that describe films")


@fuzz
@given(tables(["Path", "AP/PA", *FINDINGS]))
@example(
    (",".join(["Path", *FINDINGS]) + "\ntrain/patient1/study1/v_frontal.jpg" + ",1" * 14).encode()
)
def test_chexperts_table(tmp_path, tally, record_property, content):
    path = tmp_path / "train.csv"
    path.write_bytes(content)
    attempt(tally, lambda: chexpert.chexpert_counts(path), sources.SourceError, "train.csv")
    names = "train.csv", "is not like"
    attempt(tally, lambda: chexpert.make_table(tmp_path), sources.SourceError, *names)
    record_property("what", "random label files of CheXpert")


@fuzz
@given(tables(["image", "label", "patient", "source"]))
@example(b"image,label,patient,source\na.png,covid,1,x\nb.png,healthy,2,y\n")
def test_an_audits_table(tmp_path, tally, record_property, content):
    path = tmp_path / "films.csv"
    path.write_bytes(content)
    wrong = (sources.SourceError, click.UsageError, AuditError)
    names = "films.csv", "There is no column"
    attempt(
        tally,
        lambda: subject.check_table("folder", {"folder": path}, "source", [], False, []),
        wrong,
        *names,
    )
    record_property("what", "random CSV files for an audit")


columns = ["image", "label", "patient", "source", "view", "licence", "cohort", "repo", "commit",
           "path", "bytes", "git_sha1", "sha256", "height", "width", "origin_url"]  # fmt: skip
GOOD = "a,covid,p,s,PA,CC0,c,o/r,abc,x.png,10,{0},{0},1,1,u".format("0" * 40)


@fuzz
@given(tables(columns))
@example((",".join(columns) + "\n" + GOOD).encode())
@example((",".join(columns) + "\n" + GOOD.replace("x.png", "../../../../x")).encode())
def test_a_manifest(tmp_path, tally, record_property, monkeypatch, content):
    (tmp_path / "open.csv").write_bytes(content)
    monkeypatch.setattr("cxrlib.sources.catalogue.shipped", lambda _: tmp_path)
    wrong = sources.SourceError
    attempt(tally, lambda: sources.verify("open"), wrong, "open.csv")
    record_property("what", "random manifests of files to fetch")


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
    lambda one: st.one_of(st.lists(one, max_size=3), st.dictionaries(st.text(max_size=4), one)),
    max_leaves=6,
)
claim = st.fixed_dictionaries(
    {}, optional={name: st.one_of(values, st.just("0.5"), st.just(0.5)) for name in claims.COLUMNS}
)
BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghijklm", "bcdefghijklmn", strict=True)
)
DEEP = "[" * 100_000
odd_yaml = st.one_of(
    st.text(alphabet="-:{}[]&*!|>%@`'\"#,? \n\tab01.~<=\\", max_size=60),
    st.sampled_from(
        [BOMB, DEEP, "2020-13-45", "9" * 5000, "&a [*a]", "!!python/name:os.system", "{a: 1, a: 2}",
         "? [a]\n: b", "!!binary x", "\ufffe", "0x" + "f" * 9999, "1:60:99", "<<: [1]", "*a", "\0",
         ".inf", "!!set {a}", "- id: a\n  id: b", "!!timestamp x", "!!int x", "!!float x"]
    ),
)  # fmt: skip


@fuzz
@given(st.one_of(st.lists(claim, max_size=3).map(yaml.safe_dump), odd_yaml))
@example("- {id: a, place: Table I, metric: m, printed: '0.5', value: 0.5}")
def test_claims(tmp_path, tally, record_property, text):
    path = tmp_path / "claims.yml"
    path.write_text(text, encoding="utf-8", errors="replace")
    attempt(tally, lambda: claims.load(path), claims.PaperError, "claims.yml")
    record_property("what", "random files of claims")


@fuzz
@given(st.one_of(st.dictionaries(st.text(max_size=5), values).map(yaml.safe_dump), odd_yaml))
@example("seed: 1")
def test_profiles(tmp_path, tally, record_property, text):
    (tmp_path / "profiles").mkdir(exist_ok=True)
    path = tmp_path / "profiles" / "mine.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    found = attempt(tally, lambda: lessons.read_profile(tmp_path, "mine"), CourseError, "mine.yaml")
    if found:
        one = lessons.Lesson(path, (), DEFAULTS, ())
        attempt(tally, lambda: lessons.check_profile([one], "mine", found), CourseError, "mine")
    record_property("what", "random profiles")


@fuzz
@given(st.one_of(st.tuples(st.text(max_size=5), values), st.tuples(st.just("seed"), odd_yaml)))
@example(("seed", 3))
def test_settings(tally, record_property, pair):
    name, value = pair
    text = value if isinstance(value, str) else yaml.safe_dump(value)
    one = lessons.Lesson(Path("01_one.ipynb"), (), DEFAULTS, ())

    def read():
        found = lessons.parse_settings([f"{name}={text}"])
        lessons.check_settings([one], {}, found)
        json.dumps(found, default=str)

    attempt(tally, read, CourseError, "--set", "There is no parameter", "--profile")
    record_property("what", "random settings name=value")


@fuzz
@given(
    st.one_of(
        st.binary(max_size=100),
        values.map(lambda one: json.dumps(one).encode()),
        st.text(max_size=40).map(
            lambda code: json.dumps(
                {"cells": [{"cell_type": "code", "source": [code],
                            "metadata": {"tags": ["parameters"]}}]}
            ).encode()
        ),
    )
)  # fmt: skip
@example(b"[" * 100_000)
@example(b'{"cells": [{"cell_type": "code", "source": ["a = 1"], "metadata": null}]}')
def test_lessons(tmp_path, tally, record_property, content):
    path = tmp_path / "01_one.ipynb"
    path.write_bytes(content)
    attempt(tally, lambda: lessons.read(path), CourseError, "01_one.ipynb")
    record_property("what", "random notebooks")


def test_nested_aliases_take_no_memory():
    with pytest.raises(ValueError, match="alias"):
        files.parse_yaml(BOMB)
    assert files.parse_yaml("a: &a {b: 1}\nc: {<<: *a}\nd: *a") == {
        "a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1},
    }  # fmt: skip


def test_yaml_that_would_take_long_is_refused_before_it_does():
    for deep in ("[" * 101 + "]" * 101, "[" * 100_000, "{[" * 50_000, "[x, " * 30_000):
        with pytest.raises(ValueError, match="its brackets stand too deep"):
            files.parse_yaml(deep)
    assert files.parse_yaml("[" * 100 + "]" * 100)
    with pytest.raises(ValueError, match="its text is 250001 characters long; give 250000"):
        files.parse_yaml("a" * 250_001)


def test_a_tables_columns_stay_where_they_are(tmp_path):
    """A surplus comma at the end of each row made pandas take the first column for an index."""
    path = tmp_path / "films.csv"
    path.write_text("image,label,\na.png,covid,\nb.png,healthy,\n")
    table, _ = folders.make_table(path)
    assert isinstance(table, pd.DataFrame) and list(table["image"]) == ["a.png", "b.png"]
    assert list(table["label"]) == ["covid", "healthy"]
