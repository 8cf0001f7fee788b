"""Measure how often an audit's lights are right, on phantoms whose confounding is known.

python docs/audit/calibrate.py                  (about half an hour on one core)
python docs/audit/calibrate.py --runs 20 --show  (a quick look; writes nothing)

Writes rates.csv, and the table between the marks in README.md, beside this file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from tqdm import tqdm
from written import share, write

from cxrlib import audit, phantom
from cxrlib.files import whole_file

HERE = Path(__file__).resolve().parent
SETTINGS = {  # name: column that names the source, knob, scanners, share of the runs
    "knob 0": ("source", 0.0, None, 1.0),
    "knob 0.1": ("source", 0.1, None, 0.2),
    "knob 0.2": ("source", 0.2, None, 0.2),
    "knob 0.4": ("source", 0.4, None, 0.2),
    "knob 0.8": ("source", 0.8, None, 1.0),
    "scanner named, knob 0": ("scanner", 0.0, ("digital", "computed", "film"), 1.0),
    "scanner named, knob 0.8": ("scanner", 0.8, ("digital", "computed", "film"), 1.0),
}
PATIENTS, SIDE, FIRST_SEED = 60, 150, 10_000
MARK = "<!-- rates -->"


def lights(setting: str, seed: int) -> dict[str, str]:
    """Audit one set of phantoms: the light of each probe."""
    by, knob, scanners, _ = SETTINGS[setting]
    cohort = phantom.make_cohort(
        PATIENTS,
        labels=("healthy", "covid"),
        confounding=knob,
        scanners=scanners,
        size=SIDE,
        seed=seed,
    )
    return {one.name: one.light for one in audit.run(cohort, by=by, seed=seed).findings}


def measure(runs: int) -> pd.DataFrame:
    """Audit `runs` sets in the settings that matter most, fewer in the others: a row an audit."""
    plan = [
        (setting, FIRST_SEED + number)
        for setting, (*_, share) in SETTINGS.items()
        for number in range(int(share * runs))
    ]
    rows = ({"setting": one, "seed": s, **lights(one, s)} for one, s in tqdm(plan, unit="audit"))
    return pd.DataFrame(rows)


def rates(found: pd.DataFrame) -> list[str]:
    """Markdown rows: how many audits had a red light, or a red or amber one, by setting."""
    probes = [name for name in found.columns if name not in ("setting", "seed")]
    lines = ["| probe | " + " | ".join(SETTINGS) + " |"]
    lines.append("| --- " * (1 + len(SETTINGS)) + "|")
    parts = [found[found["setting"] == setting] for setting in SETTINGS]
    total = [share((part[probes] == "red").any(axis=1)) for part in parts]
    lines.append("| **any red light** | " + " | ".join(total) + " |")
    for name in probes:
        if not found[name].isin(["red", "amber"]).any():
            continue
        cells = [
            f"{(part[name] == 'red').mean():.0%} / {(part[name] == 'amber').mean():.0%}"
            for part in parts
        ]
        lines.append(f"| {name}: red / amber | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--runs", type=int, default=100, help="audits at knob 0 and at knob 0.8, each"
    )
    parser.add_argument("--show", action="store_true", help="print only")
    asked = parser.parse_args()
    found = measure(asked.runs)
    print("\n".join(rates(found)))
    if asked.show:
        return
    with whole_file(HERE / "rates.csv") as partial:
        found.to_csv(partial, index=False)
    write(MARK, rates(found))


if __name__ == "__main__":
    main()
