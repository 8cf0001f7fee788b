"""What the course stands on: exact versions, licences, a bill of materials.

python .ci/supply.py lock [--upgrade]     write constraints/*.txt: every package, version and hash
python .ci/supply.py licences [--write]   licences of the default install; fails if one may not be
python .ci/supply.py sbom FILE            the default install as a CycloneDX document (JSON)

`lock` and `sbom` need ``pip install -e ".[supply]"``. `licences` and `sbom` read the packages that
are installed beside the Python that runs them; `licences --write` puts the list into
docs/dependencies.md.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from licences import DEFAULT, PROJECT, ROOT, STAND_IN, closure, grade, licence
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = ROOT / "constraints"
PAGE = ROOT / "docs" / "dependencies.md"
LOCKS = {  # the larger first: the smaller one takes its versions
    "everything": (*DEFAULT, "teach", "site", "test"),
    "course": DEFAULT,
    "build": None,  # what builds the package `cxrlib` itself
}
EDITABLE = "editables>=0.5"  # hatchling asks for it when the package is installed as editable
WAIT = "7 days"  # a version younger than this is not taken: what is bad is often found by then


# -- licences ----------------------------------------------------------------------------------
def licence_list(packages) -> str:
    """Write packages by licence, as a Markdown table."""
    by: dict[str, list[str]] = {}
    for name, package in packages.items():
        by.setdefault(licence(package) or "not stated", []).append(name)
    rows = sorted(by.items(), key=lambda row: (-len(row[1]), row[0]))
    lines = ["| licence | packages | which |", "| --- | --- | --- |"]
    lines += [f"| {said} | {len(names)} | {', '.join(names)} |" for said, names in rows]
    lesser = [name for name, one in packages.items() if grade(licence(one)) == "lesser"]
    lines += ["", f"With a licence that asks for changes to its own files: {', '.join(lesser)}."]
    elsewhere = sorted(set(locked("course")) - set(packages) - set(STAND_IN))
    lines += [f"Only on another system or Python, so not read here: {', '.join(elsewhere)}."]
    return "\n".join(lines)


def write_list(text: str, page: Path = PAGE) -> None:
    """Put the table between its two marks in the page."""
    begin, end = "<!-- licences: begin -->", "<!-- licences: end -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    page.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def licences(arguments) -> int:
    """Print the list; name those that may not be."""
    packages = closure()
    text = licence_list(packages)
    print(text)
    bad = [n for n, one in packages.items() if grade(licence(one)) in ("unknown", "refused")]
    for name in bad:
        said = licence(packages[name]) or "not stated in its metadata"
        print(f"{name}: {said} ({grade(licence(packages[name]))})", file=sys.stderr)
    if bad:
        print(
            "Leave it out, or read its licence file: .ci/licences.py, FREE, READ", file=sys.stderr
        )
    elif arguments.write:
        write_list(text)
    return bool(bad)


# -- exact versions ----------------------------------------------------------------------------
def locked(name: str) -> dict[str, list[Requirement]]:
    """Read a lock, by package: several lines where systems or Pythons differ."""
    text = (CONSTRAINTS / f"{name}.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, list[Requirement]] = {}
    for line in text.splitlines():
        if line and not line.lstrip().startswith("#"):
            wanted = Requirement(line.split(" --hash")[0])
            found.setdefault(canonicalize_name(wanted.name), []).append(wanted)
    return found


def lock(arguments) -> int:
    """Resolve with uv for all Pythons and systems of the course; keep versions that still fit."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-config"]
    command += ["--universal", "--python-version", "3.11", "--fork-strategy", "fewest"]
    command += ["--generate-hashes", "--no-emit-index-url", "--exclude-newer", WAIT]
    command += ["--custom-compile-command", "python .ci/supply.py lock"]
    command += ["--upgrade"] * arguments.upgrade
    tools = "\n".join([*PROJECT["build-system"]["requires"], EDITABLE])
    for name, extras in LOCKS.items():
        words = ["--output-file", f"constraints/{name}.txt"]
        words += ["-"] if extras is None else ["pyproject.toml"]
        words += [word for extra in extras or () for word in ("--extra", extra)]
        if name != "everything":
            words += ["--constraint", "constraints/everything.txt"]
        ended = subprocess.run([*command, *words], cwd=ROOT, input=tools, text=True)
        if ended.returncode:
            return ended.returncode
        print(f"constraints/{name}.txt: {len(locked(name))} packages")
    return 0


# -- bill of materials -------------------------------------------------------------------------
def sbom(arguments) -> int:
    """Write what the default install holds, without paths of this machine."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"]
    command += ["--spec-version", "1.6", "--no-validate", "--pyproject", "pyproject.toml"]
    ended = subprocess.run([*command, sys.executable], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if ended.returncode:
        return ended.returncode
    text = json.dumps(trim(json.loads(ended.stdout), set(closure())), indent=1)
    if fault := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        print(f"This is no CycloneDX 1.6: {fault}", file=sys.stderr)
        return 1
    arguments.file.write_text(text, encoding="utf-8")
    return 0


def trim(document: dict, names: set[str]) -> dict:
    """Leave the packages of these names in a document, and only addresses that others can read."""
    kept = [one for one in document["components"] if canonicalize_name(one["name"]) in names]
    for one in kept:
        links = [link for link in one.get("externalReferences", []) if link["url"][:4] == "http"]
        one["externalReferences"] = links
    root = document["metadata"]["component"]["bom-ref"]
    known = {root, *(one["bom-ref"] for one in kept)}
    needs = [
        entry | {"dependsOn": sorted(known & set(entry.get("dependsOn", [])))}
        for entry in document["dependencies"]
        if entry["ref"] in known
    ]
    return document | {"components": kept, "dependencies": needs}


def main(words=None) -> int:
    """Run one of the commands; returns its exit code."""
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=about)
    commands = parser.add_subparsers(required=True, metavar="lock | licences | sbom")
    one = commands.add_parser("lock")
    one.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    one.set_defaults(run=lock)
    one = commands.add_parser("licences")
    one.add_argument("--write", action="store_true", help="into docs/dependencies.md too")
    one.set_defaults(run=licences)
    one = commands.add_parser("sbom")
    one.add_argument("file", type=Path)
    one.set_defaults(run=sbom)
    arguments = parser.parse_args(words)
    return arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
