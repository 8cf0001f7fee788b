"""What measured results say about a figure that the paper prints.

=====================  ==========================================================================
reproduced             equal to the printed figure within a margin declared before looking
exceeded               better than the printed figure, by more than chance in either explains
not reproduced         worse than the printed figure, by more than chance in either explains
undecidable at this n  none of these can be told; where it can, how many patients of ours would do
not comparable         synthetic images, random weights, or another backbone than the paper's
=====================  ==========================================================================

*Reproduced* is shown by two one-sided tests at 5 % (Schuirmann 1987, doi:10.1007/BF01068419): our
90 % interval, half a patient longer at each end since shares move in steps, lies within the figure
as printed, plus and minus :data:`MARGIN`. The paper's own patients don't come in: a dozen could not
show that anything equals anything. What they allow is told beside the verdict. *Exceeded* and *not
reproduced* go by the interval of the difference, in which they do come in. Where both hold, ours is
better or worse for sure, and by less than was declared to matter: it is reproduced. A result that
merely fails to differ decides nothing.

*Our interval*, over five seeds or more, adds two variations. Of patients: Wilson's interval, on J =
TP / (TP + FP + FN) for F1 = 2 J / (1 + J). Trials are patients: images of one, and the answers of
several seeds about one, count once. Of seeds: Student's t. Their reaches are added in squares, as
for a sum of independent estimates (Zou and Donner 2008, doi:10.1002/sim.3095). What other patients
to train on would change is in neither, but for what other splits of the same patients show.
*The claim's interval* is Wilson's at the fewest patients that its images can come from. *The
difference's* is put together from both (method 10 of Newcombe 1998,
doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I).

The verdict is given at 90, 95 and 99 %; each one-sided test is then at 10, 5 and 1 %. A stricter
level only turns a decided verdict into an undecidable one: what is reproduced at 90 % is never
exceeded at 95 %. No level is corrected for the many claims. Of k, some is wrong with a probability
of at most k times 5 %; for the four figures of one model, the verdict at 99 % keeps it below 5 %.
How often each verdict comes out was simulated: ``benchmarks/verdicts.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import groupby

import numpy as np
import pandas as pd

from cxrlib.metrics import t_interval, wilson
from cxrlib.paper import claims
from cxrlib.paper.claims import PaperError

LEVELS = (0.90, 0.95, 0.99)
SEEDS = 5
MARGIN = 0.10  # what counts as the same figure; declared before looking
PEOPLE = (1 / 4, 1 / 2, 1)  # of the paper's images, what a verdict is tried at
MOST = 1_000_000  # patients of ours, beyond which none are said to be needed
REPRODUCED, EXCEEDED, FAILED = "reproduced", "exceeded", "not reproduced"
UNDECIDABLE, INCOMPARABLE = "undecidable at this n", "not comparable"
VERDICTS = (EXCEEDED, REPRODUCED, UNDECIDABLE, FAILED, INCOMPARABLE)
WORDS = ("no", "one", "two", "three", "four")
Interval = tuple[float, float]
UNKNOWN: Interval = (float("nan"), float("nan"))


@dataclass(frozen=True)
class Measurement:
    """A proportion or an F1 as several seeds measured it.

    `values` are one for each seed, 0 to 1; NaN where undefined, such as the precision where nothing
    is called positive. `n` counts the patients behind all seeds together, see :func:`effective_n`
    (for an F1 those of TP + FP + FN); 0 where it is not known.
    """

    values: tuple[float, ...]
    n: float

    @property
    def mean(self) -> float:
        """Mean over the seeds; NaN if one is."""
        return float(np.mean(self.values))


@dataclass(frozen=True)
class Verdict:
    """What the measurements say about one claim.

    `claim` is its id, `printed` its figure as the paper prints it. `verdicts` has one of
    :data:`VERDICTS` for each of :data:`LEVELS`, `reason` says why at 95 %. `claimed` is the figure
    as a number, `patients` how many people it is taken to rest on (NaN where not known), `measured`
    our mean over `seeds`. Intervals, by level, are those of the claim, of ours, and of ours minus
    the claim's; NaN where unknown. `margin` is what counts as the same. `hangs_on` has the verdict
    at 95 % by other numbers of the paper's patients, from few to many. `needed` patients of ours
    would have decided, if mean and spread over the seeds stayed; 0 where none would, or it is
    decided.
    """

    claim: str
    printed: str
    verdicts: dict[float, str]
    reason: str
    claimed: float = float("nan")
    measured: float = float("nan")
    seeds: int = 0
    claim_intervals: dict[float, Interval] = field(default_factory=dict)
    intervals: dict[float, Interval] = field(default_factory=dict)
    differences: dict[float, Interval] = field(default_factory=dict)
    margin: float = MARGIN
    patients: float = float("nan")
    hangs_on: tuple[tuple[int, str], ...] = ()
    needed: int = 0

    @property
    def verdict(self) -> str:
        """The verdict at 95 %."""
        return self.verdicts[0.95]

    @property
    def interval(self) -> Interval:
        """Our 95 % interval."""
        return self.intervals.get(0.95, UNKNOWN)

    @property
    def second(self) -> str:
        """What stands beside the reason, in sentences; "" where nothing was compared.

        What would have decided, what the paper's own patients allow, and whether the verdict hangs
        on how many they are.
        """
        if self.verdict == INCOMPARABLE or self.seeds < SEEDS:
            return ""
        return " ".join(filter(None, (self._remedy(), self._allowed(), self._hinge())))

    def _remedy(self) -> str:
        if self.verdict != UNDECIDABLE or np.isnan(self.interval[0]):
            return ""
        if self.needed:
            return f"{self.needed:,} patients of ours would have decided."
        if abs(self.measured - self.claimed) < self.margin:
            return "No number of patients would have decided: our seeds spread too much."
        return "No number of patients of ours would have decided."

    def _allowed(self) -> str:
        low, high = self.claim_intervals[0.95]
        if np.isnan(low):
            return "The paper does not tell on how many images."
        return f"The paper's own {self.patients:.0f} patients allow {low:.3f} to {high:.3f}."

    def _hinge(self) -> str:
        if not self.hangs_on:
            return ""
        people = f"{self.hangs_on[0][0]:,} to {self.hangs_on[-1][0]:,} patients"
        if {word for _, word in self.hangs_on} == {self.verdict}:
            return f"Unchanged at {people} of theirs."
        runs = [next(run) for _, run in groupby(self.hangs_on, key=lambda pair: pair[1])]
        told = ", ".join(f"from {first:,} on {word}" for first, word in runs)
        return f"Of {people} of theirs: {told}."


def verdict(
    name: str,
    measured: Measurement,
    why_not_comparable: str = "",
    lower_is_better: bool = False,
    margin: float = MARGIN,
) -> Verdict:
    """Judge one claim, by its id in ``data/claims.yml``, by what several seeds measured.

    `why_not_comparable` tells why the results cannot be set against the paper's, if so. With
    `lower_is_better`, for shares of errors, to exceed the paper is to make fewer. `margin`, a share
    between 0 and 1, is what counts as the same. PaperError if it is none, there is no such claim,
    it is no share, or there is no measurement from 0 to 1.

    Examples
    --------
    >>> verdict("table1.model2.accuracy", Measurement((0.5,) * 5, n=200)).verdict
    'not reproduced'
    >>> verdict("table1.model2.accuracy", Measurement((0.9,) * 5, n=200)).verdict
    'reproduced'
    """
    if not measured.values or not all(np.isnan(one) or 0 <= one <= 1 for one in measured.values):
        raise PaperError(f"{name}: give a share from 0 to 1 for each seed, not {measured.values}.")
    if not 0 < margin < 1:
        raise PaperError(f"margin={margin}: give a share between 0 and 1, such as {MARGIN}.")
    patients, others = _people(name)
    judge = partial(_judge, name, claims.claim(name), why_not_comparable, lower_is_better, margin)
    found = judge(measured, patients)
    if why_not_comparable or np.isnan(found.interval[0]) or found.seeds < SEEDS:
        return found
    hangs_on = tuple((n, judge(measured, n).verdict) for n in others)
    needed = 0
    if found.verdict == UNDECIDABLE:
        needed = _needed(lambda n: judge(replace(measured, n=n), patients).verdict, measured.n)
    return replace(found, hangs_on=hangs_on, needed=needed)


def exact(name: str, count: int) -> Verdict:
    """Judge a claim that is a plain count, such as a cell of Fig. 2: equal or not."""
    claim = claims.claim(name)
    equal = int(claim["count"]) == count
    said = dict.fromkeys(LEVELS, REPRODUCED if equal else FAILED)
    reason = f"the count is {'the same' if equal else 'another'}"
    return Verdict(name, claim["printed"], said, reason, float(claim["count"]), count)


def difference(ours: float, our_ends: Interval, theirs: float, their_ends: Interval) -> Interval:
    """Interval of ours minus theirs, from the interval of each (MOVER; Zou and Donner 2008).

    With Wilson's intervals of two proportions it is Newcombe's method 10.
    """
    gap = ours - theirs
    low = gap - np.hypot(ours - our_ends[0], their_ends[1] - theirs)
    high = gap + np.hypot(our_ends[1] - ours, theirs - their_ends[0])
    return float(low), float(high)


def effective_n(patients) -> float:
    """How many independent trials stand behind a mean over seeds (Kish 1965).

    `patients` tell for each seed whose the images are that the share is of (Series). All images
    of a patient, and the answers of all seeds about one, are taken to tell the same. With w the
    weight of each patient in the mean, it is 1 / sum(w^2).
    """
    shares = [names.value_counts(normalize=True) for names in patients]
    weights = pd.concat(shares).groupby(level=0).sum() / len(shares)
    return float(1 / (weights**2).sum()) if len(weights) else 0.0


def measured_interval(measured: Measurement, level: float, is_f1: bool = False) -> Interval:
    """Give our interval: the variation of patients and that of seeds, added in squares."""
    mean = measured.mean
    if np.isnan(mean) or measured.n == 0:
        return UNKNOWN
    low, high = _sampling(mean, measured.n, level, is_f1)
    reach = 0.0 if len(measured.values) < 2 else _spread(measured.values, level)
    low, high = mean - math.hypot(mean - low, reach), mean + math.hypot(high - mean, reach)
    return max(0.0, low), min(1.0, high)


@lru_cache(maxsize=128)
def _spread(values: tuple[float, ...], level: float) -> float:
    """Reach of the t interval of the mean over seeds."""
    mean, low, _ = t_interval(values, level)
    return mean - low


def _people(name: str) -> tuple[float, list[int]]:
    """People that a claim rests on (NaN where not known); and others that it may rest on."""
    claim = claims.claim(name)
    if not isinstance(claim["value"], float):
        raise PaperError(f"{name} prints {claim['printed']!r}, which is no share of images.")
    n, sizes = claim["n"], claim["other_n"] or []
    if claim["metric"] == "f1" and pd.notna(n):
        n = _f1_trials(name)
    known = [] if pd.isna(n) else [n]
    others = sorted({math.ceil(size * part) for size in [*known, *sizes] for part in PEOPLE})
    patients = n if pd.isna(claim["patients"]) else claim["patients"]
    return (float("nan") if pd.isna(patients) else float(patients)), others


def _f1_trials(name: str) -> int:
    """TP + FP + FN of a claim on F1, from the counts of precision and recall."""
    precision, recall = (claims.claim(name[:-2] + one) for one in ("precision", "recall"))
    return precision["n"] + recall["n"] - precision["count"]


def _sampling(value: float, n: float, level: float, is_f1: bool = False) -> Interval:
    """Wilson's interval of a share among n trials; of an F1, for its share J, turned back."""
    if np.isnan(n):
        return UNKNOWN
    share = value / (2 - value) if is_f1 else value
    low, high = wilson(min(share * n, n), n, level)
    return (f1_of(low), f1_of(high)) if is_f1 else (low, high)


def f1_of(share: float) -> float:
    """Turn into F1 a share J = TP / (TP + FP + FN)."""
    return 2 * share / (1 + share)


def _judge(
    name, claim, why, lower_is_better, margin, measured: Measurement, patients: float
) -> Verdict:
    """Judge a claim that rests on so many people."""
    claimed, is_f1, mean = claim["value"], claim["metric"] == "f1", measured.mean
    theirs = {level: _sampling(claimed, patients, level, is_f1) for level in LEVELS}
    ours = {level: measured_interval(measured, level, is_f1) for level in LEVELS}
    differences = {level: difference(mean, ours[level], claimed, theirs[level]) for level in LEVELS}
    equal = {level: _is_within(measured, level, is_f1, claimed, margin) for level in LEVELS}
    found = Verdict(
        name, claim["printed"], {}, "", claimed, mean, len(measured.values), theirs, ours,
        differences, margin, patients,
    )  # fmt: skip
    said = {level: _decide(found, level, equal, why, lower_is_better) for level in LEVELS}
    verdicts = {level: word for level, (word, _) in said.items()}
    return replace(found, verdicts=verdicts, reason=said[0.95][1])


def _is_within(measured: Measurement, level: float, is_f1: bool, claimed, margin) -> bool:
    """Tell whether two one-sided tests show ours to equal the printed figure, but for a margin."""
    low, high = measured_interval(measured, 2 * level - 1, is_f1)
    half = 0.5 / measured.n if measured.n else 0.0
    return claimed - margin < low - half and high + half < claimed + margin


def _decide(found: Verdict, level: float, equal: dict, why: str, lower_is_better: bool) -> tuple:
    """Give the verdict at a level, and why; `equal` tells by level if ours is shown to be so."""
    if why:
        return INCOMPARABLE, why
    if found.seeds < SEEDS:
        few = f"{WORDS[found.seeds]} seed{'s' * (found.seeds > 1)}"
        return UNDECIDABLE, f"{few}; the spread needs five"
    if np.isnan(found.measured):
        return UNDECIDABLE, "undefined for a seed: no image of the kind that it is a share of"
    if equal[level]:
        return REPRODUCED, f"within {found.margin:.2f} of the printed figure, by two tests at 5 %"
    if found.intervals[level][0] <= found.claimed <= found.intervals[level][1]:
        return UNDECIDABLE, "compatible with the printed figure, and with others"
    low, high = found.differences[level]
    if np.isnan(low):
        return UNDECIDABLE, "the paper does not tell on how many images"
    if lower_is_better:
        low, high = -high, -low
    if (low > 0 or high < 0) and equal[LEVELS[0]]:
        return UNDECIDABLE, f"it differs, but perhaps by less than {found.margin:.2f}"
    if low > 0:
        return EXCEEDED, "better than the paper prints, by more than chance explains"
    if high < 0:
        return FAILED, "worse than the paper prints, by more than chance explains"
    return UNDECIDABLE, "beside the printed figure, and the paper's patients allow both"


def _needed(judge, n: float) -> int:
    """Find the fewest patients, more than n, at which `judge` decides; 0 if a million don't."""
    most = math.ceil(n)
    while judge(most) == UNDECIDABLE:
        most *= 2
        if most > MOST:
            return 0
    least = most // 2
    while most - least > max(1, most // 100):  # to 1 %
        middle = (least + most) // 2
        least, most = (middle, most) if judge(middle) == UNDECIDABLE else (least, middle)
    return most
