"""What the experiments say about numbers: intervals over seeds, exponents, verdicts.

A verdict asks whether the mean of every cell lies between two bounds. It *holds* if every 95 %
interval does (each cell by itself, so a false claim passes with 2.5 % at most); it *does not hold*
if an interval of level 1 - .05 / cells lies outside (so a true one is refuted with 5 % at most);
else these seeds do not decide. It names the cell that decided and the seeds that cell would need.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "MOST_SEEDS",
    "WORDS",
    "Cell",
    "Interval",
    "Verdict",
    "crossing",
    "decide",
    "every",
    "exponent",
    "geometric",
    "interval",
    "least",
    "quantile",
    "resampled",
    "seeds_needed",
]

MOST_SEEDS = 10_000


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

    def map(self, to: Callable[[float], float]) -> Interval:
        """Through an increasing function."""
        return Interval(*(to(value) for value in self))


def quantile(seeds: int, level: float = 0.95) -> float:
    """Half width of an interval of that level over so many seeds, in standard errors."""
    from scipy.special import stdtrit

    return float(stdtrit(seeds - 1, 0.5 + level / 2)) if seeds > 1 else math.inf


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean and interval of independent values, one per seed."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf)
    half = quantile(len(values), level) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def geometric(values: Sequence[float], level: float = 0.95) -> Interval:
    """Geometric mean and interval of positive values, one per seed."""
    return interval([math.log(value) for value in values], level).map(_exp)


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """p of y ~ x^p: least squares on logarithmic axes; all numbers > 0."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


class Cell(NamedTuple):
    """One number per seed, and where it was measured."""

    where: str
    values: Sequence[float]


class Verdict(NamedTuple):
    """Whether a claim holds on these runs: ``holds`` None = the seeds do not decide.

    ``cell``: what decided, with the seeds it has and needs; empty if nothing was estimated.
    """

    name: str
    claim: str
    holds: bool | None
    measured: str
    cell: str = ""

    def __str__(self) -> str:
        by = f" Decided by {self.cell}." if self.cell else ""
        return f"**{WORDS[self.holds]}**: {self.claim}. Measured: {self.measured}.{by}"


WORDS = {True: "holds", False: "DOES NOT HOLD", None: "undecided"}


def decide(
    name: str,
    claim: str,
    cells: Sequence[Cell],
    low: float = -math.inf,
    high: float = math.inf,
    *,
    ratios: bool = False,
) -> Verdict:
    """Whether the mean of every cell lies in [low, high].

    Args:
        name, claim: of the verdict.
        cells: the numbers; none leave it undecided.
        low, high: bounds, in the units of the values.
        ratios: the values are positive ratios; means and intervals are geometric.
    """
    cells = [cell for cell in cells if len(cell.values)]
    if not cells:
        return Verdict(name, claim, None, "no cell has values")
    samples: list[Sequence[float]] = [cell.values for cell in cells]
    one = interval
    if ratios:
        samples = [[math.log(value) for value in values] for values in samples]
        low, high = (math.log(end) if end > 0 else -math.inf for end in (low, high))
        one = geometric
    strict = 1 - 0.05 / len(cells)
    refuted = any(interval(values, strict).within(low, high) is False for values in samples)
    holds = every(interval(values).within(low, high) for values in samples)
    margins = [_margin(values, low, high) for values in samples]
    n = min(range(len(cells)), key=margins.__getitem__)
    measured = ", ".join(f"{cell.where}: {one(cell.values)}" for cell in _few(cells, n))
    need = seeds_needed(samples[n], low, high)
    enough = f"{need} decide" if need < MOST_SEEDS else f"{MOST_SEEDS:,} would not decide"
    return Verdict(
        name,
        claim,
        False if refuted else holds or None,
        measured if len(cells) == 1 else f"of {len(cells)} cells, {measured}",
        f"{cells[n].where} ({len(samples[n])} seeds; {enough} it)",
    )


def _few(cells: Sequence[Cell], decided: int) -> Sequence[Cell]:
    """All of a few cells, else the one that decided."""
    return cells if len(cells) <= 4 else [cells[decided]]


def _distance(mean: float, low: float, high: float) -> float:
    """To the nearer bound; negative outside."""
    return min(mean - low, high - mean)


def _margin(values: Sequence[float], low: float, high: float) -> float:
    """Distance to the nearer bound in half widths of the interval."""
    found = interval(values)
    half = found.high - found.mean
    distance = _distance(found.mean, low, high)
    if math.isinf(half):
        return 0.0
    return distance / half if half > 0 else math.copysign(math.inf, distance)


def seeds_needed(values: Sequence[float], low: float, high: float) -> int:
    """Fewest seeds whose 95 % interval excludes the nearer bound at this mean and deviation."""
    if len(values) < 2:
        return MOST_SEEDS
    distance = abs(_distance(float(np.mean(values)), low, high))
    deviation = float(np.std(values, ddof=1))
    few, many = 2, MOST_SEEDS
    while few < many:
        middle = (few + many) // 2
        if quantile(middle) * deviation <= distance * math.sqrt(middle):
            many = middle
        else:
            few = middle + 1
    return few


def resampled(
    values: Any, statistic: Callable[[Sequence[float]], float], times: int = 2000
) -> Interval:
    """A statistic of means over seeds, and 95 % of what it is when seeds are drawn with repetition.

    Args:
        values: (numbers, seeds). statistic: of one mean per number. times: draws, always the same.
    """
    held = np.asarray(values, dtype=float)
    draws = np.random.default_rng(0).integers(held.shape[1], size=(times, held.shape[1]))
    found = [statistic(held[:, chosen].mean(1).tolist()) for chosen in draws]
    low, high = np.quantile(found, (0.025, 0.975))
    return Interval(statistic(held.mean(1).tolist()), float(low), float(high))


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


def least(x: Sequence[float], y: Sequence[float | None]) -> tuple[float, bool] | None:
    """Minimum of y over log x by the parabola through the best point and its neighbours.

    Returns (value, whether the best point has neighbours on both sides); None if y is empty.
    Missing y count as larger than all others.
    """
    known = [n for n, value in enumerate(y) if value is not None]
    if not known:
        return None
    best = min(known, key=lambda n: y[n] or 0.0)
    value = float(y[best] or 0.0)
    inside = 0 < best < len(y) - 1
    if not inside:
        return value, False
    left, right = y[best - 1], y[best + 1]
    if left is None or right is None:
        return value, True
    t = np.log([x[best - 1], x[best], x[best + 1]])
    curve = np.polyfit(t, np.log([left, value, right]), 2)
    if curve[0] <= 0:
        return value, True
    lowest = float(np.exp(curve[2] - curve[1] ** 2 / (4 * curve[0])))
    return min(lowest, value), True
