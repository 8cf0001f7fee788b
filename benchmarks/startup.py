"""Time from a command to its answer: importing cxrlib, cxr --help, a notebook that does nothing.

python benchmarks/startup.py [--rounds 3] [--write]

Whole processes, as a shell starts them, with compiled bytecode at hand.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from rounds import ROOT, machine, options, race, table, versions, write

FLOOR, PAPERMILL = "python -c pass", "papermill, the trivial notebook"
GOALS = {
    'python -c "import cxrlib"': 0.3,
    "cxr --help": 0.3,
    "cxr run, the trivial notebook": 2.0,
}
AGAIN = "cxr run, all done already"


def trivial(folder: Path) -> Path:
    """Write a notebook of one cell, ``1 + 1``, with the parameters and profile of the course."""
    plain = {"cell_type": "code", "execution_count": None, "outputs": []}
    cells = [
        plain | {"id": "cell0", "source": "seed = 0", "metadata": {"tags": ["parameters"]}},
        plain | {"id": "cell1", "source": "1 + 1", "metadata": {}},
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "name": "python3"}}
    content = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (folder / "profiles").mkdir(parents=True)
    (folder / "profiles" / "quick.yaml").write_text("seed: 0\n")
    path = folder / "01_trivial.ipynb"
    path.write_text(json.dumps(content))
    return path


def process(*words: str):
    """Prepare a whole process of this Python; ``once`` starts it and gives its memory in MB."""
    surroundings = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    surroundings |= {"PYTHONPATH": os.pathsep.join(paths), "TF_CPP_MIN_LOG_LEVEL": "3"}

    def once() -> float:
        ended = subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=surroundings, capture_output=True, text=True
        )
        if ended.returncode:
            raise RuntimeError(f"{' '.join(words)}: {ended.stderr.strip()[-120:]}")
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6

    return once


def competitors(folder: Path) -> dict:
    """Make each row's command."""
    notebook = trivial(folder / "notebooks")
    run = ("-m", "cxrlib.cli", "run", "--notebooks", str(notebook.parent), "--out")
    plain = ("-m", "papermill", str(notebook), str(folder / "plain.ipynb"), "-k", "python3")
    commands = {
        FLOOR: ("-c", "pass"),
        'python -c "import cxrlib"': ("-c", "import cxrlib"),
        "cxr --help": ("-m", "cxrlib.cli", "--help"),
        PAPERMILL: (*plain, "--no-progress-bar"),
        "cxr run, the trivial notebook": (*run, str(folder / "forced"), "--force"),
        AGAIN: (*run, str(folder / "kept")),
    }
    return {name: partial(process, *words) for name, words in commands.items()}


def describe(rows: list, rounds: int) -> str:
    """Text and table for the page."""
    median = {row.name: row.median for row in rows}
    lines = []
    for row in rows:
        seconds, share = row.problem or f"{row.median:.2f}", row.median / median[PAPERMILL]
        goal = GOALS.get(row.name, "")
        lines.append([row.name, seconds, f"{share:.2f}", goal, f"{row.said or 0:.0f}"])
    missed = [name for name, goal in GOALS.items() if not median[name] <= goal]
    told = f"Goal missed here by: {', '.join(missed)}." if missed else "All three goals are met."
    head = ["whole process", "seconds", "of papermill's", "goal, at most", "largest process, MB"]
    return f"""\
`python benchmarks/startup.py --write`, on {machine()}. Medians of {rounds} rounds in turn, \
bytecode compiled; {versions("papermill", "jupyter_client", "ipykernel")}. No images, no weights, \
no seed. The trivial notebook has one cell, `1 + 1`. The machine's floor is a Python that does \
nothing.

{table(head, lines)}

`cxr run` does more than papermill: it checks names and parameters, hashes what shapes the \
results, and writes the report. {told}"""


def main() -> None:
    """Race, print, and write."""
    given = options(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = describe(race(competitors(Path(folder)), given.rounds), given.rounds)
    print(text)
    if given.write:
        write("startup", text)


if __name__ == "__main__":
    main()
