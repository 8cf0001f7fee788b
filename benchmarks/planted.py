"""Plant faults in a set of films, and count which of them `cxr audit` and cleanvision find.

python benchmarks/planted.py [--films FOLDER] [--cleanvision PYTHON] [--write]

Ten faults of each kind among phantoms, or among films of a FOLDER with one folder a label.
cleanvision (https://github.com/cleanlab/cleanvision, no part of this project) runs with its
defaults in the PYTHON named, where it is installed. A film counts as found if the tool names it
for whatever reason, as odd or as a copy.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
from audit import PAGE, cxr_audit
from odd import WAYS
from rounds import machine, table, write

from cxrlib import phantom, sources

EACH, GOOD = 10, 200  # films of each fault; films left as they are
SPOILED = {name: WAYS[name] for name in ("inverted", "turned by 90°", "CT-like (drawn)")}
SPOILED |= {
    "nearly black": WAYS["nearly black"],
    "overexposed": lambda film, rng: 255 - (rng.uniform(0.02, 0.1) * (255 - film)).astype("u1"),
    "blurred": lambda film, rng: cv2.GaussianBlur(film, (0, 0), rng.uniform(6, 10)),
    "strip, 1 : 5": lambda film, rng: film[:, : len(film) // 5],
}
COPIES = {
    "exact copy": lambda film, rng: film,
    "copy, JPEG quality 30": lambda film, rng: film,
    "mirrored copy": WAYS["mirrored"],
    "copy in a frame of 5 %": lambda film, rng: cv2.copyMakeBorder(film, *[16] * 4, 0),
}
# It calls all films grey, which radiographs are
CLEANVISION = """
import json, sys
from cleanvision import Imagelab, __version__
lab = Imagelab(data_path=sys.argv[1])
lab.find_issues()
flags = lab.issues.filter(regex="^is_.*_issue$").drop(columns="is_grayscale_issue")
print("\\n" + json.dumps([__version__, list(flags.index[flags.any(axis=1)])]))
"""


def plant(cohort, folder: Path) -> dict[str, str]:
    """Write films as files, some with a fault; of each file its fault, '' or 'original'."""
    rng = np.random.default_rng(0)
    rows, faults = iter(rng.permutation(len(cohort))), {}

    def save(row, fault, film):
        ending = "jpg" if "JPEG" in fault else "png"
        name = f"{cohort.table['label'].iloc[row]}/{len(faults):04}.{ending}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        how = [cv2.IMWRITE_JPEG_QUALITY, 30] if ending == "jpg" else []
        cv2.imwrite(str(folder / name), film, how)
        faults[name] = fault

    for fault, make in {**SPOILED, **COPIES}.items():
        for row in (next(rows) for _ in range(EACH)):
            film = np.array(cohort.images[row])
            save(row, fault, np.ascontiguousarray(make(film, rng)))
            if fault in COPIES:
                save(row, "original", film)
    for row in (next(rows) for _ in range(GOOD - EACH * len(COPIES))):
        save(row, "", cohort.images[row])
    return faults


def by_audit(work: Path) -> tuple[str, float, set[str]]:
    """Films that `cxr audit` names as odd or as copies; here each is a patient of its own."""
    seconds, _ = cxr_audit(work / "films", work, "--json", str(work / "found.json"))
    found = set()
    for finding in json.loads((work / "found.json").read_text())["findings"]:
        for shown in (
            finding["tables"].get(name)
            for name in ("Pairs under two patients or two labels", "Odd films")
        ):
            for row in shown["data"] if shown else ():
                named = dict(zip(shown["columns"], row, strict=True))
                found |= {named["image"], named.get("other", named["image"])}
    return "`cxr audit`, all of it", seconds, found


def by_cleanvision(python: str, folder: Path) -> tuple[str, float, set[str]]:
    """Films that cleanvision names, the greyness of all films left out."""
    start = time.monotonic()
    command = [python, "-c", CLEANVISION, str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"cleanvision failed: {ended.stderr[-500:]}")
    version, names = json.loads(ended.stdout.splitlines()[-1])
    found = {Path(name).relative_to(folder).as_posix() for name in names}
    return f"cleanvision {version}", time.monotonic() - start, found


def main() -> None:
    """Plant, run both, print, and perhaps write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--films", help="a folder of real films, one folder a label")
    parser.add_argument("--cleanvision", metavar="PYTHON", help="a Python that has cleanvision")
    parser.add_argument("--write", action="store_true", help=f"put it into {PAGE.name}")
    given = parser.parse_args()
    if given.films:
        with warnings.catch_warnings(action="ignore"):  # no patient is named
            cohort = sources.load("folder", folder=given.films)
    else:
        cohort = phantom.make_cohort(GOOD + EACH * len(SPOILED), (1, 1))
    with tempfile.TemporaryDirectory(prefix="cxr-faults-") as place:
        faults = plant(cohort, Path(place) / "films")
        tools = [by_audit(Path(place))]
        if given.cleanvision:
            tools.append(by_cleanvision(given.cleanvision, Path(place) / "films"))
        else:
            print("No column of cleanvision: --cleanvision names a Python that has it.")
    rows = [["seconds", *(f"{seconds:.0f}" for _, seconds, _ in tools)]]
    for fault in (*SPOILED, *COPIES, ""):
        names = {name for name, planted in faults.items() if planted == fault}
        kind = f"{fault or 'good films named'}, of {len(names)}"
        rows.append([kind, *(len(names & found) for _, _, found in tools)])
    films = " --films FOLDER" if given.films else ""
    text = f"""{table(["", *(name for name, _, _ in tools)], rows)}

`python benchmarks/planted.py{films} --cleanvision PYTHON --write`: {len(faults)} \
{"real" if films else "synthetic"} films of 300 x 300, seed 0. {machine()}."""
    print(text)
    if given.write:
        write("real faults" if films else "faults", text, PAGE)


if __name__ == "__main__":
    main()
