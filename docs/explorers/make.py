"""Compute what the explorers of the page `Play` show, and draw their stills.

    python docs/explorers/make.py               all of them, in about three minutes
    python docs/explorers/make.py threshold     one of: threshold

Writes NAME.json and NAME.png beside this file. Every film is synthetic; all seeds are 0.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cxrlib import plots, results

HERE = Path(__file__).resolve().parent
REFERENCE = HERE.parents[1] / "data" / "reference"


def threshold() -> tuple[dict, object]:
    """Give the recorded answers of Model 2 under the clean protocol, and their curves."""
    one = results.load(REFERENCE, "04_resnet50")
    test = one.predictions.query("protocol == 'clean'")
    ill, p = (test["label"] == "covid").astype(int), test["p_covid"]
    note = f"Not comparable with the paper: {one.why_not_comparable}."
    figure = plots.threshold_curves(ill, p, 0.5, f"{one.model}, clean protocol", note)
    people = test["patient"].factorize()[0].tolist()
    return {"note": note, "ill": ill.tolist(), "p": p.tolist(), "patient": people}, figure


EXPLORERS = {make.__name__: make for make in (threshold,)}


def main(names) -> None:
    """Make the explorers of these names, or all."""
    for name in names or EXPLORERS:
        data, figure = EXPLORERS[name]()
        figure.savefig(HERE / f"{name}.png", dpi=150, bbox_inches="tight")
        text = json.dumps(data, separators=(",", ":"))
        (HERE / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
