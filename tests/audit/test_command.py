"""The command cxr audit: what it is given, what it prints, and how it ends."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import click
import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from cxrlib import backbone, cli, phantom, sources
from cxrlib.audit import command as auditcli
from cxrlib.audit import examine as audit
from cxrlib.audit import page as auditpage
from cxrlib.audit import subject as auditload
from cxrlib.plots import style
from cxrlib.sources import folders

ORDER = ("red", "amber", "green", "grey")
AUDIT = audit.run  # most tests put a stand-in in its place


def cxr(*words):
    return CliRunner().invoke(cli.main, ["audit", *map(str, words)])


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def films(here):
    """Twelve films of healthy people and twelve of ill ones, in two folders."""
    rng = np.random.default_rng(0)
    for label in ("healthy", "covid"):
        (here / "films" / label).mkdir(parents=True)
        for number in range(12):
            film = rng.integers(0, 256, (40, 40)).astype(np.uint8)
            cv2.imwrite(str(here / "films" / label / f"{label}{number}.png"), film)
    return here / "films"


class Run:
    """Stands for audit.run: keeps what it was called with, and shows the lights it was given."""

    def __init__(self, lights=("red", "green")):
        self.lights = lights

    def __call__(self, cohort, classes=None, by="source", extract=None, seed=0, progress=None):
        self.cohort, self.classes, self.by = cohort, classes, by
        self.extract, self.seed = extract, seed
        for number in range(3):
            progress(number, 3, f"Probe {number}")
        findings = [
            audit.Finding(f"Probe {number}", light, f"Numbers of the {light} one.", "why", "what")
            for number, light in enumerate(self.lights)
        ]
        return audit.Audit(cohort.name, cohort.counts(), findings, {"Seed": str(seed)}, False)


@pytest.fixture
def run(monkeypatch):
    fake = Run()
    monkeypatch.setattr(audit, "run", fake)
    return fake


def test_help_shows_examples_as_they_are_typed():
    found = cxr("--help")
    assert found.exit_code == 0 and "\n    cxr audit my_images\n" in found.output
    assert "proves" in found.output and "--fail-on" in found.output
    assert all(
        option.help for option in auditcli.audit_command.params if isinstance(option, click.Option)
    )


def test_a_folder(films, run):
    found = cxr("films")
    assert found.exit_code == 0, found.output
    assert run.cohort.name == "films" and len(run.cohort) == 24
    assert (run.classes, run.by, run.extract, run.seed) == (None, "source", None, 0)
    out = found.stdout
    assert "RED    Probe 0\n       Numbers of the red one." in out
    assert "GREEN  Probe 1" in out and "Numbers of the green one" not in out
    assert "1 red light:" in out and "24 of 24 images name no patient" in out
    assert out.rstrip().endswith("not for clinical use.") and "Page: audit-films.html\n" in out
    # A line a probe, on the other channel
    assert "24 images of 24 patients (12" in found.stderr
    assert "[ 1/3] Probe 0 ..." in found.stderr and "[ 3/3] Probe 2 ..." in found.stderr
    page = Path("audit-films.html").read_text(encoding="utf-8")
    for words in (
        "Audit of films",
        "24 of 24 images name no patient",
        "cxr audit films",
        "pixels:",
    ):
        assert words in page, words


def test_options_reach_the_audit_and_the_page(films, run):
    names = sorted(str(path.relative_to(films.parent)) for path in films.rglob("*.png"))
    table = pd.DataFrame({"image": names, "label": ["a", "b", "c", ""] * 6, "hospital": "x, y"})
    table["patient"] = [f"p{number}" for number in range(20)] + [np.nan] * 4
    table.to_csv("my films.csv", index=False)
    words = ["--by", "hospital", "--label", "c", "--label", "a", "--limit", 5, "--seed", 7]
    found = cxr("my films.csv", *words, "--out", "new/page.html", "--json", "new/found.json")
    assert found.exit_code == 0, found.output
    assert run.cohort.name == "my films" and (run.by, run.seed) == ("hospital", 7)
    assert run.classes == ["c", "a"] and dict(run.cohort.table["label"].value_counts()) == {
        "a": 5,
        "c": 5,
    }
    data = json.loads(Path("new/found.json").read_text(encoding="utf-8"))
    assert data["light"] == "red" and data["findings"][0]["headline"] == "Numbers of the red one."
    typed = "cxr audit 'my films.csv' --by hospital --label c --label a --limit 5 --seed 7"
    assert data["facts"]["Command"] == f"{typed} --out new/page.html --json new/found.json"
    assert data["facts"]["Seed"] == "7" and data["facts"]["Time"].endswith(" seconds")
    notes = " ".join(data["notes"])
    unlabelled = int(re.search(r"(\d+) images have no label", notes)[1])
    assert "--limit 5: only 5 of 6 images of a, 6 images of c took part, chosen by seed 7" in notes
    assert unlabelled == 5  # of six; the limit holds for them too
    assert Path("new/page.html").exists() and "Data: new/found.json" in found.stdout


def test_patients_that_the_csv_names_are_believed(films, run):
    names = sorted(str(path.relative_to(films.parent)) for path in films.rglob("*.png"))
    table = pd.DataFrame({"image": names, "label": ["a", "b"] * 12})
    stems = table["image"].str.removesuffix(".png")  # what an unnamed patient would be called
    table.assign(patient=stems).to_csv("named.csv", index=False)
    assert "name no patient" not in cxr("named.csv").output
    table.assign(patient=stems.where(table.index > 2)).to_csv("some.csv", index=False)
    assert "3 of 24 images name no patient" in cxr("some.csv").output


@pytest.mark.parametrize("where", [["--images", "films"], []])
def test_one_command_audits_a_known_table(films, run, where):
    rows = [f"healthy{n}.png,No Finding,{n},PA" for n in range(12)]
    rows += [f"covid{n}.png,Effusion|Mass,{20 + n},AP" for n in range(12)]
    rows += ["x.png,Hernia,1,PA", "covid3.png,Effusion|Mass,23,AP"]
    head = "Image Index,Finding Labels,Patient ID,View Position"
    Path("nih.csv").write_text("\n".join([head, *rows]))
    words = [*where, "--class", "healthy=No Finding", "--class", "ill=Effusion|Emphysema"]
    assert "1 of 25 images cannot be used" in cxr("nih.csv", *words).output
    found = cxr("nih.csv", *words, "--allow-missing")
    assert found.exit_code == 0, found.output
    assert "nih: 24 images of 24 patients (" in found.stderr and "no patient" not in found.output
    counts = run.cohort.table.groupby(["label", "view", "source"]).size()
    assert dict(counts) == {
        ("healthy", "PA", "NIH ChestX-ray14"): 12,
        ("ill", "AP", "NIH ChestX-ray14"): 12,
    }
    page = Path("audit-nih.html").read_text(encoding="utf-8")
    for told in (
        "they were left out: x.png",
        "counted once: 1 row of a film",
        "no film has the finding Emph",
    ):
        assert told in page, told


def test_options_for_tables_that_make_no_sense(films, run):
    found = cxr("films", "--patient-from", "(")
    assert found.exit_code == 1 and "'(' is no regular expression" in found.output
    found = cxr("films", "--class", "healthy")
    assert found.exit_code == 2 and "is not like healthy=" in found.output
    found = cxr("phantom", "--class", "a=b")
    assert found.exit_code == 2 and "--class is for images of your own" in found.output
    found = cxr(
        "films", "--class", "ill=covid", "--class", "well=healthy", "--patient-from", r"(\d+)"
    )
    assert found.exit_code == 0 and set(run.cohort.table["label"]) == {"ill", "well"}
    assert run.cohort.table["patient"].nunique() == 12 and "no patient" not in found.output


def test_unreadable_images_are_named(films, run):
    (films / "covid" / "covid3.png").write_bytes(b"no image")
    found = cxr("films")
    assert found.exit_code == 1 and "1 of 24 images cannot be used" in found.output
    assert "covid3.png" in found.output and "--allow-missing" in found.output
    assert "allow_missing" not in found.output and not Path("audit-films.html").exists()
    found = cxr("films", "--allow-missing")
    assert found.exit_code == 0 and len(run.cohort) == 23
    assert "covid3.png: text" in found.stdout
    assert "covid3.png: text, not an image" in Path("audit-films.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["flims"], 2, "no folder, CSV file or collection 'flims'"),
        (["fantom"], 2, "Did you mean phantom?"),
        (["films", "--label", "covd", "--label", "healthy"], 2, "Did you mean covid?"),
        (["films", "--label", "covid", "--label", "covid"], 1, "the only label is 'covid'"),
        (["phantom", "--label", "cold"], 2, "no label 'cold'"),
        (["one"], 1, "the only label is 'covid'"),
        (["wrapped"], 1, "If covid and healthy are labels, name wrapped"),
        (["films/covid"], 1, "films/covid: no folder is in"),
        (["bad.csv"], 1, "the column 'label' is missing"),
        (["films", "--by", "hospitl"], 2, "no column 'hospitl'"),
        (["films", "--by", "label"], 2, "the label gives itself away"),
        (["films", "--out", "page.pdf"], 2, "must end in .html"),
        (["films", "--out", "bad.csv/page.html"], 2, "bad.csv/page.html cannot be written"),
        (["films", "--json", "bad.csv/x.json"], 2, "bad.csv/x.json cannot be written"),
        (["films", "--out", f"{'x' * 245}.html"], 2, "cannot be written"),
        (["films", "--json", "data.csv"], 2, "must end in .json"),
        (["films", "--weights", "random"], 2, "only a network has weights"),
        (["films", "--fail-on", "green"], 2, "'red', 'amber'"),
        (["films", "--limit", 0], 2, "x>=1"),
        (["open"], 1, "cxr data fetch open"),
    ],
)
def test_what_cannot_be_audited_is_named(films, words, code, message, monkeypatch):
    monkeypatch.setattr(audit, "run", None)  # it is never reached
    shutil.copytree(films, "wrapped/films")
    (films.parent / "one" / "covid").mkdir(parents=True)
    (films / "covid" / "covid0.png").rename(films.parent / "one" / "covid" / "x.png")
    Path("bad.csv").write_text("image,patient\na.png,p1\n", encoding="utf-8")
    found = cxr(*words)
    assert found.exit_code == code and message in found.output, found.output
    assert "Traceback" not in found.output and not list(films.parent.glob("audit-*"))


@pytest.mark.parametrize("worst", ORDER)
@pytest.mark.parametrize("fail_on", [None, "red", "amber"])
def test_fail_on(films, run, worst, fail_on):
    run.lights = (worst, "grey")
    found = cxr("films", *(["--fail-on", fail_on] if fail_on else []))
    fails = {None: (), "red": ("red",), "amber": ("red", "amber")}[fail_on]
    assert found.exit_code == (1 if worst in fails else 0)
    assert ("Exit code 1" in found.stderr) == (worst in fails)
    assert Path("audit-films.html").exists()


def test_a_network_sees_the_images(films, run, monkeypatch):
    asked = []

    def find(*given):
        if given[2] == 13:
            raise ModuleNotFoundError("No module named 'jax'")
        asked.append(given)
        return backbone.Weights("MobileNet", "random")

    monkeypatch.setattr(backbone, "find_weights", find)
    found = cxr("films", "--features", "MobileNet", "--weights", "random")
    assert found.exit_code == 0, found.output
    assert run.extract.func is backbone.features
    weights = backbone.Weights("MobileNet", "random")
    assert run.extract.keywords == {"name": "MobileNet", "weights": weights}
    assert "Note: RANDOM WEIGHTS" in found.stdout
    assert "RANDOM WEIGHTS" in Path("audit-films.html").read_text(encoding="utf-8")
    cxr("films", "--features", "MobileNet", "--seed", 3)  # ImageNet's unless told otherwise
    assert asked == [("MobileNet", "random", 0), ("MobileNet", "imagenet", 3)]
    found = cxr("films", "--features", "MobileNet", "--seed", 13)  # no backend is installed
    assert found.exit_code == 2 and "named 'jax'" in found.output
    assert "KERAS_BACKEND" in found.output


def test_the_phantoms_have_a_secret_that_the_page_tells(here, run, monkeypatch):
    asked, make = [], phantom.make_cohort

    def small(confounding=0.0, **more):
        asked.append(confounding)
        return make(**{"size": 32, "confounding": confounding, **more})

    monkeypatch.setattr(phantom, "make_cohort", functools.wraps(make)(small))
    (here / "phantom").mkdir()
    found = cxr("phantom")
    assert found.exit_code == 0, found.output
    assert run.by == "scanner" and "your own is ./phantom" in found.stderr
    assert "name no patient" not in found.output
    first = run.cohort.table
    assert asked[-1] == auditload.SECRET == 0.8
    # Label number k is seen by scanner number k, in 80 % of patients and by chance in others
    often = pd.crosstab(first["label"], first["scanner"], normalize="index").max(axis=1)
    assert (often > 0.7).all()
    assert "confounding 0.8" in Path("audit-phantom.html").read_text(encoding="utf-8")
    found = cxr("phantom", "--limit", 4, "--label", "covid", "--label", "healthy")
    assert len(run.cohort) == 8 and "--limit 4: only 4 of" in found.stdout
    again = first[first["image"].isin(run.cohort.table["image"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, run.cohort.table)


def test_what_cannot_be_written_is_refused_before_an_image_is_opened(films, run, monkeypatch):
    assert cxr("films", "--out", "new/page.html", "--label", "covd").exit_code == 2
    assert not Path("new").exists()  # made only for labels that exist
    assert cxr("films", "--out", "new/page.html").exit_code == 0
    assert [file.name for file in Path("new").iterdir()] == ["page.html"]
    monkeypatch.setattr(sources, "load", None)
    found = cxr("films", "--out", "/proc/page.html")
    assert found.exit_code == 2 and "cannot be written" in found.output


def table_of(patients: dict[str, int]) -> pd.DataFrame:
    """Make a CSV file: so many films of each label, of the 24 that there are."""
    files = sorted(Path("films").rglob("*.png"))
    labels = [label for label, count in patients.items() for _ in range(count)]
    table = pd.DataFrame({"image": files[: len(labels)], "label": labels})
    table["patient"] = [f"p{number}" for number in range(len(labels))]
    table.to_csv("films.csv", index=False)
    return table


def test_too_few_patients_name_the_labels_that_are_enough(films):
    table_of({"a b": 11, "covid": 10, "rare": 3})
    found = cxr("films.csv")
    assert found.exit_code == 1 and "'rare'" in found.output
    assert "Those that are large enough: --label covid --label 'a b'" in found.output
    assert "--limit" not in found.output
    table_of({"covid": 20, "rare": 3})
    found = cxr("films.csv", "--limit", 15)  # one label alone is no remedy
    assert found.exit_code == 1 and "large enough" not in found.output
    assert "--limit" not in found.output  # it took nothing from what is too small


def test_a_limit_says_what_it_cut_and_what_came_of_it(films, run, monkeypatch):
    assert "--limit 12: only" not in cxr("films", "--limit", 12).stdout
    assert "only 11 of 12 images of healthy" in cxr("films", "--limit", 11).stdout
    monkeypatch.setattr(audit, "run", AUDIT)
    found = cxr("films", "--limit", 5)
    assert found.exit_code == 1
    assert "It was --limit 5 that left so few: raise it, or leave it out." in found.output


def test_one_of_a_thing_is_no_plural(films, run):
    table = table_of({"a": 1, "b": 1, "": 1})
    table["patient"] = ["p", "p", "p"]
    table.to_csv("films.csv", index=False)
    found = cxr("films.csv")
    assert "2 images of 1 patient (" in found.stderr
    assert "1 image has no label" in found.stdout
    table.assign(patient=["p", "p", np.nan]).assign(label=list("aab")).to_csv("films.csv")
    assert "1 of 3 images names no patient" in cxr("films.csv").stdout


def test_warnings_while_a_folder_is_read_become_notes(films, run, monkeypatch):
    make = folders.make_table

    def warning(*words, **options):
        warnings.warn("films: 3 masks were skipped.", stacklevel=2)
        return make(*words, **options)

    monkeypatch.setattr(folders, "make_table", warning)
    found = cxr("films")
    assert found.exit_code == 0 and "UserWarning" not in found.output
    assert found.stderr.count("Note: films: 3 masks were skipped.") == 1
    page = Path("audit-films.html").read_text(encoding="utf-8")
    assert page.count("films: 3 masks were skipped.") == 1
    # They are said too when the audit is refused
    assert "Note: films: 3 masks were skipped." in cxr("films", "--label", "covd").stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are always text")
def test_names_in_any_script_or_none_are_audited(films, monkeypatch):
    monkeypatch.setattr(style, "FONTS", ())
    style._fonts.cache_clear()
    (films / "covid").rename(films / "新冠")
    (films / "healthy").rename(films / os.fsdecode(b"gesund\xff"))
    for film in films.glob("*/*.png"):
        film.rename(film.with_name(os.fsdecode("患者".encode() + b"\xfc $") + film.name[-6:]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")
        found = cxr("films", "--label", "新冠", "--label", os.fsdecode(b"gesund\xff"))
    style._fonts.cache_clear()
    assert found.exit_code == 0, found.output
    assert "12 新冠" in found.stderr and "12 gesund\\udcff" in found.stderr
    page = Path("audit-films.html").read_text(encoding="utf-8")
    assert "新冠" in page and page.count("data:image/png") >= 2


def test_scikit_learn_does_not_warn_on_the_terminal(films, monkeypatch):
    def warn(*args):
        from sklearn.model_selection import StratifiedKFold

        list(StratifiedKFold(3).split(np.zeros((5, 1)), [0, 0, 0, 0, 1]))  # too small a class
        return Run()(*args)

    monkeypatch.setattr(audit, "run", warn)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert cxr("films").exit_code == 0
    assert not [str(one.message) for one in caught if issubclass(one.category, UserWarning)]


def test_the_page_opens_on_request_but_not_if_the_audit_is_interrupted(films, run, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    opened, page = [], Path("audit-films.html").resolve()
    monkeypatch.setattr(auditcli.click, "launch", opened.append)
    assert cxr("films", "--open").exit_code == 0
    assert opened == [page.as_uri()]
    page.unlink()
    monkeypatch.setattr(auditpage, "write", interrupted)
    assert cxr("films", "--open").exit_code == 130
    assert not page.exists() and len(opened) == 1


def test_the_import_is_light():
    code = "import sys, cxrlib.audit.command; heavy = {'numpy', 'pandas', 'keras', 'jinja2'}"
    code += " & set(sys.modules); assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", code], check=True)
