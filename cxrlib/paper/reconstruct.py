"""The whole numbers behind printed scores: every confusion matrix that prints as they do.

A test of n images has few confusion matrices, and a table that prints four scores of it to a few
digits rules out almost all of them (the idea of the GRIM test: Brown and Heathers 2017,
doi:10.1177/1948550616673876). The search is exhaustive and exact, in whole numbers only. It lists
nothing that need not be: for given true positives (TP) and errors (FP + FN), the F1 is settled,
the FP that suit precision and recall form an interval, and so do the n that suit the accuracy.
A score whose denominator is 0 is undefined, and prints as nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

import numpy as np
import pandas as pd

from cxrlib.paper.claims import PaperError

RULES = ("half up", "half even", "cut off", "up", "any")
LARGEST = 50_000  # images; products of whole numbers below stay far within 64 bits
DIGITS = 9
FIGURES = ("accuracy", "precision", "recall", "f1")
CELLS = ["tp", "fp", "fn", "tn"]
BLOCK = 2_000_000  # most pairs of TP and errors looked at together


def fits(printed, n_max: int = 6000, rule: str = "half up", classes=None) -> pd.Series:
    """Count, for every size of the test from 1 to `n_max`, the matrices that print as these scores.

    Parameters
    ----------
    printed : dict of str to str
        ``accuracy``, ``precision``, ``recall`` and ``f1`` exactly as printed, such as
        ``"0.90"`` or ``".8541"``: text, because a number forgets its last zeros.
    rule : {"half up", "half even", "cut off", "up", "any"}
        How digits were dropped: rounded (a tie goes up, or to the even digit), cut off, or
        rounded up; the same way for all four. ``any`` allows each figure its own way.
    classes : "balanced" or (int, int), optional
        Only tests with equally many positives and negatives, or with these numbers of them.

    Examples
    --------
    >>> model2 = {"accuracy": "0.9063", "precision": "0.90", "recall": "0.9167", "f1": "0.9072"}
    >>> found = fits(model2, 200)
    >>> list(found.index[found > 0])
    [96, 192]
    """
    spans, sizes = _spans(printed, rule), _sizes(classes, check_size(n_max))
    change = np.zeros(n_max + 2, np.int64)  # how the count changes from n - 1 to n
    if sizes is None:
        step = BLOCK // n_max
        for first in range(0, n_max + 1, step):
            tp = np.arange(first, min(first + step, n_max + 1))
            row, errors, fp_low, fp_high = _errors(tp, spans, n_max)
            low, high = denominators(errors, spans["accuracy"].flipped(), n_max)
            low = np.maximum(low, tp[row] + errors)
            ok, ways = low <= high, fp_high - fp_low + 1
            np.add.at(change, low[ok], ways[ok])
            np.add.at(change, high[ok] + 1, -ways[ok])
    else:
        row, _, low, high = _with_sizes(*sizes, spans)
        n = sizes[0][row] + sizes[1][row]
        np.add.at(change, n, high - low + 1)
        np.add.at(change, n + 1, low - high - 1)
    counts = pd.Series(np.cumsum(change)[: n_max + 1], name="matrices")
    return counts.rename_axis("n").iloc[1:]


def matrices(printed, n: int, rule: str = "half up", classes=None) -> pd.DataFrame:
    """List the matrices of one size that print so: n, tp, fp, fn, tn. Otherwise as :func:`fits`."""
    spans, sizes = _spans(printed, rule), _sizes(classes, check_size(n))
    if sizes is None:
        tp = np.arange(n + 1)
        low, high = numerators(np.array([n]), spans["accuracy"].flipped())
        row, errors, fp_low, fp_high = _errors(tp, spans, n, low[0], high[0])
        tp = tp[row]
        row, fp = _unroll(fp_low, fp_high)
        tp, fn = tp[row], errors[row] - fp
    else:
        positives, negatives = (part[sizes[0] + sizes[1] == n] for part in sizes)
        size, tp, fp_low, fp_high = _with_sizes(positives, negatives, spans)
        row, fp = _unroll(fp_low, fp_high)
        tp, fn = tp[row], positives[size[row]] - tp[row]
    return pd.DataFrame({"n": n, "tp": tp, "fp": fp, "fn": fn, "tn": n - tp - fp - fn})


def smallest(printed, n_max: int = 6000, rule: str = "half up", classes=None) -> pd.DataFrame:
    """List the :func:`matrices` of the smallest test that prints so; parameters of :func:`fits`."""
    counts = fits(printed, n_max, rule, classes)
    if not counts.any():
        return pd.DataFrame(columns=["n", *CELLS], dtype=int)
    return matrices(printed, int((counts > 0).idxmax()), rule, classes)


def explain(printed, n_max: int = 6000, classes=None) -> pd.DataFrame:
    """Sum up the search: what fits, under each rule of dropping digits.

    Columns: the ``smallest n`` that fits, the ``matrices`` of that size, ``tp fp fn tn`` if there
    is one only, the ``next n`` that fits (a single matrix is unique below it) and how many
    ``sizes`` fit. <NA> where there is none up to `n_max`.
    """
    rows = {}
    for rule in RULES:
        counts = fits(printed, n_max, rule, classes)
        sizes = counts.index[counts > 0]
        row = dict.fromkeys(["smallest n", "matrices", *CELLS, "next n"], pd.NA)
        if len(sizes):
            row |= {"smallest n": sizes[0], "matrices": counts[sizes[0]]}
            if counts[sizes[0]] == 1:
                row |= matrices(printed, int(sizes[0]), rule, classes).iloc[0][CELLS].to_dict()
        if len(sizes) > 1:
            row["next n"] = sizes[1]
        rows[rule] = row | {"sizes": len(sizes)}
    return pd.DataFrame.from_dict(rows, "index").astype("Int64").rename_axis("rule")


def ratios(printed, largest: int = 100, rule: str = "half up") -> pd.DataFrame:
    """List TP : FP : FN, in lowest terms, that print as this precision, recall and F1.

    `largest` is the largest TP + FP + FN. Columns tp, fp, fn, the smallest sum first.
    """
    spans = _spans(printed, rule)
    tp = np.arange(check_size(largest) + 1)
    row, errors, fp_low, fp_high = _errors(tp, spans, largest)
    tp = tp[row]
    row, fp = _unroll(fp_low, fp_high)
    found = np.column_stack([tp[row], fp, errors[row] - fp])
    found = np.unique(found // np.gcd.reduce(found, axis=1, keepdims=True), axis=0)
    found = found[np.argsort(found.sum(axis=1), kind="stable")]
    return pd.DataFrame(found, columns=CELLS[:3])


def consistent(printed, matrix: pd.DataFrame, rule: str = "any") -> pd.DataFrame:
    """Compare printed scores with a confusion matrix, in every way that they may be meant.

    A row for each reading: every class against the rest, with that reading's own accuracy or the
    accuracy over all classes; and the means over the classes, plain (``macro``) and weighted by
    their images. Columns: the four scores (NaN where undefined), how many of them ``agree`` with
    the print, and whether all do (``consistent``). `matrix` has actual rows, predicted columns.
    """
    spans = _spans(printed, rule)
    rows = {}
    for name, scores in _readings(matrix).items():
        known = {key: value for key, value in scores.items() if value is not None}
        agree = sum(spans[key].holds(value) for key, value in known.items())
        rows[name] = {key: float(known.get(key, "nan")) for key in FIGURES}
        rows[name] |= {"agree": agree, "consistent": agree == len(FIGURES)}
    return pd.DataFrame.from_dict(rows, "index").rename_axis("reading")


def prints_as(count: int, n: int, text: str, rule: str = "half up") -> bool:
    """Tell whether the share `count` of `n` prints as `text`, such as ``".45"`` or ``"45.8%"``."""
    if not 0 <= count <= n or n < 1:
        raise PaperError(f"count={count} of n={n} is no share: give 0 <= count <= n, n >= 1.")
    return span_of(text, rule, "text").holds(Fraction(int(count), int(n)))


def row_counts(percent, total: int, rule: str = "any") -> list[tuple[int, ...]]:
    """List whole numbers that add up to `total` and print as these shares, such as "41.7%"."""
    total = np.array([check_size(total, "total")])
    ends = [numerators(total, span_of(text, rule, "percent")) for text in percent]
    free = [range(low[0], high[0] + 1) for low, high in ends]
    return [row for row in product(*free) if sum(row) == total[0]]


def counts_table(percent: pd.DataFrame, totals, rule: str = "any") -> pd.DataFrame:
    """Turn a table of printed percentages into the only counts that print so.

    `percent`, a DataFrame of str, has a row for each actual class, a column for each predicted
    one; `totals` are the images of each row. PaperError if no counts fit, or several do.
    """
    rows = {}
    for name, texts in percent.iterrows():
        found = row_counts(texts, totals[name], rule)
        if len(found) != 1:
            raise PaperError(
                f"Row {name!r}: {len(found)} sets of counts print as {', '.join(texts)} of "
                f"{totals[name]} images. Check the percentages and the total, or the rule."
            )
        rows[name] = found[0]
    table = pd.DataFrame.from_dict(rows, "index", columns=percent.columns)
    return table.rename_axis(percent.index.name)


def _spans(printed, rule: str) -> dict[str, Span]:
    printed = dict(printed)
    missing = [name for name in FIGURES if name not in printed]
    unknown = [name for name in printed if name not in FIGURES]
    if missing or unknown:
        raise PaperError(
            f"printed must hold {', '.join(FIGURES)}; it lacks {missing} and has {unknown} besides."
        )
    return {name: span_of(printed[name], rule, name) for name in FIGURES}


def _errors(tp, spans, n_max: int, least: int = 0, most: int | None = None):
    """All FP + FN that suit precision, recall and F1: index of TP, the sum, range of FP."""
    fp_low, fp_high = (end - tp for end in denominators(tp, spans["precision"], n_max))
    fn_low, fn_high = (end - tp for end in denominators(tp, spans["recall"], n_max))
    fp_low, fn_low = np.maximum(fp_low, 0), np.maximum(fn_low, 0)
    low, high = (end - 2 * tp for end in denominators(2 * tp, spans["f1"], 2 * n_max))
    low = np.maximum(np.maximum(low, fp_low + fn_low), least)
    high = np.minimum(np.minimum(high, fp_high + fn_high), n_max - tp)
    high = high if most is None else np.minimum(high, most)
    high = np.where((fp_low <= fp_high) & (fn_low <= fn_high), high, -1)
    row, errors = _unroll(low, high)
    fp_low = np.maximum(fp_low[row], errors - fn_high[row])
    fp_high = np.minimum(fp_high[row], errors - fn_low[row])
    return row, errors, fp_low, fp_high


def _with_sizes(positives, negatives, spans):
    """As :func:`_errors`, for given sizes of the classes: `row` of the size, TP, range of FP."""
    row, tp = _unroll(*numerators(positives, spans["recall"]))
    fn, n = positives[row] - tp, positives[row] + negatives[row]
    most = int((positives + negatives).max(initial=1))
    called = denominators(tp, spans["precision"], most)
    both = denominators(2 * tp, spans["f1"], 2 * most)
    errors = numerators(n, spans["accuracy"].flipped())
    low, high = ((called[end] - tp, both[end] - 2 * tp - fn, errors[end] - fn) for end in (0, 1))
    low = np.maximum.reduce([*low, np.zeros_like(tp)])
    high = np.minimum.reduce([*high, negatives[row]])
    ok = low <= high
    return row[ok], tp[ok], low[ok], high[ok]


def _unroll(low, high):
    """Write out intervals: for each whole number in one, the interval's row and the number."""
    lengths = np.maximum(high - low + 1, 0)
    row = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.cumsum(lengths) - lengths
    return row, np.arange(len(row)) - starts[row] + low[row]


def _sizes(classes, n_max: int):
    """Positives and negatives to try; None where they are free."""
    if classes is None:
        return None
    if isinstance(classes, str) and classes == "balanced":
        half = np.arange(1, n_max // 2 + 1)
        return half, half
    if isinstance(classes, str) or len(classes) != 2:
        raise PaperError(f"classes={classes!r}: give 'balanced' or (positives, negatives).")
    pair = [np.array([check_size(size, "class size")]) for size in classes]
    if pair[0] + pair[1] > n_max:
        raise PaperError(f"Classes of {classes} images need an n of {sum(classes)} or more.")
    return pair


def _readings(matrix: pd.DataFrame) -> dict[str, dict]:
    """Scores of a confusion matrix as exact fractions (None: undefined), by reading."""
    counts = np.asarray(matrix)
    square = counts.ndim == 2 and counts.shape[0] == counts.shape[1] > 1
    if not square or counts.dtype.kind not in "iu" or (counts < 0).any() or not counts.any():
        raise PaperError(
            "matrix must be a square table of whole numbers: images of each actual class (rows) "
            "by predicted class (columns)."
        )
    counts = counts.astype(object)  # Python's whole numbers, which fractions want
    n, right = counts.sum(), counts.trace()
    found, per_class = {}, []
    for place, name in enumerate(matrix.columns):
        tp, called, ill = counts[place, place], counts[:, place].sum(), counts[place].sum()
        parts = ((tp, called), (tp, ill), (2 * tp, called + ill))
        three = [Fraction(a, b) if b else None for a, b in parts]
        per_class.append([ill, *three])
        own = Fraction(n - called - ill + 2 * tp, n)
        found[f"{name} against the rest"] = dict(zip(FIGURES, [own, *three], strict=True))
        over_all = dict(zip(FIGURES, [Fraction(right, n), *three], strict=True))
        found[f"{name}, accuracy of all classes"] = over_all
    for kind in ("macro", "weighted"):
        weights = [ill if kind == "weighted" else 1 for ill, *_ in per_class]
        means = [_mean(values, weights) for values in list(zip(*per_class, strict=True))[1:]]
        found[f"{kind} mean"] = dict(zip(FIGURES, [Fraction(right, n), *means], strict=True))
    return found


def _mean(values, weights):
    if None in values:
        return None
    return sum(v * w for v, w in zip(values, weights, strict=True)) / Fraction(sum(weights))


@dataclass(frozen=True)
class Span:
    """Shares from ``low / unit`` to ``high / unit``; each end belongs to it or not."""

    low: int
    high: int
    unit: int
    low_in: bool
    high_in: bool

    def flipped(self) -> Span:
        """Span of the remainders 1 - share: an accuracy's span becomes that of the errors."""
        low, high = self.unit - self.high, self.unit - self.low
        return Span(low, high, self.unit, self.high_in, self.low_in)

    def holds(self, share: Fraction) -> bool:
        """Tell whether a share is within."""
        share = share * self.unit
        above = share >= self.low if self.low_in else share > self.low
        return above and (share <= self.high if self.high_in else share < self.high)


def span_of(text: str, rule: str, name: str) -> Span:
    """Shares that print as `text`; ends are counted in half units of the last digit."""
    if not isinstance(text, str):
        raise PaperError(f"{name} must be text as printed, such as '0.90', not {text!r}.")
    found = re.fullmatch(r"\s*(\d*)(?:\.(\d*))?\s*(%?)\s*", text)
    if not found or not (found[1] or found[2]):
        raise PaperError(f"{name}: {text!r} is no number; give it as printed, like '0.9063'.")
    digits = found[2] or ""
    if len(digits) > DIGITS:
        raise PaperError(f"{name}: {text!r} has more than {DIGITS} decimal places.")
    last = 2 * int(found[1] + digits)
    unit = 2 * 10 ** len(digits) * (100 if found[3] else 1)
    if last > unit:
        raise PaperError(f"{name}: {text!r} is more than 1; give a share, or add a % sign.")
    even = last % 4 == 0
    ends = {
        "half up": (last - 1, last + 1, True, False),
        "half even": (last - 1, last + 1, even, even),
        "cut off": (last, last + 2, True, False),
        "up": (last - 2, last, False, True),
        "any": (last - 2, last + 2, False, False),
    }
    if rule not in ends:
        raise PaperError(f"There is no rule {rule!r}; there are {', '.join(RULES)}.")
    low, high, low_in, high_in = ends[rule]
    return Span(low, high, unit, low_in, high_in)


def denominators(numerator, span: Span, most: int):
    """Smallest and largest b from 1 to `most` for which numerator / b is within the span."""
    share = numerator * span.unit
    if span.high > 0:
        low = -(-share // span.high) if span.high_in else share // span.high + 1
    else:
        low = np.where((share == 0) & span.high_in, 1, most + 1)
    if span.low > 0:
        high = share // span.low if span.low_in else -(-share // span.low) - 1
    else:
        zero_fits = span.low < 0 or span.low_in
        high = np.where((share > 0) | zero_fits, most, 0)
    return np.maximum(low, 1), np.minimum(high, most)


def numerators(denominator, span: Span):
    """Smallest and largest a from 0 to the denominator for which a / denominator is within."""
    low, high = span.low * denominator, span.high * denominator
    low = -(-low // span.unit) if span.low_in else low // span.unit + 1
    high = high // span.unit if span.high_in else -(-high // span.unit) - 1
    return np.maximum(low, 0), np.minimum(high, denominator)


def check_size(n, name: str = "n") -> int:
    """Give back a number of images, or complain about it."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= LARGEST:
        raise PaperError(f"{name}={n!r}: give a whole number from 1 to {LARGEST}.")
    return int(n)
