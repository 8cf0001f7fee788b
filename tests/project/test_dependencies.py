"""What the course stands on: exact versions, licences, the page that describes it all."""

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
LOCKS = ["everything", "course", "build"]
PYTHONS = ["3.11", "3.12", "3.13"]
SYSTEMS = {"linux": "Linux", "darwin": "Darwin"}
sys.path.insert(0, str(ROOT / ".ci"))

import licences  # noqa: E402
import supply  # noqa: E402

each_lock = pytest.mark.parametrize("name", LOCKS)


def asked_for(name) -> list[Requirement]:
    if name == "build":
        return [Requirement(line) for line in PROJECT["build-system"]["requires"]]
    return licences.direct(supply.LOCKS[name])


# -- exact versions ----------------------------------------------------------------------------
@each_lock
def test_a_lock_names_all_that_the_project_asks_for_in_versions_that_it_takes(name):
    locked = supply.locked(name)
    assert asked_for(name)
    for wanted in asked_for(name):
        for found in locked[canonicalize_name(wanted.name)]:
            (version,) = found.specifier
            assert version.operator == "==" and wanted.specifier.contains(version.version), found


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_every_python_and_system_gets_exactly_one_version_of_each(python, system):
    place = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": system,
        "platform_system": SYSTEMS[system],
    }
    locked = supply.locked("course")
    for wanted in asked_for("course"):
        lines = locked[canonicalize_name(wanted.name)]
        fits = [one for one in lines if not one.marker or one.marker.evaluate(place)]
        assert len(fits) == 1, (wanted, lines)


@each_lock
def test_every_version_has_hashes_and_no_line_names_a_place(name):
    text = (ROOT / "constraints" / f"{name}.txt").read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=[a-z0-9])", "\n" + text)[1:]
    assert len(blocks) == sum(map(len, supply.locked(name).values())) > 5
    for block in blocks:
        lines = [line.strip(" \\") for line in block.splitlines() if "#" not in line]
        assert re.fullmatch(r"[a-z0-9-]+==[\w.!+]+( ; .+)?", lines[0]), lines[0]
        hashes = [line for line in lines[1:] if line]
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes)
    assert not re.search(r"://|index-url|find-links|trusted-host|(^|\s)/\w+/", text)


def test_the_locks_agree_with_each_other():
    whole = supply.locked("everything")
    assert set(supply.locked("course")) < set(whole)
    for name in ("course", "build"):
        for package, lines in supply.locked(name).items():
            others = whole.get(package, lines)  # a tool that builds is in no other lock
            assert {str(one.specifier) for one in lines} <= {str(one.specifier) for one in others}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no make")
def test_make_installs_from_the_locks_only_if_it_is_asked_to(tmp_path):
    command = ["make", "-n", "test", f"VENV={tmp_path / 'none'}"]
    said = subprocess.run(
        [*command, "LOCKED=1"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    installs = [line for line in said.splitlines() if "pip install" in line]
    assert len(installs) == 2 and all("--require-hashes" in line for line in installs)
    files = re.findall(r"-r (\S+)", said)
    assert set(files) == {f"constraints/{name}.txt" for name in LOCKS}
    assert all((ROOT / file).exists() for file in files)
    loose = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "pip install" in loose and "--require-hashes" not in loose


def test_the_audit_reads_every_line_of_the_locks():
    if not find_spec("pip_audit"):
        pytest.skip("no pip-audit")
    command = [sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip", "--dry-run"]
    files = [word for name in LOCKS for word in ("-r", f"constraints/{name}.txt")]
    ended = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    (read,) = re.findall(r"would have audited (\d+) packages", ended.stderr)
    here = {
        one.name
        for name in LOCKS
        for lines in supply.locked(name).values()
        for one in lines
        if not one.marker or one.marker.evaluate()
    }
    assert int(read) == len(here)


# -- licences ----------------------------------------------------------------------------------
@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Install packages that hold nothing but metadata; gives a function that makes one."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name, *lines, text=None):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        head = ["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *lines]
        (folder / "METADATA").write_text("\n".join(head) + "\n\n", encoding="utf-8")
        if text:
            (folder / "LICENSE").write_text(text, encoding="utf-8")
            (folder / "RECORD").write_text(f"{folder.name}/LICENSE,,\n", encoding="utf-8")
        return metadata.distribution(name)

    return make


BSD = "Classifier: License :: OSI Approved :: BSD License"
GPL = "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)"


@pytest.mark.parametrize(
    ("lines", "text", "said"),
    [
        (["License-Expression: MIT", GPL], None, "MIT"),  # the new field is exact
        (["License: mit"], None, "MIT"),
        (["License: Apache 2.0"], None, "Apache-2.0"),
        (["Classifier: License :: OSI Approved :: MIT License"], None, "MIT"),
        ([BSD], None, "LicenseRef-BSD"),
        ([BSD], "Redistributions in binary form must ...", "BSD-2-Clause"),
        ([BSD], "Redistributions in binary form ... endorse\n  or promote ...", "BSD-3-Clause"),
        (["License: GPL-3.0-only", BSD], None, "GPL-3.0-only"),  # the worse of two old fields
        (["License: see the file"], None, ""),
        ([GPL], None, ""),
        ([], None, ""),
    ],
)
def test_a_licence_is_read_from_what_a_package_says(shelf, lines, text, said):
    assert licences.licence(shelf("some", *lines, text=text)) == said


@pytest.mark.parametrize(
    ("expression", "grade"),
    [
        ("MIT", "free"),
        ("Apache-2.0 OR BSD-2-Clause", "free"),
        ("GPL-2.0-only OR MIT", "free"),
        ("MIT AND GPL-2.0-only", "refused"),
        ("AGPL-3.0-or-later", "refused"),
        ("(MIT OR GPL-3.0-only) AND ISC", "refused"),
        ("LGPL-2.1-or-later", "lesser"),
        ("MPL-2.0 AND MIT", "lesser"),
        ("BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1", "lesser"),
        ("LicenseRef-Scancode-proprietary", "unknown"),
        ("", "unknown"),
    ],
)
def test_what_a_licence_means(expression, grade):
    assert licences.grade(expression) == grade


def test_the_walk_follows_extras_and_markers(shelf, monkeypatch):
    shelf("one", "Requires-Dist: two[more]>=1", 'Requires-Dist: never; python_version < "3"')
    shelf("two", 'Requires-Dist: Three_x; extra == "more"', 'Requires-Dist: four; extra == "rest"')
    shelf("three_x", "Requires-Dist: one")  # in a circle
    project = {
        "name": "us",
        "dependencies": ["one"],
        "optional-dependencies": {"a": ["us[b]"], "b": ["five"]},
    }
    shelf("five")
    monkeypatch.setitem(licences.PROJECT, "project", project)
    assert list(licences.closure(["a"])) == ["five", "one", "three-x", "two"]
    assert list(licences.closure([])) == ["one", "three-x", "two"]


def test_no_package_of_the_default_install_is_under_the_gpl_or_an_unknown_licence():
    packages = licences.closure()
    assert len(packages) > 60
    grades = {name: licences.grade(licences.licence(one)) for name, one in packages.items()}
    bad = {
        name: licences.licence(packages[name]) or "not stated"
        for name, grade in grades.items()
        if grade in ("refused", "unknown")
    }
    assert bad == {}
    asks = re.search(r"changes to its own files: (.+)\.\n", PAGE)[1].split(", ")
    assert {name for name, grade in grades.items() if grade == "lesser"} <= set(asks)


def test_a_package_under_the_gpl_is_named_and_the_list_is_not_written(shelf, monkeypatch, capsys):
    bad = {"bad": shelf("bad", "License-Expression: GPL-3.0-only"), "odd": shelf("odd")}
    monkeypatch.setattr(supply, "closure", lambda: bad)
    monkeypatch.setattr(supply, "write_list", lambda text: pytest.fail("written"))
    assert supply.main(["licences", "--write"]) == 1
    said = capsys.readouterr().err
    assert "bad: GPL-3.0-only (refused)" in said and "odd: not stated" in said


def test_the_list_goes_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- licences: begin -->\nold\n<!-- licences: end -->\nb\n")
    supply.write_list("new", page)
    supply.write_list("newer", page)
    assert page.read_text() == ("a\n<!-- licences: begin -->\nnewer\n<!-- licences: end -->\nb\n")


# -- the page ----------------------------------------------------------------------------------
def described() -> list[list[str]]:
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    names = {canonicalize_name(one.name) for one in everything()}
    return [[cell.strip() for cell in row] for row in rows if row[0] in names]


def everything() -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"]
    return [*licences.direct(extras), *asked_for("build")]


def test_every_direct_dependency_is_described_once():
    names = [row[0] for row in described()]
    assert sorted(names) == sorted({canonicalize_name(one.name) for one in everything()})
    for name, what, keeper, *rest in described():
        assert len(what) > 3 and len(keeper) > 3 and len(rest) >= 1, name


def test_the_page_gives_the_licences_that_the_packages_give():
    compared = 0
    for name, _, _, said, *_ in described():
        try:
            package = licences.installed(name)
        except metadata.PackageNotFoundError:
            continue  # of an extra that is not installed here
        assert said == licences.licence(package), name
        compared += 1
    assert compared > 25


def test_the_list_of_licences_is_of_the_locked_packages():
    text = PAGE.split("<!-- licences: begin -->")[1].split("<!-- licences: end -->")[0]
    rows = re.findall(r"^\| [^|]+ \| (\d+) \| ([a-z0-9, -]+) \|$", text, re.MULTILINE)
    listed = [name for _, names in rows for name in names.split(", ")]
    assert all(int(count) == len(names.split(", ")) for count, names in rows)
    elsewhere = re.search(r"not read here: (.+)\.\n", text)[1].split(", ")
    there = {name.replace("tensorflow-cpu", "tensorflow") for name in [*listed, *elsewhere]}
    assert there == set(supply.locked("course")), "python .ci/supply.py licences --write"
    assert len(listed) == len(set(listed))


# -- bill of materials -------------------------------------------------------------------------
def test_a_document_is_cut_to_some_packages_and_to_public_addresses():
    def part(name, *links):
        links = [{"type": "other", "url": url} for url in links]
        return {"bom-ref": f"{name}==1", "name": name, "externalReferences": links}

    document = {
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [part("Keep_Me", "https://a.org", "file:///home/me"), part("drop")],
        "dependencies": [
            {"ref": "root", "dependsOn": ["Keep_Me==1", "drop==1"]},
            {"ref": "drop==1"},
            {"ref": "Keep_Me==1"},
        ],
    }
    found = supply.trim(document, {"keep-me"})
    assert found["components"] == [part("Keep_Me", "https://a.org")]
    assert found["dependencies"] == [
        {"ref": "root", "dependsOn": ["Keep_Me==1"]},
        {"ref": "Keep_Me==1", "dependsOn": []},
    ]


@pytest.mark.sweep
def test_the_bill_of_materials_holds_the_default_install_and_no_path(tmp_path):
    """The command itself checks what it writes against CycloneDX's schema."""
    if not find_spec("cyclonedx_py"):
        pytest.skip("no cyclonedx-bom")
    file = tmp_path / "sbom.json"
    command = [sys.executable, ROOT / ".ci" / "supply.py", "sbom", file]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    text = file.read_text(encoding="utf-8")
    document = json.loads(text)
    assert document["bomFormat"] == "CycloneDX" and document["specVersion"] == "1.6"
    found = {canonicalize_name(one["name"]): one["version"] for one in document["components"]}
    assert found == {name: one.version for name, one in licences.closure().items()}
    for place in (ROOT, Path.home(), sys.prefix, "file:"):
        assert str(place) not in text
