"""Printed decimals and percentages as exact intervals of shares, under every rule of rounding."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

RULES = ("half up", "half even", "cut off", "up", "any")
LARGEST = 50_000  # images; products of whole numbers below stay far within 64 bits
DIGITS = 9


class ReconstructError(ValueError):
    """Printed figures, sizes or a matrix that cannot be searched for; the message says why."""


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
        return Span(
            self.unit - self.high, self.unit - self.low, self.unit, self.high_in, self.low_in
        )

    def holds(self, share: Fraction) -> bool:
        """Tell whether a share is within."""
        share = share * self.unit
        above = share >= self.low if self.low_in else share > self.low
        return above and (share <= self.high if self.high_in else share < self.high)


def span_of(text: str, rule: str, name: str) -> Span:
    """Shares that print as `text`; ends are counted in half units of the last digit."""
    if not isinstance(text, str):
        raise ReconstructError(f"{name} must be text as printed, such as '0.90', not {text!r}.")
    found = re.fullmatch(r"\s*(\d*)(?:\.(\d*))?\s*(%?)\s*", text)
    if not found or not (found[1] or found[2]):
        raise ReconstructError(f"{name}: {text!r} is no number; give it as printed, like '0.9063'.")
    digits = found[2] or ""
    if len(digits) > DIGITS:
        raise ReconstructError(f"{name}: {text!r} has more than {DIGITS} decimal places.")
    last = 2 * int(found[1] + digits)
    unit = 2 * 10 ** len(digits) * (100 if found[3] else 1)
    if last > unit:
        raise ReconstructError(f"{name}: {text!r} is more than 1; give a share, or add a % sign.")
    even = last % 4 == 0
    ends = {
        "half up": (last - 1, last + 1, True, False),
        "half even": (last - 1, last + 1, even, even),
        "cut off": (last, last + 2, True, False),
        "up": (last - 2, last, False, True),
        "any": (last - 2, last + 2, False, False),
    }
    if rule not in ends:
        raise ReconstructError(f"There is no rule {rule!r}; there are {', '.join(RULES)}.")
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
        raise ReconstructError(f"{name}={n!r}: give a whole number from 1 to {LARGEST}.")
    return int(n)
