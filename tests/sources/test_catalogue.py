import hashlib
import importlib.util
import os
import re
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
import pandas as pd
import pytest

from cxrlib.files import cache_folder, shipped
from cxrlib.sources import SourceError
from cxrlib.sources import catalogue as sources


@pytest.fixture
def small(monkeypatch, tmp_path, loopback):
    """Replace ``data`` by a folder with an ``open.csv`` of nine files, and serve them."""
    rows = []
    for number in range(9):
        label = ["covid", "healthy", "pneumonia"][number % 3]
        image = np.full((60, 50), 20 * number, np.uint8)
        content = cv2.imencode(".png", image)[1].tobytes()
        row = {
            "image": f"x/{number}", "label": label, "patient": f"p{number // 2}",
            "source": "SIRM" if label == "covid" else "NIH", "view": "PA", "licence": "",
            "cohort": "x", "repo": "who/what", "commit": "0" * 40,
            "path": f"X-Ray Image/{number}.png", "bytes": len(content) if number else "",
            "git_sha1": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
            "sha256": hashlib.sha256(content).hexdigest() if number else "",
            "height": 60, "width": 50, "origin_url": "",
        }  # fmt: skip
        rows.append(row)
        loopback.files[f"/who/what/{'0' * 40}/{quote(row['path'])}"] = content
    pd.DataFrame(rows).to_csv(tmp_path / "open.csv", index=False)
    monkeypatch.setattr("cxrlib.sources.catalogue.shipped", lambda _: tmp_path)
    return loopback


def local(number):
    return cache_folder("files") / "who/what" / ("0" * 40) / f"X-Ray Image/{number}.png"


def test_fetch_and_load(small):
    assert (sources.fetch("open", progress=False)["state"] == "present").all()
    cohort = sources.load("open", progress=False)
    assert cohort.table["image"].to_list() == [f"x/{number}" for number in range(9)]
    assert cohort.images[:][:, 100, 100].tolist() == [20 * number for number in range(9)]
    assert cohort.labels == ["healthy", "pneumonia", "covid"]
    assert cohort.table["licence"].isna().all()
    assert (cohort.table[["height", "width"]] == [60, 50]).all(axis=None)
    assert (cohort.table["format"] == "PNG").all()
    assert (cohort.table["bytes"] > 0).all()
    assert len(small.asked) == 9


def test_load_does_not_use_the_network_unasked(small):
    with pytest.raises(SourceError, match=r"9 of 9 files.*(?s:.)*cxr data fetch open"):
        sources.load("open")
    assert not small.asked
    wanted = {"limit": 1, "seed": 3, "progress": False}
    cohort = sources.load("open", download=True, **wanted)  # fetches what it needs
    assert sorted(cohort.table["label"]) == ["covid", "healthy", "pneumonia"]
    assert len(small.asked) == 3
    assert len(sources.load("open", download=True, progress=False)) == 9


def test_what_the_server_lacks_is_counted(small):
    del small.files[next(path for path in small.files if path.endswith("4.png"))]
    with pytest.raises(SourceError) as error:
        sources.fetch("open", progress=False)
    assert "lacks 1 of 9" in str(error.value)
    assert re.search(r"x\s+healthy\s+missing\s+1", str(error.value))
    assert "--allow-missing" in str(error.value)
    report = sources.fetch("open", allow_missing=True, progress=False)
    assert report.loc[report["state"] == "missing", "image"].to_list() == ["x/4"]
    with pytest.raises(SourceError, match="1 of 9"):
        sources.load("open", progress=False)
    cohort = sources.load("open", allow_missing=True, progress=False)
    assert cohort.images[:][:, 9, 9].tolist() == [0, 20, 40, 60, 100, 120, 140, 160]


def test_class_that_is_not_there_is_named(small):
    for number in (0, 3, 6):
        del small.files[next(path for path in small.files if path.endswith(f"/{number}.png"))]
    sources.fetch("open", allow_missing=True, progress=False)
    with pytest.warns(UserWarning, match="no image at all of covid"):
        cohort = sources.load("open", allow_missing=True, progress=False)
    with pytest.raises(ValueError, match="'covid' has no image"):
        cohort.where(label="healthy").targets(["healthy", "covid"])


def test_verify_tells_damaged_from_missing_and_fetch_mends_both(small):
    sources.fetch("open", progress=False)
    local(0).write_bytes(local(1).read_bytes())  # no size and no SHA-256 known: git's hash tells
    local(5).write_bytes(local(5).read_bytes()[:40])
    local(7).unlink()
    report = sources.verify("open").set_index("image")["state"]
    assert report[report != "present"].to_dict() == {
        "x/0": "damaged",
        "x/5": "damaged",
        "x/7": "missing",
    }
    with pytest.raises(SourceError, match="3 of 9 files are missing or damaged"):
        sources.load("open", progress=False)
    sources.fetch("open", progress=False)
    assert (sources.verify("open")["state"] == "present").all()
    assert len(small.asked) == 12


def test_tampered_manifest_is_refused(small, tmp_path):
    path = tmp_path / "open.csv"
    path.write_text(path.read_text().replace("X-Ray Image/3.png", "../../../../../3.png"))
    with pytest.raises(ValueError, match="outside"):
        sources.fetch("open", progress=False)


def test_unknown_source_and_option():
    with pytest.raises(SourceError, match=r"no source 'opne'.*phantom, open, external"):
        sources.load("opne")
    with pytest.raises(SourceError, match=r"open has no option 'limits'.*allow_missing"):
        sources.load("open", limits=3)
    with pytest.raises(SourceError, match=r"phantom has no option 'patient'.*patients"):
        sources.load("phantom", patient=3)
    with pytest.raises(SourceError, match=r"no files to download; open and external"):
        sources.fetch("phantom")


# --- the manifests ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "images", "patients"),
    [
        ("open", {"covid": 61, "healthy": 500, "pneumonia": 500}, (50, 332, 371)),
        ("external", {"covid": 243, "healthy": 100, "pneumonia": 16}, (71, 100, 16)),
    ],
)
def test_manifest(name, images, patients):
    table = sources.manifest(name)
    assert table["label"].value_counts().to_dict() == images
    assert tuple(table.groupby("label")["patient"].nunique()) == patients
    for column in ("image", "path", "git_sha1"):
        assert table[column].is_unique
    assert table["git_sha1"].str.fullmatch("[0-9a-f]{40}").all()
    assert table["commit"].str.fullmatch("[0-9a-f]{40}").all()
    assert table["sha256"].dropna().str.fullmatch("[0-9a-f]{64}").all()
    assert table["bytes"].dropna().between(10_000, 10_000_000).all()
    assert (table["bytes"].isna() == table["sha256"].isna()).all()
    assert table["patient"].notna().all()


def test_the_manifests_fit_each_other_and_what_is_said_of_them():
    ours, theirs = sources.manifest("open"), sources.manifest("external")
    assert not set(ours["patient"]) & set(theirs["patient"])
    assert not set(ours["git_sha1"]) & set(theirs["git_sha1"])
    classes = ours.groupby("patient")["label"].nunique()
    assert (classes > 1).sum() == 21 and "21 NIH patients" in sources.SOURCES["open"].story
    # No licence is made up
    assert ours["licence"].isna().all()
    assert set(theirs.loc[theirs["label"] == "covid", "licence"]) == {"CC BY 3.0"}
    assert theirs.loc[theirs["label"] != "covid", "licence"].isna().all()


def make_manifests():
    path = shipped("data") / "make_manifests.py"
    spec = importlib.util.spec_from_file_location("make_manifests", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FACT = {
    "cohort": "sirm", "label": "covid", "patient": "p1", "view": "ap", "repo": "who/what",
    "commit": "a" * 40, "path": "x/a.png", "bytes": "BAD", "git_sha1": "b" * 40, "sha256": "",
    "height": "", "width": "", "origin": "SIRM", "origin_url": "", "licence": "",
}  # fmt: skip
PERSON = {"cohort": "sirm", "path": "x/a.png", "sex": "F", "age": "61"}


def read_facts(folder, facts, people=(PERSON,)):
    """Give what the script reads from these rows, and its module."""
    module = make_manifests()
    pd.DataFrame(facts).to_csv(folder / "facts.csv", index=False)
    pd.DataFrame(people).to_csv(folder / "people.csv", index=False)
    return module.read_facts(folder / "facts.csv", folder / "people.csv"), module


def test_unknown_size_stays_unknown(tmp_path):
    facts, _ = read_facts(tmp_path, [FACT])
    assert facts["bytes"].to_list() == [""]
    assert facts["view"].to_list() == ["AP"]


@pytest.mark.parametrize(
    ("column", "value"),
    [("git_sha1", "b" * 39), ("path", "../a.png"), ("path", "/a.png"), ("label", "flu")],
)
def test_odd_facts_are_refused(tmp_path, column, value):
    with pytest.raises(SystemExit, match=column):
        read_facts(tmp_path, [FACT | {column: value}])


def test_sex_and_age_are_the_films_own_or_blank(tmp_path):
    other = FACT | {"path": "x/b.png", "git_sha1": "c" * 40}
    facts, module = read_facts(tmp_path, [other, FACT])
    chosen = module.choose(facts)["open"].set_index("path")
    assert chosen.loc["x/a.png", ["sex", "age"]].to_list() == ["F", "61"]
    assert chosen.loc["x/b.png", ["sex", "age"]].to_list() == ["", ""]
    for wrong in ({"sex": "x"}, {"age": "414"}, {"age": "-1"}):
        with pytest.raises(SystemExit, match=next(iter(wrong))):
            read_facts(tmp_path, [FACT], [PERSON | wrong])


def test_the_manifests_tell_sex_and_age_where_the_sources_do():
    """Counts and means as in the sources' own tables; Hannover's tells no age."""
    ours, theirs = sources.manifest("open"), sources.manifest("external")
    men = ours.groupby("label")["sex"].value_counts().unstack()["M"]
    assert men.to_dict() == {"covid": 42, "healthy": 243, "pneumonia": 280}
    known = ours.groupby("label")["age"].count()
    assert known.to_dict() == {"covid": 60, "healthy": 500, "pneumonia": 500}
    assert ours["sex"].notna().all() and set(theirs["sex"].dropna()) <= {"F", "M"}
    assert ours["age"].dropna().between(1, 100).all()
    ages = theirs.groupby("label")["age"].count()
    assert ages.to_dict() == {"covid": 0, "healthy": 100, "pneumonia": 16}


def test_nih_patients_of_open_are_left_out_of_external(tmp_path):
    nih = {"label": "healthy", "origin": "NIH"}
    rows = [
        FACT | nih | {"cohort": "talo", "path": "x/1.png", "git_sha1": "1" * 40},
        FACT | nih | {"cohort": "nih-sample", "path": "x/2.png", "git_sha1": "2" * 40},
        FACT | nih | {"cohort": "nih-sample", "path": "x/3.png", "git_sha1": "3" * 40,
                      "patient": "p2"},
    ]  # fmt: skip
    facts, module = read_facts(tmp_path, rows)
    chosen = module.choose(facts)
    assert chosen["open"]["patient"].to_list() == ["p1"]
    assert chosen["external"]["patient"].to_list() == ["p2"]


@pytest.mark.skipif("CXR_FACTS" not in os.environ, reason="needs CXR_FACTS, the table of facts")
def test_manifests_are_what_the_script_makes():
    module = make_manifests()
    path = Path(os.environ["CXR_FACTS"])
    facts = module.read_facts(path, path.with_name("people.csv"))
    for name, table in module.choose(facts).items():
        made = table.to_csv(index=False, lineterminator="\n")
        assert made == (shipped("data") / f"{name}.csv").read_text(encoding="utf-8")
