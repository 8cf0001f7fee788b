"""Count how often a cross-validated interval holds the truth, which phantoms let us know.

python benchmarks/folds.py [--write] [--repeats 200]   (a quarter of an hour with the default)

Synthetic. A study draws patients from a crowd of phantoms, and scores a head by folds, as lessons
3 to 6 do. What its models score on the rest of the crowd is the truth: that of these models, and,
averaged over all studies, that of such a study. The interval knows one source of chance, which
patients were tested; that training sets are drawn too, and overlap, it leaves out (Bates, Hastie
and Tibshirani 2023, doi:10.1080/01621459.2023.2197686).
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
from rounds import ROOT, machine, options, table, versions, write
from tqdm import tqdm

from cxrlib import metrics, phantom, split
from cxrlib.augment import expand
from cxrlib.compute import Head, fit_folds
from cxrlib.shortcuts import views

PAGE = ROOT / "docs" / "measured" / "index.md"
CROWD, SIDE, COPIES, EPOCHS, FOLDS = 1000, 96, 3, 20, 5
PATIENTS, CLASSES = (15, 30, 60), ["healthy", "covid"]  # of each class in a study
SCORES = ["accuracy", "f1", "auc"]


def study(whole, x, y, patients: int, seed: int) -> dict[str, pd.DataFrame]:
    """Draw a study, score it both ways, and its models on everybody else: a table of each."""
    people = whole.table.drop_duplicates("patient").groupby("label")["patient"]
    drawn = people.sample(patients, random_state=seed)
    rows = np.flatnonzero(whole.table["patient"].isin(drawn))
    others = whole.table[~whole.table["patient"].isin(drawn) & (whole.table["copy"] == 0)].index
    part, answers, elsewhere = whole.take(rows), {}, []
    for protocol in split.PROTOCOLS:
        folds = split.folds(part, protocol, FOLDS, seed)
        folds = [split.Fold(*(rows[each] for each in fold)) for fold in folds]
        found = fit_folds(x, y, folds, [Head()], EPOCHS, [seed])
        tested = np.flatnonzero(found.fold >= 0)
        answers[protocol] = found.probability[0, 0, tested, 1], found.fold[tested]
        for fold in folds if protocol == "clean" else ():
            asked = fit_folds(x, y, [fold._replace(test=others)], [Head()], EPOCHS, [seed])
            said = asked.probability[0, 0, others, 1]
            elsewhere.append(metrics.binary_scores(y[others], said)["value"])
    (paper, first), (clean, second) = answers["paper"], answers["clean"]
    known = {"patients": whole.table["patient"].iloc[tested]}
    return {
        "clean": metrics.binary_scores(y[tested], clean, **known, fold=second),
        "paper": metrics.binary_scores(y[tested], paper, **known, fold=first),
        "paper minus clean": metrics.binary_differences(
            y[tested], paper, clean, **known, folds=(first, second)
        ),
        "elsewhere": pd.concat(elsewhere, axis=1).mean(axis=1).to_frame("value"),
    }


def judge(studies: list[dict], patients: int) -> list[list]:
    """Give rows of the table: what was said, what is true, and how often intervals held it."""
    rows = []
    for name in SCORES:
        for what in ("clean", "paper", "paper minus clean"):
            said = pd.DataFrame([one[what].loc[name, ["value", "low", "high"]] for one in studies])
            low, value, high = (said[each].astype(float).to_numpy() for each in
                                ("low", "value", "high"))  # fmt: skip
            usual = truth = value.mean()  # what such a study says on average
            own = "–"
            if what != "paper minus clean":
                there = np.array([one["elsewhere"].loc[name, "value"] for one in studies])
                truth = there.mean()
            if what == "clean":
                own = f"{np.mean((low <= there) & (there <= high)):.3f}"
            held = np.mean((low <= truth) & (truth <= high))
            rows.append([what, name, 2 * patients, f"{usual:.3f}", f"{truth:.3f}", f"{held:.3f}",
                         own, f"{(high - low).mean():.2f}", f"{np.mean(low > 0):.2f}"])  # fmt: skip
    return rows


def main() -> int:
    """Simulate and tell."""
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=200, help="studies of each size (200)")
    given = parser.parse_args()
    crowd = phantom.make_cohort(CROWD, labels=CLASSES, size=SIDE, seed=7)
    whole = expand(crowd, COPIES)
    x, y = views.features(whole), whole.targets(CLASSES)
    rows = []
    for patients in PATIENTS:
        seeds = tqdm(range(given.repeats), desc=f"{2 * patients} patients", unit="study")
        rows += judge([study(whole, x, y, patients, seed) for seed in seeds], patients)
    names = ["what", "score", "patients", "mean of the studies", "truth: new patients",
             "holds the truth", "holds that of its own models", "width", "low above 0"]  # fmt: skip
    error = np.sqrt(0.95 * 0.05 / given.repeats)
    text = (
        f"`python benchmarks/folds.py --repeats {given.repeats} --write`: synthetic; studies drawn "
        f"from {CROWD:,} phantom patients of two classes, {COPIES} copies of each film, {FOLDS} "
        "folds, one head of 64 units on brightness and detail of 24 x 24 squares. *New patients*: "
        "what the clean folds' models score on everybody who was not drawn, averaged over the "
        "studies; of a difference, the mean difference. 95 % intervals; Monte Carlo error (one "
        f"standard error) {error:.3f}. {machine()}; {versions('numpy', 'scikit-learn')}."
        f"\n\n{table(names, rows)}"
    )
    print(text)
    if given.write:
        write("folds", text, PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
