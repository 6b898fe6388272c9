"""``speedup``: time-to-loss speed-up against M, from the runs of ``accuracy``.

Per target and M, asynchronous over sequential training on M stages, each at its best step:
M x (samples to the loss, sequential / asynchronous), the steady state of the published definition
(arXiv 2410.15155 counts epochs to an accuracy instead of samples). M = 1 is sequential training.
The best synchronous training has B M / (B + M - 1) in the place of M. Beside them the published
bars, measured from pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from .accuracy import Accuracy, Method
from .clock import PIXELS, PUBLISHED_SYNC
from .draw import bars, new_figure
from .engine import Seeds, Summary
from .mutants import Mutant, Row, Rows, times
from .report import table
from .statistics import Cell, Verdict, decide, geometric

__all__ = ["LEAST", "PUBLISHED_ASYNC", "Speedup"]

PUBLISHED_ASYNC = {2: 1.885, 4: 3.92, 8: 7.54, 12: 5.82, 16: 7.76}
LEAST = 0.6


@dataclass(frozen=True)
class Speedup:
    """``runs``: the experiment that trains. ``drawn``: largest M of the closed forms drawn."""

    runs: Accuracy = field(default_factory=Accuracy)
    drawn: int = 16

    name: ClassVar[str] = "speedup"
    title: ClassVar[str] = "Time-to-loss speed-up against the number of stages"
    group: ClassVar[int] = 1

    @property
    def seeds(self) -> Seeds:
        """Seeds of the source."""
        return self.runs.seeds

    @property
    def source(self) -> Accuracy:
        return self.runs

    def with_seeds(self, seeds: int | Sequence[int]) -> Speedup:
        """The same with so many seeds, or with these."""
        return replace(self, runs=self.runs.with_seeds(seeds))

    def with_settings(self, values: Mapping[str, Any]) -> Speedup:
        """The same with other settings of the runs, by field."""
        return replace(self, runs=self.runs.with_settings(values))

    def quick(self) -> Speedup:
        """The quick runs."""
        return replace(self, runs=self.runs.quick())

    def steps(self) -> int:
        return self.runs.steps()

    def run(self, seeds: Sequence[int]) -> Iterator[Row]:
        return self.runs.run(seeds)

    def _several(self) -> list[int]:
        return [*self.runs.fewer, self.runs.stages]

    def _ratio(self, rows: Rows, method: Method, loss: float) -> list[float]:
        """Samples to the loss, sequential / method, by seed; empty: not reached."""
        pair = [self.runs.to(rows, one, loss, "samples") for one in (self.runs.plain, method)]
        return [a / b for a, b in zip(*pair, strict=True)] if all(pair) else []

    def _of(self, rows: Rows, stages: int, loss: float) -> list[float]:
        """Speed-up on so many stages, by seed."""
        ratios = self._ratio(rows, Method("asynchronous", stages), loss)
        return [stages * ratio for ratio in ratios]

    def _pooled(self, rows: Rows, stages: int) -> list[float]:
        """Geometric mean over the losses that were reached, by seed."""
        found = [one for loss in self.runs.losses if (one := self._of(rows, stages, loss))]
        return [math.prod(one) ** (1 / len(one)) for one in zip(*found, strict=True)]

    def _synchronous(self, rows: Rows, stages: int, loss: float) -> list[float]:
        """The best B's speed-up, by seed."""
        found = [
            [stages * b / (stages + b - 1) * ratio for ratio in self._ratio(rows, method, loss)]
            for method in self.runs.synchronous
            for b in (method.batch,)
        ]
        return max(found, key=sum, default=[])

    def summarise(self, rows: Rows) -> Summary:
        several = self._several()
        cells = []
        for loss in self.runs.losses:
            for name, of in (("asynchronous", self._of), ("best synchronous", self._synchronous)):
                found = [of(rows, m, loss) for m in several]
                numbers = [geometric(one) if one else "not reached" for one in found]
                cells.append([f"{loss:g}", name, *numbers])
        published = [
            [m, bar, f"{bar / m:.3f}", PUBLISHED_SYNC[m], f"{8 * m / (m + 7):.3f}"]
            for m, bar in PUBLISHED_ASYNC.items()
        ]
        text = "\n\n".join(
            [
                "Over sequential training (M = 1), each method at its best step:",
                table(["loss", "training", *(f"M = {m}" for m in several)], cells),
                f"The published chart, heights from pixels (+-{PIXELS:g}):",
                table(["M", "asynchronous", "/ M", "synchronous", "8M/(M+7)"], published),
                "Its synchronous bars are the schedule alone, 8M/(M+7): the same epochs as "
                "sequential training. Its asynchronous bars are M times the ratio of epochs: .943 "
                "or .98 up to M = 8, .485 at 12 and 16, which these experiments do not reach.",
            ]
        )
        return Summary(text, self._verdicts(rows))

    def _verdicts(self, rows: Rows) -> list[Verdict]:
        return [
            decide(
                f"stages_{m}",
                f"on {m} stages asynchronous training is at least {LEAST * m:g} times as fast as "
                f"sequential training ({LEAST:g} M), each at its best step",
                [Cell("all losses", self._pooled(rows, m))],
                LEAST * m,
                ratios=True,
            )
            for m in self._several()
        ]

    def mutants(self) -> Sequence[Mutant]:
        to = [f"to_{loss:g}" for loss in self.runs.losses]
        return tuple(
            Mutant(
                f"stages_{m}",
                "asynchronous samples x 3",
                times(to, 3.0, schedule="asynchronous", stages=m),
            )
            for m in self._several()
        )

    def figure(self, rows: Rows) -> Any:
        figure, (ours, theirs) = new_figure("Time-to-loss speed-up over sequential training")
        several = self._several()
        for n, loss in enumerate(self.runs.losses):
            for name, of, style in (
                ("asynchronous", self._of, "o-"),
                ("best synchronous", self._synchronous, "s--"),
            ):
                known = [(m, geometric(found)) for m in several if (found := of(rows, m, loss))]
                x = [1, *(m for m, _ in known)]
                found_ = [geometric([1.0, 1.0]), *(one for _, one in known)]
                bars(ours, x, found_, f"C{n}{style}", label=f"{name}, loss {loss:g}")
        stages = list(range(1, self.drawn + 1))
        for axes, most in ((ours, max(several)), (theirs, self.drawn)):
            shown = stages[:most]
            axes.plot(shown, shown, color="0.6", linewidth=1, label="M")
            axes.plot(
                shown, [8 * m / (m + 7) for m in shown], "k:", label="8M/(M+7), schedule alone"
            )
        ours.set_title("measured, steady state, 95 % intervals", fontsize=10)
        for shift, colour, name, chart in (
            (-0.4, "C1", "synchronous", PUBLISHED_SYNC),
            (0.4, "C0", "asynchronous", PUBLISHED_ASYNC),
        ):
            at = [m + shift for m in chart]
            theirs.bar(at, list(chart.values()), 0.8, yerr=PIXELS, color=colour, label=name)
        theirs.set_title("published, epochs to target (from pixels)", fontsize=10)
        for axes in (ours, theirs):
            axes.set_xlabel("stages M")
            axes.set_ylabel("speed-up over sequential training")
            axes.legend(fontsize=7)
        return figure
