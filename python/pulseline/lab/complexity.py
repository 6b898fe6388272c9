"""``complexity``: iterations until E_K <= eps, for digital, synchronous and asynchronous training.

E_K is the mean of |grad f(W_k)|^2 over k = 0 .. K-1, what the theorems bound: for step a about
D0 / (a K) + c a (+ a^2 C^2 of staleness, arXiv 2410.15155, derived). With the best step for each
eps, a ~ eps, that asks for K ~ eps^-2 iterations, and staleness for only O(eps^-1) more. An
iteration is one sample. For every step of a geometric grid the first K is taken at which E_K falls
to eps, then the least over the steps. All methods see the same samples. Analog devices with a
large tau keep their floor below the eps asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from .draw import new_figure, plain_ticks
from .engine import Experiment, Row, Rows, Summary
from .report import table
from .rows import by_seed, number, select
from .statistics import Interval, Verdict, crossing, every, exponent, interval
from .teacher import Teacher, gradients_along


class Method(NamedTuple):
    """How to train: update of the layers, schedule, whether it is pipelined."""

    update: str
    schedule: str
    pipelined: bool


METHODS = {
    "digital": Method("digital", "sequential", False),
    "analog": Method("expected", "sequential", False),
    "synchronous": Method("expected", "sync", False),
    "asynchronous": Method("expected", "async", True),
}


@dataclass(frozen=True)
class Complexity:
    """``first_a`` and ``first_eps`` fall by sqrt(2), ``count`` and ``levels`` of them.

    ``last_run``: samples of the run with the smallest step; others have (a_min / a)^2 of it, at
    least ``least_run``. Without staleness the number of stages changes no bit; only the
    asynchronous method is cut into one stage per layer.
    """

    layers: int = 8
    noise: float = 0.5
    distance: float = 0.35
    tau: float = 8.0
    first_a: float = 0.0283
    count: int = 7
    first_eps: float = 0.085
    levels: int = 6
    last_run: int = 12000
    least_run: int = 400
    look_every: int = 5

    name = "complexity"
    title = "Iterations to eps: the same exponent with and without staleness"
    seeded = True

    def quick(self) -> Complexity:
        """Four layers, a shorter range of eps."""
        return replace(self, layers=4, count=4, levels=4, last_run=3000)

    @property
    def source(self) -> Experiment:
        return self

    @property
    def grid(self) -> list[float]:
        """The steps a, largest first."""
        return [self.first_a * 2 ** (-n / 2) for n in range(self.count)]

    @property
    def targets(self) -> list[float]:
        """The levels eps, largest first."""
        return [self.first_eps * 2 ** (-n / 2) for n in range(self.levels)]

    def steps(self) -> int:
        return len(METHODS) * self.count * self.levels

    def run(self, seed: int) -> Iterator[Row]:
        problem = Teacher(self.layers, noise=self.noise, distance=self.distance)
        for name, method in METHODS.items():
            for a in self.grid:
                samples, means = self._curve(problem, method, a, seed)
                for n, eps in enumerate(self.targets):
                    reached = crossing(samples, means, eps)
                    yield {"method": name, "a": a, "level": n, "eps": eps, "iterations": reached}

    def _curve(
        self, problem: Teacher, method: Method, a: float, seed: int
    ) -> tuple[list[float], list[float]]:
        """K and E_K of one run; seeds draw samples, the teacher is one."""
        count = max(self.least_run, round(self.last_run * (self.grid[-1] / a) ** 2))
        stages = self.layers if method.pipelined else 1
        model = problem.model(method.update, self.tau)
        pipe = problem.pipeline(model, stages, a, schedule=method.schedule)
        samples, means, total = [], [], 0.0
        for k, value in gradients_along(problem, pipe, model, count, self.look_every, stream=seed):
            total += value
            samples.append(float(k + self.look_every))
            means.append(total / len(samples))
        return samples, means

    def _iterations(self, rows: Rows, method: str, level: int) -> float | None:
        """The least over the steps; None if no run came down to the level."""
        mine = select(rows, method=method, level=level)
        found = [number(row, "iterations") for row in mine if row["iterations"] is not None]
        return min(found, default=None)

    def _common(self, rows: Rows) -> list[int]:
        """Levels that every method reached with every seed."""
        return [
            level
            for level in range(self.levels)
            if all(
                self._iterations(one, method, level) is not None
                for one in by_seed(rows)
                for method in METHODS
            )
        ]

    def _counts(self, rows: Rows, method: str, levels: list[int]) -> list[float]:
        found = [self._iterations(rows, method, level) for level in levels]
        return [one for one in found if one is not None]

    def summarise(self, rows: Rows) -> Summary:
        levels = self._common(rows)
        eps = [self.targets[level] for level in levels]
        counts = {
            method: [self._counts(one, method, levels) for one in by_seed(rows)]
            for method in METHODS
        }
        orders = {
            method: interval([-exponent(eps, one) for one in by_method])
            for method, by_method in counts.items()
        }
        more = [
            interval(
                [
                    stale[n] / plain[n] - 1
                    for stale, plain in zip(counts["asynchronous"], counts["analog"], strict=True)
                ]
            )
            for n in range(len(levels))
        ]
        cells = []
        for n, level in enumerate(eps):
            means = [sum(one[n] for one in by) / len(by) for by in counts.values()]
            cells.append([f"{level:.4f}", *(f"{value:.0f}" for value in means), more[n]])
        text = "\n\n".join(
            [
                "Iterations (samples) to E_K <= eps with the best step of the grid, means over "
                "seeds, and the part that asynchronous training needs more than analog "
                "sequential training on the same samples:",
                table(["eps", *METHODS, "asynchronous / analog - 1"], cells),
                "Exponent p of iterations ~ eps^-p:",
                table(list(METHODS), [[orders[method] for method in METHODS]]),
            ]
        )
        return Summary(text, self._verdicts(orders, more, eps))

    def _verdicts(
        self, orders: dict[str, Interval], more: list[Interval], eps: list[float]
    ) -> list[Verdict]:
        stale, sync = orders["asynchronous"], orders["synchronous"]
        trend = (
            f"{100 * more[0].mean:.1f} % at eps = {eps[0]:.3g}, {100 * more[-1].mean:.1f} % at "
            f"{eps[-1]:.3g}"
        )
        return [
            Verdict(
                "exponent",
                "the exponent of asynchronous training lies in the interval of the synchronous one",
                sync.contains(stale.mean),
                f"asynchronous {stale.mean:.3f}, synchronous {sync}",
            ),
            Verdict(
                "order",
                "the intervals of all exponents contain 2, that of eps^-2",
                every(one.contains(2.0) for one in orders.values()),
                ", ".join(f"{method} {one}" for method, one in orders.items()),
            ),
            Verdict(
                "extra",
                "at the smallest eps staleness costs at most 10 % more iterations",
                more[-1].within(-0.1, 0.1),
                f"part {more[-1]}",
            ),
            Verdict(
                "vanishing",
                "this part is smaller at the smallest eps than at the largest, as O(1/eps) against "
                "O(1/eps^2) asks",
                None if len(more) < 2 else _less(more[-1], more[0]),
                trend,
            ),
        ]

    def figure(self, rows: Rows) -> Any:
        figure, (left, right) = new_figure("Staleness does not change the exponent of iterations")
        levels = self._common(rows)
        eps = [self.targets[level] for level in levels]
        seeds = by_seed(rows)
        plain = [self._counts(one, "analog", levels) for one in seeds]
        styles = ("C0s--", "C1^-", "C2o-", "C3x-")
        for method, style in zip(METHODS, styles, strict=True):
            counts = [self._counts(one, method, levels) for one in seeds]
            means = [sum(column) / len(seeds) for column in zip(*counts, strict=True)]
            left.loglog(eps, means, style, label=method)
            if method != "analog":
                more = [
                    [100 * (a / b - 1) for a, b in zip(one, base, strict=True)]
                    for one, base in zip(counts, plain, strict=True)
                ]
                over = [sum(column) / len(seeds) for column in zip(*more, strict=True)]
                right.semilogx(eps, over, style, label=method)
                for n, one in enumerate(more):
                    name = "single seeds" if method == "asynchronous" and n == 0 else None
                    right.semilogx(eps, one, style[2], color="0.6", markersize=4, label=name)
        guide = [0.6 * means[0] * (eps[0] / one) ** 2 for one in eps]
        left.loglog(eps, guide, color="0.6", linewidth=1, label="slope -2")
        left.set_ylabel("iterations until E_K <= eps (samples)")
        right.set_ylabel("more iterations than analog sequential (%)")
        right.axhline(0, color="0.6", linewidth=1)
        for axes in (left, right):
            axes.set_xlabel("eps, bound on the mean of |grad f|^2")
            plain_ticks(axes.xaxis, [round(one, 3) for one in eps])
            axes.legend()
        return figure


def _less(one: Interval, other: Interval) -> bool | None:
    """Whether one lies below the other; None while their intervals overlap."""
    if one.high < other.low:
        return True
    return False if other.high < one.low else None
