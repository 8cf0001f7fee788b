"""Measure two lights that calibrate.py cannot, and print every light's errors in one table.

python docs/audit/two_lights.py             (about a quarter of an hour on one core)
python docs/audit/two_lights.py --table     the table again, from what was recorded

What calibrate.py makes holds no set in which a split by image is harmless, and none in which a
source could be told, or not, within one class. Here are such sets of phantoms. Writes
two_lights.csv, and the table between the marks in README.md, beside this file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm
from written import share, write

from cxrlib import audit, phantom, shortcuts
from cxrlib.cohort import Cohort
from cxrlib.files import whole_file

HERE = Path(__file__).resolve().parent
MARK, FIRST_SEED = "<!-- every light -->", 20_000
SPLIT, WITHIN = "Image-level split", "Source within one class"


def films(patients: int, seed: int, knob: float = 0.0) -> Cohort:
    """Make phantoms of three scanners."""
    return phantom.make_cohort(
        patients,
        labels=("healthy", "covid"),
        confounding=knob,
        scanners=("digital", "computed", "film"),
        size=150,
        seed=seed,
    )


def strangers(seed: int) -> Cohort:
    """Give each film another patient's name, within its label: no two of one name are alike."""
    cohort, rng = films(60, seed), np.random.default_rng([seed, 1])
    names = cohort.table.groupby("label")["patient"].transform(rng.permutation)
    return Cohort(cohort.table.assign(patient=names), cohort.images, cohort.name)


def hearsay(seed: int) -> Cohort:
    """Name sites that go with the label (three in four) and with nothing in the film."""
    cohort, rng = films(120, seed), np.random.default_rng([seed, 1])
    patients = cohort.table.drop_duplicates("patient").set_index("patient")["label"]
    usual = (patients == "covid") == (rng.random(len(patients)) < 0.75)
    site = cohort.table["patient"].map(usual.map({True: "north", False: "south"}))
    return Cohort(cohort.table.assign(site=site), cohort.images, cohort.name)


SETTINGS = {  # name: what makes the set of a seed, the light that is read
    "patients' names shuffled": (strangers, SPLIT),
    "sites by hearsay": (hearsay, WITHIN),
    "scanner named, knob 0.4": (lambda seed: films(120, seed, 0.4), WITHIN),
}


def light(setting: str, seed: int) -> str:
    """Give the light of a setting's probe, as `audit.run` comes by it where no film is a copy."""
    make, probe = SETTINGS[setting]
    cohort = make(seed)
    seed = int(
        np.random.default_rng([seed, 2]).integers(2**31)
    )  # no set shares a split with the next
    if probe == SPLIT:
        runs = shortcuts.leakage(cohort, repeats=10, most=audit.MOST, seed=seed)
        return audit.lights.image_split(runs, audit.MOST).light
    by = "site" if "site" in cohort.table else "scanner"
    told = shortcuts.sources_within_class(cohort, by, seed=seed)
    confounded = audit.lights.source_and_label(cohort, by).light == "red"
    return audit.lights.source_within_class(told, confounded).light


EVERY = {  # light: the colour that is an alarm, sets without the fault, sets with it
    **dict.fromkeys(
        ("Lungs covered", "Border alone", "Corners alone", "File alone"),
        ("red", "knob 0", "knob 0.8"),
    ),
    "Source and label": ("red", "scanner named, knob 0", "scanner named, knob 0.8"),
    WITHIN: ("red", "sites by hearsay", "scanner named, knob 0.4"),
    SPLIT: ("amber", "patients' names shuffled", "knob 0"),
    "Who they are": ("red or amber", "no association", "the ill 20 years older"),
    "Duplicates": ("red", "knob 0", "*Which copies are found*, below"),
    "Odd films": ("red", "knob 0", "*Which odd films are found*, below"),
    "Thumbnail alone": ("amber", "none: an ill lung is whiter", "knob 0.8"),
    "Histogram alone": ("amber", "none: an ill lung is whiter", "knob 0.8"),
    **dict.fromkeys(
        ("Patients in two classes", "Your split", "Size of the set"),
        ("counted", "counted in the table, not estimated", "the same"),
    ),
}


def table(rates: pd.DataFrame, *alone: pd.DataFrame) -> list[str]:
    """Markdown rows: how often each light shone without its fault, and with it.

    `rates` has a column a light, each of `alone` one light in a column ``light``.
    """
    lights = {name: part["light"] for one in alone for name, part in one.groupby("setting")}
    lines = ["| light | alarm | without the fault: false alarms | with it: found |"]
    lines.append("| --- | --- | --- | --- |")
    for name, (colour, *settings) in EVERY.items():
        cells = []
        for setting in settings:
            found = lights.get(setting)
            if found is None:
                found = rates.loc[rates["setting"] == setting, name]
            shown = found.isin(colour.split(" or "))
            cells.append(f"{share(shown)}, {setting}" if len(found) else setting)
        lines.append(f"| {name} | {colour} | {' | '.join(cells)} |")
    return lines


def measure(runs: int) -> pd.DataFrame:
    """Judge `runs` sets of each setting."""
    plan = [(one, FIRST_SEED + number) for number in range(runs) for one in SETTINGS]
    rows = [(one, seed, light(one, seed)) for one, seed in tqdm(plan, unit="set")]
    return pd.DataFrame(rows, columns=["setting", "seed", "light"])


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=70, help="sets of each kind")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    asked = parser.parse_args()
    if not asked.table:
        with whole_file(HERE / "two_lights.csv") as partial:
            measure(asked.runs).to_csv(partial, index=False)
    found = (pd.read_csv(HERE / f"{name}.csv") for name in ("rates", "two_lights", "people"))
    write(MARK, table(*found))


if __name__ == "__main__":
    main()
