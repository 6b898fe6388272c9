"""``complexity``: iterations until E_K <= eps, for digital, synchronous and asynchronous training.

E_K is the mean of |grad f(W_k)|^2 over k = 0 .. K-1, what the theorems bound: for step a about
D0 / (a K) + c a (+ a^2 C^2 of staleness, arXiv 2410.15155, derived). With the best step for each
eps, a ~ eps, that asks for K ~ eps^-2 iterations, and staleness for only O(eps^-1) more. An
iteration is one sample. K is the first one at which E_K falls to eps with a step a ~ eps from a
geometric grid, the proportion that is best over all eps. All methods and steps see the same
samples, so that whatever is compared is compared seed by seed. The runs are those of
``recursion.py``, all seeds at once.

|grad f|^2 by itself says little on devices that pull to 0: it falls when weights shrink. Hence tau
far above the weights, and f and |W| (Frobenius, all layers) where E_K crosses eps beside it; the
method "shrinking" is the analog one at a small tau, which shows what the measure allows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .draw import bars, new_figure, plain_ticks
from .engine import Seeds, Settings, Summary
from .mutants import Bend, Mutant, Row, Rows, times
from .recursion import Block, Fleet, drawn
from .report import table as report_table
from .rows import number, select
from .statistics import Cell, Verdict, decide, exponent, interval
from .teacher import Teacher

__all__ = ["METHODS", "MOST_APART", "PAIRED", "Complexity", "Method"]


class Method(NamedTuple):
    """tau (0: the experiment's), forward passes with old weights, B of the synchronous one."""

    tau: float = 0.0
    stale: bool = False
    batch: int = 1


METHODS = {
    "digital": Method(math.inf),
    "analog": Method(),
    "synchronous": Method(batch=8),
    "asynchronous": Method(stale=True),
    "shrinking": Method(8.0),
}
PAIRED = ("analog", "synchronous", "asynchronous")
MOST_APART = 0.1  # exponents


@dataclass(frozen=True)
class Complexity(Settings):
    """``first_a`` and ``first_eps`` fall by sqrt(2), ``count`` and ``levels`` of them.

    ``last_run``: most samples of a run; that of step a has (a_min / a)^2 ``reach`` of it at most.
    ``look``: samples between two looks times a, in multiples of the synchronous B.
    """

    seeds: Seeds = 32
    layers: int = 8
    noise: float = 0.5
    distance: float = 0.35
    tau: float = 64.0
    first_a: float = 0.04
    count: int = 8
    first_eps: float = 0.06
    levels: int = 5
    last_run: int = 8000
    reach: float = 3.0
    look: float = 0.12
    questions: int = 128

    name: ClassVar[str] = "complexity"
    title: ClassVar[str] = "Iterations to eps with and without staleness"
    group: ClassVar[int] = 32

    def quick(self) -> Complexity:
        """Four layers, a shorter range of eps."""
        return replace(
            self, seeds=32, layers=4, first_eps=0.085, levels=4, last_run=4400, questions=64
        )

    @property
    def grid(self) -> list[float]:
        """The steps a, largest first."""
        return [self.first_a * 2 ** (-n / 2) for n in range(self.count)]

    @property
    def targets(self) -> list[float]:
        """The levels eps, largest first."""
        return [self.first_eps * 2 ** (-n / 2) for n in range(self.levels)]

    def steps(self) -> int:
        return len(METHODS) * self.count

    def _block(self, a: float) -> Block:
        count = min(1.0, self.reach * (self.grid[-1] / a) ** 2) * self.last_run
        return Block(a, 8 * round(count / 8), 8 * max(1, round(self.look / a / 8)))

    def run(self, seeds: Sequence[int]) -> Iterator[Row]:
        problem = Teacher(self.layers, noise=self.noise, distance=self.distance)
        blocks = [self._block(a) for a in self.grid]
        samples = drawn(problem, seeds, max(block.samples for block in blocks))
        for name, method in METHODS.items():
            tau = method.tau or self.tau
            fleet = Fleet(
                problem,
                samples,
                blocks,
                tau,
                stale=method.stale,
                batch=method.batch,
                questions=self.questions,
            )
            for block, found in zip(fleet.blocks, self._curves(fleet), strict=True):
                for n, seed in enumerate(seeds):
                    yield {"seed": seed, "method": name, "a": block.a, **self._reached(found, n)}

    def _curves(self, fleet: Fleet) -> list[list[tuple[float, Any, Any, Any]]]:
        """(K, E_K, f, |W|) of every block along its runs."""
        curves: list[list[tuple[float, Any, Any, Any]]] = [[] for _ in fleet.blocks]
        totals: list[Any] = [0.0] * len(fleet.blocks)
        for look in fleet.run():
            curve, every = curves[look.n], fleet.blocks[look.n].every
            totals[look.n] = totals[look.n] + look.gradient2
            mean = totals[look.n] / (len(curve) + 1)
            curve.append((float(look.k + every), mean, look.loss, look.norm))
        return curves

    def _reached(self, curve: list[tuple[float, Any, Any, Any]], n: int) -> Row:
        """K, f and |W| of run n where E_K crosses each level; None where it does not."""
        row: Row = {}
        samples = np.array([k for k, *_ in curve])
        means = np.array([mean[n] for _, mean, _, _ in curve])
        for level, eps in enumerate(self.targets):
            below = np.flatnonzero(means <= eps)
            row |= {f"k{level}": None, f"f{level}": None, f"w{level}": None}
            if len(below) and below[0] > 0:
                i = int(below[0])
                part = (means[i - 1] - eps) / (means[i - 1] - means[i])
                k = float(samples[i - 1] + part * (samples[i] - samples[i - 1]))
                loss, norm = float(curve[i][2][n]), float(curve[i][3][n])
                row |= {f"k{level}": k, f"f{level}": loss, f"w{level}": norm}
        return row

    # ---- from rows to numbers ----

    def best(self, rows: Rows, method: str, level: int) -> int:
        """Number in the grid of the step with the least mean K; a seed that missed counts twice
        the longest run."""
        costs = [0.0] * self.count
        for row in rows:
            if row["method"] == method:
                costs[self.step(row)] += _or(row[f"k{level}"], 2.0 * self.last_run)
        return costs.index(min(costs))

    def step(self, row: Row) -> int:
        """Number in the grid of a row's step, which may be rounded."""
        return round(2 * math.log2(self.first_a / number(row, "a")))

    def runs(self, rows: Rows, method: str, step: int) -> Rows:
        """The rows of a method with one step of the grid."""
        return [row for row in select(rows, method=method) if self.step(row) == step]

    def first(self, rows: Rows, method: str) -> int:
        """Number of the step for the largest eps; that of level n is n further: a ~ eps."""

        def cost(first: int) -> float:
            return sum(
                math.log(_or(row[f"k{level}"], 2.0 * self.last_run))
                for level in range(self.levels)
                for row in self.runs(rows, method, first + level)
            )

        return min(range(self.count - self.levels + 1), key=cost)

    def at(self, rows: Rows, method: str, level: int, step: int, of: str = "k") -> dict[int, float]:
        """K, f or |W| at a level by seed, of the seeds that reached it with this step."""
        mine = self.runs(rows, method, step)
        known = [row for row in mine if row[f"{of}{level}"] is not None]
        return {int(number(row, "seed")): number(row, f"{of}{level}") for row in known}

    def table(self, rows: Rows) -> dict[str, list[dict[int, float]]]:
        """K by seed of every method and level.

        What is paired shares its steps, the best of analog sequential training: with them another
        method may only look worse than with its own.
        """
        found = {}
        for method in METHODS:
            first = self.first(rows, "analog" if method in PAIRED else method)
            found[method] = [self.at(rows, method, n, first + n) for n in range(self.levels)]
        return found

    def _slope(self, levels: list[dict[int, float]], seed: int) -> float | None:
        """Exponent of one seed over the levels it reached; None for less than two."""
        known = [n for n, found in enumerate(levels) if seed in found]
        if len(known) < 2:
            return None
        return -exponent([self.targets[n] for n in known], [levels[n][seed] for n in known])

    def _apart(self, table: dict[str, list[dict[int, float]]], of: str, than: str) -> list[float]:
        """Exponent of one method less that of another, seed by seed, on levels both reached."""
        found = []
        for seed in self._seeds(table):
            both = [{} if seed not in b else a for a, b in zip(table[of], table[than], strict=True)]
            pair = [self._slope(both, seed), self._slope(table[than], seed)]
            found += [pair[0] - pair[1]] if pair[0] is not None and pair[1] is not None else []
        return found

    def _seeds(self, table: dict[str, list[dict[int, float]]]) -> list[int]:
        return sorted({seed for levels in table.values() for found in levels for seed in found})

    def _excess(self, table: dict[str, list[dict[int, float]]], level: int) -> dict[int, float]:
        """K of asynchronous less that of analog sequential training, by seed."""
        stale, plain = table["asynchronous"][level], table["analog"][level]
        return {seed: stale[seed] - plain[seed] for seed in stale if seed in plain}

    def _order(self, table: dict[str, list[dict[int, float]]]) -> list[float]:
        """Exponent of the mean excess ~ eps^-q, one value per seed: jackknife pseudo-values.

        The excess of one seed may be negative, its mean over seeds is not; so the exponent is
        fitted to means, and its scatter is that of leaving out one seed at a time.
        """
        excess = [self._excess(table, level) for level in range(self.levels)]
        seeds = sorted(set().union(*excess))

        def slope(left_out: int | None) -> float:
            means = [[v for s, v in one.items() if s != left_out] for one in excess]
            points = [
                (eps, sum(one) / len(one))
                for eps, one in zip(self.targets, means, strict=True)
                if len(one) > 1
            ]
            if len(points) < 2 or min(mean for _, mean in points) <= 0:
                return math.nan
            return -exponent(*zip(*points, strict=True))

        whole, n = slope(None), len(seeds)
        found = [n * whole - (n - 1) * slope(seed) for seed in seeds]
        return [] if n < 2 or any(map(math.isnan, found)) else found

    # ---- what they say ----

    def summarise(self, rows: Rows) -> Summary:
        table = self.table(rows)
        slopes = {
            method: interval([v for s in self._seeds(table) if (v := self._slope(levels, s))])
            for method, levels in table.items()
            if any(levels)
        }
        counts, losses = [], []
        for level, eps in enumerate(self.targets):
            found = [table[method][level] for method in METHODS]
            excess = list(self._excess(table, level).values())
            means = [f"{np.mean(list(one.values())):.0f}" if one else "-" for one in found]
            missed = len(self._seeds(table)) - min(len(one) for one in found)
            counts.append([f"{eps:.4f}", *means, interval(excess) if excess else "-", missed])
            losses.append([f"{eps:.4f}", *(self._beside(rows, m, level) for m in METHODS)])
        order = self._order(table)
        grows = f"eps^-q, q = {interval(order)}" if order else "no power of eps: it vanishes"
        text = "\n\n".join(
            [
                f"Iterations (samples) to E_K <= eps, means over seeds. tau = {self.tau:g}; "
                f'"shrinking" is analog training at tau = {METHODS["shrinking"].tau:g}. Digital '
                "and shrinking at their own best step, the others at that of analog. Excess: "
                "asynchronous less analog, seed by seed:",
                report_table(["eps", *METHODS, "excess", "seeds that missed"], counts),
                "Exponent p of iterations ~ eps^-p, in this range of eps (no asymptote):",
                report_table(list(slopes), [list(slopes.values())]),
                f"The excess grows like {grows}.",
                "f - f* (f* = 0) and |W| where E_K crosses eps:",
                report_table(["eps", *METHODS], losses),
                "What the measure allows: |grad f|^2 also falls when weights shrink. At the small "
                "tau eps is met in fewer iterations, at a higher loss and smaller weights: that "
                "is no gain over digital training.",
            ]
        )
        return Summary(text, self._verdicts(rows, table))

    def _beside(self, rows: Rows, method: str, level: int) -> str:
        step = self.first(rows, method) + level
        f, w = (list(self.at(rows, method, level, step, of).values()) for of in "fw")
        return f"{np.mean(f):.4f}, {np.mean(w):.3f}" if f else "-"

    def _share(self, table: dict[str, list[dict[int, float]]], level: int) -> dict[int, float]:
        """Excess over the K of analog sequential training, by seed."""
        excess, plain = self._excess(table, level), table["analog"][level]
        return {seed: value / plain[seed] for seed, value in excess.items()}

    def _verdicts(self, rows: Rows, table: dict[str, list[dict[int, float]]]) -> list[Verdict]:
        last = self.levels - 1
        largest, smallest = self._share(table, 0), self._share(table, last)
        fall = [smallest[s] - largest[s] / 2 for s in smallest if s in largest]
        eps = self.targets
        shrinking, digital = (
            self.at(rows, method, last, self.first(rows, method) + last, "f")
            for method in ("shrinking", "digital")
        )
        ratios = [f / digital[seed] for seed, f in shrinking.items() if seed in digital]
        return [
            decide(
                "exponent",
                "the exponent of asynchronous training is that of synchronous and of sequential "
                f"training within {MOST_APART:g}, seed by seed",
                [
                    Cell(f"less {name}", self._apart(table, "asynchronous", of))
                    for name, of in (("synchronous", "synchronous"), ("sequential", "analog"))
                ],
                -MOST_APART,
                MOST_APART,
            ),
            decide(
                "lower_order",
                "the share of iterations that staleness adds is at the smallest eps less than "
                "half of that at the largest: its order is lower",
                [Cell(f"share at eps = {eps[last]:.4f} less half of that at {eps[0]:.4f}", fall)],
                high=0.0,
            ),
            decide(
                "extra",
                "at the smallest eps staleness adds at most 2 % of the iterations",
                [Cell(f"share at eps = {eps[last]:.4f}", list(smallest.values()))],
                -0.02,
                0.02,
            ),
            decide(
                "shrinking",
                "where weights shrink the same eps leaves more than 1.2 times the loss of digital "
                "training: the measure alone does not rank devices",
                [Cell("loss / digital", ratios)],
                1.2,
                ratios=True,
            ),
            self._grid(rows),
        ]

    def _grid(self, rows: Rows) -> Verdict:
        edges = [
            f"{method} at eps = {self.targets[level]:.4f}"
            for method in METHODS
            for level in range(self.levels)
            if self.best(rows, method, level) in (0, self.count - 1)
        ]
        count = len(METHODS) * self.levels
        rest = f"; not {', '.join(edges)}" if edges else ""
        return Verdict(
            "grid",
            "no best step is the first or the last of the grid",
            not edges,
            f"{count - len(edges)} of {count} inside" + rest,
        )

    def mutants(self) -> Sequence[Mutant]:
        ks = [f"k{level}" for level in range(self.levels)]
        last = ks[-1]
        stale: dict[str, Any] = {"method": "asynchronous"}
        return (
            Mutant("exponent", "asynchronous exponent + .3", self._steeper(0.3)),
            Mutant("exponent", "asynchronous exponent - .3", self._steeper(-0.3)),
            Mutant("lower_order", "asynchronous exponent + .3", self._steeper(0.3)),
            Mutant("lower_order", "asynchronous iterations x 1.2", times(ks, 1.2, **stale)),
            Mutant("extra", "asynchronous exponent + .3", self._steeper(0.3)),
            Mutant("extra", "asynchronous iterations x 1.1", times(ks, 1.1, **stale)),
            Mutant(
                "shrinking",
                "loss at small tau x .5",
                times(f"f{last[1:]}", 0.5, method="shrinking"),
            ),
            Mutant("grid", "smallest step 10 times faster", self._fast_end),
        )

    def _fast_end(self, row: Row) -> None:
        """A tenth of the iterations with the smallest step."""
        if self.step(row) == self.count - 1:
            times([f"k{level}" for level in range(self.levels)], 0.1)(row)

    def _steeper(self, p: float) -> Bend:
        """Iterations of asynchronous training times (first eps / eps)^p."""

        def bend(row: Row) -> None:
            if row["method"] == "asynchronous":
                for level in range(self.levels):
                    times(f"k{level}", 2 ** (p * level / 2))(row)

        return bend

    def figure(self, rows: Rows) -> Any:
        figure, (left, middle, right) = new_figure(
            "Iterations to eps, tau far above the weights", 3
        )
        table, eps = self.table(rows), self.targets
        for (method, levels), style in zip(
            table.items(), ("s--", "^-", "o-", "x-", "d:"), strict=True
        ):
            known = [n for n, found in enumerate(levels) if len(found) > 1]
            x = [eps[n] for n in known]
            bars(left, x, [interval(list(levels[n].values())) for n in known], style, label=method)
            shares = [
                [
                    100 * (levels[n][s] / k - 1)
                    for s, k in table["analog"][n].items()
                    if s in levels[n]
                ]
                for n in known
            ]
            if method in PAIRED[1:]:
                bars(middle, x, [interval(one) for one in shares], style, label=method)
            first = self.first(rows, method)
            loss = [list(self.at(rows, method, n, first + n, "f").values()) for n in known]
            bars(right, x, [interval(one) for one in loss], style, label=method)
        top = np.mean(list(table["digital"][0].values()) or [1.0])
        left.plot(eps, [0.6 * top * (eps[0] / one) ** 2 for one in eps], "0.6", label="slope -2")
        middle.axhline(0, color="0.6", linewidth=1)
        left.set_ylabel("iterations K until E_K <= eps (samples)")
        middle.set_ylabel("more iterations than analog sequential (%)")
        right.set_ylabel("f - f* where E_K = eps")
        for axes in (left, middle, right):
            axes.set_xscale("log")
            axes.set_xlabel("eps, bound on E_K, the mean of |grad f|^2")
            plain_ticks(axes.xaxis, [round(one, 3) for one in eps])
            axes.legend(fontsize=8)
        left.set_yscale("log")
        right.set_yscale("log")
        return figure


def _or(value: object, other: float) -> float:
    return float(value) if isinstance(value, (int, float)) else other
