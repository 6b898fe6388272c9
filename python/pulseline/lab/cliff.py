"""``cliff``: where asynchronous training breaks, and which mitigation moves that point.

Staleness counts in samples: stage m works with weights that are (M-m) micro-batches of b samples
old, each sample a step a. The grid M x b x a asks whether a (M-1) b alone decides; loss is compared
with sequential training (M = 1) at the same b, a and samples. Mitigations at the largest M, beyond
the cliff, all without copies of weights: rescheduled and warmed-up learning rates
(``pipeline.rates``), a first epoch without staleness, regular flushes, half the depth in flight,
half the micro-batch at the same a.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..pipeline import Schedule, asynchronous, sequential
from ..pipeline.rates import Rates, set_rates
from . import deep, digits
from .draw import new_figure, plain_ticks
from .engine import Experiment, Row, Rows, Summary
from .report import table
from .rows import by_seed, column, mean, number, select
from .statistics import Interval, Verdict, every, interval


class Recipe(NamedTuple):
    """A schedule, learning rates and a part of the micro-batch."""

    schedule: Schedule
    rates: Rates = Rates()
    divide: int = 1


@dataclass(frozen=True)
class Cliff:
    """``steps_of_a`` per sample; ``mended``: those at which mitigations are tried.

    ``broken``: loss over that of sequential training that counts as broken. ``safe`` and
    ``lost``: values of a (M-1) b below and above which the answer is claimed, the latter for steps
    up to ``sound``, beyond which sequential training suffers by itself.
    """

    stages: tuple[int, ...] = (1, 2, 4, 8)
    batches: tuple[int, ...] = (2, 4, 8, 16)
    steps_of_a: tuple[float, ...] = (0.001, 0.002, 0.004, 0.008, 0.016)
    mended: tuple[float, ...] = (0.004, 0.008, 0.016)
    mended_batch: int = 8
    epochs: int = 6
    per_epoch: int = 4
    broken: float = 1.5
    safe: float = 0.065
    lost: float = 0.4
    sound: float = 0.008

    name = "cliff"
    title = "Where asynchronous training breaks"
    seeded = True

    def quick(self) -> Cliff:
        """Two micro-batch sizes, three epochs."""
        return replace(
            self,
            batches=(8, 16),
            steps_of_a=self.steps_of_a[1:4],
            mended=self.mended[:2],
            epochs=3,
        )

    @property
    def source(self) -> Experiment:
        return self

    def recipes(self, micro_batches: int) -> dict[str, Recipe]:
        """Mitigations by name; ``micro_batches`` in an epoch."""
        most = self.stages[-1]
        half = [max(1, (most - m) // 2 + 1) for m in range(most)]
        return {
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

    def run(self, seed: int) -> Iterator[Row]:
        data = digits.load()
        for batch in self.batches:
            for a in self.steps_of_a:
                for stages in self.stages:
                    plain = sequential() if stages == 1 else asynchronous()
                    yield self._row(data, seed, "none", Recipe(plain), stages, batch, a)
        batch = self.mended_batch
        for name, recipe in self.recipes(-(-len(data.x_train) // batch)).items():
            for a in self.mended:
                yield self._row(data, seed, name, recipe, self.stages[-1], batch, a)

    def _row(
        self,
        data: digits.Digits,
        seed: int,
        name: str,
        recipe: Recipe,
        stages: int,
        batch: int,
        a: float,
    ) -> Row:
        """Train; loss and accuracy are means over the second half."""
        batch //= recipe.divide
        pipe = deep.pipeline(seed, stages, a, batch, recipe.schedule)
        losses: list[Tensor] = []
        found: list[tuple[float, float]] = []
        for part in deep.parts(data, seed, self.epochs, self.per_epoch):
            set_rates(pipe, a * batch, recipe.rates)
            losses.clear()
            pipe.step(data.x_train[part], target=data.y_train[part], losses=losses)
            pipe.drain(losses)
            right = digits.accuracy(pipe, data.x_test, data.y_test)
            found.append((right, torch.stack(losses).mean().item()))
        last = found[len(found) // 2 :]
        return {
            "mitigation": name,
            "stages": stages,
            "micro_batch": batch,
            "a": a,
            "staleness": a * (stages - 1) * batch,
            "loss": sum(loss for _, loss in last) / len(last),
            "accuracy": sum(right for right, _ in last) / len(last),
            "cycles": pipe.cycles,
        }

    def _over(self, rows: Rows, batch: int, a: float, **which: Any) -> Interval:
        """Loss over that of sequential training of the same seed: geometric mean."""
        found = []
        for one in by_seed(rows):
            (plain,) = select(one, mitigation="none", stages=1, micro_batch=batch, a=a)
            (mine,) = select(one, a=a, **which)
            found.append(math.log(number(mine, "loss") / number(plain, "loss")))
        return Interval(*(math.exp(min(value, 700.0)) for value in interval(found)))

    def _grid(self, rows: Rows) -> dict[tuple[int, int, float], Interval]:
        """Loss over sequential by (M, b, a)."""
        return {
            (m, b, a): self._over(rows, b, a, mitigation="none", stages=m, micro_batch=b)
            for m in self.stages
            if m > 1
            for b in self.batches
            for a in self.steps_of_a
        }

    def _better(self, rows: Rows, name: str) -> Interval:
        """Loss with a mitigation over loss without, beyond the cliff: geometric mean."""
        found = []
        for one in by_seed(rows):
            logs = []
            for a in self.mended:
                (mine,) = select(one, mitigation=name, a=a)
                (plain,) = select(
                    one,
                    mitigation="none",
                    stages=self.stages[-1],
                    micro_batch=self.mended_batch,
                    a=a,
                )
                logs.append(math.log(number(mine, "loss") / number(plain, "loss")))
            found.append(sum(logs) / len(logs))
        return Interval(*(math.exp(min(value, 700.0)) for value in interval(found)))

    def summarise(self, rows: Rows) -> Summary:
        grid = self._grid(rows)
        most, batch = self.stages[-1], self.mended_batch
        cells = [
            [m, b, *(f"{grid[m, b, a].mean:.2f}" for a in self.steps_of_a)]
            for m in self.stages
            if m > 1
            for b in self.batches
        ]
        plain = select(rows, mitigation="none", stages=most, micro_batch=batch)
        names = list(self.recipes(1))
        better = {name: self._better(rows, name) for name in names}
        mended = []
        for name in ["none", *names]:
            mine = plain if name == "none" else select(rows, mitigation=name)
            losses = [f"{mean(select(mine, a=a), 'loss'):.2f}" for a in self.mended]
            right = [f"{mean(select(mine, a=a), 'accuracy'):.1f} %" for a in self.mended]
            cost = mean(mine, "cycles") / mean(plain, "cycles")
            gain = "1" if name == "none" else str(better[name])
            mended.append([name, *losses, *right, gain, f"{cost:.2f}"])
        text = "\n\n".join(
            [
                "Loss of the second half over that of sequential training, same b, a and samples:",
                table(["M", "b", *(f"a = {a:g}" for a in self.steps_of_a)], cells),
                f"Mitigations at M = {most}, b = {batch}:",
                table(
                    [
                        "mitigation",
                        *(f"loss, a = {a:g}" for a in self.mended),
                        *(f"accuracy, a = {a:g}" for a in self.mended),
                        "loss / unmitigated",
                        "cycles / unmitigated",
                    ],
                    mended,
                ),
            ]
        )
        return Summary(text, self._verdicts(grid, better))

    def _verdicts(
        self, grid: dict[tuple[int, int, float], Interval], better: dict[str, Interval]
    ) -> list[Verdict]:
        safe = {key: one for key, one in grid.items() if _stale(key) <= self.safe}
        lost = {
            key: one
            for key, one in grid.items()
            if _stale(key) >= self.lost and key[2] <= self.sound
        }
        return [
            Verdict(
                "safe",
                f"up to a (M-1) b = {self.safe:g} the loss stays below {self.broken:g} times that "
                "of sequential training",
                every(one.within(0.0, self.broken) for one in safe.values()),
                f"worst of {len(safe)} cells {_worst(safe, max)}",
            ),
            Verdict(
                "lost",
                f"from a (M-1) b = {self.lost:g} on it lies above, for a up to {self.sound:g}",
                every(one.within(self.broken, math.inf) for one in lost.values()),
                f"best of {len(lost)} cells {_worst(lost, min)}",
            ),
            *(
                Verdict(
                    name,
                    f"{name}: beyond the cliff the loss is lower",
                    one.within(0.0, 1.0),
                    f"loss / unmitigated {one}",
                )
                for name, one in better.items()
            ),
        ]

    def figure(self, rows: Rows) -> Any:
        figure, (collapse, mended) = new_figure(
            "The cliff is where staleness in samples times step lies between 0.1 and 0.3"
        )
        grid = self._grid(rows)
        for m, marker in zip([m for m in self.stages if m > 1], "o^sD", strict=False):
            for n, b in enumerate(self.batches):
                x = [a * (m - 1) * b for a in self.steps_of_a]
                y = [grid[m, b, a].mean for a in self.steps_of_a]
                label = f"M = {m}, b = {b}"
                collapse.loglog(x, y, marker, linestyle=":", color=f"C{n}", label=label)
        collapse.axhline(1, color="0.6", linewidth=1)
        collapse.axhline(self.broken, color="0.6", linewidth=1, linestyle="--")
        collapse.set_xlabel("a (M-1) b: oldest weights, in samples x step")
        collapse.set_ylabel("loss / loss of sequential training")
        plain_ticks(collapse.yaxis, (1, 1.5, 2, 3, 5))
        collapse.legend(fontsize=7)
        names = ["none", *self.recipes(1)]
        most, batch = self.stages[-1], self.mended_batch
        for n, a in enumerate(self.mended):
            heights, errors = [], []
            for name in names:
                which: dict[str, Any] = {"mitigation": name}
                if name == "none":
                    which |= {"stages": most, "micro_batch": batch}
                losses = column(select(rows, a=a, **which), "loss")
                heights.append(sum(losses) / len(losses))
                errors.append((max(losses) - min(losses)) / 2)
            places = [k + 0.8 * (n + 0.5) / len(self.mended) - 0.4 for k in range(len(names))]
            mended.barh(places, heights, 0.8 / len(self.mended), xerr=errors, label=f"a = {a:g}")
        mended.set_yticks(range(len(names)), names)
        mended.invert_yaxis()
        mended.set_xlabel(f"training loss of the second half, M = {most}, b = {batch}")
        mended.legend(loc="lower right")
        return figure


def _stale(key: tuple[int, int, float]) -> float:
    """a (M-1) b, rounded against the noise of its factors."""
    m, b, a = key
    return round(a * (m - 1) * b, 9)


def _worst(cells: dict[tuple[int, int, float], Interval], which: Any) -> str:
    if not cells:
        return "none"
    key = which(cells, key=lambda one: cells[one].mean)
    m, b, a = key
    return f"M = {m}, b = {b}, a = {a:g}: {cells[key]}"
