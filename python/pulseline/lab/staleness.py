"""``staleness``: the bias that asynchrony adds, against the step size; floors with and without it.

Theory (derived from arXiv 2410.15155): the gradient of micro-batch k at stage m mixes weights of
the versions k - (M-m) .. k, each a step a apart, so |e_k| <= a C(M), and E_K gains only
O(mean |e_k|^2) = O(a^2). Three measurements on the problem of ``teacher.py``:

* ``window``: pipelines, short runs from the same start, |e_k| of their last micro-batch;
* ``along``: pipelines, runs of K = horizon / a micro-batches, |e_k| over the second half;
* ``floor``: ``recursion.py``, the second half of long runs, digital, analog, asynchronous: mean
  |grad f|^2, f (whose minimum is 0) and |W|, at a tau close to the weights and one far above.

Devices with a small tau pull weights to 0, which makes |grad f|^2 small and f large: f and |W|
stand beside the measure of the theorems.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ..arrays import AnalogParameter
from ..errors import ConfigError
from .draw import bars, new_figure, plain_ticks
from .engine import Seeds, Settings, Summary
from .mutants import Mutant, Row, Rows, times
from .probe import Probe, rms
from .recursion import Block, Fleet, drawn
from .report import table
from .rows import by_seed, column, mean, number, select
from .statistics import Cell, Interval, Verdict, decide, exponent, geometric, interval
from .teacher import Teacher

__all__ = ["FLOORS", "KINDS", "MEASURES", "Staleness"]

KINDS = {"expected": "expected updates", "exact": "pulse trains"}
FLOORS = {"digital": (False, False), "analog": (True, False), "asynchronous": (True, True)}


@dataclass(frozen=True)
class Staleness(Settings):
    """Steps a per sample; micro-batches of one sample; ``tau`` in weight units.

    ``windows``: short runs per M and step, each of 2 M micro-batches. ``horizon``: a K along runs.
    ``floor_*``: those of the floors, on ``floor_layers`` layers and as many stages.

    Raises:
        ConfigError: a number is negative or not finite, or the network has fewer layers.
    """

    seeds: Seeds = 6
    stages: tuple[int, ...] = (2, 4, 8)
    layers: int = 8
    tau: float = 2.0
    steps_of_a: tuple[float, ...] = (0.02, 0.01, 0.005, 0.0025, 0.00125)
    kinds: tuple[str, ...] = ("expected", "exact")
    windows: int = 30
    along: tuple[float, ...] = (0.04, 0.02, 0.01, 0.005)
    horizon: float = 16.0
    look_every: int = 2
    floor_layers: int = 8
    floor_steps: tuple[float, ...] = (0.04, 0.02, 0.01)
    floor_taus: tuple[float, ...] = (2.0, 64.0)
    floor_horizon: float = 160.0

    name: ClassVar[str] = "staleness"
    title: ClassVar[str] = "Staleness bias against step size; floors"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(1 <= m <= self.layers for m in self.stages):
            raise ConfigError(f"stages is {self.stages}; use 1 to {self.layers}, the layers")

    def quick(self) -> Staleness:
        """Fewer windows, shorter runs, floors on four layers."""
        return replace(
            self,
            seeds=6,
            steps_of_a=self.steps_of_a[::2],
            kinds=self.kinds[:1],
            windows=8,
            along=(0.04, 0.01),
            horizon=8.0,
            floor_layers=4,
            floor_steps=(0.04, 0.02),
            floor_horizon=50.0,
        )

    def steps(self) -> int:
        windows = len(self.stages) * len(self.kinds) * len(self.steps_of_a)
        floors = len(self.floor_steps) * (1 + 2 * len(self.floor_taus))
        return windows + len(self.along) + floors

    def run(self, seeds: Sequence[int]) -> Iterator[Row]:
        for seed in seeds:
            problem = Teacher(layers=self.layers, seed=seed)
            for kind in self.kinds:
                for stages in self.stages:
                    for a in self.steps_of_a:
                        yield {"seed": seed, **self._window(problem, kind, stages, a)}
            for a in self.along:
                yield {"seed": seed, **self._along(problem, "expected", a)}
        yield from self._floors(seeds)

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
                parameter.cell.program(w)
            probe.restart()
            x, target = problem.samples(size, stream=window)
            pipe.step(x, target)
            pipe.drain()
            (found,) = probe.biases(x, target)
            biases.append(found.bias)
            gradients.append(found.gradient)
        return _row("window", kind, stages, a, rms(biases), rms(gradients) ** 2)

    def _along(self, problem: Teacher, kind: str, a: float) -> Row:
        """|e_k| over the second half of one run of K = horizon / a micro-batches."""
        stages, count = self.stages[-1], round(self.horizon / a)
        pipe = problem.pipeline(problem.model(kind, self.tau), stages, a)
        probe = Probe(pipe, lambda k: k >= count // 2 and k % self.look_every == 0)
        x, target = problem.samples(count)
        pipe.step(x, target)
        pipe.drain()
        found = probe.biases(x, target)
        bias, gradient = rms([one.bias for one in found]), rms([one.gradient for one in found])
        return _row("along", kind, stages, a, bias, gradient**2)

    def _floors(self, seeds: Sequence[int]) -> Iterator[Row]:
        """Means over the second half; one problem, the seeds draw its samples."""
        problem = Teacher(layers=self.floor_layers)
        blocks = [Block(a, round(self.floor_horizon / a), 10) for a in self.floor_steps]
        samples = drawn(problem, seeds, max(block.samples for block in blocks))
        for name, (analog, stale) in FLOORS.items():
            for tau in self.floor_taus if analog else (None,):
                fleet = Fleet(problem, samples, blocks, tau or math.inf, stale=stale)
                found: list[list[Any]] = [[] for _ in fleet.blocks]
                for look in fleet.run():
                    if 2 * look.k >= fleet.blocks[look.n].samples:
                        found[look.n].append((look.gradient2, look.loss, look.norm))
                for block, looks in zip(fleet.blocks, found, strict=True):
                    means = np.mean(looks, axis=0)
                    for n, seed in enumerate(seeds):
                        gradient2, loss, norm = (float(value) for value in means[:, n])
                        row = _row("floor", name, self.floor_layers, block.a, None, gradient2)
                        yield {"seed": seed, **row, "tau": tau, "loss": loss, "norm": norm}

    def summarise(self, rows: Rows) -> Summary:
        windows, along, floors = (select(rows, part=p) for p in ("window", "along", "floor"))
        slopes = {
            (kind, m): _slopes(select(windows, update=kind, stages=m))
            for kind in self.kinds
            for m in self.stages
        }
        runs = _slopes(along)
        bias = [
            [KINDS[kind], *(interval(slopes[kind, m]) for m in self.stages)] for kind in self.kinds
        ]
        bias[0].append(interval(runs))
        cells = [
            [
                f"{a:g}",
                "-" if tau is None else f"{tau:g}",
                name,
                *(
                    f"{mean(select(floors, a=a, tau=tau, update=name), of):.{digits}g}"
                    for of, digits in (("gradient2", 3), ("loss", 3), ("norm", 4))
                ),
                *(
                    _against(floors, a, tau, of) if name == "asynchronous" else ""
                    for of in MEASURES
                ),
            ]
            for a in self.floor_steps
            for name, tau in self._curves()
        ]
        text = "\n\n".join(
            [
                "M: stages. Exponent p of |e_k| ~ a^p:",
                table(
                    ["update", *(f"M = {m}, window" for m in self.stages), "along, K ~ 1/a"], bias
                ),
                "Pulse trains hide the law: they move weights by whole steps of 2 tau / 1024, "
                "which adds a scatter between versions that shrinks like the root of a.",
                "Second half of long runs: mean |grad f|^2, f - f* (f* = 0), |W|, and asynchronous "
                "over analog, seed by seed:",
                table(
                    [
                        "a",
                        "tau",
                        "training",
                        "|grad f|^2",
                        "f",
                        "|W|",
                        "|grad f|^2 ratio",
                        "f ratio",
                    ],
                    cells,
                ),
                "At the small tau |grad f|^2 says little: weights shrink, and with them gradients, "
                "while f rises.",
            ]
        )
        return Summary(text, self._verdicts(slopes, runs, floors))

    def _curves(self) -> list[tuple[str, float | None]]:
        """(training, tau) of the floors."""
        return [
            (name, tau)
            for name, (analog, _) in FLOORS.items()
            for tau in (self.floor_taus if analog else (None,))
        ]

    def _verdicts(
        self, slopes: dict[tuple[str, int], list[float]], runs: list[float], floors: Rows
    ) -> list[Verdict]:
        least, a = self.floor_taus[0], self.floor_steps[-1]
        return [
            decide(
                "window",
                "the bias of expected updates scales as a^1 (0.85 to 1.15) from a fixed start",
                [Cell(f"M = {m}", slopes["expected", m]) for m in self.stages],
                0.85,
                1.15,
            ),
            decide(
                "along",
                "along runs of K ~ 1/a micro-batches it does so too (0.85 to 1.15)",
                [Cell(f"M = {self.stages[-1]}", runs)],
                0.85,
                1.15,
            ),
            decide(
                "floor",
                f"at a = {a:g} floors of analog and asynchronous analog training agree within 2 %, "
                "both in |grad f|^2 and in f",
                [
                    Cell(f"{of}, tau = {tau:g}", _ratios(floors, a, tau, of))
                    for of in MEASURES
                    for tau in self.floor_taus
                ],
                0.98,
                1.02,
                ratios=True,
            ),
            decide(
                "digital",
                f"at tau = {least:g} analog training stops at more than 1.5 times the digital loss",
                [Cell(f"a = {a:g}", _ratios(floors, a, least, "loss", "analog", "digital"))],
                1.5,
                ratios=True,
            ),
        ]

    def mutants(self) -> Sequence[Mutant]:
        def bent(p: float, **where: Any) -> Any:
            def bend(row: Row) -> None:
                times("bias", number(row, "a") ** p, **where)(row)

            return bend

        stale: dict[str, Any] = {"part": "floor", "update": "asynchronous"}
        return (
            Mutant("window", "exponent of the bias + .3", bent(0.3, part="window", stages=4)),
            Mutant("window", "exponent of the bias - .3", bent(-0.3, part="window", stages=4)),
            Mutant("along", "exponent of the bias + .3", bent(0.3, part="along")),
            Mutant("along", "exponent of the bias - .3", bent(-0.3, part="along")),
            Mutant("floor", "asynchronous |grad f|^2 x 1.1", times("gradient2", 1.1, **stale)),
            Mutant("floor", "asynchronous loss x 1.1", times("loss", 1.1, **stale)),
            Mutant("digital", "digital loss x 10", times("loss", 10.0, update="digital")),
        )

    def figure(self, rows: Rows) -> Any:
        figure, (bias, gradient, loss) = new_figure("Staleness bias against the step; floors", 3)
        windows, floors = select(rows, part="window"), select(rows, part="floor")
        a = self.steps_of_a
        for kind, marker, line in zip(self.kinds, "ox", "-:", strict=False):
            for n, m in enumerate(self.stages):
                mine = select(windows, update=kind, stages=m)
                found = [geometric(column(select(mine, a=step), "bias")) for step in a]
                label = f"M = {m}, {KINDS[kind]}"
                bars(bias, a, found, marker + line, color=f"C{n}", label=label)
        top = mean(select(windows, update="expected", stages=self.stages[0], a=a[0]), "bias")
        bias.plot(a, [0.5 * top * one / a[0] for one in a], "0.6", linewidth=1, label="slope 1")
        bias.set_ylabel("staleness bias |e_k| (rms, weight units)")
        for axes, of, label in (
            (gradient, "gradient2", "mean |grad f|^2"),
            (loss, "loss", "f - f*"),
        ):
            for n, (name, tau) in enumerate(self._curves()):
                mine = select(floors, update=name, tau=tau)
                found = [geometric(column(select(mine, a=step), of)) for step in self.floor_steps]
                at = "" if tau is None else f", tau = {tau:g}"
                bars(axes, self.floor_steps, found, f"C{n}{'osx^d'[n]}-", label=f"{name}{at}")
            axes.set_ylabel(f"second half of long runs: {label}")
        for axes, ticks in ((bias, a), (gradient, self.floor_steps), (loss, self.floor_steps)):
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlabel("step size a per sample")
            plain_ticks(axes.xaxis, ticks)
            axes.legend(fontsize=7)
        return figure


MEASURES = ("gradient2", "loss")


def _row(
    part: str, update: str, stages: int, a: float, bias: float | None, gradient2: float
) -> Row:
    return {
        "part": part,
        "update": update,
        "stages": stages,
        "a": a,
        "bias": bias,
        "gradient2": gradient2,
        "tau": None,
        "loss": None,
        "norm": None,
    }


def _slopes(rows: Rows) -> list[float]:
    """Exponent of the bias in a, one fit per seed."""
    return [exponent(column(one, "a"), column(one, "bias")) for one in by_seed(rows)]


def _ratios(
    floors: Rows,
    a: float,
    tau: float,
    of: str,
    upper: str = "asynchronous",
    lower: str = "analog",
) -> list[float]:
    """One floor over another of the same samples, by seed."""
    above = select(floors, a=a, update=upper, tau=tau)
    below = select(floors, a=a, update=lower, tau=None if lower == "digital" else tau)
    pairs = zip(column(above, of), column(below, of), strict=True)
    return [high / low for high, low in pairs]


def _against(floors: Rows, a: float, tau: float | None, of: str) -> Interval:
    return geometric(_ratios(floors, a, tau or math.inf, of))
