"""Count how often each verdict comes out where the truth is known.

python benchmarks/verdicts.py [--write] [--repeats 1000]

Synthetic: nothing is trained and no film is read. A recall that the paper prints, of 12 patients,
is judged by ``cxrlib.paper.verdicts.verdict``, as ``cxr check`` judges it, on the answers of
invented models whose true score is the printed figure, or off it by half the margin or all of it.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from rounds import ROOT, machine, options, table, versions, write
from scipy.stats import norm

from cxrlib.paper import claims, verdicts

PAGE = ROOT / "docs" / "measured" / "index.md"
CLAIM = "table1.model3.recall"
PATIENTS, SEEDS = (30, 100, 300), (5, 20)
OFF = (0.0, -0.05, 0.05, -0.10, 0.10)
LUCK = 0.03  # standard deviation of the seeds' true scores
SHARED = 0.5  # how alike two seeds answer about one patient
SHOWN = verdicts.VERDICTS[:4]


def answers(truth: float, patients: int, seeds: int, rng: np.random.Generator) -> np.ndarray:
    """Shares of right answers, shape (seeds,), whose expectation over all luck is the truth.

    Each seed has a true score of its own, and a patient is easy or hard for all of them alike.
    """
    total = truth * (1 - truth) / LUCK**2 - 1
    scores = rng.beta(truth * total, (1 - truth) * total, seeds)
    hard = np.sqrt(SHARED) * rng.standard_normal(patients)
    own = np.sqrt(1 - SHARED) * rng.standard_normal((seeds, patients))
    return (hard + own < norm.ppf(scores)[:, None]).mean(axis=1)


def rates(off: float, patients: int, seeds: int, repeats: int) -> list[float]:
    """How often each of SHOWN comes out at 95 %, 0 to 1, where the truth is off by so much."""
    rng = np.random.default_rng([patients, seeds, round(100 * (1 + off))])
    truth, found = claims.value(CLAIM) + off, []
    for _ in range(repeats):
        shares = tuple(answers(truth, patients, seeds, rng).tolist())
        found.append(verdicts.verdict(CLAIM, verdicts.Measurement(shares, patients)).verdict)
    return [found.count(word) / repeats for word in SHOWN]


def main() -> int:
    """Simulate and tell; returns 1 if the rule fails what is asked of it below the table."""
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=1000, help="results a row (1000)")
    given = parser.parse_args()
    start, rows, wrong, right = time.monotonic(), [], 0.0, 0.0
    for off in OFF:
        for patients in PATIENTS:
            for seeds in SEEDS:
                found = rates(off, patients, seeds, given.repeats)
                reproduced = found[SHOWN.index(verdicts.REPRODUCED)]
                wrong = max(wrong, reproduced) if abs(off) >= verdicts.MARGIN else wrong
                right = reproduced if (off, patients, seeds) == (0, 300, 5) else right
                rows.append([f"{off:+.2f}", patients, seeds, *(f"{one:.1%}" for one in found)])
                print(*rows[-1], flush=True)
    text = tell(rows, given.repeats, wrong, right, time.monotonic() - start)
    if given.write:
        write("verdicts", text, PAGE)
    error = np.sqrt(0.05 * 0.95 / given.repeats)
    return int(wrong > 0.05 + 3 * error or right < 0.30)


def tell(rows, repeats: int, wrong: float, right: float, seconds: float) -> str:
    """Word the rates as Markdown."""
    error = np.sqrt([0.05 * 0.95 / repeats, 0.25 / repeats])
    said = (
        f"`python benchmarks/verdicts.py --write` judged {repeats:,} invented results a row in "
        f"{seconds:.0f} s ({machine()}; {versions('numpy', 'scipy')}). *Synthetic*: {CLAIM}, "
        f"printed {claims.printed(CLAIM)}, of 12 patients; the seeds' true scores have a standard "
        f"deviation of {LUCK}, and two seeds' answers about a patient are as alike as two normal "
        f"variables with a correlation of {SHARED}. Monte Carlo error (one standard error): "
        f"{error[0]:.1%} at 5 %, at most {error[1]:.1%}."
    )
    sums = (
        f"Off by the whole margin, *reproduced* comes out in at most {wrong:.1%} (asked: 5 %, "
        f"within three errors); on the figure, with 300 patients and 5 seeds, in {right:.1%} "
        "(asked: at least 30 %)."
    )
    header = ["truth minus printed", "our patients", "seeds", *SHOWN]
    return "\n\n".join([said, table(header, rows), sums])


if __name__ == "__main__":
    sys.exit(main())
