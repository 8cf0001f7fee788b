"""Measure how often an audit's lights are right, on phantoms whose confounding is known.

python docs/audit/calibrate.py                  (about a quarter of an hour on one core)
python docs/audit/calibrate.py --runs 20 --show  (a quick look; writes nothing)

Writes rates.csv, and the table between the marks in README.md, beside this file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from cxrlib import audit, metrics, phantom
from cxrlib.files import whole_file

HERE = Path(__file__).resolve().parent
KNOBS = {0.0: 1.0, 0.1: 0.2, 0.2: 0.2, 0.4: 0.2, 0.8: 1.0}  # share of the runs at each setting
PATIENTS, SIDE, FIRST_SEED = 60, 150, 10_000
MARK = "<!-- rates -->"


def lights(knob: float, seed: int) -> dict[str, str]:
    """Audit one set of phantoms: the light of each probe."""
    cohort = phantom.make_cohort(
        PATIENTS, labels=("healthy", "covid"), confounding=knob, size=SIDE, seed=seed
    )
    return {one.name: one.light for one in audit.run(cohort, seed=seed).findings}


def measure(runs: int) -> pd.DataFrame:
    """Audit `runs` sets at the ends of the knob, fewer between: a row an audit."""
    plan = [
        (knob, FIRST_SEED + n) for knob, share in KNOBS.items() for n in range(int(share * runs))
    ]
    return pd.DataFrame({"knob": k, "seed": s, **lights(k, s)} for k, s in tqdm(plan, unit="audit"))


def rates(found: pd.DataFrame) -> list[str]:
    """Markdown rows: how many audits had a red light, or a red or amber one, by setting."""
    probes = [name for name in found.columns if name not in ("knob", "seed")]
    lines = ["| probe | " + " | ".join(f"knob {k:g}" for k in KNOBS) + " |"]
    lines.append("| --- " * (1 + len(KNOBS)) + "|")
    parts = [found[found["knob"] == knob] for knob in KNOBS]
    total = [_share((part[probes] == "red").any(axis=1)) for part in parts]
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


def _share(hits: pd.Series) -> str:
    low, high = metrics.wilson(int(hits.sum()), len(hits))
    return f"{hits.sum()} of {len(hits)} [{low:.0%}, {high:.0%}]"


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100, help="audits at knob 0 and at knob 0.8")
    parser.add_argument("--show", action="store_true", help="print only")
    asked = parser.parse_args()
    found = measure(asked.runs)
    print("\n".join(rates(found)))
    if asked.show:
        return
    with whole_file(HERE / "rates.csv") as partial:
        found.to_csv(partial, index=False)
    page = HERE / "README.md"
    before, _, after = page.read_text(encoding="utf-8").split(MARK)
    text = "\n".join(["", *rates(found), ""])
    with whole_file(page) as partial:
        partial.write_text(f"{before}{MARK}\n{text}\n{MARK}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
