"""Intervals, exponents and verdicts of the lab, against scipy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pulseline.lab.statistics import (
    MOST_SEEDS,
    Cell,
    Interval,
    crossing,
    decide,
    exponent,
    geometric,
    interval,
    quantile,
    seeds_needed,
)


@pytest.mark.parametrize("count", [2, 3, 12, 50])
def test_intervals_are_students(count: int) -> None:
    from scipy import stats

    values = [math.sin(n) for n in range(count)]
    found = interval(values)
    low, high = stats.t.interval(0.95, count - 1, loc=np.mean(values), scale=stats.sem(values))
    assert found == pytest.approx((np.mean(values), low, high), rel=1e-9)
    logs = geometric([math.exp(value) for value in values])
    assert logs == pytest.approx([math.exp(value) for value in found], rel=1e-9)


def test_one_seed_decides_nothing() -> None:
    found = interval([1.0])
    assert found == (1.0, -math.inf, math.inf)
    assert found.within(0.9, 1.1) is None
    assert Interval(1.0, 0.95, 1.05).within(0.9, 1.1) is True
    assert Interval(1.0, 0.95, 1.05).within(2.0, 3.0) is False
    assert decide("x", "y", [Cell("z", [1.0])], 0.0, 2.0).holds is None
    assert decide("x", "y", [], 0.0, 2.0).holds is None


def test_a_verdict_over_cells_needs_all_of_them_and_names_the_one() -> None:
    good, bad = Cell("good", [0.9, 1.0, 1.1]), Cell("bad", [2.9, 3.0, 3.1])
    wide = Cell("wide", [0.0, 1.0, 2.0])
    assert decide("x", "y", [good, good], 0.5, 1.5).holds is True
    refuted = decide("x", "y", [good, wide, bad], 0.5, 1.5)
    assert refuted.holds is False
    assert refuted.cell.startswith("bad (3 seeds; ")
    undecided = decide("x", "y", [good, wide], 0.5, 1.5)
    assert undecided.holds is None
    assert undecided.cell.startswith("wide (3 seeds; ")


def test_refuting_pays_for_the_number_of_cells() -> None:
    """An interval of 95 % that just misses is no refutation among many."""
    half = quantile(3) / math.sqrt(3)  # of [-1, 0, 1]
    miss = Cell("miss", [half + 0.01 + v for v in (-1.0, 0.0, 1.0)])
    assert decide("x", "y", [miss], high=0.0).holds is False
    many = [miss, *(Cell(f"{n}", [-9.0, -9.1, -9.2]) for n in range(9))]
    assert decide("x", "y", many, high=0.0).holds is None


def test_seeds_needed_are_the_fewest() -> None:
    """Of values with mean 0 and deviation 1, so many put a half width below the distance .5."""
    values = [-1.0, 0.0, 1.0]
    need = seeds_needed(values, -0.5, math.inf)
    assert quantile(need) / math.sqrt(need) <= 0.5 < quantile(need - 1) / math.sqrt(need - 1)
    assert seeds_needed([1.0, 1.0], 0.0, 2.0) == 2
    assert seeds_needed([1.0], 0.0, 2.0) == MOST_SEEDS
    assert seeds_needed(values, 0.0, 2.0) == MOST_SEEDS


def test_ratios_are_decided_on_logarithms() -> None:
    found = decide("x", "y", [Cell("z", [0.5, 2.0])], 0.9, 1.1, ratios=True)
    assert found.measured.startswith("z: 1 (")
    assert decide("x", "y", [Cell("z", [0.5, 0.51])], 0.0, 1.0, ratios=True).holds is True


def test_exponent_and_crossing() -> None:
    x = [1.0, 2.0, 4.0]
    assert exponent(x, [3 * v**-1.5 for v in x]) == pytest.approx(-1.5)
    assert crossing(x, [8.0, 4.0, 2.0], 3.0) == 3.0
    assert crossing(x, [8.0, 4.0, 2.0], 9.0) == 1.0
    assert crossing(x, [8.0, 4.0, 2.0], 1.0) is None
