"""``floor``: analog SGD stops above zero, at a distance that goes like 1 / tau.

Toy least squares of Wu et al. 2024 (NeurIPS): rows a_i of a 100 x 40 matrix drawn one by one,
targets a_i x* + noise, x* ~ 0.45 N(0, 1), noise 0.1. On asymmetric linear devices, whose mean
update is that of ``recursion.py``, weights rest where ::

    E[g_j] + E|g_j| w_j / tau = 0        (implicit penalty, Wu et al. 2025)

With gaussian residuals of variance s^2, E|g_j| = sqrt(2/pi) s mean_i |a_ij|; the equation is then
solved for w by iteration on s: the prediction. It is compared with the mean weights over the
second half of a run, less those of the digital run on the same samples, which removes the
sampling noise both share. ``gradient2`` and ``loss`` are plain means of |grad f|^2 and f - f*.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .draw import bars, new_figure, plain_ticks
from .engine import Seeds, Settings, Summary
from .mutants import Mutant, Row, Rows, times
from .report import table
from .rows import by_seed, column, mean, number, select
from .statistics import Cell, Verdict, decide, exponent, geometric

__all__ = ["LATE_EVERY", "Floor", "Vector"]

Vector = NDArray[np.float64]
LATE_EVERY = 8  # samples between two looks


@dataclass(frozen=True)
class Floor(Settings):
    """``taus`` in weight units, the law is fitted from ``law_from`` on; ``steps_of_a`` per sample.

    A run has horizon / a samples. Each seed is a problem of its own.
    """

    seeds: Seeds = 32
    rows: int = 100
    columns: int = 40
    scale: float = 0.45
    noise: float = 0.1
    taus: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 32.0)
    law_from: float = 4.0
    steps_of_a: tuple[float, ...] = (0.006, 0.003, 0.0015)
    horizon: float = 160.0

    name: ClassVar[str] = "floor"
    title: ClassVar[str] = "The floor of analog SGD against tau"
    group: ClassVar[int] = 32

    def quick(self) -> Floor:
        """Shorter runs, two steps, fewer seeds."""
        return replace(self, seeds=8, steps_of_a=self.steps_of_a[:2], horizon=50.0)

    def steps(self) -> int:
        return (1 + len(self.taus)) * len(self.steps_of_a)

    def run(self, seeds: Sequence[int]) -> Iterator[Row]:
        problems = [self._problem(seed) for seed in seeds]
        for step in self.steps_of_a:
            means = self._train(problems, seeds, step)
            for n, (seed, (a, solution)) in enumerate(zip(seeds, problems, strict=True)):
                h = a.T @ a / len(a)
                for tau, (weights, gradient2, loss) in means.items():
                    away = weights[n] - means[math.inf][0][n]
                    analog = tau < math.inf
                    yield {
                        "seed": seed,
                        "device": "analog" if analog else "digital",
                        "tau": tau if analog else None,
                        "a": step,
                        "gradient2": float(gradient2[n]),
                        "loss": float(loss[n]),
                        "norm": float(np.linalg.norm(weights[n])),
                        "bias": float(np.linalg.norm(h @ away)) if analog else None,
                        "predicted": self._predict(a, solution, tau) if analog else None,
                    }

    def _problem(self, seed: int) -> tuple[Vector, Vector]:
        """The matrix (rows, columns) and x* (columns)."""
        draw = np.random.default_rng(seed)
        a = draw.standard_normal((self.rows, self.columns))
        return a, self.scale * draw.standard_normal(self.columns)

    def _train(
        self, problems: list[tuple[Vector, Vector]], seeds: Sequence[int], step: float
    ) -> dict[float, tuple[Vector, Vector, Vector]]:
        """By tau (inf: digital): mean weights (seeds, columns), |grad f|^2 and f - f* (seeds,)."""
        count = round(self.horizon / step)
        drawn = [self._samples(*pair, count) for pair in zip(problems, seeds, strict=True)]
        x, target = (np.stack([one[n] for one in drawn], axis=1) for n in range(2))
        h = np.stack([a.T @ a / len(a) for a, _ in problems])
        solutions = np.stack([solution for _, solution in problems])
        taus = [math.inf, *self.taus]
        pull = np.array([1 / tau for tau in taus])[:, None, None]
        w = np.zeros((len(taus), len(problems), self.columns))
        sums = [np.zeros_like(w), np.zeros(w.shape[:2]), np.zeros(w.shape[:2])]
        late = 0
        for k in range(count):
            residual = np.einsum("tsj,sj->ts", w, x[k]) - target[k]
            s = step * residual[..., None] * x[k]
            w = w - s - np.abs(s) * (w * pull)
            if 2 * k >= count and k % LATE_EVERY == 0:
                away = w - solutions
                gradient = np.einsum("tsi,sij->tsj", away, h)
                sums[0] += w
                sums[1] += np.square(gradient).sum(axis=2)
                sums[2] += 0.5 * (gradient * away).sum(axis=2)
                late += 1
        means = [total / late for total in sums]
        return {tau: (means[0][n], means[1][n], means[2][n]) for n, tau in enumerate(taus)}

    def _samples(
        self, problem: tuple[Vector, Vector], seed: int, count: int
    ) -> tuple[Vector, Vector]:
        """Rows (count, columns) and noisy targets (count,)."""
        a, solution = problem
        draw = np.random.default_rng([seed, 1])
        taken = draw.integers(0, self.rows, count)
        return a[taken], a[taken] @ solution + self.noise * draw.standard_normal(count)

    def _predict(self, a: Vector, solution: Vector, tau: float) -> float:
        """|grad f| where the mean update vanishes."""
        h = a.T @ a / len(a)
        penalty = math.sqrt(2 / math.pi) * np.abs(a).mean(axis=0) / tau
        w = solution
        for _ in range(100):
            spread = math.sqrt(self.noise**2 + float((w - solution) @ h @ (w - solution)))
            w = np.linalg.solve(h + np.diag(spread * penalty), h @ solution)
        return float(np.linalg.norm(h @ (w - solution)))

    def summarise(self, rows: Rows) -> Summary:
        least = self.steps_of_a[-1]
        analog = select(rows, device="analog", a=least)
        curves = {"digital": select(rows, device="digital")}
        curves |= {f"tau = {tau:g}": select(rows, tau=tau) for tau in self.taus}
        text = "\n\n".join(
            [
                f"Distance |grad f(mean w)| at a = {least:g}, digital subtracted:",
                table(
                    ["tau", "measured", "predicted", "measured / predicted"],
                    [
                        [
                            f"{tau:g}",
                            *(
                                f"{mean(select(analog, tau=tau), of):.4f}"
                                for of in ("bias", "predicted")
                            ),
                            geometric(self._quotients(analog, tau)),
                        ]
                        for tau in self.taus
                    ],
                ),
                f"Below tau = {self.law_from:g} the error that asymmetry leaves raises E|g|, hence "
                "the penalty: the floor grows faster than 1 / tau, as predicted.",
                "Mean |grad f|^2, mean f - f*, and |mean w|:",
                table(
                    ["a", *curves],
                    [
                        [
                            f"{a:g}",
                            *(
                                f"{mean(one, 'gradient2'):.2e}, {mean(one, 'loss'):.2e}, "
                                f"{mean(one, 'norm'):.3f}"
                                for one in (select(curve, a=a) for curve in curves.values())
                            ),
                        ]
                        for a in self.steps_of_a
                    ],
                ),
            ]
        )
        return Summary(text, self._verdicts(rows, analog))

    def _quotients(self, analog: Rows, tau: float) -> list[float]:
        mine = select(analog, tau=tau)
        pairs = zip(column(mine, "bias"), column(mine, "predicted"), strict=True)
        return [measured / predicted for measured, predicted in pairs]

    def _verdicts(self, rows: Rows, analog: Rows) -> list[Verdict]:
        in_law = [row for row in analog if number(row, "tau") >= self.law_from]
        law = [exponent(column(one, "tau"), column(one, "bias")) for one in by_seed(in_law)]
        falls = {
            name: [
                exponent(column(one, "a"), column(one, "loss"))
                for one in by_seed(select(rows, tau=tau))
            ]
            for name, tau in (("digital", None), ("analog", self.law_from))
        }
        slower = [d - a for d, a in zip(falls["digital"], falls["analog"], strict=True)]
        return [
            decide(
                "law",
                f"from tau = {self.law_from:g} on the floor goes like 1 / tau (exponent -1.2 to "
                "-0.8)",
                [Cell("all tau", law)],
                -1.2,
                -0.8,
            ),
            decide(
                "prediction",
                "the implicit penalty predicts it within 10 % for these tau",
                [
                    Cell(f"tau = {tau:g}", self._quotients(analog, tau))
                    for tau in self.taus
                    if tau >= self.law_from
                ],
                0.9,
                1.1,
                ratios=True,
            ),
            decide(
                "falls",
                f"the loss of analog training at tau = {self.law_from:g} falls more slowly with "
                "the step than the digital one (exponents at least .2 apart)",
                [Cell("digital less analog", slower)],
                0.2,
            ),
        ]

    def mutants(self) -> Sequence[Mutant]:
        def bent(name: str, of: str, p: float, **where: Any) -> Any:
            def bend(row: Row) -> None:
                if row[of] is not None:
                    times(name, number(row, of) ** p, **where)(row)

            return bend

        return (
            Mutant("law", "exponent of the floor + .3", bent("bias", "tau", 0.3)),
            Mutant("law", "exponent of the floor - .3", bent("bias", "tau", -0.3)),
            Mutant("prediction", "floor x 1.15", times("bias", 1.15)),
            Mutant("prediction", "floor x .8", times("bias", 0.8)),
            Mutant(
                "falls", "digital loss without a step", bent("loss", "a", -1.0, device="digital")
            ),
        )

    def figure(self, rows: Rows) -> Any:
        figure, (law, gradient, loss) = new_figure("The floor of analog SGD against tau", 3)
        analog = select(rows, device="analog", a=self.steps_of_a[-1])
        found = [geometric(column(select(analog, tau=tau), "bias")) for tau in self.taus]
        bars(law, self.taus, found, "o", label="measured")
        predicted = [mean(select(analog, tau=tau), "predicted") for tau in self.taus]
        law.plot(self.taus, predicted, "-", label="implicit penalty")
        law.set_xlabel("tau (weight units)")
        law.set_ylabel("|grad f| at the mean weights")
        for axes, of, label in (
            (gradient, "gradient2", "mean |grad f|^2"),
            (loss, "loss", "f - f*"),
        ):
            for tau in (None, *self.taus):
                curve = select(rows, tau=tau)
                found = [geometric(column(select(curve, a=a), of)) for a in self.steps_of_a]
                name = "digital" if tau is None else f"tau = {tau:g}"
                bars(axes, self.steps_of_a, found, "s--" if tau is None else "o-", label=name)
            axes.set_xlabel("step size a per sample")
            axes.set_ylabel(label)
        for axes, ticks in ((law, self.taus), (gradient, self.steps_of_a), (loss, self.steps_of_a)):
            axes.set_xscale("log")
            axes.set_yscale("log")
            plain_ticks(axes.xaxis, ticks)
            axes.legend(fontsize=8)
        return figure
