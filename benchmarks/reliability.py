"""Hurt the course on purpose, and count what it survives.

python benchmarks/reliability.py [--write] [--sweeps]

Runs the fault tests and puts their counts into docs/reliability.md; with --sweeps also those
that take long, such as kills at fifty random moments.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from rounds import ROOT, machine, options, table, versions, write

PAGE = ROOT / "docs" / "reliability.md"
HEADINGS = {
    "test_kills": "Killed",
    "test_disks": "Disks, and two at once",
    "test_pinned": "Servers",
    "test_cluster": "Workers",
    "test_fuzz": "Damaged files",
    "test_hostile": "Hostile input",
    "test_determinism": "The same again",
}


@dataclass
class Fault:
    """One kind of fault: how often it was tried, and how often nothing was lost."""

    what: str
    tried: int = 0
    survived: int = 0
    skipped: str = ""

    @property
    def lost(self) -> int:
        """How often something was lost, wrong or accepted."""
        return self.tried - self.survived


def main() -> int:
    """Run the tests and tell; returns 1 if anything was lost, or a test failed."""
    parser = options(__doc__)
    parser.add_argument("--only", nargs="*", default=list(HEADINGS), choices=list(HEADINGS))
    parser.add_argument("--sweeps", action="store_true", help="the long ones too")
    given = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        files = [path for name in given.only for path in (ROOT / "tests").rglob(f"{name}.py")]
        command = [sys.executable, "-m", "pytest", *files, "-p", "no:cacheprovider"]
        command += ["--hypothesis-profile", "many"]
        command += [f"--junitxml={report}", "-o", "junit_family=xunit1"]
        command += [] if given.sweeps else ["-m", "not sweep"]
        ended = subprocess.run(command, cwd=ROOT, check=False)
        found = read(report)
    text = tell(found, time.monotonic() - start)
    print(text)
    if given.write:
        write("reliability", text, PAGE)
    lost = sum(fault.lost for faults in found.values() for fault in faults)
    return 1 if lost or ended.returncode else 0


def read(report: Path) -> dict[str, list[Fault]]:
    """Read pytest's JUnit file: the faults of each test module, in the tests' order.

    A test says ``what`` it does to the course; ``tried`` is 1 if it does not say otherwise, and
    ``survived`` as many as were tried, if it passed. Tests with the same ``what`` are added up.
    """
    found = {}
    for case in ET.parse(report).iter("testcase"):
        said = {one.get("name"): one.get("value") for one in case.iter("property")}
        if "what" not in said:
            continue
        module = case.get("classname").split(".")[-1]
        faults = found.setdefault(module, {})
        fault = faults.setdefault(said["what"], Fault(said["what"]))
        if (skipped := case.find("skipped")) is not None:
            fault.skipped = skipped.get("message", "skipped")
            continue
        failed = case.find("failure") is not None or case.find("error") is not None
        tried = int(said.get("tried", 1))
        survived = int(said.get("survived", 0 if failed else tried))
        fault.tried += tried
        # a test that fails has found something wrong, whatever it had counted until then
        fault.survived += min(survived, tried - 1) if failed else survived
    return {module: list(faults.values()) for module, faults in found.items()}


def tell(found: dict[str, list[Fault]], seconds: float) -> str:
    """Word the counts as Markdown: a table under each heading."""
    everything = [fault for faults in found.values() for fault in faults]
    tried, lost = sum(f.tried for f in everything), sum(f.lost for f in everything)
    used = versions("keras", "tensorflow", "tensorflow-cpu", "papermill", "requests", "distributed")
    parts = [
        f"`python benchmarks/reliability.py --write` tried {tried:,} faults of {len(everything)} "
        f"kinds in {seconds:.0f} s; {tried - lost:,} were survived, {lost:,} lost something. "
        f"({machine()}; {used})"
    ]
    for module, heading in HEADINGS.items():
        rows = [_row(fault) for fault in found.get(module, [])]
        if rows:
            parts += [f"### {heading}", f"`{module}.py`"]
            parts += [table(["what was done", "tried", "survived", "lost"], rows)]
    return "\n\n".join(parts)


def _row(fault: Fault) -> list[str]:
    what = fault.what.replace("|", "\\|")
    if not fault.tried:
        return [f"{what} (not tried: {fault.skipped})", "0", "0", "0"]
    return [what, f"{fault.tried:,}", f"{fault.survived:,}", f"{fault.lost:,}"]


if __name__ == "__main__":
    sys.exit(main())
