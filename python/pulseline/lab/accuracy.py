"""``accuracy``: loss and accuracy against samples, clock cycles and modelled time, M = 1, 2, 4, 8.

One 8-layer network (``deep.py``) cut into M stages. Without staleness the cut changes no bit of
the training, so the sequential and the synchronous run are trained once and their clock counted
for every M; the asynchronous one is trained for every M. Every run is flushed and tested
``per_epoch`` times an epoch; the cycles that this fills and drains are counted, and shown apart.
Modelled time: stages of the default hardware, one micro-batch after the other by the schedule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from ..hardware import asynchronous_ns, sequential_ns
from ..pipeline import Schedule, modelled
from ..pipeline.schedule import named
from ..pipeline.split import split
from ..pipeline.timing import run_time
from . import deep, digits
from .draw import new_figure
from .engine import Experiment, Row, Rows, Summary
from .report import table
from .rows import by_seed, column, mean, number, select
from .statistics import Interval, Verdict, crossing, every, interval

METHODS = {"sequential": "sequential", "synchronous": "sync", "asynchronous": "async"}


@dataclass(frozen=True)
class Accuracy:
    """``a``: step per sample; ``batch``: samples per micro-batch; B micro-batches per sync update.

    ``targets`` in percent of test accuracy, ``losses`` of mean training loss between two tests.
    """

    stages: tuple[int, ...] = (1, 2, 4, 8)
    a: float = 0.002
    batch: int = 1
    micro_batches: int = 8
    epochs: int = 6
    per_epoch: int = 8
    targets: tuple[float, ...] = (65.0, 70.0, 75.0, 80.0, 85.0, 90.0)
    losses: tuple[float, ...] = (1.4, 1.2, 1.0, 0.85, 0.7, 0.6, 0.5)

    name = "accuracy"
    title = "Accuracy against samples, clock cycles and modelled time"
    seeded = True

    def quick(self) -> Accuracy:
        """Two epochs, targets that they reach."""
        return replace(self, epochs=2, targets=self.targets[:-1])

    @property
    def source(self) -> Experiment:
        return self

    def steps(self) -> int:
        return len(METHODS) * len(self.stages) * self.epochs * self.per_epoch

    def run(self, seed: int) -> Iterator[Row]:
        data = digits.load()
        for method, name in METHODS.items():
            plan = named(name, self.micro_batches)
            kept: list[deep.Point] = []
            for stages in self.stages:
                if name == "async" or not kept:
                    pipe = deep.pipeline(seed, stages, self.a, self.batch, plan)
                    kept = list(deep.train(pipe, data, seed, self.epochs, self.per_epoch))
                yield from self._rows(method, plan, stages, kept)

    def _rows(
        self, method: str, plan: Schedule, stages: int, points: list[deep.Point]
    ) -> Iterator[Row]:
        """Clock and modelled time of what was trained, on ``stages`` stages."""
        costs = modelled.stage_costs(split(deep.network(0), stages))
        times = [cost.times(self.batch) for cost in costs]
        known: dict[int, float] = {}
        cycles, micro_batches, total_ns = 0, 0, 0.0
        starts = [0, *(point.samples for point in points)]
        for point, (before, after) in zip(points, pairwise(starts), strict=True):
            count = -(-(after - before) // self.batch)
            if count not in known:
                known[count] = run_time(plan, times, [count])
            total_ns += known[count]
            cycles += plan.cycles(stages, count)
            micro_batches += count
            yield {
                "method": method,
                "stages": stages,
                "samples": point.samples,
                "cycles": cycles,
                "idle_cycles": cycles - 2 * micro_batches,
                "modelled_us": total_ns / 1000,
                "accuracy": point.accuracy,
                "loss": point.loss,
            }

    def to_target(self, rows: Rows, unit: str, target: float, of: str = "accuracy") -> float | None:
        """When one run gets to a target, interpolated between tests, in samples, cycles or us."""
        sign = -1.0 if of == "accuracy" else 1.0
        values = [sign * value for value in column(rows, of)]
        return crossing(column(rows, unit), values, sign * target)

    def goals(self) -> list[tuple[str, float]]:
        """Every target: (column, value)."""
        return [("accuracy", value) for value in self.targets] + [
            ("loss", value) for value in self.losses
        ]

    def gain(
        self, rows: Rows, stages: int, goal: tuple[str, float], unit: str, method: str
    ) -> Interval | None:
        """Sequential over ``method``, to the target, on the same stages; None if not reached."""
        of, target = goal
        found = []
        for one in by_seed(select(rows, stages=stages)):
            plain = self.to_target(select(one, method="sequential"), unit, target, of)
            other = self.to_target(select(one, method=method), unit, target, of)
            if plain is None or other is None:
                return None
            found.append(plain / other)
        return interval(found)

    def summarise(self, rows: Rows) -> Summary:
        most = self.stages[-1]
        last = [
            [
                method,
                *(
                    interval([self._final(one) for one in by_seed(mine)])
                    for mine in (select(rows, method=method, stages=m) for m in self.stages)
                ),
            ]
            for method in METHODS
        ]
        cells = []
        for goal in self.goals():
            for unit in ("samples", "cycles", "modelled_us"):
                line: list[object] = [goal_name(goal), unit]
                for method in METHODS:
                    mine = by_seed(select(rows, stages=most, method=method))
                    found = [self.to_target(one, unit, goal[1], goal[0]) for one in mine]
                    reached = [one for one in found if one is not None]
                    whole = len(reached) == len(found)
                    line.append(f"{sum(reached) / len(found):,.0f}" if whole else "not reached")
                cells.append(line)
        idle = {method: select(rows, method=method, stages=most, seed=0)[-1] for method in METHODS}
        shares = ", ".join(
            f"{method} {number(row, 'idle_cycles') / number(row, 'cycles'):.3f}"
            for method, row in idle.items()
        )
        costs = modelled.stage_costs(split(deep.network(0), most))
        t_f, t_b, t_u = costs[0].times(self.batch)
        limit = sequential_ns(most, t_f, t_b, t_u) / asynchronous_ns([(t_f, t_b, t_u)])
        text = "\n\n".join(
            [
                "Test accuracy in percent, mean of the last three tests:",
                table(["schedule", *(f"M = {m}" for m in self.stages)], last),
                f"To the target on {most} stages, means over seeds:",
                table(["target", "unit", *METHODS], cells),
                f"Modelled time gains less than clock cycles: a cycle has no update in it, the "
                f"hardware's update takes {t_u:g} ns beside {t_f + t_b:g} ns of passes. So {most} "
                f"stages can gain (M (t_F + t_B) + t_U) / (t_F + t_B + t_U) = {limit:.2f}.",
                f"Share of the clock cycles in which a stage of {most} idles (pipelines fill and "
                f"drain; tests add {self.per_epoch} flushes an epoch): {shares}.",
            ]
        )
        return Summary(text, self._verdicts(rows))

    def _final(self, rows: Rows) -> float:
        return mean(rows[-3:], "accuracy")

    def _verdicts(self, rows: Rows) -> list[Verdict]:
        differences = {
            m: interval(
                [
                    self._final(select(one, method="asynchronous", stages=m))
                    - self._final(select(one, method="sequential", stages=m))
                    for one in by_seed(rows)
                ]
            )
            for m in self.stages
        }
        ones = [self.gain(rows, 1, goal, "samples", "asynchronous") for goal in self.goals()]
        same = [one.mean == 1.0 for one in ones if one is not None]
        most = self.stages[-1]
        faster = [
            (goal, self.gain(rows, most, goal, "modelled_us", "asynchronous"))
            for goal in self.goals()
        ]
        known = [(goal, one) for goal, one in faster if one is not None]
        times = [one.mean for _, one in known]
        return [
            Verdict(
                "accuracy",
                "asynchronous training ends within 3 points of sequential training for every M",
                every(one.within(-3.0, 3.0) for one in differences.values()),
                ", ".join(f"M = {m}: {one}" for m, one in differences.items()),
            ),
            Verdict(
                "one_stage",
                "on one stage asynchronous training is sequential training",
                all(same) if same else None,
                f"equal samples to {sum(same)} of {len(same)} targets",
            ),
            Verdict(
                "time",
                f"on {most} stages it reaches every target more than twice as soon in modelled "
                "time",
                every(one.within(2.0, 2.0 * most) for _, one in known) if known else None,
                f"{min(times, default=0.0):.2f} to {max(times, default=0.0):.2f} times, "
                f"{len(times)} targets",
            ),
        ]

    def figure(self, rows: Rows) -> Any:
        figure, axes = new_figure(
            "The same accuracy per sample, in a fraction of the clock cycles", panels=3, rows=2
        )
        most = self.stages[-1]
        units = {
            "samples": "samples",
            "cycles": f"clock cycles of {most} stages",
            "modelled_us": "modelled time (us)",
        }
        curves = [("sequential", most, "C7"), ("synchronous", most, "C1")]
        curves += [("asynchronous", m, f"C{n + 2}") for n, m in enumerate(self.stages) if m > 1]
        of = {"accuracy": "test accuracy (%)", "loss": "training loss"}
        panels = [(name, unit) for name in of for unit in units]
        for one, (name, unit) in zip(axes, panels, strict=True):
            for method, m, colour in curves:
                if unit == "cycles" and m != most:
                    continue  # a cycle of fewer stages takes longer
                runs = [select(seed, method=method, stages=m) for seed in by_seed(rows)]
                x = column(runs[0], unit)
                tests = list(zip(*(column(run, name) for run in runs), strict=True))
                middle = [sum(test) / len(runs) for test in tests]
                one.plot(x, middle, color=colour, label=f"{method}, M = {m}")
                low, high = [min(test) for test in tests], [max(test) for test in tests]
                one.fill_between(x, low, high, color=colour, alpha=0.12)
            one.set_xlabel(units[unit])
            one.set_ylabel(of[name])
            if unit != "samples":
                one.set_xscale("log")
        axes[0].legend(fontsize=8)
        return figure


def goal_name(goal: tuple[str, float]) -> str:
    """A target in words."""
    of, value = goal
    return f"{value:g} %" if of == "accuracy" else f"loss {value:g}"
