"""What strangers put into files: images, archives, models, names, headers. Each test counts."""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import cv2
import h5py
import keras
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import mutants
from cxrlib import backbone, cli, files, predictor, results, sources
from cxrlib.cohort import Cohort
from cxrlib.course import report
from cxrlib.sources import folders
from helpers import tiny_cohort

ROOT = Path(__file__).resolve().parents[2]
MEGABYTES = 1000


def count(record_property, what, tried, survived):
    """Note for docs/reliability.md, and fail unless all survived."""
    for name, value in (("what", what), ("tried", tried), ("survived", survived)):
        record_property(name, value)
    assert survived == tried


def cxr(*words):
    return CliRunner().invoke(cli.main, [str(word) for word in words])


# --- images -------------------------------------------------------------------------------------


ON_LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measured by Linux")


@ON_LINUX
@pytest.mark.slow
@pytest.mark.parametrize("files", [300, pytest.param(2000, marks=pytest.mark.sweep)])
def test_mutated_images(tmp_path, record_property, files):
    """Read in a process of their own: a crash would end it, and its memory is its own.

    Most of the bombs would keep a reader without limits busy for longer than it may take.
    """
    folder = tmp_path / "films"
    folder.mkdir()
    recipes = mutants.write_all(folder, files, seed=0)
    command = [sys.executable, mutants.__file__, str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.returncode == 0, f"{lines[-1]} {ended.stderr[-2000:]}"
    read = [line for line in lines if "file" in line]
    wrong = [
        {**line, "recipe": recipes[line["file"]]}
        for line in read
        if line["memory"] > MEGABYTES or line["outcome"].startswith(("ESCAPED", "NAMELESS", "ODD"))
    ]
    assert not wrong, json.dumps(wrong, indent=1)
    summary = lines[-1]
    assert summary["unnamed"] == summary["differ"] == [] and summary["memory"] < MEGABYTES
    assert files / 2 < summary["bad"] < files  # neither are all harmless, nor all refused
    what = (
        "mutated PNG, JPEG, DICOM, TIFF, BMP, WebP and GIF files and bombs: none crashed the "
        "reader, kept it busy or "
        f"made its memory exceed {MEGABYTES} MB (at most {summary['memory']:.0f} MB), and each "
        "bad one was named"
    )
    count(record_property, what, files, len(read) - len(wrong))


def test_the_sound_files_are_read(tmp_path):
    """Else the mutants would be refused for what they were made from."""
    from cxrlib.images import read_grey

    for kind in mutants.KINDS:
        for number, content in enumerate(mutants.sound(kind)):
            path = tmp_path / f"{number}.{kind}"
            path.write_bytes(content)
            assert read_grey(path).std() > 5


def test_every_bad_file_is_named_to_the_user(tmp_path, record_property):
    """A message names ten, and the list that it names has them all."""
    for label in ("healthy", "covid"):
        (tmp_path / "films" / label).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "films" / label / "good.png"), mutants.film())
    bad = [tmp_path / "films" / "covid" / f"bad{number}.png" for number in range(40)]
    for path in bad:
        path.write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    with pytest.raises(sources.SourceError, match="40 of 42 images cannot be used") as error:
        sources.load("folder", folder=tmp_path / "films", progress=False)
    listed = Path(re.search(r"all listed in (.*)", str(error.value))[1])
    text = listed.read_text(encoding="utf-8")
    named = sum(str(path) + ":" in text for path in bad)
    count(record_property, "unreadable films, each named in one list", len(bad), named)


# --- archives, links, and paths that lead elsewhere ----------------------------------------------


@ON_LINUX
def test_archives_are_not_opened(tmp_path, record_property):
    inside = b"image,label\na.png,covid\n"
    names = ["../../evil.csv", "/etc/evil.csv", "plain.csv"]
    tried = []
    for number, name in enumerate(names):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
            archive.writestr(name, inside)
        tried.append(tmp_path / f"{number}.zip")
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        link = tarfile.TarInfo("films.csv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    tried.append(tmp_path / "links.tar")
    bomb = tmp_path / "bomb.csv.gz"
    bomb.write_bytes(b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + mutants.zeros(10 << 30, -15) + bytes(8))
    tried.append(bomb)
    before = mutants.megabytes()
    refused = 0
    for path in tried:
        said = cxr("audit", path)
        refused += said.exit_code == 1 and "Unpack it, and name its folder" in said.output
        with pytest.raises(sources.SourceError, match="an archive is not read"):
            folders.make_table(path)
    assert mutants.megabytes() - before < 100
    assert not (tmp_path.parent / "evil.csv").exists()
    what = "archives with ../, absolute paths, links and a bomb of 10 GB given as a folder: refused"
    count(record_property, what, len(tried), refused)


def test_manifests_stay_in_the_cache(tmp_path, own_cache, monkeypatch, record_property):
    (tmp_path / "outside").mkdir()
    (own_cache / "files").mkdir()
    (own_cache / "files" / "link").symlink_to(tmp_path / "outside")
    repo = sources.manifest("open")["repo"].iloc[0]
    paths = ["../../../evil", "a/../../../../../evil", "..\\evil", "a/./../../../../../e", ".."]
    rows = [(repo, path) for path in paths]
    rows += [("/etc", "passwd"), ("link", "evil"), ("..", "evil"), ("../..", "evil")]
    refused = 0
    good = sources.manifest("open").iloc[:1]
    (tmp_path / "data").mkdir()
    monkeypatch.setattr("cxrlib.sources.catalogue.shipped", lambda _: tmp_path / "data")
    monkeypatch.setenv("CXR_MIRROR", "http://127.0.0.1:9")  # nothing answers there
    for repository, path in rows:
        commit = "" if repository in ("/etc", "..", "../..") else good["commit"].iloc[0]
        odd = good.assign(repo=repository, commit=commit or ".", path=path)
        odd.to_csv(tmp_path / "data" / "open.csv", index=False)
        try:
            sources.fetch("open", progress=False)
        except sources.SourceError as error:
            refused += "open.csv" in str(error)
    assert not list((tmp_path / "outside").iterdir())
    what = "manifests whose paths leave the cache (../, absolute, through a link): refused"
    count(record_property, what, len(rows), refused)


def test_chexpert_paths_stay_in_its_folder(tmp_path, record_property):
    from cxrlib.sources import chexpert

    paths = ["train/patient1/study1/../../../../x_frontal.jpg", "/etc/x_frontal.jpg",
             "train/../patient1/study1/x_frontal.jpg", "train/patient1/study1/..\\x_frontal.jpg",
             "../train/patient1/study1/a/b_frontal.jpg"]  # fmt: skip
    refused = 0
    for path in paths:
        table = pd.DataFrame([{"Path": path, **dict.fromkeys(chexpert.FINDINGS, 1.0)}])
        table.to_csv(tmp_path / "train.csv", index=False)
        try:
            chexpert.make_table(tmp_path)
        except sources.SourceError as error:
            refused += "is not like train/patient" in str(error)
    count(record_property, "CheXpert tables whose paths leave the folder", len(paths), refused)


# --- models -------------------------------------------------------------------------------------


def saved_model(folder):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(),
                              keras.layers.Dense(2, "softmax")])  # fmt: skip
    return predictor.Predictor(model, ["healthy", "covid"]).save(folder)


def changed(folder, change):
    card = json.loads((folder / predictor.CARD).read_text())
    change(card)
    (folder / predictor.CARD).write_text(json.dumps(card))
    return folder


def test_models_with_code_inside_are_refused(tmp_path, record_property):
    """In the card of a model folder, and as a .keras file; none of them runs its code."""
    trace = tmp_path / "it-ran"
    run = f"open({str(trace)!r}, 'w').close()"
    code = keras.layers.Lambda(lambda x: x)
    layers = [
        keras.saving.serialize_keras_object(code),
        {"module": "os", "class_name": "system", "config": {"command": f"touch {trace}"}},
        {"module": "builtins", "class_name": "exec", "config": run, "registered_name": "exec"},
        {"module": "keras.utils", "class_name": "get_file", "config": {"origin": "file:///etc"}},
        {"module": "keras.config", "class_name": "enable_unsafe_deserialization", "config": {}},
        {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/tmp"}},
        {"module": "keras.layers", "class_name": "Dense", "config": {}, "registered_name": "a>b"},
        {"module": None, "class_name": "__lambda__", "config": {"value": "x"}},
    ]
    refused = 0
    for number, layer in enumerate(layers):
        folder = saved_model(tmp_path / f"model{number}")
        changed(
            folder, lambda card, one=layer: card["architecture"]["config"]["layers"].append(one)
        )
        try:
            predictor.load(folder)
        except predictor.PredictorError as error:
            refused += "could run code" in str(error)
    whole = tmp_path / "whole.keras"
    keras.Sequential([keras.Input((2,)), code]).save(whole)
    with zipfile.ZipFile(tmp_path / "evil.keras", "w") as archive:
        archive.writestr("../evil", "x")
        archive.writestr("model.weights.h5", bytes(100))
    film = tmp_path / "film.png"
    cv2.imwrite(str(film), mutants.film())
    files = [whole, tmp_path / "evil.keras"]
    for path in files:
        said = cxr("predict", film, "--model", path)
        refused += said.exit_code == 1 and "can hold code: not loaded" in said.output
        with pytest.raises(backbone.WeightsError, match="can hold code and are not loaded"):
            backbone.find_weights("MobileNet", str(path))
        refused += 1
    assert not trace.exists() and not (tmp_path.parent / "evil").exists()
    what = (
        "models with code or foreign objects inside, as a folder or a .keras file: refused, not run"
    )
    count(record_property, what, len(layers) + 2 * len(files), refused)


@ON_LINUX
def test_weights_that_are_bombs_or_lead_elsewhere(tmp_path, record_property):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["secret"] = np.ones(3)

    def bomb(file):
        shape, chunk = (10 << 30,), (64 << 20,)  # 10 GB, of which nothing was ever written
        file.create_dataset("bomb", shape, "u1", chunks=chunk, compression="gzip", fillvalue=0)

    def link(file):
        file["link"] = h5py.ExternalLink(str(secret), "secret")

    def soft(file):
        file["soft"] = h5py.SoftLink("/elsewhere")

    def virtual(file):
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource(str(secret), "secret", (3,))
        file.create_virtual_dataset("virtual", layout)

    def external(file):
        file.create_dataset("raw", (3,), "u1", external=[("/etc/passwd", 0, 3)])

    attacks, refused = [bomb, link, soft, virtual, external], 0
    before = mutants.megabytes()
    for attack in attacks:
        folder = saved_model(tmp_path / attack.__name__)
        with h5py.File(folder / predictor.WEIGHTS, "a") as file:
            attack(file)
        digest = predictor.sha256(folder / predictor.WEIGHTS)
        changed(folder, lambda card, one=digest: card.update(model_sha256=one))
        with pytest.raises(ValueError, match=r"leads|unpacks"):
            files.check_weights(folder / predictor.WEIGHTS)
        with pytest.raises(predictor.PredictorError):
            predictor.load(folder)
        path = tmp_path / f"{attack.__name__}.h5"
        path.write_bytes((folder / predictor.WEIGHTS).read_bytes())
        with pytest.raises(backbone.WeightsError, match=r"leads|unpacks"):
            backbone.load("MobileNet", 32, str(path))
        refused += 1
    assert mutants.megabytes() - before < 500
    files.check_weights(saved_model(tmp_path / "sound") / predictor.WEIGHTS)
    what = "weights files of 10 GB packed into kilobytes, or that lead to other files: refused"
    count(record_property, what, len(attacks), refused)


# --- names ----------------------------------------------------------------------------------------

EVIL = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)",
    "{{ 7 * 7 }}", "<svg/onload=alert(1)>", "$(touch it-ran)", "`touch it-ran`; rm -rf x", "a|b&c",
    "=HYPERLINK(\"http://x\",\"y\")", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1+1)", "\t=1+1", "\r=1+1",
    "'=1+1", "''@x", "\x1b[31mred\x1b]0;title\x07", "\u202egnp.exe", "$\\frac{", "a,b;c", 'a"b',
    "%s %(x)s {0}", "-rf", "\uff1d1+1",
)  # fmt: skip


class Page(HTMLParser):
    """The tags of a page, and the names of their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, *sorted(name for name, _ in attributes)))

    def handle_data(self, data):
        self.text += data


def dangerous(page: Page):
    """What no page of ours has: scripts, foreign pictures, and attributes that act."""
    kinds = {"script", "svg", "iframe", "object", "form", "link"}
    return [one for one in page.found if one[0] in kinds or any(n[:2] == "on" for n in one[1:])]


def named_cohort(names):
    cohort = tiny_cohort(patients=2 * len(names), per_patient=1)
    table, number = cohort.table.copy(), np.arange(len(cohort)) // 2
    for column in ("patient", "source", "licence", "view"):
        table[column] = [f"{names[n]} {column}" for n in number]
    table["image"] = [f"{names[n]} {row}" for row, n in enumerate(number)]
    table["origin"] = table["image"]
    return Cohort(table, cohort.images, names[0])


def test_names_in_results_and_report(tmp_path, monkeypatch, record_property):
    monkeypatch.setenv("CXR_RUN", str(tmp_path))
    cohort = named_cohort(EVIL)
    pages = []
    for number, one in enumerate((cohort, named_cohort(["plain"] * len(EVIL)))):
        sure = np.tile([0.75, 0.25], (len(one), 1))
        classes = ["healthy", "covid"]
        found = results.predictions(one, sure, classes, "clean")
        table = pd.DataFrame({"name": EVIL if number == 0 else ["plain"] * len(EVIL)})
        results.record(
            "04_resnet50", profile="smoke", cohort=one, predictions=found, notes=[*table["name"]],
            parameters={"seed": 0, "who": list(table["name"])}, tables={"names": table},
        )  # fmt: skip
        content = (tmp_path / "predictions" / "04_resnet50.csv").read_text(encoding="utf-8")
        if number == 0:
            csv = content
            again = results.load(tmp_path, "04_resnet50").predictions
            pd.testing.assert_frame_equal(again, found, check_dtype=False)
        pages.append(Page(report.write(tmp_path).read_text(encoding="utf-8")))
    assert pages[0].found == pages[1].found  # no element, no attribute came with a name
    assert not dangerous(pages[0])
    cells = pd.read_csv(io.StringIO(csv), dtype=str).to_numpy().ravel()
    formulas = [cell for cell in cells if str(cell)[0] in "=+-@\t\r\uff1d"]
    survived = 0 if formulas else len(EVIL)
    what = "names with HTML, shell text and formulas through results, predictions and report"
    count(record_property, what, len(EVIL), survived)


def test_guarded_text_is_read_back_as_it_was():
    texts = [*EVIL, "", "'", "''", "'a", "=", "'=", "''=", "plain", "ä\n=1"]
    for text in texts:
        assert files.original(files.harmless(text)) == text
        assert files.harmless(text)[:1] not in tuple("=+-@\t\r")
    assert files.harmless(-1.5) == -1.5


def test_names_in_an_audit(tmp_path, monkeypatch, record_property):
    """Of files, patients, hospitals and labels, to the page, the JSON file and the terminal."""
    monkeypatch.chdir(tmp_path)
    rng, rows = np.random.default_rng(0), []
    (tmp_path / "films").mkdir()
    names = [name for name in EVIL if "\r" not in name and "\0" not in name]
    for number in range(4 * len(names)):
        name = names[number % len(names)]
        image = f"films/{number}{name.replace('/', '')}.png".strip()
        film = rng.integers(0, 256, (40, 40)).astype(np.uint8)
        Path(image).write_bytes(cv2.imencode(".png", film)[1].tobytes())
        label = (EVIL[0], EVIL[16])[number % 2]
        rows.append((image, label, f"{name}{number // 4}", f"{name}"))
    table = pd.DataFrame(rows, columns=["image", "label", "patient", "source"])
    table.to_csv("films.csv", index=False)
    said = cxr("audit", "films.csv", "--json", "audit.json", "--out", "page.html")
    assert said.exit_code == 0, said.output[-3000:]
    page = Page(Path("page.html").read_text(encoding="utf-8"))
    assert not dangerous(page) and "<script>alert(1)</script>" in page.text
    assert {one[0] for one in page.found} <= PAGE_TAGS
    json.loads(Path("audit.json").read_text())
    assert not [c for c in said.output if c in "\x1b\x07\u202e"]
    assert not list(tmp_path.rglob("it-ran"))
    bad = Path(f"films/{EVIL[16]}.png")
    bad.write_bytes(b"no image")
    table.assign(image=[str(bad), *table["image"][1:]]).to_csv("films.csv", index=False)
    said = cxr("audit", "films.csv")
    assert said.exit_code == 1 and "\x1b" not in said.output and "\\x1b[31mred" in said.output
    count(record_property, "the same names through an audit", len(names), len(names))


PAGE_TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "footer", "section"),
    *("h1", "h2", "h3", "h4", "p", "span", "div", "a", "ul", "li", "code", "dl", "dt", "dd"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "img", "figcaption"),
    *("details", "summary"),
}


def test_names_in_the_site(record_property):
    sys.path.insert(0, str(ROOT / "docs"))
    from _site import tables

    said = [tables.plain(name) for name in EVIL]
    for name, text in zip(EVIL, said, strict=True):
        plain = re.sub(r"\\(.)", "", text)
        assert not set("<>`*_[]$|{}") & (set(plain) - {"_"}), name
    count(record_property, "the same names in a page of the site", len(EVIL), len(said))


# --- DICOM headers --------------------------------------------------------------------------------

SECRETS = {
    "PatientName": "Zebulon^Quirke",
    "PatientID": "QX-4711-ZQ",
    "PatientBirthDate": "19370229",
}
MORE = {"ReferringPhysicianName": "Ottilie^Vandermeer", "PatientAddress": "12 Wisteria Crescent",
        "InstitutionName": "Kestrel Infirmary", "StudyDate": "2021-13-45"}  # fmt: skip
WORDS = ("Zebulon", "Quirke", "QX-4711", "19370229", "Ottilie", "Vandermeer", "Wisteria", "Kestrel",
         "2021-13-45")  # fmt: skip


def private_films(folder, per_label=12, damaged=24):
    """DICOM films whose headers name people; some are damaged, each in its own way."""
    rng = np.random.default_rng(0)
    for label in ("healthy", "covid"):
        (folder / label).mkdir(parents=True)
        for number in range(per_label):
            pixels = rng.integers(0, 4096, (64, 64)).astype(np.uint16)
            facts = SECRETS | MORE | {"PatientID": f"QX-4711-ZQ{label}{number}"}
            content = mutants.dicom(pixels, **facts)
            (folder / label / f"{number}.dcm").write_bytes(content)
    for number in range(damaged):
        damage = mutants.MUTATIONS[number % len(mutants.MUTATIONS)]
        content = damage(content, np.random.default_rng(number)) or b"\0"
        (folder / "covid" / f"bad{number}.dcm").write_bytes(content)
        content = mutants.dicom(pixels, **SECRETS, **MORE)
    odd = content.replace(b"MONOCHROME2 ", b"Zebulon^Quir").replace(b"DA\x08\0", b"DS\x08\0")
    (folder / "covid" / "odd.dcm").write_bytes(odd)
    return folder


@pytest.mark.slow
def test_names_in_dicom_headers_go_nowhere(tmp_path, record_property):
    """Not into a page, a result, a cache, a file's name, or anything that is printed."""
    films = private_films(tmp_path / "films")
    around = os.environ | {"CXR_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    toy = tmp_path / "toy"
    (toy / "profiles").mkdir(parents=True)
    (toy / "profiles" / "smoke.yaml").write_text("profile: smoke\n")
    (toy / "01_toy.ipynb").write_text(json.dumps(toy_lesson(films)))
    cxr = [sys.executable, "-m", "cxrlib.cli"]
    audit = [*cxr, "audit", films, "--out", "page.html", "--json", "page.json"]
    run = [*cxr, "run", "--profile", "smoke", "--notebooks", toy, "--out", "run"]
    one = [*cxr, "--debug", "audit", films, "--out", "never.html"]
    printed, codes = b"", []
    for command in (one, [*audit, "--allow-missing"], run):
        ended = subprocess.run(
            [str(word) for word in command], cwd=tmp_path, env=around, capture_output=True
        )
        printed += ended.stdout + ended.stderr
        codes.append(ended.returncode)
    assert codes == [1, 0, 0], printed.decode(errors="replace")[-3000:]
    written = [path for path in tmp_path.rglob("*") if films not in path.parents]
    texts = [printed] + [str(path.relative_to(tmp_path)).encode() for path in written]
    texts += [path.read_bytes() for path in written if path.is_file()]
    told = [word for word in WORDS if any(word.encode() in text for text in texts)]
    assert re.search(rb"bad\d+\.dcm", printed) and len(texts) > 15
    what = "names and dates in DICOM headers (24 files damaged): in no page, result, cache or log"
    count(record_property, what, len(WORDS), len(WORDS) - len(told))


def toy_lesson(films):
    """Load the films, fail to load them, and record what was found."""
    code = f"""
import numpy as np
from cxrlib import results, sources
try:
    sources.load("folder", folder={str(films)!r})
except sources.SourceError as error:
    print(error)
cohort = sources.load("folder", folder={str(films)!r}, allow_missing=True)
sure = np.tile([0.75, 0.25], (len(cohort), 1))
found = results.predictions(cohort, sure, cohort.labels, "clean")
display(cohort, cohort.table)
results.record("01_toy", profile="smoke", parameters={{}}, cohort=cohort, predictions=found,
               tables={{"films": cohort.table}})
"""
    tag = {"tags": ["parameters"]}
    cells = [("profile = 'quick'", tag), (code, {})]
    return {
        "cells": [
            {"cell_type": "code", "id": f"c{n}", "metadata": data, "source": source,
             "outputs": [], "execution_count": None}
            for n, (source, data) in enumerate(cells)
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "x", "language": "python"}},
        "nbformat": 4, "nbformat_minor": 5,
    }  # fmt: skip
