"""Measure how often the light for who the patients are is right, on made-up tables of people.

python docs/audit/people.py                  (about ten minutes on one core)
python docs/audit/people.py --runs 20 --show  (a quick look; writes nothing)

Writes people.csv, and the table between the marks in README.md, beside this file.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from tqdm import tqdm
from written import share, write

from cxrlib import audit, shortcuts
from cxrlib.files import whole_file

HERE = Path(__file__).resolve().parent
SETTINGS = {  # name: years between the classes, share of the ill whose age is unknown, of the runs
    "no association": (0, 0.0, 1.0),
    "none, but age unknown of 6 in 10 ill": (0, 0.6, 1.0),
    "the ill 5 years older": (5, 0.0, 0.25),
    "the ill 10 years older": (10, 0.0, 0.25),
    "the ill 20 years older": (20, 0.0, 0.25),
}
SIZES = (30, 60)  # patients a class
SPREAD, FIRST_SEED = 16, 20_000  # years; NIH's healthy of `open` have 18, SIRM's ill 14
MARK = "<!-- people -->"


def people(patients: int, gap: float, unknown: float, seed: int) -> pd.DataFrame:
    """Make up a table: `patients` of each class, one to three films each, facts at random."""
    rng = np.random.default_rng([seed, 1])  # the probe draws from `seed`: not the same numbers
    ill = np.arange(2 * patients) % 2 == 1
    age = np.clip(rng.normal(50, SPREAD, len(ill)) + gap * ill, 1, 95).round()
    table = pd.DataFrame(
        {
            "patient": np.arange(len(ill)),
            "label": np.where(ill, "ill", "healthy"),
            "age": np.where(ill & (rng.random(len(ill)) < unknown), np.nan, age),
            "sex": rng.choice(["F", "M"], len(ill)),
            "view": rng.choice(["AP", "PA"], len(ill)),
        }
    )
    return table.loc[table.index.repeat(rng.integers(1, 4, len(ill)))].reset_index(drop=True)


def light(setting: str, patients: int, seed: int) -> str:
    """Judge one table."""
    gap, unknown, _ = SETTINGS[setting]
    table = people(patients, gap, unknown, seed)
    found = shortcuts.who_they_are(table, ["healthy", "ill"], seed=seed)
    return audit.who_they_are(SimpleNamespace(table=table), found).light


def measure(runs: int) -> pd.DataFrame:
    """Judge `runs` tables without association, of either size, and fewer with one."""
    plan = [
        (setting, patients, FIRST_SEED + number)
        for setting, (*_, share) in SETTINGS.items()
        for patients in SIZES
        for number in range(int(share * runs))
    ]
    rows = [(*one, light(*one)) for one in tqdm(plan, unit="table")]
    return pd.DataFrame(rows, columns=["setting", "patients a class", "seed", "light"])


def rates(found: pd.DataFrame) -> list[str]:
    """Markdown rows: how many tables had a light of each colour, by setting and size."""
    lines = [
        "| made-up people | patients a class | red or amber | red |",
        "| --- | ---: | --- | --- |",
    ]
    for setting in SETTINGS:
        for patients in SIZES:
            chosen = (found["setting"] == setting) & (found["patients a class"] == patients)
            part = found.loc[chosen, "light"]
            cells = [share(part.isin(colours), 1) for colours in (audit.LIGHTS[:2], ("red",))]
            lines.append(f"| {setting} | {patients} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=188, help="tables without association, each")
    parser.add_argument("--show", action="store_true", help="print only")
    asked = parser.parse_args()
    found = measure(asked.runs)
    print("\n".join(rates(found)))
    if asked.show:
        return
    with whole_file(HERE / "people.csv") as partial:
        found.to_csv(partial, index=False)
    write(MARK, rates(found))


if __name__ == "__main__":
    main()
