"""``staleness-algorithms``: algorithms under stale weights, and how fast choppers may flip.

The digits on 64-128-128-64-10, a layer a stage, default device, M = 4: the first stage works with
weights that are 3 micro-batches old. Sequential and asynchronous training are compared at the same
seed and rates (``tuned.py``, "deep").

Why chopping is special: a flip throws the fast array to the other side of its reference, a
full-scale transient through a loop that is delayed by the staleness. The
period of a chopper over the staleness, both in samples, in the worst layer, is swept for each
algorithm that chops, and the least ratio that costs at most ``allowed`` points is fitted: linear in
log(ratio) between the means, with a bootstrap over seeds. Two micro-batches tell whether the ratio
is what counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ..algorithms import Transfer
from ..data import DataSet, load_digits
from ..devices import SoftBounds
from ..pipeline.cautions import LEAST_PERIODS
from ..schedules import asynchronous
from . import claims_of_staleness as claims
from .claims_of_staleness import CHOPPED
from .draw import bars, new_figure, plain_ticks
from .engine import Seeds, Settings, Summary
from .mutants import Mutant, Row, Rows
from .nets import DEEP, Course, accuracy
from .report import table
from .rows import column, select
from .statistics import Interval, interval, resampled
from .tuned import NAMES, Tuned, crossbar_of, tuned

__all__ = ["SCHEDULES", "StaleAlgorithms", "chop_of", "settles"]

SCHEDULES = {"sequential": 1, "async": 4}


@dataclass(frozen=True)
class StaleAlgorithms(Settings):
    """``batches``: of the table; ``epochs`` of ``images``; fewer with one sample a micro-batch.

    ``ratios``: chop periods over staleness, for micro-batches ``swept``. ``allowed``: points.
    """

    seeds: Seeds = 10
    batches: tuple[int, ...] = (1, 8, 32)
    epochs: int = 12
    epochs_of_one: int = 3
    images: int = 1437
    ratios: tuple[float, ...] = (8.0, 16.0, 32.0, 64.0, 128.0)  # whole sweeps
    swept: tuple[int, ...] = (16, 32)
    allowed: float = 2.0

    name: ClassVar[str] = "staleness-algorithms"
    title: ClassVar[str] = "Algorithms under stale weights, and how fast choppers may flip"

    def quick(self) -> StaleAlgorithms:
        """Two seeds, one epoch of some images, fewer micro-batches and ratios."""
        few = {"seeds": 2, "epochs": 1, "images": 320}
        return replace(self, batches=(8, 32), ratios=self.ratios[::4], swept=self.swept[1:], **few)

    def steps(self) -> int:
        swept = len(CHOPPED) * len(self.ratios) * len(self.swept)
        return len(SCHEDULES) * (len(NAMES) * len(self.batches) + swept)

    def run(self, seeds: Sequence[int]) -> Iterator[Row]:
        data, rules = load_digits(self.images), tuned("deep")
        for seed in seeds:
            for batch in self.batches:
                for name in NAMES:
                    yield from self._rows(data, seed, name, rules[name], batch, None)
            for batch in self.swept:
                for name in CHOPPED:
                    for ratio in self.ratios:
                        one = rules[name]
                        chop = chop_of(one, batch, ratio)
                        rule: Any = replace(one.rule, chop=chop)  # type: ignore[type-var]
                        swept = one._replace(rule=rule)
                        yield from self._rows(data, seed, name, swept, batch, ratio)

    def _rows(
        self, data: DataSet, seed: int, name: str, one: Tuned, batch: int, ratio: float | None
    ) -> Iterator[Row]:
        epochs = self.epochs_of_one if batch == 1 else self.epochs
        for schedule, stages in SCHEDULES.items():
            course = Course(DEEP, stages, batch, epochs)
            yield {
                "seed": seed,
                "algorithm": name,
                "batch": batch,
                "ratio": ratio,
                "chop": getattr(one.rule, "chop", None),
                "schedule": schedule,
                "accuracy": accuracy(crossbar_of(one, SoftBounds()), one.lr, course, data, seed),
            }

    # ---- from rows to numbers ----

    def loss(self, rows: Rows, name: str, batch: int, ratio: float | None = None) -> list[float]:
        """Points that asynchronous training lies below sequential, by seed."""
        mine = select(rows, algorithm=name, batch=batch, ratio=ratio)
        pair = (column(select(mine, schedule=s), "accuracy") for s in SCHEDULES)
        return [round(plain - stale, 9) for plain, stale in zip(*pair, strict=True)]

    def least(self, rows: Rows, name: str, batch: int) -> Interval:
        """The least ratio that costs at most ``allowed`` points, with 95 % of the bootstrap."""
        losses = np.array([self.loss(rows, name, batch, ratio) for ratio in self.ratios])
        return resampled(losses, lambda means: settles(self.ratios, means, self.allowed))

    # ---- what they say ----

    def summarise(self, rows: Rows) -> Summary:
        head = ["algorithm"]
        for batch in self.batches:
            head += [f"mb {batch}: sequential", "async", "lost"]
        cells: list[list[object]] = []
        for name in NAMES:
            line: list[object] = [name]
            for batch in self.batches:
                mine = select(rows, algorithm=name, batch=batch, ratio=None)
                line += [interval(column(select(mine, schedule=s), "accuracy")) for s in SCHEDULES]
                line.append(interval(self.loss(rows, name, batch)))
            cells.append(line)
        swept = [
            [name, b, *(interval(self.loss(rows, name, b, r)) for r in self.ratios)]
            for name in CHOPPED
            for b in self.swept
        ]
        kept = [
            [name, b, *(f"{self._mean(rows, name, b, r):.1f}" for r in self.ratios)]
            for name in CHOPPED
            for b in self.swept
        ]
        fits = [[name, *(self.least(rows, name, b) for b in self.swept)] for name in CHOPPED]
        ratios = [f"{ratio:g}" for ratio in self.ratios]
        short = f", {self.epochs_of_one} where it is of one sample" if 1 in self.batches else ""
        text = "\n\n".join(
            [
                f"Test accuracy (%), mean of the last three of {self.epochs} epochs{short}, by "
                "samples of a micro-batch (mb); and points lost:",
                table(head, cells),
                "Points lost to staleness over the ratio of chop period to staleness in the worst "
                "layer, with chop set for it:",
                table(["algorithm", "mb", *ratios], swept),
                "Accuracy of sequential training with the same choppers (%):",
                table(["algorithm", "mb", *ratios], kept),
                f"Least ratio that costs at most {self.allowed:g} points (95 % of a bootstrap over "
                f"seeds; at the ends of the sweep it is cut off). The pipeline warns below "
                f"{LEAST_PERIODS}:",
                table(["algorithm", *(f"mb {b}" for b in self.swept)], fits),
            ]
        )
        return Summary(text, claims.verdicts(self, rows))

    def _mean(self, rows: Rows, name: str, batch: int, ratio: float) -> float:
        mine = select(rows, algorithm=name, batch=batch, ratio=ratio, schedule="sequential")
        return sum(column(mine, "accuracy")) / len(mine)

    def mutants(self) -> Sequence[Mutant]:
        return claims.mutants(self)

    def figure(self, rows: Rows) -> Any:
        figure, (table_axis, sweep) = new_figure("Algorithms under stale weights, M = 4")
        for n, name in enumerate(NAMES):
            found = [interval(self.loss(rows, name, b)) for b in self.batches]
            style = f"C{n}{'o-' if name in CHOPPED else 'x--'}"
            bars(table_axis, [float(b) for b in self.batches], found, style, label=name)
        table_axis.set_xlabel("samples of a micro-batch")
        table_axis.set_ylabel("points lost to staleness")
        table_axis.set_xscale("log")
        plain_ticks(table_axis.xaxis, self.batches)
        table_axis.legend(fontsize=7)
        for n, name in enumerate(CHOPPED):
            for b, line in zip(self.swept, ("o-", "x--"), strict=False):
                found = [interval(self.loss(rows, name, b, r)) for r in self.ratios]
                bars(sweep, list(self.ratios), found, f"C{n}{line}", label=f"{name}, mb {b}")
        sweep.axhline(self.allowed, color="0.6", linewidth=1, linestyle=":")
        sweep.set_xlabel("chop period / staleness, worst layer")
        sweep.set_xscale("log")
        plain_ticks(sweep.xaxis, self.ratios)
        sweep.legend(fontsize=7)
        return figure


def chop_of(one: Tuned, batch: int, ratio: float) -> float:
    """The chop at which the period is so many times the staleness, where that is worst.

    Args:
        one: the algorithm. batch: samples of a micro-batch. ratio: asked for.
    """
    rule = one.rule
    assert isinstance(rule, Transfer)
    stages = SCHEDULES["async"]
    stale = [asynchronous().staleness(stages, m) * batch for m in range(1, stages + 1)]
    least = min(
        cols * rule.every / rule.reads / s for cols, s in zip(DEEP, stale, strict=False) if s
    )
    return least / ratio


def settles(x: Sequence[float], y: Sequence[float], level: float) -> float:
    """Least x from which on y, linear in log x, stays at or below ``level``; an end if none is.

    Args:
        x: ascending. y: at each. level: not to be passed.
    """
    above = [n for n, value in enumerate(y) if value > level]
    if not above:
        return x[0]
    n = above[-1]
    if n == len(x) - 1:
        return x[-1]
    part = (y[n] - level) / (y[n] - y[n + 1])
    return float(x[n] * (x[n + 1] / x[n]) ** part)
