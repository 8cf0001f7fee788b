"""Licences of the packages that an install brings, from their own metadata.

`python .ci/supply.py licences` uses it. Why not pip-licenses: it lists an environment, not what an
install with some extras brings; that walk is most of what stands here.
"""

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DEFAULT = ("course", "tensorflow", "dicom")  # extras that `make course` installs

GRADES = ("free", "lesser", "unknown", "refused")  # from good to bad
FREE = """
0BSD Apache-2.0 BSD-2-Clause BSD-3-Clause BSL-1.0 CC0-1.0 HPND ISC LicenseRef-BSD MIT MIT-0
MIT-CMU PSF-2.0 Python-2.0 Unlicense Zlib
""".split()  # noqa: SIM905, easier to read than a list
SPDX = {  # what packages write in place of SPDX's names
    "Apache 2.0": "Apache-2.0",
    "Apache License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD": "LicenseRef-BSD",
    "BSD License": "LicenseRef-BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
READ = {  # by us, in their licence files: their metadata say nothing
    "axe-playwright-python": "MIT AND MPL-2.0",
    "namex": "Apache-2.0",
    "text2qti": "BSD-3-Clause",
}
STAND_IN = {"tensorflow": "tensorflow-cpu"}  # the same without a GPU's part, as Binder has it


def direct(extras=DEFAULT) -> list[Requirement]:
    """Give what the project and some of its extras ask for, extras of extras included."""
    table, found = PROJECT["project"]["optional-dependencies"], []
    for line in PROJECT["project"]["dependencies"]:
        found.append(Requirement(line))
    todo = list(extras)
    while todo:
        for wanted in map(Requirement, table[todo.pop(0)]):
            if wanted.name == PROJECT["project"]["name"]:
                todo += sorted(wanted.extras)
            else:
                found.append(wanted)
    return found


def closure(extras=DEFAULT) -> dict[str, metadata.Distribution]:
    """Find the packages that an install with these extras brings to this Python on this system.

    Raises
    ------
    metadata.PackageNotFoundError
        If one of them is not installed.
    """
    todo, seen, found = direct(extras), set(), {}
    while todo:
        wanted = todo.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        package = installed(canonicalize_name(wanted.name))
        found[canonicalize_name(package.name)] = package
        for needed in map(Requirement, package.requires or []):
            cases = [{"extra": extra} for extra in ("", *wanted.extras)]
            if not needed.marker or any(needed.marker.evaluate(case) for case in cases):
                needed.marker = None
                todo.append(needed)
    return dict(sorted(found.items()))


def installed(name: str) -> metadata.Distribution:
    """Find an installed package, or the one that stands in for it."""
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        if name not in STAND_IN:
            raise
        return metadata.distribution(STAND_IN[name])


def licence(package: metadata.Distribution) -> str:
    """Give a package's licence as an SPDX expression; "" if its metadata do not tell.

    The newest field counts alone. Of the two old ones the worse counts; several classifiers are
    taken as all of them at once.
    """
    about = package.metadata
    classifiers = [
        words.split(" :: ")[-1]
        for words in about.get_all("Classifier") or []
        if words.startswith("License ::") and words != "License :: OSI Approved"
    ]
    text = (about.get("License") or "").strip().split("\n")[0]
    together = " AND ".join(SPDX.get(words, words) for words in classifiers)
    written = [about.get("License-Expression")], [SPDX.get(text, text), together]
    for fields in written:
        found = [expression for said in fields if (expression := _canonical(said))]
        if found:
            worst = max(found, key=lambda expression: GRADES.index(grade(expression)))
            return _which_bsd(package) if worst == "LicenseRef-BSD" else worst
    return READ.get(canonicalize_name(package.name), "")


def _canonical(said: str | None) -> str:
    try:
        return canonicalize_license_expression(said or "")
    except InvalidLicenseExpression:
        return ""


def _which_bsd(package: metadata.Distribution) -> str:
    """Two clauses or three: the licence file tells, if there is one."""
    for file in package.files or []:
        if re.search("licen[cs]e|copying", file.name, re.I) and ".dist-info" in str(file):
            text = package.locate_file(file).read_text(encoding="utf-8", errors="replace")
            if "endorse or promote" in " ".join(text.split()):
                return "BSD-3-Clause"
            if "Redistributions in binary form" in " ".join(text.split()):
                return "BSD-2-Clause"
    return "LicenseRef-BSD"


def grade(expression: str) -> str:
    """Say what an SPDX expression means for us: one of `GRADES`.

    Of a choice (OR) the best counts, of several at once (AND) the worst. In brackets, all count.
    """
    if "(" in expression:
        expression = re.sub(r"[()]", "", expression).replace(" OR ", " AND ")
    choices = [[_grade(name) for name in part.split(" AND ")] for part in expression.split(" OR ")]
    return min((max(part, key=GRADES.index) for part in choices), key=GRADES.index)


def _grade(name: str) -> str:
    if name.removesuffix(" WITH LLVM-exception") in FREE:
        return "free"
    if re.match("LGPL|MPL|EPL|CDDL", name) or name.endswith(" WITH GCC-exception-3.1"):
        return "lesser"  # asks for its own source only, not for ours
    return "refused" if re.match("A?GPL|SSPL|BUSL", name) else "unknown"
