"""What measured results say about a figure that the paper prints.

Five verdicts, by intervals and never by a tolerance that someone chose:

=====================  ==========================================================================
exceeded               better than the printed figure, by more than chance in either explains
reproduced             our data allow the printed figure, and nothing that the paper's rule out
not reproduced         worse than the printed figure, by more than chance in either explains
undecidable at this n  none of these can be told: our data or the paper's are too few
not comparable         synthetic images, random weights, or another backbone than the paper's
=====================  ==========================================================================

Three intervals decide. *The claim's*: Wilson's, at the number of patients where it is known (the
fewest, where it is inferred), since images of one patient are no independent trials. *Ours*, over
five seeds or more, each with its own split and initial weights: wide enough for the sampling of
patients (Wilson for proportions, a bootstrap of patients for F1) and for the spread over the seeds
(Nadeau and Bengio 2003, doi:10.1023/A:1024068626366), because neither of them sees all of the
other. Trials are patients here too: images of one, and the answers of several seeds about one,
count once. *The difference's*: put together from both (method 10 of Newcombe 1998,
doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I; Zou and Donner 2008,
doi:10.1002/sim.3095). A paper that does not tell on how many images it measured has no interval,
and nothing can be decided.

To be reproduced a figure must pass two tests. Ours must *lie within the claim's*, so that every
value our data allow is one that the paper's allow. And ours must *hold the printed figure*: the
claim's interval alone is the wider the less the paper knows, so that with a dozen patients it
takes in what nobody would call the same. Where ours lies beside the printed figure, and yet the
difference may be none, it is the paper's test set that is too small.

The verdict is given at 90, 95 and 99 %. What makes it easier to agree the wider it is, is always
taken at 90 %: the claim's interval that ours must lie within (ours at the verdict's level), and
ours where it must hold the printed figure. So a stricter level can only turn a decided verdict
into an undecidable one. Many claims are judged, and no level is corrected for that: of twenty that
hold, one may fail at 95 %.

F1 is no proportion, but J = TP / (TP + FP + FN) is, and F1 = 2 J / (1 + J) rises with it: Wilson's
interval for J, its ends turned into F1, is one for F1.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from cxrlib.metrics import t_interval, wilson
from cxrlib.paper import claims
from cxrlib.paper.claims import PaperError

LEVELS = (0.90, 0.95, 0.99)
SEEDS = 5
TEST_TO_TRAIN = 0.20 / 0.64  # shares of the data (Section IV.A): 20 %, and 80 % of 80 %
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
    (for an F1 those of TP + FP + FN); 0 where it is not known. `drawn` holds bootstrap intervals of
    the mean, by level; none for a proportion.
    """

    values: tuple[float, ...]
    n: float
    drawn: dict[float, Interval] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean over the seeds; NaN if one is."""
        return float(np.mean(self.values))


@dataclass(frozen=True)
class Verdict:
    """What the measurements say about one claim.

    `claim` is its id, `printed` its figure as the paper prints it. `verdicts` has one of
    :data:`VERDICTS` for each of :data:`LEVELS`, `reason` says why at 95 %. `claimed` is the claim
    as a number, `measured` our mean over `seeds`. Intervals, by level, are those of the claim, of
    ours, and of ours minus the claim's; NaN where unknown.
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

    @property
    def verdict(self) -> str:
        """The verdict at 95 %."""
        return self.verdicts[0.95]

    @property
    def interval(self) -> Interval:
        """Our 95 % interval."""
        return self.intervals.get(0.95, UNKNOWN)


def verdict(
    name: str, measured: Measurement, why_not_comparable: str = "", lower_is_better: bool = False
) -> Verdict:
    """Judge one claim, by its id in ``data/claims.yml``, by what several seeds measured.

    `why_not_comparable` tells why the results cannot be set against the paper's, if so. With
    `lower_is_better`, for shares of errors, to exceed the paper is to make fewer. PaperError if
    there is no such claim, it is no share, or there is no measurement from 0 to 1.

    Examples
    --------
    >>> verdict("table1.model2.accuracy", Measurement((0.5,) * 5, n=200)).verdict
    'not reproduced'
    """
    if not measured.values or not all(np.isnan(one) or 0 <= one <= 1 for one in measured.values):
        raise PaperError(f"{name}: give a share from 0 to 1 for each seed, not {measured.values}.")
    is_f1 = name.endswith(".f1")
    claimed, theirs = _claimed(name)
    ours = {level: measured_interval(measured, level, is_f1) for level in LEVELS}
    differences = {
        level: difference(measured.mean, ours[level], claimed, theirs[level]) for level in LEVELS
    }
    seeds = len(measured.values)
    found = Verdict(
        name, claims.printed(name), {}, "", claimed, measured.mean, seeds, theirs, ours, differences
    )
    said = {level: _decide(found, level, why_not_comparable, lower_is_better) for level in LEVELS}
    verdicts = {level: word for level, (word, _) in said.items()}
    return replace(found, verdicts=verdicts, reason=said[0.95][1])


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
    """Smallest interval that holds that of sampling and that of the spread over seeds."""
    if np.isnan(measured.mean) or measured.n == 0:
        return UNKNOWN
    ends = [
        _sampling(measured.mean, measured.n, level, is_f1),
        t_interval(measured.values, level, TEST_TO_TRAIN)[1:],
        measured.drawn.get(level, UNKNOWN),  # without width for an F1 of 1, unlike the first
    ]
    lows, highs = zip(*ends, strict=True)
    return float(max(0, np.nanmin(lows))), float(min(1, np.nanmax(highs)))


def _claimed(name: str) -> tuple[float, dict[float, Interval]]:
    """Give a claim as a number, and Wilson's interval by level, at its n or at its patients."""
    claim = claims.claim(name)
    is_f1 = claim["metric"] == "f1"
    if not isinstance(claim["value"], float):
        raise PaperError(f"{name} prints {claim['printed']!r}, which is no share of images.")
    count, n = _f1_counts(name) if is_f1 else (claim["count"], claim["n"])
    if pd.isna(n):
        return claim["value"], dict.fromkeys(LEVELS, UNKNOWN)
    share = claim["value"] if pd.isna(count) else count / n
    claimed = float(f1_of(share) if is_f1 else share)
    trials = n if pd.isna(claim["patients"]) else min(n, claim["patients"])
    return claimed, {level: _sampling(claimed, trials, level, is_f1) for level in LEVELS}


def _f1_counts(name: str) -> tuple:
    """TP, and TP + FP + FN, of a claim on F1, from the counts of precision and recall."""
    precision, recall = (claims.claim(name[:-2] + one) for one in ("precision", "recall"))
    return precision["count"], precision["n"] + recall["n"] - precision["count"]


def _sampling(value: float, n: float, level: float, is_f1: bool = False) -> Interval:
    """Wilson's interval of a share among n trials; of an F1, for its share J, turned back."""
    share = value / (2 - value) if is_f1 else value
    low, high = wilson(min(share * n, n), n, level)
    return (f1_of(low), f1_of(high)) if is_f1 else (low, high)


def f1_of(share: float) -> float:
    """Turn into F1 a share J = TP / (TP + FP + FN)."""
    return 2 * share / (1 + share)


def _decide(found: Verdict, level: float, why: str, lower_is_better: bool) -> tuple[str, str]:
    """Give the verdict at a level, and why."""
    if why:
        return INCOMPARABLE, why
    if found.seeds < SEEDS:
        few = f"{WORDS[found.seeds]} seed{'s' * (found.seeds > 1)}"
        return UNDECIDABLE, f"{few}; the spread needs five"
    if np.isnan(found.measured):
        return UNDECIDABLE, "undefined for a seed: no image of the kind that it is a share of"
    if np.isnan(found.claim_intervals[level]).any():
        return UNDECIDABLE, "the paper does not tell on how many images"
    low, high = found.differences[level]
    if lower_is_better:
        low, high = -high, -low
    if low > 0:
        return EXCEEDED, "better than the paper prints, by more than chance explains"
    if high < 0:
        return FAILED, "worse than the paper prints, by more than chance explains"
    loosest, printed = LEVELS[0], (found.claimed, found.claimed)
    within = _holds(found.claim_intervals[loosest], found.intervals[level])
    if within and _holds(found.intervals[loosest], printed):
        why = "our data allow the printed figure, and nothing that the paper's rule out"
        return REPRODUCED, why
    beside = not _holds(found.intervals[level], printed)
    whose = "the paper's test set is too small" if beside else "our test sets or seeds are too few"
    return UNDECIDABLE, f"agreement and a difference are both possible: {whose} to tell"


def _holds(outer: Interval, inner: Interval) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]
