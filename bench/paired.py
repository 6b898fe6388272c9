"""Statistics of an A/B comparison: medians of paired ratios with an interval that assumes nothing.

Sorted ratios r_(1) <= .. <= r_(n) of independent pairs with median m: each lies below m with
probability 1/2, so ``P(r_(k) <= m <= r_(n+1-k)) = 1 - 2 P(Binomial(n, 1/2) < k)``, whatever the
distribution (the sign test turned round). k is the largest that keeps the confidence.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from math import comb
from typing import NamedTuple

LIMIT = 1.03  # slower than this is slower
CONFIDENCE = 0.95


class Interval(NamedTuple):
    """Median of the ratios, the two order statistics around it, and their confidence."""

    median: float
    low: float
    high: float
    confidence: float


def rank(n: int, confidence: float = CONFIDENCE) -> tuple[int, float]:
    """The largest k with that confidence, and the confidence it has.

    Raises:
        ValueError: n ratios are too few for any interval.
    """
    k, below = 0, 0.0  # below = P(Binomial(n, 1/2) < k)
    while 1 - 2 * (more := below + comb(n, k) / 2**n) >= confidence:
        k, below = k + 1, more
    if k == 0:
        raise ValueError(f"{n} pairs have no interval of {confidence:.0%}; take more")
    return k, 1 - 2 * below


def interval(ratios: Sequence[float]) -> Interval:
    """Median and interval of independent paired ratios new / old."""
    k, confidence = rank(len(ratios))
    ordered = sorted(ratios)
    return Interval(statistics.median(ordered), ordered[k - 1], ordered[-k], confidence)


def slower(ratios: Mapping[str, Sequence[float]], limit: float = LIMIT) -> list[str]:
    """Cells whose whole interval lies above the limit."""
    return [name for name, values in ratios.items() if interval(values).low > limit]


def order(pair: int) -> tuple[str, str]:
    """Who goes first: ABBA, so that a drift cancels between neighbours."""
    return ("old", "new") if pair % 2 == 0 else ("new", "old")
