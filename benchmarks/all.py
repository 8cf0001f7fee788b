"""Run the benchmarks of docs/performance.md, one after the other, and write their tables there.

python benchmarks/all.py [--only NAME ...] [--rounds 5]

The machine should do nothing else meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
import time

from rounds import ROOT, options

NAMES = ("startup", "images", "features", "heads", "cnn")


def main() -> int:
    """Run them; returns 1 if one failed."""
    parser = options(__doc__)  # --write goes without saying
    parser.add_argument("--only", nargs="*", default=NAMES, choices=NAMES)
    given = parser.parse_args()
    failed = []
    for name in given.only:
        start = time.monotonic()
        command = [sys.executable, f"benchmarks/{name}.py", "--rounds", str(given.rounds)]
        command += ["--write"]
        print(f"== {name}", flush=True)
        failed += [name] if subprocess.run(command, cwd=ROOT, check=False).returncode else []
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    if failed:
        print("Failed:", ", ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
