"""The claims of the convergence lab, on what ``pulseline lab all --quick`` measured.

Tolerances come from the seeds: a verdict compares the 95 % interval of Student's t over three
seeds (half width 4.3 standard errors) with the claim, and holds only if the whole interval fits.
What three seeds cannot decide is asserted as such: not refuted. Counts of cycles are exact.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from lab_quick import SEEDS, Lab
from pulseline.lab.rows import by_seed, column, mean, number, select
from pulseline.lab.statistics import interval

HOLDS = {
    "clock": ("sync", "async", "clock", "published"),
    "staleness": ("window", "along", "floor", "digital"),
    "floor": ("law", "prediction", "falls"),
    "complexity": ("exponent", "order", "extra"),
    "accuracy": ("accuracy", "one_stage", "time"),
    "speedup": ("samples_8", "cycles"),
    "cliff": ("safe", "lost", "half the depth"),
    "devices": ("enough", "too_much", "same"),
}
NOT_REFUTED = {
    "complexity": ("vanishing",),
    "speedup": ("samples_2", "samples_4"),
    "cliff": ("half the micro-batch", "flush every 16"),
}


@pytest.mark.parametrize(("name", "claim"), [(n, c) for n, claims in HOLDS.items() for c in claims])
def test_holds(lab: Lab, name: str, claim: str) -> None:
    verdict = lab.verdict(name, claim)
    assert verdict.holds is True, str(verdict)


@pytest.mark.parametrize(
    ("name", "claim"), [(n, c) for n, claims in NOT_REFUTED.items() for c in claims]
)
def test_is_not_refuted(lab: Lab, name: str, claim: str) -> None:
    verdict = lab.verdict(name, claim)
    assert verdict.holds is not False, str(verdict)


# The headline figures once more from the rows, without the experiments' own arithmetic.


def test_synchronous_speedup_is_exact(lab: Lab) -> None:
    rows = lab.rows("clock")
    for m in range(1, 17):
        sequential, sync = (
            int(number(select(rows, schedule=s, stages=m)[0], "cycles"))
            for s in ("sequential", "sync")
        )
        assert Fraction(sequential, sync) == Fraction(8 * m, m + 7)


@pytest.mark.parametrize("stages", [2, 4, 8])
def test_bias_is_proportional_to_the_step(lab: Lab, stages: int) -> None:
    """Slope of the seeds' mean bias; pulses are less steep, as their scatter is."""
    slopes = {}
    for update in ("expected", "exact"):
        rows = select(lab.rows("staleness"), part="window", update=update, stages=stages)
        steps = sorted({number(row, "a") for row in rows})
        means = [mean(select(rows, a=a), "bias") for a in steps]
        slopes[update] = np.polyfit(np.log(steps), np.log(means), 1)[0]
    assert 0.8 < slopes["expected"] < 1.2
    assert slopes["exact"] < slopes["expected"]


def test_bias_grows_with_the_stages(lab: Lab) -> None:
    rows = select(lab.rows("staleness"), part="window", update="expected")
    for a in {number(row, "a") for row in rows}:
        biases = [mean(select(rows, stages=m, a=a), "bias") for m in (2, 4, 8)]
        assert biases == sorted(biases)


def test_exponents_agree(lab: Lab) -> None:
    """Iterations: the least over the steps, per seed; the interval is that of the seeds."""
    rows = lab.rows("complexity")
    slopes: dict[str, list[float]] = {"synchronous": [], "asynchronous": []}
    for one in by_seed(rows):
        for method, found in slopes.items():
            least = {}
            for row in select(one, method=method):
                if row["iterations"] is not None:
                    eps, k = number(row, "eps"), number(row, "iterations")
                    least[eps] = min(k, least.get(eps, math.inf))
            assert len(least) >= 3
            x, y = np.log(list(least)), np.log(list(least.values()))
            found.append(-np.polyfit(x, y, 1)[0])
    sync = interval(slopes["synchronous"])
    assert sync.low <= interval(slopes["asynchronous"]).mean <= sync.high


def test_asynchronous_reaches_nine_tenths_of_m(lab: Lab) -> None:
    """Geometric mean over targets and seeds of samples to a test accuracy, interpolated."""
    rows = lab.rows("accuracy")
    for m in (2, 4, 8):
        logs = []
        for target in (65.0, 70.0, 75.0, 80.0, 85.0):
            for one in by_seed(select(rows, stages=m)):
                samples = {}
                for method in ("sequential", "asynchronous"):
                    mine = select(one, method=method)
                    x, y = column(mine, "samples"), np.maximum.accumulate(column(mine, "accuracy"))
                    assert y[-1] >= target
                    samples[method] = np.interp(target, *_rising(y, x))
                logs.append(math.log(samples["sequential"] / samples["asynchronous"]))
        assert len(logs) == 5 * SEEDS
        assert m * math.exp(sum(logs) / len(logs)) >= 0.9 * m


def _rising(y: np.ndarray, x: list[float]) -> tuple[list[float], list[float]]:
    """Points at which y is higher than ever before."""
    keep = [n for n in range(len(y)) if n == 0 or y[n] > y[n - 1]]
    return [float(y[n]) for n in keep], [x[n] for n in keep]


def test_accuracy_counts_cycles_by_the_closed_forms(lab: Lab) -> None:
    """Eight tests an epoch of 1,437 samples: 8 segments of K samples, 2(K + M - 1) cycles each."""
    rows = select(lab.rows("accuracy"), seed=0)
    for m in (1, 2, 4, 8):
        last = {
            method: select(rows, method=method, stages=m)[-1]
            for method in ("sequential", "synchronous", "asynchronous")
        }
        samples = 2 * 1437
        assert {row["samples"] for row in last.values()} == {samples}
        assert last["sequential"]["cycles"] == 2 * m * samples
        assert last["asynchronous"]["cycles"] == 2 * (samples + 16 * (m - 1))
        assert last["asynchronous"]["idle_cycles"] == 32 * (m - 1)
        # 11 segments of 180 samples end in a mini-batch of 4, 5 of 179 in one of 3: 23 each.
        assert last["synchronous"]["cycles"] == 2 * (samples + 16 * 23 * (m - 1))
