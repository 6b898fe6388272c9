"""``clock``: cycles, computation density and speed-up of the three schedules, M = 1..16.

Closed forms of ``pipeline.plan`` against two independent counts: the clock that runs the
programs, and a Pipeline of that many stages that trains. Beside them the bars of Analog-SGD-AP's
chart (arXiv 2410.15155), synchronous with 8 micro-batches per mini-batch, as measured from its
pixels: +-.01.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar

import torch
from torch import nn

from ..optim import AnalogSGD
from ..pipeline import Pipeline
from ..schedules import named
from .engine import Seeds, Settings, Summary
from .mutants import Mutant, Row, Rows, plus, times
from .report import table
from .rows import number
from .statistics import Verdict

__all__ = ["PIXELS", "PUBLISHED_SYNC", "SCHEDULES", "Clock"]

SCHEDULES = ("sequential", "sync", "async")
PUBLISHED_SYNC = {2: 1.781, 4: 2.910, 8: 4.268, 12: 5.049, 16: 5.562}
PIXELS = 0.01  # what a bar's height is known to


@dataclass(frozen=True)
class Clock(Settings):
    """``stages``: largest M. ``micro_batches``: B of the synchronous schedule. ``count``: K."""

    seeds: Seeds = 0
    stages: int = 16
    micro_batches: int = 8
    count: int = 800
    trained: int = 40

    name: ClassVar[str] = "clock"
    title: ClassVar[str] = "Clock cycles, density and speed-up of the three schedules"

    def quick(self) -> Clock:
        """Shorter runs."""
        return replace(self, count=240, trained=16)

    def steps(self) -> int:
        return self.stages * len(SCHEDULES)

    def run(self, seeds: Sequence[int]) -> Iterator[Row]:
        for stages in range(1, self.stages + 1):
            for name in SCHEDULES:
                plan = named(name, self.micro_batches)
                events = plan.events(stages, self.count)
                yield {
                    "seed": 0,
                    "schedule": name,
                    "stages": stages,
                    "micro_batches": self.count,
                    "cycles": plan.cycles(stages, self.count),
                    "cycles_clocked": max(event.cycle for event in events) + 1,
                    "density": plan.density(stages, self.count),
                    "speedup": plan.speedup(stages, self.count),
                    "trained_micro_batches": self.trained,
                    "trained_cycles": self._train(name, stages),
                    "trained_formula": plan.cycles(stages, self.trained),
                }

    def _train(self, name: str, stages: int) -> int:
        """Clock cycles that a pipeline of one 2x2 layer per stage counts."""
        layers = [nn.Linear(2, 2, bias=False) for _ in range(stages)]
        pipe = Pipeline(
            nn.Sequential(*layers),
            stages,
            optimizer=lambda parameters: AnalogSGD(parameters, lr=0.0),
            loss=nn.functional.mse_loss,
            schedule=name,
            micro_batches=self.micro_batches,
        )
        x = torch.ones(self.trained, 2)
        pipe.step(x, x)
        pipe.drain()
        return pipe.cycles

    def summarise(self, rows: Rows) -> Summary:
        found = {(row["schedule"], row["stages"]): row for row in rows}
        b, last = self.micro_batches, self.stages
        cells = []
        for m in range(1, last + 1):
            each = [found[name, m] for name in SCHEDULES]
            cells.append(
                [
                    m,
                    *(f"{row['cycles']:,}" for row in each),
                    *(f"{row['density']:.3f}" for row in each),
                    *(f"{row['speedup']:.2f}" for row in each[1:]),
                    PUBLISHED_SYNC.get(m, ""),
                ]
            )
        head = ["M", *(f"cycles {n}" for n in SCHEDULES), *(f"density {n}" for n in SCHEDULES)]
        text = (
            f"M stages, {self.count} micro-batches; synchronous with {b} micro-batches per update. "
            "One cycle = one forward or one backward pass of one micro-batch on one stage.\n\n"
            + table([*head, "speed-up sync", "speed-up async", "published sync (pixels)"], cells)
        )
        return Summary(text, self._verdicts(found))

    def _verdicts(self, found: dict[Any, Row]) -> list[Verdict]:
        b, count, stages = self.micro_batches, self.count, range(1, self.stages + 1)
        ratios = {m: _cycles(found["sequential", m]) / _cycles(found["sync", m]) for m in stages}
        wrong = [m for m in stages if ratios[m] != Fraction(b * m, m + b - 1)]
        steady = [
            m
            for m in stages
            if _cycles(found["sequential", m]) / _cycles(found["async", m])
            != Fraction(m * count, count + m - 1)
        ]
        rows = list(found.values())
        unequal = [
            row
            for row in rows
            if row["cycles"] != row["cycles_clocked"]
            or row["trained_cycles"] != row["trained_formula"]
        ]
        off = max(
            (abs(float(ratios[m]) - bar) for m, bar in PUBLISHED_SYNC.items() if m in ratios),
            default=0.0,
        )
        return [
            Verdict(
                "sync",
                f"the synchronous speed-up is {b}M/(M+{b - 1}), exactly",
                not wrong,
                f"rational numbers equal for {len(ratios) - len(wrong)} of {len(ratios)} M",
            ),
            Verdict(
                "async",
                "the asynchronous speed-up is MK/(K+M-1), exactly, and tends to M",
                not steady,
                f"equal for {len(ratios) - len(steady)} of {len(ratios)} M",
            ),
            Verdict(
                "clock",
                "closed forms, the clock that runs the programs and pipelines that train agree",
                not unequal,
                f"{len(rows) - len(unequal)} of {len(rows)} schedules",
            ),
            Verdict(
                "published",
                f"the published synchronous bars are these numbers within the {PIXELS:g} that "
                "their pixels tell",
                off <= PIXELS,
                f"largest difference {off:.4f}",
            ),
        ]

    def mutants(self) -> Sequence[Mutant]:
        slower = times("cycles", 1.01, schedule="sync", stages=8)
        return (
            Mutant("sync", "synchronous cycles at M = 8 x 1.01", slower),
            Mutant("async", "one cycle more", plus("cycles", 1, schedule="async", stages=16)),
            Mutant("clock", "one cycle more", plus("trained_cycles", 1, schedule="sync", stages=2)),
            Mutant("published", "synchronous cycles at M = 8 x 1.01", slower),
        )

    def figure(self, rows: Rows) -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 4), layout="constrained")
        figure.suptitle("Clock cycles of the three schedules")
        speed, density = figure.subplots(1, 2)
        for name in SCHEDULES:
            mine = [row for row in rows if row["schedule"] == name]
            m = [row["stages"] for row in mine]
            speed.plot(m, [row["speedup"] for row in mine], marker=".", label=name)
            density.plot(m, [row["density"] for row in mine], marker=".", label=name)
        speed.errorbar(
            list(PUBLISHED_SYNC),
            list(PUBLISHED_SYNC.values()),
            PIXELS,
            fmt="kx",
            label="published, sync (from pixels)",
        )
        speed.set_ylabel("speed-up over sequential (clock cycles)")
        density.set_ylabel("computation density (busy cycles / cycles)")
        for axes in (speed, density):
            axes.set_xlabel("stages M")
            axes.grid(alpha=0.3)
        speed.legend()
        return figure


def _cycles(row: Row) -> Fraction:
    return Fraction(number(row, "cycles"))
