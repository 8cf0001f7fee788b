"""Count how often the intervals of two kinds of difference hold the truth, where it is known.

python benchmarks/differences.py [--write] [--repeats 500]   (a quarter of an hour with the default)

Synthetic. *Drops*: what a detector loses on other people's films (lessons 3 and 9). Scores are
invented, a patient's films alike as in ``intervals.py``; the threshold is fixed, or chosen on the
inside films themselves for a sensitivity. *Gaps*: by how much fewer patients widen the gap between
training and validation accuracy, fold by fold (lesson 5), in studies drawn from a crowd of
phantoms as in ``folds.py``; the truth is what all studies say on average.
"""

from __future__ import annotations

import sys

import numpy as np
from folds import CLASSES, COPIES, CROWD, EPOCHS, FOLDS, PAGE, SIDE
from rounds import machine, options, table, versions, write
from scipy.stats import norm
from tqdm import tqdm

from cxrlib import metrics, phantom, split
from cxrlib.augment import expand
from cxrlib.compute import Head, fit_folds
from cxrlib.shortcuts import views

# mean score of others and ill inside and outside, in standard deviations
MEANS = ((0.0, 3.0), (0.3, 1.7))
OFTEN = 0.95  # the sensitivity that the threshold is for
SIZES = ((10, 10), (20, 15), (40, 30), (100, 100))  # patients a class inside and outside
ALIKE = ((1, 0.0), (2, 0.8), (4, 0.0), (4, 0.8))  # films of each, and how alike they are
PATIENTS, EACH = 40, 5  # of a class in a study, as in lesson 5; sets of the drops for a study
SMALLER = {"all": (1, 1), "half": (0.5, 4), "a quarter": (0.25, 4)}  # share, and draws of it
SHARED = (0.25, 0.0)  # as lesson 5 has it, and what leaves out that folds share films


def scores(patients: int, films: int, alike: float, means, rng):
    """Truth, score and patient of so many people in each of two classes."""
    people = np.repeat(np.arange(2 * patients), films)
    score = np.sqrt(alike) * rng.standard_normal(2 * patients)[people]
    score += np.sqrt(1 - alike) * rng.standard_normal(len(people))
    truth = (people < patients).astype(int)
    return truth, score + np.take(means, truth), people


def drops(sizes, films: int, alike: float, repeats: int) -> list[str]:
    """Coverage and mean width of the drops of sensitivity and specificity, by threshold."""
    rng = np.random.default_rng([*sizes, films, round(10 * alike)])
    held = {}
    for _ in range(repeats):
        parts = [
            scores(patients, films, alike, means, rng)
            for patients, means in zip(sizes, MEANS, strict=True)
        ]
        truth, score, _ = parts[0]
        chosen = norm.ppf(metrics.threshold_for(truth, norm.cdf(score), OFTEN))
        for kind, threshold in {"fixed": MEANS[0][1] - norm.ppf(OFTEN), "chosen": chosen}.items():
            for label, name in ((1, "sensitivity"), (0, "specificity")):
                true = norm.cdf((np.array(MEANS)[:, label] - threshold) * (1 if label else -1))
                found = [
                    metrics.share(label == (score >= threshold), truth == label, people)
                    for truth, score, people in parts
                ]
                _, low, high = metrics.combine(found, [1, -1], paired=False)[:3]
                each = low <= true[0] - true[1] <= high, high - low
                held.setdefault((name, kind), []).append(each)
    means = [np.mean(each, axis=0) for each in held.values()]
    return [f"{share:.3f} ({width:.2f})" for share, width in means]


def fewer(fold, share: float, patients, rng):
    """Give a fold with a share of its patients to learn from, as in lesson 5."""
    there = rng.permutation(np.unique(patients[fold.train]))
    some = there[: max(4, round(share * len(there)))]
    return fold._replace(train=fold.train[np.isin(patients[fold.train], some)])


def gaps(whole, x, y, number: int, seed: int) -> dict[str, np.ndarray]:
    """Draw a study of so many patients a class; by how much its gap widens in each fold."""
    patients = whole.table["patient"].to_numpy()
    people = whole.table.drop_duplicates("patient").groupby("label")["patient"]
    rows = np.flatnonzero(np.isin(patients, people.sample(number, random_state=seed)))
    folds = split.folds(whole.take(rows), "clean", FOLDS, seed)
    folds = [split.Fold(*(rows[each] for each in fold)) for fold in folds]
    steps, rng = EPOCHS * sum(len(fold.train) for fold in folds), np.random.default_rng(seed)
    found = {}
    for name, (share, draws) in SMALLER.items():
        small = [fewer(fold, share, patients, rng) for _ in range(draws) for fold in folds]
        epochs = round(draws * steps / sum(len(fold.train) for fold in small))
        history = fit_folds(x, y, small, [Head()], epochs, [seed]).history
        last = history[history["epoch"] == history["epoch"].max()]
        gap = last["accuracy"] - last["val_accuracy"]
        found[name] = gap.groupby(last["fold"] % FOLDS).mean().to_numpy()
    return {name: each - found["all"] for name, each in found.items() if name != "all"}


def judge(studies: list[dict]) -> list[list]:
    """Rows of the table of gaps."""
    rows = []
    for name in studies[0]:
        truth = np.mean([one[name] for one in studies])
        row = [name, f"{truth:.3f}"]
        for shared in SHARED:
            ends = np.array([metrics.t_interval(one[name], shared=shared) for one in studies])
            low, high = ends[:, 1], ends[:, 2]
            share = np.mean((low <= truth) & (truth <= high))
            row.append(f"{share:.3f} ({np.mean(high - low):.2f})")
        rows.append([*row, f"{np.mean([one[name].mean() > 0 for one in studies]):.3f}"])
    return rows


def main() -> int:
    """Simulate and tell."""
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=500, help="sets a row (500)")
    given = parser.parse_args()
    repeats = given.repeats
    plan = [(*sizes, *alike) for sizes in SIZES for alike in ALIKE]
    dropped = [
        [*row, *drops(row[:2], *row[2:], repeats)] for row in tqdm(plan, desc="drops", unit="row")
    ]
    crowd = phantom.make_cohort(CROWD, labels=CLASSES, size=SIDE, seed=7)
    whole = expand(crowd, COPIES)
    x, y = views.features(whole), whole.targets(CLASSES)
    seeds = tqdm(range(max(2, repeats // EACH)), desc="gaps", unit="study")
    studies = [gaps(whole, x, y, PATIENTS, seed) for seed in seeds]
    text = tell(dropped, studies, repeats)
    print(text)
    if given.write:
        write("differences", text, PAGE)
    return 0


def tell(dropped: list, studies: list, repeats: int) -> str:
    """Word both tables as Markdown."""
    kinds = [f"{name}, {kind}" for kind in ("fixed", "chosen")
             for name in ("sensitivity", "specificity")]  # fmt: skip
    first = ["patients a class inside", "outside", "films of each", "correlation", *kinds]
    second = ["patients to learn from", "wider by", "held, by fold", "held, folds as independent",
              "wider at all"]  # fmt: skip
    errors = [np.sqrt(0.95 * 0.05 / number) for number in (repeats, len(studies))]
    return (
        f"`python benchmarks/differences.py --repeats {repeats} --write`: synthetic; how often "
        "95 % intervals held the truth, and in brackets their mean width. "
        f"{machine()}; {versions('numpy', 'scipy')}.\n\n"
        "The drop from one hospital's films to another's, at a threshold that was fixed before, or "
        f"chosen on the inside films for a sensitivity of {OFTEN}; {repeats:,} sets a row (Monte "
        f"Carlo error, one standard error: {errors[0]:.3f}):\n\n{table(first, dropped)}\n\n"
        f"By how much fewer patients widen the gap of a head, in {FOLDS} folds; {len(studies)} "
        f"studies of {2 * PATIENTS} of {CROWD:,} phantom patients ({errors[1]:.3f}):\n\n"
        f"{table(second, judge(studies))}"
    )


if __name__ == "__main__":
    sys.exit(main())
