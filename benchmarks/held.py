r"""Count for how many seeds each demonstration of the lessons holds.

for s in 0 1 2 3 4; do cxr run --profile quick --out runs/held/seed$s --set seed=$s \
    --set "source_options={patients: 120, confounding: 0.0, seed: $s}"; done
python benchmarks/held.py runs/held [--write]

Synthetic: other phantoms, other weights and other folds for every seed. A lesson stops where what
it claims does not hold, so a claim that is not among a seed's results counts as not held.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from rounds import ROOT, options, table, write

from cxrlib import results
from cxrlib.paper import check

PAGE = ROOT / "docs" / "measured" / "index.md"


def count(folder: Path) -> tuple[list[list], int]:
    """Give a row a claim (lesson, claim, how many seeds it held for), and the number of seeds."""
    runs, held = check.find_runs([folder]), Counter()
    for run in runs:
        for lesson, result in results.load_all(run).items():
            told = result.tables.get(check.HELD)
            if told is not None:
                held.update((lesson[:2], claim) for claim in told["lesson"][told["held"]])
    reference = check.read_reference()["lessons held"]
    known = [tuple(claim.split(": ", 1)) for claim in reference]
    names = sorted({(lesson[:2], claim) for lesson, claim in known} | set(held))
    return [[*name, f"{held[name]} of {len(runs)}"] for name in names], len(runs)


def main() -> int:
    """Count and tell; returns 1 where a claim failed for a seed."""
    parser = options(__doc__)
    parser.add_argument("folder", type=Path, help="holds one run a seed")
    given = parser.parse_args()
    rows, runs = count(given.folder)
    text = (
        f"`python benchmarks/held.py runs/held --write`: {runs} runs of all lessons in profile "
        "quick (synthetic), each with its own phantoms, weights and folds.\n\n"
        + table(["lesson", "what it shows", "held for"], rows)
    )
    print(text)
    if given.write:
        write("held", text, PAGE)
    return int(any(row[-1] != f"{runs} of {runs}" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
