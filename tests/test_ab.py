"""The A/B benchmark without a clock: its statistics, its verdict, and that its cells run.

The interval is compared with an enumeration of all 2^15 ways in which 15 pairs can lie around their
median, each equally likely: equality.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from math import comb
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "bench"))

import ab
import ab_cells
import paired


def test_ranks_of_the_sign_test() -> None:
    assert paired.rank(6) == (1, 1 - 2 / 2**6)
    assert paired.rank(15) == (4, 1 - 2 * (1 + 15 + 105 + 455) / 2**15)
    for n in range(6, 60):
        k, confidence = paired.rank(n)
        below = [sum(comb(n, i) for i in range(m)) / 2**n for m in (k, k + 1)]
        assert confidence == 1 - 2 * below[0] >= 0.95 > 1 - 2 * below[1]
    with pytest.raises(ValueError, match="5 pairs have no interval of 95%; take more"):
        paired.rank(5)


def test_interval_covers_the_median_as_often_as_it_says() -> None:
    n, held, above = 15, 0, 0
    for pattern in range(2**n):
        found = paired.interval([1.1 if pattern >> i & 1 else 0.9 for i in range(n)])
        held += found.low <= 1.0 <= found.high
        above += found.low > 1.0
    assert held / 2**n == found.confidence == paired.rank(n)[1]
    assert above / 2**n == (1 - found.confidence) / 2  # how often equal versions would fail at 1.0


def test_the_limit_and_outliers() -> None:
    assert paired.slower({"at it": [1.03] * 15, "above": [1.0301] * 15}) == ["above"]
    k, _ = paired.rank(25)
    assert paired.slower({"few": [1.0] * k + [9.0] * (25 - k)}) == []  # r_(k) is still 1
    assert paired.slower({"one more": [1.0] * (k - 1) + [9.0] * (26 - k)}) == ["one more"]
    assert [paired.order(pair) for pair in range(4)] == [("old", "new"), ("new", "old")] * 2


def noisy(ratio: float, seed: int) -> list[float]:
    """Ratios of a busy machine: both sides with heavy tails, a tenth of them twice as slow."""
    random = Random(seed)

    def seconds() -> float:
        return random.lognormvariate(0, 0.05) * (2 if random.random() < 0.1 else 1)

    return [ratio * seconds() / seconds() for _ in range(25)]


def test_a_planted_slowdown_is_found_in_noise() -> None:
    equal = {str(seed): noisy(1.0, seed) for seed in range(40)}
    assert paired.slower(equal) == []
    assert len(paired.slower({seed: noisy(1.25, int(seed)) for seed in equal})) == 40


class Fake:
    """A worker whose runs take a second, and which counts."""

    def __init__(self) -> None:
        self.log: list[int] = []

    def machine(self) -> dict[str, str]:
        return {}

    def ask(self, cell: str, repeats: int = 0, seconds: float = 0.0) -> float:
        self.log += [repeats] * (repeats > 0)
        return repeats or 13


@pytest.mark.parametrize(("handicap", "status"), [("0", 0), ("0.02", 0), ("0.1", 1)])
def test_a_handicap_is_more_work_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], handicap: str, status: int
) -> None:
    made: list[dict[str, Fake]] = []

    @contextmanager
    def workers(where: Any, threads: int) -> Iterator[dict[str, Fake]]:
        made.append({"old": Fake(), "new": Fake()})
        yield made[-1]

    monkeypatch.setattr(ab, "workers", workers)
    options = {"cells": ("one", "two"), "pairs": 15, "rounds": 5, "threads": 1, "seconds": 1.0}
    found = ab.compare({}, SimpleNamespace(**options, handicap=Fraction(handicap)))  # type: ignore[arg-type]
    assert len(made) == 3
    assert all(len(side.log) == 10 for pair in made for side in pair.values())
    assert all(t["new"] / t["old"] == 1 + float(handicap) for t in found["two"])
    assert ab.report(found) == status
    out = capsys.readouterr().out
    assert ("slower than 1.03: one, two" in out) == bool(status)
    assert out.count("SLOWER") == 2 * status


def test_wheels_are_told_from_directories(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no pulseline; use a wheel or"):
        ab.installed(tmp_path, tmp_path)
    (tmp_path / "pulseline").mkdir()
    assert ab.installed(tmp_path, tmp_path) == tmp_path.resolve()


@pytest.mark.parametrize("cell", ab_cells.CELLS)
def test_cells_run(cell: str) -> None:
    run = ab_cells.build(cell)
    assert ab_cells.measure(run, 2, iter([3.0, 5.0]).__next__) == 2.0


def test_there_are_twelve_cells() -> None:
    assert len(set(ab_cells.CELLS)) == 12


def test_calibration_reaches_the_time() -> None:
    now = [0.0]

    def work() -> None:
        now[0] += 1e-4

    repeats = ab_cells.calibrate(work, 0.02, lambda: now[0])
    assert 200 <= repeats <= 1.2 * 200
