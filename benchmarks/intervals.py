"""Count how often intervals hold the truth, where it is known.

python benchmarks/intervals.py [--write] [--repeats 1000]   (20 minutes with the default)

Synthetic: no film is read. Each class has so many patients; a film's score adds what its patient's
films share to what is its own (their correlation), and the class shifts it until the area under
the ROC curve is as asked. ``cxrlib.metrics.binary_scores`` gives the intervals; beside it stand
those that images as independent trials (Wilson) and a percentile bootstrap of patients give.
"""

from __future__ import annotations

import sys

import numpy as np
from rounds import ROOT, machine, options, table, versions, write
from scipy.stats import norm
from tqdm import tqdm

from cxrlib import metrics

PAGE = ROOT / "docs" / "measured" / "index.md"
PATIENTS, AREAS, CORRELATIONS = (6, 12, 30, 100), (0.80, 0.91, 0.99, 0.9995), (0.0, 0.5, 0.9)
FILMS = {"1": [1], "4": [4], "1 to 8": [1, 1, 2, 3, 8]}
RESAMPLES, COMPARED = 200, 100  # of the bootstrap; repeats that it is tried on
ASKED = 0.93


def draw(patients: int, films: list, correlation: float, area: float, rng):
    """Truth, probability (n,) and patients of so many people in each of two classes."""
    counts = np.tile(np.resize(films, patients), 2)
    people = np.repeat(np.arange(2 * patients), counts)
    truth = people < patients
    score = np.sqrt(correlation) * rng.standard_normal(2 * patients)[people]
    score += np.sqrt(1 - correlation) * rng.standard_normal(len(people))
    return truth, norm.cdf(score + np.sqrt(2) * norm.ppf(area) * (truth - 0.5)), people


def former(truth, probability, people, rng) -> dict[str, np.ndarray]:
    """Intervals of AUC and F1 by a percentile bootstrap of patients; none where undefined."""
    drawn = rng.multinomial(people.max() + 1, np.full(people.max() + 1, 1 / (people.max() + 1)),
                            size=RESAMPLES)[:, people]  # fmt: skip
    order = np.argsort(probability)
    ill, other = drawn[:, order] * truth[order], drawn[:, order] * ~truth[order]
    pairs = ill.sum(axis=1) * other.sum(axis=1)
    right = (ill * np.cumsum(other, axis=1)).sum(axis=1)
    called = probability >= 0.5
    hits, sizes = drawn @ (truth & called), drawn @ (1 * truth + called)
    with np.errstate(invalid="ignore"):
        found = {"auc": right / pairs, "f1": 2 * hits / sizes}
    return {name: np.nanquantile(each, [0.025, 0.975]) for name, each in found.items()}


def cell(patients: int, films: str, correlation: float, area: float, repeats: int) -> list:
    """Coverage of AUC, F1 and recall, their mean widths, and coverage of the other methods."""
    rng = np.random.default_rng([patients, len(films), int(10 * correlation), int(1e4 * area)])
    share = norm.cdf(norm.ppf(area) / np.sqrt(2))  # recall, and with balanced classes F1
    true = {"auc": area, "f1": share, "recall": share}
    held, others = {name: [] for name in true}, {"auc": [], "f1": [], "recall": []}
    widths = {name: [] for name in true}
    for number in range(repeats):
        truth, probability, people = draw(patients, FILMS[films], correlation, area, rng)
        scores = metrics.binary_scores(truth, probability, patients=people)
        for name, wanted in true.items():
            low, high = scores.loc[name, ["low", "high"]]
            held[name].append(low <= wanted <= high)
            widths[name].append(high - low)
        if number < COMPARED:
            ends = former(truth, probability, people, rng)
            hits = int((probability[truth] >= 0.5).sum())
            ends["recall"] = metrics.wilson(hits, int(truth.sum()))
            for name, (low, high) in ends.items():
                others[name].append(low <= true[name] <= high)
    return [np.mean(each[name]) for name in true for each in (held, widths, others)]


def main() -> int:
    """Simulate and tell; returns 1 where an interval holds the truth too rarely."""
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=1000, help="sets a row (1000)")
    given = parser.parse_args()
    rows, worst = [], 1.0
    plan = [
        (patients, films, correlation, area)
        for patients in PATIENTS
        for films in FILMS
        for correlation in (CORRELATIONS if films != "1" else CORRELATIONS[:1])
        for area in AREAS
    ]
    for patients, films, correlation, area in tqdm(plan, unit="row"):
        found = cell(patients, films, correlation, area, given.repeats)
        worst = min(worst, *found[::3])
        share = norm.cdf(norm.ppf(area) / np.sqrt(2))
        ours = [
            f"{ours:.3f} ({width:.2f})" for ours, width in zip(found[::3], found[1::3], strict=True)
        ]
        others = [f"{other:.2f}" for other in found[2::3]]
        rows.append([patients, films, correlation, f"{area:.4g}", f"{share:.2f}", *ours, *others])
    names = ["patients a class", "films of each", "correlation", "AUC", "F1, recall"]
    names += [f"{name}, ours (width)" for name in ("AUC", "F1", "recall")]
    names += ["AUC, bootstrap", "F1, bootstrap", "recall, films as independent"]
    error = np.sqrt(0.95 * 0.05 / given.repeats)
    text = (
        f"`python benchmarks/intervals.py --repeats {given.repeats} --write`: share of "
        f"{given.repeats:,} synthetic sets whose 95 % interval held the truth, and the intervals' "
        "mean width; the last three "
        f"columns on {min(given.repeats, COMPARED)} of them, {RESAMPLES} resamples. Monte Carlo "
        f"error (one standard error): {error:.3f} for ours, at most "
        f"{0.5 / np.sqrt(min(given.repeats, COMPARED)):.3f} for the others. {machine()}; "
        f"{versions('numpy', 'scipy')}.\n\n{table(names, rows)}\n\nThe least of ours is "
        f"{worst:.3f} (asked: {ASKED})."
    )
    print(text)
    if given.write:
        write("intervals", text, PAGE)
    return int(worst < ASKED - 3 * error)


if __name__ == "__main__":
    sys.exit(main())
