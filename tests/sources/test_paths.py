"""Which file a written path means: where one alone fits, and never another patient's."""

import os

import pandas as pd
import pytest

from cxrlib.sources import SourceError
from cxrlib.sources.paths import find_files, find_patients

NAMES = ["a/f0.png", "a/f1.PNG", "b/g.dcm", "b/deep/h.jpg", "masks/f0.png", ".x/f9.png", "f0.txt"]


@pytest.fixture
def root(tmp_path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("written", "path", "told"),
    [
        ("a/f0.png", "a/f0.png", False),
        ("./a/f0.png", "a/f0.png", False),
        ("a\\f0.png", "a/f0.png", True),
        ("C:\\films\\F0.PNG", "a/f0.png", True),
        ("a/f0", "a/f0.png", True),
        ("A/F0", "a/f0.png", True),
        ("a/F1.png", "a/f1.PNG", True),
        ("g", "b/g.dcm", True),
        ("h.jpg", "b/deep/h.jpg", False),  # as written, but below
        ("g.png", "b/g.dcm", True),
        ("elsewhere/h.jpg", "b/deep/h.jpg", True),
        ("f9.png", None, False),  # hidden
        ("f2.png", None, False),
    ],
)
def test_one_file_that_fits(root, recwarn, written, path, told):
    paths, there = find_files("t.csv", [written], root)
    assert there.tolist() == [path is not None]
    if path:
        assert (root / paths[0]).samefile(root / path)
    shown = " ".join(str(one.message) for one in recwarn)
    assert ("1 film found although the path is written otherwise" in shown) == told


def test_the_exact_name_wins_and_several_are_named(root):
    (root / "b" / "f0.png").write_bytes(b"")
    assert find_files("t.csv", ["b/f0.png", "x.png"], root)[0][0] == "b/f0.png"
    with pytest.raises(SourceError, match=r"t.csv: several files fit f0.png: a/f0.png, b/f0.png"):
        find_files("t.csv", ["f0.png"], root)
    with pytest.warns(UserWarning, match=r"a/f1, A/F1: each may be a/f1.PNG, and none was taken"):
        assert not find_files("t.csv", ["a/f1", "A/F1"], root)[1].any()
    with pytest.warns(UserWarning, match="written otherwise"):
        assert find_files("t.csv", ["B/f0.png"], root)[1].all()


def test_no_other_patients_film_is_taken(tmp_path):
    for patient in (1, 2):
        folder = tmp_path / f"train/patient{patient}/study1"
        folder.mkdir(parents=True)
        (folder / "view1_frontal.jpg").write_bytes(b"")
    written = [f"set/train/patient{number}/study1/view1_frontal.jpg" for number in (1, 2, 3)]
    paths, there = find_files("t.csv", written, tmp_path, tail=3, known=True)
    assert there.tolist() == [True, True, False]
    assert paths[0] == "train/patient1/study1/view1_frontal.jpg"
    # Without the set's rule too: the files that fit are others' already
    assert find_files("t.csv", written, tmp_path, known=True)[1].tolist() == [True, True, False]
    (tmp_path / "train/patient2/study1/view1_frontal.jpg").unlink()
    assert find_files("t.csv", written[2:], tmp_path, tail=3)[1].tolist() == [False]


@pytest.mark.skipif(os.name == "nt", reason="links want rights on Windows")
def test_links_are_followed_and_have_an_end(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "far.png").write_bytes(b"")
    (root / "link").symlink_to(other)
    (root / "a" / "back").symlink_to(root)
    paths, there = find_files("t.csv", ["far.png", "x"], root, known=True)
    assert there.tolist() == [True, False] and paths[0] == "link/far.png"


def test_patients_from_paths():
    paths = pd.Series(["p12_a.png", "x/p7_b.png", "c.png"])
    assert find_patients(paths, r"p(\d+)_").to_list()[:2] == ["12", "7"]
    assert find_patients(paths, r"p\d+").to_list()[:2] == ["p12", "p7"]
    assert pd.isna(find_patients(paths, r"p\d").iloc[2])
    with pytest.raises(SourceError, match=r"'\[' is no regular expression"):
        find_patients(paths, "[")
