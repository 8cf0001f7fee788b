"""Leaks and shortcuts in any image set: the experiments, and one audit of them all.

A red light is a finding to act on. A green one proves nothing: these probes are simple, and a
network may find what they missed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

LIGHTS = ("red", "amber", "green", "grey")


class AuditError(ValueError):
    """An image set that cannot be audited."""


@dataclass(frozen=True)
class Finding:
    """What one probe found.

    Attributes
    ----------
    name : str
        Such as "Border alone".
    light : {"red", "amber", "green", "grey"}
        Act on it; look at it; nothing found (which proves nothing); could not be tested.
    headline : str
        One sentence with the numbers.
    meaning : str
        Why it matters, in plain words.
    advice : str
        What to do next.
    tables : dict of str to DataFrame
        By caption.
    figures : dict of str to matplotlib Figure
        By caption, which serves as the alternative text too.
    """

    name: str
    light: str
    headline: str
    meaning: str
    advice: str
    tables: dict = field(default_factory=dict)
    figures: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Audit:
    """All findings on a cohort, worst first, and what they rest on.

    ``facts`` are shown at the end of the page, by name: data, options, seed, versions, time.
    """

    name: str
    counts: pd.DataFrame
    findings: list[Finding]
    facts: dict[str, str]
    synthetic: bool

    @property
    def light(self) -> str:
        """The worst light of all findings."""
        return min((f.light for f in self.findings), key=LIGHTS.index, default="grey")
