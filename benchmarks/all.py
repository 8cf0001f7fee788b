"""Run the benchmarks of docs/performance.md, one after the other, and write their tables there.

python benchmarks/all.py [--only NAME ...] [--rounds 3]

Under half an hour: a table that is not there after five minutes is given up, and its script says
with `--help` how to make it by itself. Each is printed as soon as it is there. The machine should
do nothing else meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
import time

from rounds import ROOT, options

NAMES = ("startup", "images", "features", "heads", "cnn")
LONGEST = 300  # seconds for a table


def main() -> int:
    """Run them; returns 1 if one failed."""
    parser = options(__doc__)  # --write goes without saying
    parser.add_argument("--only", nargs="*", default=NAMES, choices=NAMES)
    given = parser.parse_args()
    failed = []
    for name in given.only:
        start = time.monotonic()
        command = [sys.executable, f"benchmarks/{name}.py", "--write", f"--rounds={given.rounds}"]
        print(f"== {name}", flush=True)
        try:
            subprocess.run(command, cwd=ROOT, check=True, timeout=LONGEST)
        except subprocess.TimeoutExpired:
            print(f"{name} takes too long here: python benchmarks/{name}.py makes it by itself")
            failed.append(name)
        except subprocess.CalledProcessError:
            failed.append(name)
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    if failed:
        print("Failed:", ", ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
