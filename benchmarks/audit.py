"""Time an audit of synthetic films, step by step; prints a table.

python benchmarks/audit.py [IMAGES]     (1,000 by default)
"""

import resource
import sys
import time
from itertools import pairwise

import pandas as pd

from cxrlib import audit, phantom
from cxrlib.machine import environment


def main(images: int) -> None:
    """Make about so many phantoms, audit them, and say how long each step took."""
    start = time.perf_counter()
    cohort = phantom.make_cohort(images // 2, (1, 3), ("healthy", "covid"), 0.5)
    ends = [("(making the phantoms, not counted)", start)]

    def note(number, total, name):
        ends.append((name, time.perf_counter()))

    audit.run(cohort, by="scanner", progress=note)
    ends.append(("end", time.perf_counter()))
    rows = [(name, later - at) for (name, at), (_, later) in pairwise(ends)]
    table = pd.DataFrame(rows, columns=["step", "seconds"])
    print(table.to_string(index=False, float_format="{:.2f}".format))
    there = environment()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"\n{len(cohort)} images of {cohort.table['patient'].nunique()} patients, 300 x 300: "
        f"{table['seconds'][1:].sum():.1f} s; peak memory {memory:.0f} MiB; {there['device']}, "
        f"{there['cores']} cores, Python {there['python']}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
