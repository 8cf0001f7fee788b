"""Did a change alter what the course finds? Compare two runs, number by number.

python .ci/compare.py BEFORE AFTER [--tolerance 1e-6]

BEFORE and AFTER are run folders (their results/*.json and predictions/*.csv are compared) or two
JSON files, such as those of ``cxr audit --json``. Where and when a run was made is left out. Exit
code 0: the same; 1: a number, a word or a file differs.
"""

import argparse
import csv
import json
import math
import sys
from pathlib import Path

ABOUT_THE_RUN = {"environment", "seconds", "command", "made", "versions", "facts", "created"}


def leaves(value, place=""):
    """Give all plain values of nested JSON, each with the place where it stands."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in ABOUT_THE_RUN:
                yield from leaves(inner, f"{place}/{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{place}/{number}")
    else:
        yield place, value


def read(path: Path) -> dict:
    """Read a JSON or CSV file as plain values by place; numbers in text become numbers."""
    with path.open(encoding="utf-8", newline="") as file:
        content = json.load(file) if path.suffix == ".json" else list(csv.DictReader(file))
    return {place: as_number(value) for place, value in leaves(content)}


def as_number(value):
    """Turn text that is a number into one."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def distance(before, after) -> float:
    """Tell how far two values are apart: 0 where equal, infinite where one is no number."""
    if before == after or (before != before and after != after):
        return 0.0
    numbers = all(isinstance(one, int | float) for one in (before, after))
    if not numbers or isinstance(before, bool) or isinstance(after, bool):
        return math.inf
    return abs(before - after) / max(1.0, abs(before))


def pairs(before: Path, after: Path):
    """Give the files to compare; one that is missing on a side stands as None."""
    if before.is_file():
        yield before.name, before, after
        return
    names = {
        path.relative_to(root)
        for root in (before, after)
        for pattern in ("results/*.json", "predictions/*.csv")
        for path in root.glob(pattern)
    }
    for name in sorted(names):
        yield str(name), before / name, after / name


def main(words=None) -> int:
    """Print what differs and how far; returns the exit code."""
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=about)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.0)
    given = parser.parse_args(words)
    differing = compared = 0
    for name, before, after in pairs(given.before, given.after):
        if not (before.exists() and after.exists()):
            print(f"{name}: only in {before.parent if before.exists() else after.parent}")
            differing += 1
            continue
        one, other = read(before), read(after)
        places = dict.fromkeys([*one, *other])
        gaps = {place: distance(one.get(place), other.get(place)) for place in places}
        wrong = [place for place, gap in gaps.items() if gap > given.tolerance]
        compared, differing = compared + len(gaps), differing + len(wrong)
        print(f"{name}: {len(gaps)} values, {len(wrong)} differ, at most {max(gaps.values()):.3g}")
        for place in wrong[:20]:
            print(f"  {place}: {one.get(place)!r} -> {other.get(place)!r}")
    print(f"{compared} values compared, {differing} differ")
    return int(differing > 0 or not compared)


if __name__ == "__main__":
    sys.exit(main())
