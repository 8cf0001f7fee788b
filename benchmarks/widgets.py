"""Time how long the explorers take to answer a move; prints a table.

python benchmarks/widgets.py [MODELS]     (models/ of a run, to time predictions too)

Kernel only: from the new value to the new HTML, with nothing in the way to a browser. Each control
moves 20 times, to values that it has not had, so that nothing comes out of a memory. Beside the
time on the clock stands the processor's: on a busy computer only that means something.
"""

import sys
import time

import numpy as np
import pandas as pd

from cxrlib import explorer, phantom, widgets
from cxrlib.machine import environment

GOAL = 300  # milliseconds
MOVES = 20


def clock(box, name: str, values) -> np.ndarray:
    """Set a control to each value: milliseconds of each answer, on the clock and of the CPU."""
    found = []
    for value in values:
        start = np.array([time.perf_counter(), time.process_time()])
        box.controls[name].value = value
        found.append([time.perf_counter(), time.process_time()] - start)
    return 1000 * np.array(found)


def moves(models: str):
    """Give (what is moved, milliseconds of each move), one after the other."""
    rng = np.random.default_rng(0)
    truth = rng.random(100) < 0.5
    probability = np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0, 1)
    steps = np.linspace(0.05, 0.95, MOVES).round(2)
    film = phantom.render("covid").image
    yield "augmentation: sigma", clock(widgets.augmentation(film), "sigma", range(10, 50, 2))
    yield "augmentation: share", clock(widgets.augmentation(film), "share", 0.5 + steps / 2)
    yield "threshold", clock(widgets.threshold(truth, probability), "threshold", steps)
    yield "phantoms: severity", clock(widgets.anatomy(), "severity", steps)
    yield "phantoms: patient", clock(widgets.anatomy(), "patient", range(1, MOVES + 1))
    yield "phantoms: knob", clock(widgets.knob(), "confounding", steps)
    if models:
        films = phantom.make_cohort(MOVES + 2, (1, 1))
        box = widgets.prediction(models, films)
        yield "prediction: opacity", clock(box, "opacity", steps)
        name = box.controls["model"].value
        yield f"prediction: new film, {name}", clock(box, "film", box.controls["film"].options[2:])


def main(models: str) -> None:
    """Move everything, and print the median and the worst answer of each control."""
    explorer.is_live = lambda: True  # pretend that somebody is there
    rows = [
        (name, len(ms), np.median(ms[:, 0]), ms[:, 0].max(), np.median(ms[:, 1]))
        for name, ms in moves(models)
    ]
    columns = ["moved", "moves", "median ms", "worst ms", "median CPU ms"]
    table = pd.DataFrame(rows, columns=columns)
    print(table.to_string(index=False, float_format="{:.0f}".format))
    there = environment()
    late = table.loc[table["worst ms"] > GOAL, "moved"].tolist()
    print(
        f"\nGoal {GOAL} ms; {'missed by ' + ', '.join(late) if late else 'kept by all'}. "
        f"{there['device']}, {there['cores']} cores, Python {there['python']}"
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
