"""What the experiments say about numbers: intervals over seeds, exponents, verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

# 97.5 % quantiles of Student's t for 1, 2, .. degrees of freedom; beyond: 1.96 + 2.72 / freedom,
# which is at most .02 too wide.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


class Interval(NamedTuple):
    """A mean over seeds and its 95 % interval (Student's t); infinite for a single seed."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.mean:.4g}"
        return f"{self.mean:.4g} ({self.low:.4g} to {self.high:.4g})"

    def within(self, low: float, high: float) -> bool | None:
        """True: the whole interval lies in [low, high]; False: none of it; None: undecided."""
        if low <= self.low and self.high <= high:
            return True
        return False if self.high < low or self.low > high else None

    def contains(self, value: float) -> bool | None:
        """Whether the value lies in the interval; None if that is all numbers."""
        return None if math.isinf(self.high) else self.low <= value <= self.high


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % interval of independent values, one per seed."""
    mean = sum(values) / len(values)
    freedom = len(values) - 1
    if freedom == 0:
        return Interval(mean, -math.inf, math.inf)
    t = _T[freedom - 1] if freedom <= len(_T) else 1.96 + 2.72 / freedom
    variance = sum((value - mean) ** 2 for value in values) / freedom
    half = t * math.sqrt(variance / len(values))
    return Interval(mean, mean - half, mean + half)


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """p of y ~ x^p: least squares on logarithmic axes; all numbers > 0."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


class Verdict(NamedTuple):
    """Whether a claim holds on these runs: ``holds`` None = the seeds do not decide."""

    name: str
    claim: str
    holds: bool | None
    measured: str

    def __str__(self) -> str:
        word = {True: "holds", False: "DOES NOT HOLD", None: "undecided"}[self.holds]
        return f"**{word}**: {self.claim}. Measured: {self.measured}."


def crossing(x: Sequence[float], y: Sequence[float], level: float) -> float | None:
    """First x at which y, linear between its points, falls to ``level``; None: never."""
    for n, value in enumerate(y):
        if value <= level:
            if n == 0:
                return x[0]
            part = (y[n - 1] - level) / (y[n - 1] - value)
            return x[n - 1] + part * (x[n] - x[n - 1])
    return None


def every(answers: Iterable[bool | None]) -> bool | None:
    """All of them: False if one is, else None if one is undecided."""
    found = list(answers)
    if False in found:
        return False
    return None if None in found else True
