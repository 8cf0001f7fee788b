"""Time how long the explorers take to answer a move; prints a table, and writes it as a page.

python benchmarks/widgets.py [MODELS] [--write docs/measured/widgets.md]

MODELS is the folder models/ of a run, to time predictions too.

Kernel only: from the new value to the new HTML, with nothing in the way to a browser. Each control
moves 20 times, to values that it has not had, so that nothing comes out of a memory. Beside the
time on the clock stands the processor's: on a busy computer only that means something.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib import phantom
from cxrlib.interactive import frontend, widgets
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
        for name in box.controls["model"].options:
            box.controls["model"].value = name  # loads it, which takes seconds
            told = box.controls["film"].options[2:]
            yield f"prediction: new film, {name}", clock(box, "film", told)
            box.controls["film"].value = box.controls["film"].options[0]


def page(table: pd.DataFrame, said: str) -> str:
    """Write the table as a page of the site."""
    rows = [
        f"| {row['moved']} | {row['median ms']:.0f} | {row['worst ms']:.0f} "
        f"| {row['median CPU ms']:.0f} |"
        for _, row in table.iterrows()
    ]
    head = ["| moved | median, ms | worst, ms | median, CPU ms |", "| --- | ---: | ---: | ---: |"]
    words = (
        f"From the new value of a control to the new picture in the kernel, {MOVES} moves each, "
        f"all to values not seen before. The goal is {GOAL} ms. The worst answer of a model is one "
        "that compiles its gradient, once for each class; loading a model comes before."
    )
    command = "Command: `python benchmarks/widgets.py runs/quick/models`."
    title = ["# How quickly the explorers answer", "", "<!-- written by benchmarks/widgets.py -->"]
    return "\n".join([*title, "", words, "", *head, *rows, "", f"{said} {command}", ""])


def main() -> None:
    """Move everything, and print the median and the worst answer of each control."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="?", default="", help="models/ of a run")
    parser.add_argument("--write", type=Path, help="the page to write")
    options = parser.parse_args()
    frontend.is_live = lambda: True  # pretend that somebody is there
    rows = [
        (name, np.median(ms[:, 0]), ms[:, 0].max(), np.median(ms[:, 1]))
        for name, ms in moves(options.models)
    ]
    columns = ["moved", "median ms", "worst ms", "median CPU ms"]
    table = pd.DataFrame(rows, columns=columns)
    print(table.to_string(index=False, float_format="{:.0f}".format))
    there = environment()
    missed = {
        which: table.loc[table[f"{which} ms"] > GOAL, "moved"].tolist()
        for which in ("median", "worst")
    }
    told = [f"by the {which}: {', '.join(ones) or 'none'}" for which, ones in missed.items()]
    said = (
        f"Over the goal {'; '.join(told)}. Measured on {there['device']}, {there['cores']} cores, "
        f"Python {there['python']}, {there['backend']}."
    )
    print(f"\n{said}")
    if options.write:
        options.write.write_text(page(table, said), encoding="utf-8")


if __name__ == "__main__":
    main()
