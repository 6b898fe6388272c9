"""``cliff``: what staleness costs when it grows, and which mitigation pays for its clock cycles.

Staleness counts in samples: stage m works with weights that are (M-m) micro-batches of b samples
old, each sample a step a. On the grid M x b x a the loss is compared with that of sequential
training (M = 1) at the same b, a and samples; its logarithm grows with x = a (M-1) b, the oldest
weights in samples times step, along a slope that each M has for itself.

Mitigations at the largest M, all without copies of weights: rescheduled and warmed-up learning
rates (``pipeline.rates``), a first epoch without staleness, regular flushes, half the depth in
flight, half the micro-batch at the same a. They are compared with plain asynchronous training at
equal clock cycles: several of them leave stages idle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..data import DataSet, load_digits
from ..errors import ConfigError
from ..pipeline.rates import Rates, set_rates
from ..schedules import Schedule, asynchronous, sequential
from . import deep
from .draw import bars, new_figure, plain_ticks
from .engine import Seeds, Settings, Summary
from .mutants import Mutant, Row, Rows, times
from .report import table
from .rows import by_seed, column, mean, select
from .statistics import Cell, Verdict, decide, geometric, interval

__all__ = ["SOUND", "Cliff", "Recipe", "stale"]

SOUND = 0.004  # the largest step at which sequential training does not suffer by itself


class Recipe(NamedTuple):
    """A schedule, learning rates and a part of the micro-batch."""

    schedule: Schedule
    rates: Rates = Rates()
    divide: int = 1


@dataclass(frozen=True)
class Cliff(Settings):
    """``steps_of_a`` per sample; ``mended``: those at which mitigations are tried.

    ``small``: up to this x = a (M-1) b staleness is claimed to cost nothing. ``slope_to``: largest
    x of the cells that the slopes are fitted to.

    Raises:
        ConfigError: a number is negative or not finite, or the network has fewer layers.
    """

    seeds: Seeds = 6
    stages: tuple[int, ...] = (1, 2, 4, 8)
    batches: tuple[int, ...] = (8,)
    steps_of_a: tuple[float, ...] = (0.001, 0.002, 0.004, 0.008)
    mended: tuple[float, ...] = (0.004,)
    mended_batch: int = 8
    epochs: int = 2
    per_epoch: int = 8
    small: float = 0.01
    slope_to: float = 0.25

    name: ClassVar[str] = "cliff"
    title: ClassVar[str] = "Loss against staleness times step; mitigations at equal clock cycles"

    def __post_init__(self) -> None:
        super().__post_init__()
        deep.check_stages("stages", self.stages)
        if 1 not in self.stages:
            raise ConfigError(f"stages is {self.stages}; add 1, with which others are compared")

    def quick(self) -> Cliff:
        """Fewer M and a, one epoch, three seeds."""
        return replace(
            self,
            seeds=3,
            stages=(1, 2, 8),
            steps_of_a=self.steps_of_a[:3],
            epochs=1,
        )

    def recipes(self, micro_batches: int) -> dict[str, Recipe]:
        """Mitigations by name, first none; ``micro_batches`` in an epoch."""
        most = self.stages[-1]
        half = [max(1, (most - m) // 2 + 1) for m in range(most)]
        return {
            "none": Recipe(asynchronous()),
            "rescheduled rates": Recipe(asynchronous(), Rates(anneal=2 * micro_batches)),
            "warmed-up rates": Recipe(asynchronous(), Rates(warmup=micro_batches)),
            "no staleness in epoch 1": Recipe(asynchronous(warmup=micro_batches, micro_batches=1)),
            f"flush every {2 * most}": Recipe(asynchronous(flush_every=2 * most)),
            "half the depth": Recipe(asynchronous(inflight=half)),
            "half the micro-batch": Recipe(asynchronous(), divide=2),
        }

    def steps(self) -> int:
        grid = len(self.stages) * len(self.batches) * len(self.steps_of_a)
        return grid + len(self.recipes(1)) * len(self.mended)

    def run(self, seeds: Sequence[int]) -> Iterator[Row]:
        data = load_digits()
        for seed in seeds:
            for batch in self.batches:
                for a in self.steps_of_a:
                    for stages in self.stages:
                        plan = sequential() if stages == 1 else asynchronous()
                        row = self._row(data, seed, Recipe(plan), stages, batch, a)
                        yield {"seed": seed, "part": "grid", "mitigation": "none", **row}
            batch = self.mended_batch
            for name, recipe in self.recipes(-(-len(data.x_train) // batch)).items():
                for a in self.mended:
                    row = self._row(data, seed, recipe, self.stages[-1], batch, a)
                    yield {"seed": seed, "part": "mended", "mitigation": name, **row}

    def _row(
        self, data: DataSet, seed: int, recipe: Recipe, stages: int, batch: int, a: float
    ) -> Row:
        """Train; loss and accuracy are means over the second half."""
        batch //= recipe.divide
        pipe = deep.pipeline(deep.network(seed), stages, a, batch, recipe.schedule)

        def rates() -> None:
            set_rates(pipe, a * batch, recipe.rates)

        points = list(deep.train(pipe, data, seed, self.epochs, self.per_epoch, rates))
        last = points[len(points) // 2 :]
        return {
            "stages": stages,
            "micro_batch": batch,
            "a": a,
            "staleness": round(a * (stages - 1) * batch, 9),
            "loss": float(np.exp(np.mean([np.log(point.loss) for point in last]))),
            "accuracy": sum(point.accuracy for point in last) / len(last),
            "cycles": " ".join(str(point.cycles) for point in points),
            "losses": " ".join(f"{point.loss:.4f}" for point in points),
        }

    # ---- from rows to numbers ----

    def over(self, rows: Rows, stages: int, batch: int, a: float) -> list[float]:
        """Loss over that of sequential training, seed by seed."""
        mine = select(rows, part="grid", micro_batch=batch, a=a)
        pair = (column(select(mine, stages=m), "loss") for m in (stages, 1))
        return [stale / plain for stale, plain in zip(*pair, strict=True)]

    def grid(self) -> list[tuple[int, int, float]]:
        """(M, b, a) with staleness."""
        several = [m for m in self.stages if m > 1]
        return [(m, b, a) for m in several for b in self.batches for a in self.steps_of_a]

    def fits(self, key: tuple[int, int, float]) -> bool:
        """Whether the slopes are fitted to this cell."""
        return stale(key) <= self.slope_to and key[2] <= SOUND

    def slopes(self, rows: Rows, stages: int) -> list[float]:
        """d log(loss / sequential) / dx through 0, by seed."""
        cells = [key for key in self.grid() if key[0] == stages and self.fits(key)]
        logs = np.log([self.over(rows, *key) for key in cells])
        x = np.array([stale(key) for key in cells])
        return [float(x @ ys / (x @ x)) for ys in logs.T]

    def better(self, rows: Rows, name: str) -> list[float]:
        """Loss with a mitigation over loss without, where the latter's second half stands in
        clock cycles; geometric mean over the steps, by seed."""
        found = []
        for one in by_seed(select(rows, part="mended")):
            logs = []
            for a in self.mended:
                (mine,), (plain,) = (select(one, mitigation=n, a=a) for n in (name, "none"))
                at = _curve(plain, "cycles")
                at = at[len(at) // 2 :]
                pair = [
                    np.interp(at, _curve(row, "cycles"), np.log(_curve(row, "losses")))
                    for row in (mine, plain)
                ]
                logs.append(float((pair[0] - pair[1]).mean()))
            found.append(float(np.exp(np.mean(logs))))
        return found

    # ---- what they say ----

    def summarise(self, rows: Rows) -> Summary:
        several = [m for m in self.stages if m > 1]
        cells = [
            [m, b, *(geometric(self.over(rows, m, b, a)) for a in self.steps_of_a)]
            for m in several
            for b in self.batches
        ]
        slopes = [interval(self.slopes(rows, m)) for m in several]
        mended = []
        plain = select(rows, part="mended", mitigation="none")
        for name in self.recipes(1):
            mine = select(rows, part="mended", mitigation=name)
            losses = [f"{mean(select(mine, a=a), 'loss'):.3f}" for a in self.mended]
            ends = [sum(_curve(row, "cycles")[-1] for row in one) for one in (mine, plain)]
            gain = "1" if name == "none" else geometric(self.better(rows, name))
            mended.append([name, *losses, f"{ends[0] / ends[1]:.2f}", gain])
        text = "\n\n".join(
            [
                "M: stages; b: samples per micro-batch; a: step per sample. Loss (all training "
                "images, second half of the run) over that of sequential training at the same b, a "
                "and samples:",
                table(["M", "b", *(f"a = {a:g}" for a in self.steps_of_a)], cells),
                "Slope of its logarithm against x = a (M-1) b, through 0, for x up to "
                f"{self.slope_to:g} and a up to {SOUND:g}:",
                table([f"M = {m}" for m in several], [slopes]),
                "The verdicts `slope` and `depth` say whether it grows with x, and faster for "
                "deeper pipelines at equal x.",
                f"Mitigations at M = {self.stages[-1]}, b = {self.mended_batch}. Loss at equal "
                "samples, clock cycles for these samples, and loss at equal clock cycles:",
                table(
                    [
                        "mitigation",
                        *(f"loss, a = {a:g}" for a in self.mended),
                        "cycles / none",
                        "loss / none at equal cycles",
                    ],
                    mended,
                ),
            ]
        )
        return Summary(text, self._verdicts(rows))

    def _verdicts(self, rows: Rows) -> list[Verdict]:
        several = [m for m in self.stages if m > 1]
        few, most = several[0], several[-1]
        small = [key for key in self.grid() if stale(key) <= self.small]
        pairs = zip(self.slopes(rows, most), self.slopes(rows, few), strict=True)
        return [
            decide(
                "small",
                f"up to x = a (M-1) b = {self.small:g} staleness changes the loss by at most 5 %",
                [
                    Cell(f"M = {m}, b = {b}, a = {a:g}", self.over(rows, m, b, a))
                    for m, b, a in small
                ],
                1 / 1.05,
                1.05,
                ratios=True,
            ),
            decide(
                "slope",
                "the loss grows with x at every M",
                [Cell(f"slope at M = {m}", self.slopes(rows, m)) for m in several],
                0.0,
            ),
            decide(
                "depth",
                f"at equal x it grows faster at M = {most} than at M = {few}",
                [Cell("difference of slopes", [deep - flat for deep, flat in pairs])],
                0.0,
            ),
            *(
                decide(
                    name,
                    f"{name}: at equal clock cycles the loss is lower than without",
                    [Cell("loss / none", self.better(rows, name))],
                    0.0,
                    1.0,
                    ratios=True,
                )
                for name in list(self.recipes(1))[1:]
            ),
        ]

    def mutants(self) -> Sequence[Mutant]:
        first, most = min(m for m in self.stages if m > 1), self.stages[-1]

        def worse(row: Row) -> None:
            if row["part"] == "mended" and row["mitigation"] != "none":
                losses = 10 * _curve(row, "losses")
                row["losses"] = " ".join(f"{loss:.4f}" for loss in losses)

        return (
            Mutant("small", "stale loss x 1.1", times("loss", 1.1, part="grid", stages=first)),
            Mutant("slope", "stale loss x .2", times("loss", 0.2, part="grid", stages=most)),
            Mutant("depth", "loss at the largest M x .2", times("loss", 0.2, stages=most)),
            *(
                Mutant(name, "losses of the mitigation x 10", worse)
                for name in list(self.recipes(1))[1:]
            ),
        )

    def figure(self, rows: Rows) -> Any:
        figure, (slope, mended) = new_figure("Staleness times step; mitigations at equal cycles")
        for m, marker in zip([m for m in self.stages if m > 1], "o^sD", strict=False):
            for n, b in enumerate(self.batches):
                x = [stale((m, b, a)) for a in self.steps_of_a]
                found = [geometric(self.over(rows, m, b, a)) for a in self.steps_of_a]
                bars(slope, x, found, f"C{n}{marker}:", label=f"M = {m}, b = {b}")
        slope.axhline(1, color="0.6", linewidth=1, label="M = 1, sequential")
        slope.set_xlabel("x = a (M-1) b: oldest weights, in samples times step")
        slope.set_ylabel("loss / loss of sequential training")
        slope.set_xscale("log")
        slope.set_yscale("log")
        plain_ticks(slope.yaxis, (1, 1.2, 1.5, 2, 3, 5))
        slope.legend(fontsize=7)
        names = list(self.recipes(1))
        a = self.mended[-1]
        for n, name in enumerate(names):
            mine = select(rows, part="mended", mitigation=name, a=a)
            cycles = _curve(mine[0], "cycles")
            losses = np.array([_curve(row, "losses") for row in mine])
            found = [interval(list(values)) for values in losses.T]
            bars(mended, list(cycles), found, f"C{n}-", label=name)
        mended.set_xlabel(f"clock cycles of {self.stages[-1]} stages, a = {a:g}")
        mended.set_ylabel("training loss")
        mended.set_yscale("log")
        mended.legend(fontsize=7)
        return figure


def stale(key: tuple[int, int, float]) -> float:
    """x = a (M-1) b, rounded against the noise of its factors."""
    m, b, a = key
    return round(a * (m - 1) * b, 9)


def _curve(row: Row, name: str) -> Any:
    """Numbers kept in one column, separated by blanks."""
    return np.array([float(value) for value in str(row[name]).split()])
