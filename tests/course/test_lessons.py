"""Notebooks, profiles and settings: what exists is found, what does not is named."""

import json
from pathlib import Path

import pytest

from cxrlib.course import lessons
from cxrlib.course.lessons import CourseError

NOTEBOOKS = Path(__file__).parent / "notebooks"


@pytest.fixture(scope="module")
def all_of_them():
    return lessons.find(NOTEBOOKS)


def test_parameters_and_needs_are_read_from_the_file(all_of_them):
    by_name = {lesson.name: lesson for lesson in all_of_them}
    assert by_name["03_model"].defaults == {"profile": "quick", "seed": 0, "broken": False}
    assert by_name["07_reads"].needs == ("03_model",)
    source = "a: int = 1\nb = c = [1, 2]  # why\nd = a + 1\nprint(d)\n"
    assert lessons.assigned(source, Path("x")) == {"a": 1, "b": [1, 2], "c": [1, 2], "d": None}


@pytest.mark.parametrize(
    "key", ["03", "3", "03_model", "03_model.ipynb", "notebooks/03_model.ipynb"]
)
def test_choosing_by_number_or_name(all_of_them, key):
    assert [one.name for one in lessons.choose(all_of_them, [key, "1"])] == ["01_first", "03_model"]


def test_unknown_names_are_refused_with_the_nearest(all_of_them, tmp_path):
    with pytest.raises(CourseError, match="Did you mean 03_model"):
        lessons.choose(all_of_them, ["03_modle"])
    with pytest.raises(CourseError, match=r"Did you mean quick.*There are: quick"):
        lessons.read_profile(NOTEBOOKS, "quik")
    with pytest.raises(CourseError, match=r"no parameter 'sede'. Did you mean seed"):
        lessons.check_settings(all_of_them, {}, {"sede": 1})
    with pytest.raises(CourseError, match=r"no parameter 'pause'"):  # known, but not here
        lessons.check_settings(all_of_them[:1], {}, {"pause": 1})
    with pytest.raises(CourseError, match="holds no notebooks"):
        lessons.find(tmp_path)


def test_files_that_are_no_notebook_or_profile(tmp_path):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "odd.yaml").write_text("- a\n- b\n")
    with pytest.raises(CourseError, match="name: value"):
        lessons.read_profile(tmp_path, "odd")
    for text in ("", "[]", '{"cells": [{}]}'):
        (tmp_path / "01_x.ipynb").write_text(text)
        with pytest.raises(CourseError, match="no Jupyter notebook"):
            lessons.find(tmp_path)


def test_settings_are_yaml():
    given = ["a=1", "b=[1, 2]", "c=true", "d=x=y", "e=1.5"]
    expected = {"a": 1, "b": [1, 2], "c": True, "d": "x=y", "e": 1.5}
    assert lessons.parse_settings(given) == expected
    for wrong in ("a", "=3", "a=[1"):
        with pytest.raises(CourseError, match="--set"):
            lessons.parse_settings([wrong])


@pytest.mark.parametrize("value", ["many", 1.5, True, [1]])
def test_settings_of_another_kind_are_refused(all_of_them, value):
    with pytest.raises(CourseError, match="seed takes a whole number, such as 0"):
        lessons.check_settings(all_of_them, {"seed": 0}, {"seed": value})


def test_a_notebook_is_given_its_own_parameters_only(all_of_them):
    values = lessons.parameters(all_of_them[0], {"seed": 1, "pause": 2}, {"seed": 5})
    assert values == {"seed": 5}


def test_backends(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_BACKEND", "tensrflow")
    with pytest.raises(CourseError, match="Did you mean tensorflow"):
        lessons.backend()
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setattr(lessons, "find_spec", lambda name: name == "jax" or None)
    with pytest.raises(CourseError, match=r"torch is not installed.*KERAS_BACKEND=jax"):
        lessons.backend()
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "jax"}))
    assert lessons.backend() == "jax"


@pytest.mark.parametrize(
    ("content", "named"),
    [({"floatx": "float8"}, "floatx"), ({"image_data_format": 1}, "image_data_format"), ([], "")],
)
def test_a_keras_json_that_keras_refuses_is_named(monkeypatch, tmp_path, content, named):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "keras.json").write_text(json.dumps(content))
    with pytest.raises(CourseError, match=rf"keras\.json.*{named}.*take it away"):
        lessons.backend()


def test_what_changes_how_numbers_are_computed_is_in_the_fingerprint(monkeypatch, all_of_them):
    def mark():
        return lessons.fingerprint(all_of_them[0], {}, lessons.surroundings(), NOTEBOOKS)

    first = mark()
    monkeypatch.setenv("CXR_PRECISION", "bfloat16")
    assert mark() != first


def test_a_profile_with_a_misspelt_parameter_is_refused(all_of_them):
    lessons.check_profile(all_of_them, "quick", {"seed": 1})
    with pytest.raises(CourseError, match=r"Profile quick.*'sede'.*Did you mean seed"):
        lessons.check_profile(all_of_them, "quick", {"sede": 1})


def test_paths_mean_the_same_place_in_the_notebooks_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = "source_options={folder: films.csv, images: films, limit: 2}"
    given = lessons.parse_settings([options, "weights=w.h5"])
    assert given["source_options"] == {
        "folder": str(tmp_path / "films.csv"), "images": str(tmp_path / "films"), "limit": 2
    }  # fmt: skip
    assert given["weights"] == str(tmp_path / "w.h5")


def made_up_package(folder):
    """A package with a room that shapes results, and one that does not."""
    files = ["cohort.py", "sources/__init__.py", "sources/hospitals/north.py", "plots/style.css"]
    files += ["course/runs.py", "audit/pages/page.html.j2", "notebooks/01_a.ipynb"]
    files += ["sources/__pycache__/north.pyc", "data/notes.csv"]
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("1")
    return folder


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("cohort.py", True),
        ("sources/hospitals/north.py", True),
        ("sources/hospitals/new.json", True),
        ("plots/style.css", True),
        ("course/runs.py", False),
        ("audit/pages/page.html.j2", False),
        ("sources/__pycache__/north.pyc", False),
        ("notebooks/01_a.ipynb", False),  # each notebook's own text counts, no other's
    ],
)
def test_every_file_counts_but_those_of_rooms_that_shape_nothing(tmp_path, name, counts):
    package = made_up_package(tmp_path)
    before = lessons.surroundings(package)
    (package / name).write_text("2")
    assert (lessons.surroundings(package) != before) is counts


def test_the_package_and_the_data_count():
    found = lessons.surroundings()["files"]
    assert "cohort.py" in found and "data/claims.yml" in found and "data/open.csv" in found
    assert not any("__pycache__" in name or name.endswith(".ipynb") for name in found)


def test_seeds_weights_and_the_notebook_s_text_change_the_fingerprint(tmp_path, monkeypatch):
    monkeypatch.delenv("CXR_WEIGHTS", raising=False)

    def mark(path=NOTEBOOKS / "03_model.ipynb", **values):
        return lessons.fingerprint(lessons.read(path), values, lessons.surroundings(), tmp_path)

    first = mark()
    assert mark() == first and mark(seed=1) != first
    copy = tmp_path / "03_model.ipynb"
    text = (NOTEBOOKS / "03_model.ipynb").read_text()
    copy.write_text(text.replace("seed = 0", "seed = 7"))
    assert mark(copy) != first
    (tmp_path / "ResNet50_notop.weights.h5").touch()
    monkeypatch.setenv("CXR_WEIGHTS", str(tmp_path))
    assert mark() != first


def test_new_images_or_weights_make_a_notebook_outdated(all_of_them, tmp_path):
    values = {"source_options": {"folder": str(tmp_path)}, "weights": str(tmp_path / "w.h5")}

    def mark():
        return lessons.fingerprint(all_of_them[0], values, {}, tmp_path / "run")

    (tmp_path / "w.h5").write_bytes(b"one")
    first = mark()
    assert mark() == first
    (tmp_path / "w.h5").write_bytes(b"other")
    second = mark()
    (tmp_path / "film.png").write_bytes(b"x")
    assert len({first, second, mark()}) == 3
