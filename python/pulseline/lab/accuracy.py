"""``accuracy``: training of an 8-layer network under three schedules, each at its best step.

One 8-layer network (``deep.py``) on M = 8 stages, one sample per micro-batch: sequential,
synchronous with B = 8, 16, 32, 64 micro-batches per mini-batch, asynchronous, and the latter on
fewer stages. Every method is trained with every step of a grid; for each target the one with the
fewest samples, mean over seeds, is taken. Samples to a target become

* clock cycles of the steady state: 2 M per sample sequential, 2 (B+M-1)/B synchronous, 2
  asynchronous;
* modelled time by ``hardware.formulas``, with the pulse slots that the very run counted.

Without staleness the cut into stages changes no bit, and the B pulsed updates at a flush are those
of one micro-batch of B samples, so these two are trained on one stage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from .. import cost
from ..data import DataSet, load_digits
from ..hardware import asynchronous_ns, sequential_ns, synchronous_ns
from ..pipeline.split import split
from ..schedules import asynchronous, sequential
from . import deep
from .draw import bars, new_figure
from .engine import Seeds, Settings, Summary
from .mutants import Mutant, Row, Rows, plus, times
from .report import table
from .rows import column, number, select
from .statistics import Cell, Interval, Verdict, crossing, decide, geometric, interval

__all__ = ["SWEEP_NS", "UNITS", "Accuracy", "Method"]

SWEEP_NS = (3.0, 10.0, 31.0, 100.0, 310.0, 1000.0, 3100.0)  # t_U of the figure and its table


class Method(NamedTuple):
    """A schedule on so many stages; ``batch``: B, micro-batches per update."""

    schedule: str
    stages: int
    batch: int = 1

    def __str__(self) -> str:
        if self.schedule == "synchronous":
            return f"synchronous, B = {self.batch}"
        return (
            self.schedule if self.schedule == "sequential" else f"asynchronous, M = {self.stages}"
        )


@dataclass(frozen=True)
class Accuracy(Settings):
    """``steps_of_a`` per sample; ``batches``: B; ``fewer``: M of more asynchronous runs.

    ``compared``: a small step at which, as at the first of the others, sequential and asynchronous
    training are compared at equal samples, over the tests of the last ``late`` part of a run.
    ``losses``: targets, loss over all training images.

    Raises:
        ConfigError: a number is negative or not finite, or the network has fewer layers.
    """

    seeds: Seeds = 8
    stages: int = 8
    fewer: tuple[int, ...] = (2, 4)
    batches: tuple[int, ...] = (8, 16, 32, 64)
    steps_of_a: tuple[float, ...] = (0.002, 0.004, 0.008, 0.016)
    compared: float = 0.001
    epochs: int = 2
    per_epoch: int = 16
    losses: tuple[float, ...] = (0.7, 0.5, 0.35)
    late: float = 0.5

    name: ClassVar[str] = "accuracy"
    title: ClassVar[str] = "Samples, clock cycles and modelled time to a training loss"

    def __post_init__(self) -> None:
        super().__post_init__()
        deep.check_stages("stages", (self.stages, *self.fewer))

    def quick(self) -> Accuracy:
        """Three seeds, one epoch, fewer steps and B."""
        return replace(
            self,
            seeds=3,
            fewer=(),
            batches=(8, 32),
            steps_of_a=(0.004, 0.008),
            epochs=1,
            losses=(1.0, 0.7),
        )

    def methods(self) -> list[Method]:
        """Everything that is trained."""
        return [
            Method("sequential", 1),
            *(Method("synchronous", 1, b) for b in self.batches),
            *(Method("asynchronous", m) for m in (*self.fewer, self.stages)),
        ]

    def grid(self, method: Method) -> tuple[float, ...]:
        """The steps with which a method is trained."""
        both = method in (self.plain, self.stale)
        return (self.compared, *self.steps_of_a) if both else self.steps_of_a

    def steps(self) -> int:
        return sum(len(self.grid(method)) for method in self.methods())

    def run(self, seeds: Sequence[int]) -> Iterator[Row]:
        data = load_digits()
        for seed in seeds:
            for method in self.methods():
                for a in self.grid(method):
                    yield {"seed": seed, **self._row(data, seed, method, a)}

    def _row(self, data: DataSet, seed: int, method: Method, a: float) -> Row:
        model = deep.network(seed)
        for array in cost.arrays([model]):
            array.count_pulses()
        plan = asynchronous() if method.schedule == "asynchronous" else sequential()
        pipe = deep.pipeline(model, method.stages, a, method.batch, plan)
        points = list(deep.train(pipe, data, seed, self.epochs, self.per_epoch))
        on = method.stages if method.schedule == "asynchronous" else self.stages
        costs = cost.stage_costs(split(model, on))
        slowest = max((cost.times() for cost in costs), key=sum)
        late = points[-max(1, round(self.late * len(points))) :]
        losses = [point.loss for point in points]
        samples = [float(point.samples) for point in points]
        return {
            "schedule": method.schedule,
            "stages": method.stages,
            "batch": method.batch,
            "a": a,
            **{f"to_{loss:g}": crossing(samples, losses, loss) for loss in self.losses},
            "accuracy": sum(point.accuracy for point in late) / len(late),
            "loss": sum(point.loss for point in late) / len(late),
            **dict(zip(("t_f", "t_b", "t_u"), slowest, strict=True)),
            "losses": " ".join(f"{loss:.3f}" for loss in losses),
        }

    # ---- from rows to numbers ----

    def of(self, rows: Rows, method: Method, a: float | None = None) -> Rows:
        """The rows of a method, by seed and step."""
        mine = select(rows, schedule=method.schedule, stages=method.stages, batch=method.batch)
        return mine if a is None else select(mine, a=a)

    def best(self, rows: Rows, method: Method, loss: float) -> float | None:
        """The step with the fewest samples to a loss, mean over seeds; all must reach it."""
        means: dict[float, float] = {}
        for a in self.grid(method):
            found = [row[f"to_{loss:g}"] for row in self.of(rows, method, a)]
            if found and None not in found:
                means[a] = sum(float(one) for one in found if isinstance(one, (int, float)))
        return min(means, key=lambda a: means[a]) if means else None

    def to(self, rows: Rows, method: Method, loss: float, unit: str) -> list[float]:
        """Samples, cycles or ns to a loss at the best step, by seed; empty: not reached."""
        a = self.best(rows, method, loss)
        if a is None:
            return []
        mine = self.of(rows, method, a)
        each = [self.price(row, method, unit) for row in mine]
        return [n * one for n, one in zip(column(mine, f"to_{loss:g}"), each, strict=True)]

    def price(self, row: Row, method: Method, unit: str, t_u: float | None = None) -> float:
        """Samples, clock cycles or ns of one sample in the steady state."""
        m, b = self.stages, method.batch
        times_ = (
            number(row, "t_f"),
            number(row, "t_b"),
            number(row, "t_u") if t_u is None else t_u,
        )
        if method.schedule == "sequential":
            prices = (1.0, 2.0 * m, sequential_ns(m, *times_))
        elif method.schedule == "synchronous":
            prices = (1.0, 2.0 * (b + m - 1) / b, synchronous_ns(m, b, *times_))
        else:
            prices = (1.0, 2.0, asynchronous_ns([times_]))
        return dict(zip(UNITS, prices, strict=True))[unit]

    def gain(self, rows: Rows, loss: float, unit: str, over: Sequence[Method]) -> list[float]:
        """Best of these methods over asynchronous training on all stages, seed by seed."""
        own = self.to(rows, self.stale, loss, unit)
        others = [found for one in over if (found := self.to(rows, one, loss, unit))]
        if not own or not others:
            return []
        best = min(others, key=sum)
        return [other / mine for other, mine in zip(best, own, strict=True)]

    def pooled(self, rows: Rows, unit: str, over: Sequence[Method]) -> list[float]:
        """Geometric mean of the gain over the losses that were reached, by seed."""
        found = [gain for loss in self.losses if (gain := self.gain(rows, loss, unit, over))]
        return [math.prod(one) ** (1 / len(one)) for one in zip(*found, strict=True)]

    @property
    def stale(self) -> Method:
        """The asynchronous method on all stages."""
        return Method("asynchronous", self.stages)

    @property
    def plain(self) -> Method:
        """The sequential method."""
        return Method("sequential", 1)

    @property
    def synchronous(self) -> list[Method]:
        """The synchronous methods, one per number of micro-batches."""
        return [one for one in self.methods() if one.schedule == "synchronous"]

    # ---- what they say ----

    def summarise(self, rows: Rows) -> Summary:
        cells, final = [], []
        for method in self.methods():
            for loss in self.losses:
                a = self.best(rows, method, loss)
                found = [self.to(rows, method, loss, unit) for unit in UNITS]
                inside = a is not None and self.grid(method)[0] < a < self.steps_of_a[-1]
                step = "not reached" if a is None else f"{a:g}{'' if inside else ' (edge)'}"
                cells.append([method, f"{loss:g}", step, *(_mean(one) for one in found)])
            for a in self.grid(method):
                mine = self.of(rows, method, a)
                numbers = [interval(column(mine, of)) for of in ("loss", "accuracy", "t_u")]
                final.append([method, f"{a:g}", *numbers])
        sweep = [[f"{t:g}", *(_mean_gain(one) for one in self._sweep(rows, t))] for t in SWEEP_NS]
        row = self.of(rows, self.stale)[0]
        passes = number(row, "t_f") + number(row, "t_b")
        text = "\n\n".join(
            [
                f"M: stages ({self.stages} where nothing is said); B: micro-batches per "
                "synchronous update; a: step per sample. At each method's best step, means over "
                "seeds, in the steady state:",
                table(["method", "loss", "best a", "samples", "cycles", "modelled us"], cells),
                f"Modelled time takes the pulse slots that the run counted. Passes take "
                f"{passes:g} ns per sample and stage. Gain over sequential and over the best "
                f"synchronous training to loss {self.losses[-1]:g} if an update took t_U instead; "
                "limit: (M (t_F + t_B) + t_U) / (t_F + t_B + t_U):",
                table(["t_U (ns)", "over sequential", "over synchronous", "limit"], sweep),
                f"Last {self.late:.0%} of each run: training loss, test accuracy (%), t_U (ns):",
                table(["method", "a", "loss", "accuracy", "t_U"], final),
            ]
        )
        return Summary(text, self._verdicts(rows))

    def _sweep(self, rows: Rows, t_u: float) -> tuple[list[float], list[float], list[float]]:
        """Gains by seed at a given t_U, and the limit."""
        loss = self.losses[-1]
        found = []
        for over in ([self.plain], self.synchronous):
            priced = [self._priced(rows, method, loss, t_u) for method in (self.stale, *over)]
            others = [one for one in priced[1:] if one]
            best = min(others, key=sum) if others else []
            found.append([b / a for a, b in zip(priced[0], best, strict=False)])
        row = self.of(rows, self.stale)[0]
        limit = [self.price(row, one, "ns", t_u) for one in (self.plain, self.stale)]
        return found[0], found[1], [limit[0] / limit[1]]

    def _priced(self, rows: Rows, method: Method, loss: float, t_u: float) -> list[float]:
        samples = self.to(rows, method, loss, "samples")
        a = self.best(rows, method, loss)
        mine = self.of(rows, method, a) if samples else []
        pairs = zip(samples, mine, strict=True)
        return [n * self.price(row, method, "ns", t_u) for n, row in pairs]

    def _verdicts(self, rows: Rows) -> list[Verdict]:
        gains = {
            unit: [Cell("all losses", self.pooled(rows, unit, over))]
            for unit, over in (("cycles", self.synchronous), ("ns", [self.plain]))
        }
        low = (self.compared, self.steps_of_a[0])
        where = f"M = {self.stages}, a = {low[0]:g} and {low[1]:g}"
        pairs = [
            list(zip(self.of(rows, self.stale, a), self.of(rows, self.plain, a), strict=True))
            for a in low
        ]
        together = list(zip(*pairs, strict=True))
        points = [
            sum(number(s, "accuracy") - number(p, "accuracy") for s, p in both) / len(both)
            for both in together
        ]
        ratios = [
            math.prod(number(s, "loss") / number(p, "loss") for s, p in both) ** (1 / len(both))
            for both in together
        ]
        return [
            decide(
                "accuracy",
                "at equal samples and small steps asynchronous test accuracy is within .6 points "
                "of sequential",
                [Cell(where, points)],
                -0.6,
                0.6,
            ),
            decide(
                "loss",
                "at equal samples and small steps asynchronous training loss is within 5 % of "
                "sequential",
                [Cell(where, ratios)],
                1 / 1.05,
                1.05,
                ratios=True,
            ),
            decide(
                "synchronous",
                "at its best step asynchronous training reaches the losses in fewer clock cycles "
                "than synchronous training at its best B and step",
                gains["cycles"],
                1.0,
                ratios=True,
            ),
            decide(
                "time",
                f"in modelled time it reaches them at least {self.stages / 2:g} times sooner "
                "than sequential training at its best step",
                gains["ns"],
                self.stages / 2,
                ratios=True,
            ),
        ]

    def mutants(self) -> Sequence[Mutant]:
        stale: dict[str, Any] = {"schedule": "asynchronous", "stages": self.stages}
        to = [f"to_{loss:g}" for loss in self.losses]
        return (
            Mutant("accuracy", "asynchronous accuracy - 1 point", plus("accuracy", -1.0, **stale)),
            Mutant("loss", "asynchronous loss x 1.1", times("loss", 1.1, **stale)),
            Mutant("synchronous", "asynchronous samples to a loss x 3", times(to, 3.0, **stale)),
            Mutant("time", "asynchronous samples to a loss x 3", times(to, 3.0, **stale)),
            Mutant("time", "updates of 31 slots of 50 ns", times("t_u", 3100.0, 0.0)),
        )

    def figure(self, rows: Rows) -> Any:
        figure, (samples, cycles, sweep) = new_figure("Three schedules, each at its best step", 3)
        ends = [self.plain, *self.synchronous, self.stale]
        count = len(str(rows[0]["losses"]).split())
        x = [1437 * self.epochs * (n + 1) / count for n in range(count)]
        for n, method in enumerate(ends):
            a = self.best(rows, method, self.losses[-1])
            if a is None:
                continue
            mine = self.of(rows, method, a)
            curves = [[float(v) for v in str(row["losses"]).split()] for row in mine]
            found = [interval(values) for values in zip(*curves, strict=True)]
            name = f"{method}, a = {a:g}"
            for axes, price in ((samples, 1.0), (cycles, self.price(mine[0], method, "cycles"))):
                bars(axes, [price * k for k in x], found, "-", color=f"C{n}", label=name)
        samples.set_xlabel("samples")
        cycles.set_xlabel(f"clock cycles of {self.stages} stages, steady state")
        cycles.set_xscale("log")
        gains = [self._sweep(rows, t) for t in SWEEP_NS]
        names = ("over sequential", "over the best synchronous", "limit")
        for k, (name, style) in enumerate(zip(names, ("o-", "s-", "k--"), strict=True)):
            known = [
                (t, geometric(one[k])) for t, one in zip(SWEEP_NS, gains, strict=True) if one[k]
            ]
            if name == "limit":
                sweep.plot([t for t, _ in known], [g.mean for _, g in known], style, label=name)
            else:
                bars(sweep, [t for t, _ in known], [g for _, g in known], style, label=name)
        counted = number(self.of(rows, self.stale)[0], "t_u")
        sweep.axvline(counted, color="0.6", label=f"counted, {counted:.3g} ns")
        sweep.set_xscale("log")
        sweep.set_xlabel("t_U, time of an update (ns)")
        sweep.set_ylabel(f"gain in modelled time to loss {self.losses[-1]:g}")
        for axes in (samples, cycles):
            axes.set_ylabel("training loss")
            axes.set_yscale("log")
        for axes in (samples, cycles, sweep):
            axes.legend(fontsize=7)
        return figure


UNITS = ("samples", "cycles", "ns")


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):,.0f}" if values else "-"


def _mean_gain(values: list[float]) -> Interval | str:
    if not values:
        return "-"
    return geometric(values) if len(values) > 1 else f"{values[0]:.2f}"
