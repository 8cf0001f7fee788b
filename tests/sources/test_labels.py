"""From findings to labels, on cases done by hand."""

import pandas as pd
import pytest

from cxrlib.sources import SourceError
from cxrlib.sources.folders import make_table
from cxrlib.sources.labels import choose, findings


def label(cells, classes=None, **layout):
    cells = pd.Series(cells, dtype=object)
    said, words = findings(cells, layout)
    return choose([f"f{n}" for n in range(len(cells))], said, words, classes, "t.csv")


def test_the_only_finding_is_the_label():
    with pytest.warns(
        UserWarning, match=r"no label for 1 film with several .*f1 \(a, b\).*--class a=\"a\""
    ):
        labels, part = label(["a", "a|b", None, " nan ", "['c']"])
    assert labels[0] == "a" and labels[4] == "c" and part.all()
    assert all(pd.isna(one) for one in labels[1:4])


def test_classes_of_findings(recwarn):
    cells = ["No Finding", "Mass|Effusion", "Mass", "x; effusion", "No Finding|Mass", None, "a, X"]
    classes = {"healthy": [" no finding"], "ill": ["EFFUSION", "x"]}
    labels, part = label(cells, classes)
    assert [one for one, there in zip(labels, part, strict=True) if there] == [
        *("healthy", "ill", "ill", "healthy", "ill")
    ]
    told = " ".join(str(one.message) for one in recwarn)
    assert "left out: 2 films of no class (Mass 1, no finding is named 1)." in told
    labels, part = label(cells, classes | {"mass": "Mass|lump"})
    told = " ".join(str(one.message) for one in recwarn)
    assert "left out: 2 films of two classes (f1, f4)." in told
    assert "no film has the finding lump of the class mass" in told
    assert labels[2] == "mass" and part.tolist() == [True, False, True, True, False, False, True]


def test_a_path_of_findings_counts_by_its_last_part_and_whole():
    cells, known = (
        ["Pneumonia/Viral/COVID-19", "No Finding", "Pneumonia"],
        {"name": "x", "path": "/"},
    )
    assert label(cells, **known)[0] == ["COVID-19", "No Finding", "Pneumonia"]
    for name in "covid-19", "Pneumonia/Viral/COVID-19":
        assert label(cells, {"c": [name], "h": ["No Finding"]}, **known)[1].sum() == 2


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"a": ["x"], "b": ["X "]}, "'X' stands in two classes"),
        (
            {"a": ["covid"]},
            "the class 'a' has no film. .*no finding 'covid'.*: x, COVID-19",
        ),
        ({"a": []}, "the class 'a' has no film"),
        ({"a": ["x"], "b": ["COVID-19"]}, "no film is of just one"),
        (["a"], "give a dict of lists"),
        ({}, "give a dict of lists"),
        ({"a": 3}, "give a dict of lists"),
    ],
)
def test_classes_that_make_no_sense(classes, message):
    with pytest.raises(SourceError, match=message):
        label(["x|COVID-19", "COVID-19|x"], classes)


def test_folders_make_classes_and_names_patients(tmp_path):
    for place in ("normal/p1_a.png", "normal/p1_b.png", "Covid/p2_a.png", "other/x.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(b"")
    classes = {"healthy": ["Normal"], "ill": ["covid"]}
    with pytest.warns(UserWarning, match="left out: 1 film of no class .other 1"):
        table, _ = make_table(tmp_path, classes, r"(p\d)_")
    assert sorted(zip(table["label"], table["patient"], strict=True)) == [
        *(("healthy", "p1"), ("healthy", "p1"), ("ill", "p2"))
    ]
    with pytest.warns(UserWarning, match="finds no patient in 1 of 4 paths: other/x.png"):
        make_table(tmp_path, patient_from=r"p\d")
    with pytest.raises(SourceError, match="finds no patient in 4 of 4 paths"):
        make_table(tmp_path, patient_from="patient")
