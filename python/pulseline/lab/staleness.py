"""``staleness``: the bias that asynchrony adds, against the step size; floors with and without it.

Theory (derived from arXiv 2410.15155): the gradient of micro-batch k at stage m mixes weights of
the versions k - (M-m) .. k, each a step a apart, so |e_k| <= a C(M), and E_K gains only
O(mean |e_k|^2) = O(a^2). Three measurements on the problem of ``teacher.py``:

* ``window``: short runs from the same start, |e_k| of their last micro-batch;
* ``along``: runs of K = horizon / a micro-batches, |e_k| over the second half;
* ``floor``: mean |grad f|^2 over the second half of long runs, digital, analog, asynchronous.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..parameter import AnalogParameter
from .draw import new_figure, plain_ticks
from .engine import Experiment, Row, Rows, Summary
from .probe import Probe, rms
from .report import table
from .rows import by_seed, column, mean, select
from .statistics import Interval, Verdict, every, exponent, interval
from .teacher import Teacher, gradients_along

KINDS = {"expected": "expected updates", "exact": "pulse trains"}


@dataclass(frozen=True)
class Staleness:
    """Steps a per sample; micro-batches of one sample; ``tau`` in weight units.

    ``windows``: short runs per M and step, each of 2 M micro-batches. ``horizon``: a K along runs.
    ``floor_*``: those of the floors, on ``floor_layers`` layers and as many stages.
    """

    stages: tuple[int, ...] = (2, 4, 8)
    layers: int = 8
    tau: float = 2.0
    steps_of_a: tuple[float, ...] = (0.02, 0.01, 0.005, 0.0025, 0.00125)
    windows: int = 60
    along: tuple[float, ...] = (0.04, 0.02, 0.01, 0.005, 0.0025)
    horizon: float = 16.0
    look_every: int = 2
    floor_layers: int = 8
    floor_steps: tuple[float, ...] = (0.04, 0.02, 0.01)
    floor_horizon: float = 160.0

    name = "staleness"
    title = "Staleness bias against step size; floors"
    seeded = True

    def quick(self) -> Staleness:
        """Fewer windows, shorter runs, floors on four layers."""
        return replace(
            self,
            steps_of_a=self.steps_of_a[::2],
            windows=12,
            along=(0.04, 0.02, 0.01),
            horizon=8.0,
            look_every=1,
            floor_layers=4,
            floor_steps=(0.04, 0.02),
            floor_horizon=50.0,
        )

    @property
    def source(self) -> Experiment:
        return self

    def steps(self) -> int:
        windows = len(self.stages) * len(KINDS) * len(self.steps_of_a)
        return windows + len(KINDS) * len(self.along) + 3 * len(self.floor_steps)

    def run(self, seed: int) -> Iterator[Row]:
        problem = Teacher(layers=self.layers, seed=seed)
        for kind in KINDS:
            for stages in self.stages:
                for a in self.steps_of_a:
                    yield self._window(problem, kind, stages, a)
            for a in self.along:
                yield self._along(problem, kind, a)
        problem = Teacher(layers=self.floor_layers, seed=seed)
        for a in self.floor_steps:
            for kind, schedule in (
                ("digital", "sequential"),
                ("expected", "sequential"),
                ("expected", "async"),
            ):
                yield self._floor(problem, kind, schedule, a)

    def _window(self, problem: Teacher, kind: str, stages: int, a: float) -> Row:
        """|e_k| of the last micro-batch of short runs, each from the first weights."""
        model = problem.model(kind, self.tau)
        pipe = problem.pipeline(model, stages, a)
        size = 2 * stages
        probe = Probe(pipe, lambda k: k == size - 1)
        start = problem.matrices()[1]
        biases, gradients = [], []
        for window in range(self.windows):
            for parameter, w in zip(model.parameters(), start, strict=True):
                assert isinstance(parameter, AnalogParameter)
                parameter.analog_tile.program(w)
            probe.restart()
            x, target = problem.samples(size, stream=window)
            pipe.step(x, target=target)
            pipe.drain()
            (found,) = probe.biases(x, target)
            biases.append(found.bias)
            gradients.append(found.gradient)
        return _row("window", kind, "async", stages, a, size, rms(biases), rms(gradients) ** 2)

    def _along(self, problem: Teacher, kind: str, a: float) -> Row:
        """|e_k| over the second half of one run of K = horizon / a micro-batches."""
        stages, count = self.stages[-1], round(self.horizon / a)
        pipe = problem.pipeline(problem.model(kind, self.tau), stages, a)
        probe = Probe(pipe, lambda k: k >= count // 2 and k % self.look_every == 0)
        x, target = problem.samples(count)
        pipe.step(x, target=target)
        pipe.drain()
        found = probe.biases(x, target)
        bias, gradient = rms([one.bias for one in found]), rms([one.gradient for one in found])
        return _row("along", kind, "async", stages, a, count, bias, gradient**2)

    def _floor(self, problem: Teacher, kind: str, schedule: str, a: float) -> Row:
        """Mean |grad f|^2; without staleness the number of stages changes no bit, so it is 1."""
        stages = self.floor_layers if schedule == "async" else 1
        count = round(self.floor_horizon / a)
        model = problem.model(kind, self.tau)
        pipe = problem.pipeline(model, stages, a, schedule=schedule)
        found = [value for _, value in gradients_along(problem, pipe, model, count)]
        half = found[len(found) // 2 :]
        return _row("floor", kind, schedule, stages, a, count, None, sum(half) / len(half))

    def summarise(self, rows: Rows) -> Summary:
        windows, along, floors = (select(rows, part=p) for p in ("window", "along", "floor"))
        slopes = {
            (kind, m): _slope(select(windows, update=kind, stages=m))
            for kind in KINDS
            for m in self.stages
        }
        runs = {kind: _slope(select(along, update=kind)) for kind in KINDS}
        ratios = {
            a: _ratio(select(floors, a=a), "asynchronous", "analog") for a in self.floor_steps
        }
        curves = _floor_curves(floors)
        over = _ratio(select(floors, a=self.floor_steps[-1]), "analog", "digital")
        text = "\n\n".join(
            [
                "Exponent p of |e_k| ~ a^p:",
                table(
                    ["update", *(f"M = {m}, window" for m in self.stages), "along, K ~ 1/a"],
                    [
                        [text, *(slopes[kind, m] for m in self.stages), runs[kind]]
                        for kind, text in KINDS.items()
                    ],
                ),
                "Pulses hide the law: trains move weights by whole steps of 2 tau / 1200, which "
                "adds a scatter between two versions that shrinks only like the square root of a.",
                "Floors, mean |grad f|^2 over the second half:",
                table(
                    ["a", *curves, "asynchronous / analog"],
                    [
                        [
                            a,
                            *(
                                f"{mean(select(curve, a=a), 'gradient2'):.3e}"
                                for curve in curves.values()
                            ),
                            ratios[a],
                        ]
                        for a in self.floor_steps
                    ],
                ),
            ]
        )
        return Summary(text, self._verdicts(slopes, runs, ratios, over))

    def _verdicts(
        self,
        slopes: dict[tuple[str, int], Interval],
        runs: dict[str, Interval],
        ratios: dict[float, Interval],
        over: Interval,
    ) -> list[Verdict]:
        first = [slopes["expected", m] for m in self.stages]
        smallest = self.floor_steps[-1]
        return [
            Verdict(
                "window",
                "the bias of expected updates scales as a^1 (0.8 to 1.2) from a fixed start",
                every(p.within(0.8, 1.2) for p in first),
                ", ".join(f"M = {m}: {p}" for m, p in zip(self.stages, first, strict=True)),
            ),
            Verdict(
                "along",
                "along runs of K ~ 1/a micro-batches it does so too (0.8 to 1.2)",
                runs["expected"].within(0.8, 1.2),
                str(runs["expected"]),
            ),
            Verdict(
                "floor",
                "floors of analog and asynchronous analog training agree within 5 %",
                every(ratio.within(0.95, 1.05) for ratio in ratios.values()),
                ", ".join(f"a = {a:g}: ratio {ratio}" for a, ratio in ratios.items()),
            ),
            Verdict(
                "digital",
                f"the analog floor is one: at a = {smallest:g} it lies above the digital one, "
                "which falls with a",
                over.within(1.0, math.inf),
                f"analog / digital = {over}",
            ),
        ]

    def figure(self, rows: Rows) -> Any:
        figure, (bias, floor) = new_figure(
            "Asynchrony adds a bias that vanishes with the step, and no floor"
        )
        windows, floors = select(rows, part="window"), select(rows, part="floor")
        for kind, marker, line in (("expected", "o", "-"), ("exact", "x", ":")):
            for m, colour in zip(self.stages, ("C0", "C1", "C2", "C3"), strict=False):
                means = [
                    mean(select(windows, update=kind, stages=m, a=a), "bias")
                    for a in self.steps_of_a
                ]
                label = f"M = {m}, {KINDS[kind]}"
                bias.loglog(self.steps_of_a, means, line, marker=marker, color=colour, label=label)
        a = self.steps_of_a
        top = mean(select(windows, update="expected", stages=self.stages[0], a=a[0]), "bias")
        guide = [0.5 * top * one / a[0] for one in a]
        bias.loglog(a, guide, color="0.6", linewidth=1, label="slope 1")
        bias.set_xlabel("step size a")
        bias.set_ylabel("staleness bias |e_k| (rms, weight units)")
        bias.legend(fontsize=7)
        for (name, curve), style in zip(
            _floor_curves(floors).items(), ["s--", "o-", "x-"], strict=True
        ):
            means = [mean(select(curve, a=a), "gradient2") for a in self.floor_steps]
            floor.loglog(self.floor_steps, means, style, label=name)
        floor.set_xlabel("step size a")
        floor.set_ylabel("floor: mean |grad f|^2")
        floor.legend()
        plain_ticks(bias.xaxis, a)
        plain_ticks(floor.xaxis, self.floor_steps)
        return figure


def _row(
    part: str,
    update: str,
    schedule: str,
    stages: int,
    a: float,
    count: int,
    bias: float | None,
    gradient2: float,
) -> Row:
    return {
        "part": part,
        "update": update,
        "schedule": schedule,
        "stages": stages,
        "a": a,
        "micro_batches": count,
        "bias": bias,
        "gradient2": gradient2,
    }


def _slope(rows: Rows) -> Interval:
    """Exponent of the bias in a, one fit per seed."""
    return interval([exponent(column(one, "a"), column(one, "bias")) for one in by_seed(rows)])


def _ratio(floors: Rows, upper: str, lower: str) -> Interval:
    """One floor over another of the same seed, hence of the same samples."""
    found = []
    for one in by_seed(floors):
        curves = _floor_curves(one)
        found.append(mean(curves[upper], "gradient2") / mean(curves[lower], "gradient2"))
    return interval(found)


def _floor_curves(floors: Rows) -> dict[str, Rows]:
    return {
        "digital": select(floors, update="digital"),
        "analog": select(floors, update="expected", schedule="sequential"),
        "asynchronous": select(floors, update="expected", schedule="async"),
    }
