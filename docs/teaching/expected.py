"""Write what a run found beside the questions of the run sheets, in hours.md.

cxr run && python docs/teaching/expected.py runs/quick
"""

import argparse
import re
import sys
from pathlib import Path

from cxrlib import results
from cxrlib.files import whole_file

PAGE = Path(__file__).with_name("hours.md")
BLOCK = re.compile(r"(<!-- found: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(run: Path, lesson: str) -> str:
    """Give the lesson's questions with what was found, and what it was found with."""
    found = results.load(run, lesson)
    kinds = sorted({one["kind"] for one in found.weights.values()})
    films = "phantoms" if found.data["synthetic"] else "real films"
    films = films if found.data["images"] else "no films"
    with_ = [f"profile {found.profile}", films, f"seed {found.seed}"]
    with_ += [f"{'RANDOM' if kind == 'random' else kind} weights" for kind in kinds]
    rows = found.tables["guesses"]["found"].items()
    lines = [f"| {name} | {said(value)} |" for name, value in rows]
    return "\n".join([f"| the lesson asks | found ({', '.join(with_)}) |", "| --- | --- |", *lines])


def said(value) -> str:
    """Word a number, a text, several texts or nothing."""
    if isinstance(value, float):
        return "not measured" if value != value else f"{value:g}"
    return "not measured" if value is None else str(value)


def main(arguments=None) -> None:
    """Rewrite the page from the run's results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run, such as runs/quick")
    run = parser.parse_args(arguments).run
    text = PAGE.read_text(encoding="utf-8")
    try:
        text = BLOCK.sub(lambda block: f"{block[1]}\n{table(run, block[2])}\n\n{block[3]}", text)
    except results.ResultsError as error:
        sys.exit(str(error))
    with whole_file(PAGE) as partial:
        partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
