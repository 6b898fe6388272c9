"""``speedup``: time-to-accuracy speed-up against M, from the runs of ``accuracy``.

Two numbers per target and M, asynchronous over sequential training:

* steady state: M x (samples to target, sequential / asynchronous), the published definition
  (arXiv 2410.15155 counts epochs instead of samples);
* whole run: clock cycles to target, sequential / asynchronous, filling and draining included.

The synchronous pipeline has 8M/(M+7) in the place of M. Beside them the published bars.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from .accuracy import Accuracy, goal_name
from .clock import PUBLISHED_SYNC
from .draw import new_figure
from .engine import Experiment, Row, Rows, Summary
from .report import table
from .rows import by_seed
from .statistics import Interval, Verdict, interval

PUBLISHED_ASYNC = {2: 1.885, 4: 3.92, 8: 7.54, 12: 5.82, 16: 7.76}
LEAST = 0.9


@dataclass(frozen=True)
class Speedup:
    """``runs``: the experiment that trains. ``stages``: largest M of the closed forms drawn."""

    runs: Accuracy = field(default_factory=Accuracy)
    stages: int = 16

    name = "speedup"
    title = "Time-to-accuracy speed-up against the number of stages"
    seeded = True

    def quick(self) -> Speedup:
        """The quick runs."""
        return replace(self, runs=self.runs.quick())

    @property
    def source(self) -> Experiment:
        return self.runs

    def steps(self) -> int:
        return self.runs.steps()

    def run(self, seed: int) -> Iterator[Row]:
        return self.runs.run(seed)

    def _pooled(self, rows: Rows, stages: int, unit: str, method: str) -> Interval:
        """Geometric mean over all targets of sequential / method; one number per seed."""
        found = []
        for one in by_seed(rows):
            gains = [
                gain.mean
                for goal in self.runs.goals()
                if (gain := self.runs.gain(one, stages, goal, unit, method)) is not None
            ]
            if gains:
                found.append(math.exp(sum(map(math.log, gains)) / len(gains)))
        return interval(found)

    def _several(self) -> list[int]:
        return [m for m in self.runs.stages if m > 1]

    def summarise(self, rows: Rows) -> Summary:
        several = self._several()
        cells: list[list[object]] = []
        for goal in self.runs.goals():
            gains = [(m, self.runs.gain(rows, m, goal, "samples", "asynchronous")) for m in several]
            cells.append([goal_name(goal), "steady state", *(_scaled(g, m) for m, g in gains)])
        pooled = {m: self._pooled(rows, m, "samples", "asynchronous") for m in several}
        whole = {m: self._pooled(rows, m, "cycles", "asynchronous") for m in several}
        cells.append(["all targets", "steady state", *(_scaled(pooled[m], m) for m in several)])
        cells.append(["all targets", "whole run", *(whole[m] for m in several)])
        published = [
            [m, bar, f"{bar / m:.4f}", PUBLISHED_SYNC[m], f"{8 * m / (m + 7):.3f}"]
            for m, bar in PUBLISHED_ASYNC.items()
        ]
        text = "\n\n".join(
            [
                "Asynchronous over sequential training:",
                table(["target", "counted", *(f"M = {m}" for m in several)], cells),
                "The published chart:",
                table(["M", "asynchronous", "/ M", "synchronous", "8M/(M+7)"], published),
                "Its synchronous bars are the schedule alone, 8M/(M+7): the same epochs as "
                "sequential training. Its asynchronous bars are M times the ratio of epochs, "
                "whole numbers: .943 or .98 up to M = 8, .485 at 12 and 16, where stale training "
                "took about twice the epochs. Samples to target, interpolated between tests, show "
                "the same ratio without the rounding to epochs; how it falls with staleness times "
                "step is the subject of `cliff`.",
            ]
        )
        return Summary(text, self._verdicts(rows, pooled))

    def _verdicts(self, rows: Rows, pooled: dict[int, Interval]) -> list[Verdict]:
        whole = {m: self._pooled(rows, m, "cycles", "asynchronous") for m in pooled}
        sync = {m: self._pooled(rows, m, "cycles", "synchronous") for m in pooled}
        most = max(pooled)
        verdicts = [
            Verdict(
                f"samples_{m}",
                f"at M = {m} asynchronous training reaches {LEAST} M in samples to target",
                ratio.within(LEAST, math.inf),
                f"{_scaled(ratio, m)}, ratio of samples {ratio}",
            )
            for m, ratio in pooled.items()
        ]
        verdicts.append(
            Verdict(
                "cycles",
                f"in clock cycles, flushes for tests included, M = {most} beats the synchronous "
                "pipeline",
                whole[most].within(sync[most].high, math.inf),
                f"asynchronous {whole[most]}, synchronous {sync[most]}",
            )
        )
        return verdicts

    def figure(self, rows: Rows) -> Any:
        figure, (ours, theirs) = new_figure(
            "Time-to-accuracy speed-up: nearly M while staleness times step is small"
        )
        several = self._several()
        for of, shift, colour in (("accuracy", -0.1, "C2"), ("loss", 0.1, "C4")):
            goals = [goal for goal in self.runs.goals() if goal[0] == of]
            points = [
                (m + shift, m * gain.mean)
                for m in several
                for goal in goals
                if (gain := self.runs.gain(rows, m, goal, "samples", "asynchronous")) is not None
            ]
            ours.scatter(*zip(*points, strict=True), s=8, color=colour, label=f"{of} targets")
        pooled = [self._pooled(rows, m, "samples", "asynchronous") for m in several]
        ours.plot(
            several,
            [m * one.mean for m, one in zip(several, pooled, strict=True)],
            "k-",
            label="asynchronous, all targets",
        )
        synchronous = [
            8 * m / (m + 7) * self._pooled(rows, m, "samples", "synchronous").mean for m in several
        ]
        ours.plot(several, synchronous, "C1s-", label="synchronous, all targets")
        ours.plot([1, max(several)], [1, max(several)], color="0.6", linewidth=1, label="M")
        ours.set_title("measured, steady state", fontsize=10)
        stages = list(range(1, self.stages + 1))
        theirs.bar(
            [m - 0.4 for m in PUBLISHED_SYNC],
            list(PUBLISHED_SYNC.values()),
            0.8,
            color="C1",
            label="synchronous",
        )
        theirs.bar(
            [m + 0.4 for m in PUBLISHED_ASYNC],
            list(PUBLISHED_ASYNC.values()),
            0.8,
            color="C0",
            label="asynchronous",
        )
        theirs.plot(stages, stages, color="0.6", linewidth=1, label="M")
        theirs.plot(stages, [8 * m / (m + 7) for m in stages], "k--", label="8M/(M+7)")
        theirs.set_title("published, epochs to target", fontsize=10)
        for axes in (ours, theirs):
            axes.set_xlabel("stages M")
            axes.set_ylabel("speed-up over sequential training")
            axes.legend(fontsize=8)
        return figure


def _scaled(gain: Interval | None, factor: float) -> str:
    """An interval times a factor."""
    return "not reached" if gain is None else str(Interval(*(factor * value for value in gain)))
