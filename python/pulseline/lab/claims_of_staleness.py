"""What the experiment ``staleness-algorithms`` claims, and the errors that each claim must notice.

As in :mod:`.claims_of_algorithms` rows of something else take the place of those of a claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..pipeline.cautions import LEAST_PERIODS
from .mutants import Mutant, Rows, each, exchanged
from .statistics import Cell, Verdict, decide
from .tuned import NAMES

__all__ = ["CHOPPED", "Asked", "mutants", "verdicts"]

CHOPPED = ("AGAD", "E-RIDER", "c-TTv2")
_CALM = ("TTv1", "residual v1", "TTv2", "residual v2", "mixed")  # neither chopper nor long chain
_NEAR = 1.5  # points that staleness of small micro-batches costs at most
_FAST = 16  # ratios up to this one are compared at two stalenesses


class Asked(Protocol):
    """What claims ask the experiment for."""

    @property
    def batches(self) -> tuple[int, ...]:
        """Micro-batches of the table."""
        ...

    @property
    def ratios(self) -> tuple[float, ...]:
        """Chop periods over staleness, ascending."""
        ...

    @property
    def swept(self) -> tuple[int, ...]:
        """Micro-batches at which they are swept, ascending."""
        ...

    @property
    def allowed(self) -> float:
        """Points."""
        ...

    def loss(self, rows: Rows, name: str, batch: int, ratio: float | None = None) -> list[float]:
        """Points lost to staleness, by seed."""
        ...


def verdicts(experiment: Asked, rows: Rows) -> list[Verdict]:
    """Of all claims.

    Args:
        experiment: with its settings. rows: of all seeds.
    """
    loss = experiment.loss
    most, points = max(experiment.batches), experiment.allowed
    slow = f"chop periods of at least {LEAST_PERIODS} times the staleness cost at most {points:g}"

    def slowly(*names: str) -> list[Cell]:
        return [
            Cell(f"{name}, {b} samples, ratio {ratio:g}", loss(rows, name, b, ratio))
            for name in names
            for b in experiment.swept
            for ratio in experiment.ratios
            if ratio >= LEAST_PERIODS
        ]

    small = [(name, b) for name in NAMES[1:] for b in experiment.batches if b <= 8]
    return [
        decide(
            "near",
            f"micro-batches of up to 8 cost no algorithm but SGD more than {_NEAR:g} points",
            [Cell(f"{name}, {b} samples", loss(rows, name, b)) for name, b in small],
            high=_NEAR,
        ),
        decide(
            "sgd",
            f"micro-batches of {most} cost plain pulses at least 8 points",
            [Cell("SGD", loss(rows, "SGD", most))],
            8.0,
        ),
        decide(
            "calm",
            f"they cost each of {', '.join(_CALM)} at most {points:g}",
            [Cell(name, loss(rows, name, most)) for name in _CALM],
            high=points,
        ),
        decide("slow", f"AGAD: {slow}", slowly("AGAD"), high=points),
        decide("slow_others", f"E-RIDER, c-TTv2: {slow}", slowly(*CHOPPED[1:]), high=points),
        decide(
            "staler",
            f"at the same ratio, up to {_FAST}, micro-batches of {experiment.swept[-1]} lose more "
            f"than those of {experiment.swept[0]}: it is not the ratio alone",
            [
                Cell(f"{name}, ratio {ratio:g}", _more(experiment, rows, name, ratio))
                for name in CHOPPED
                for ratio in experiment.ratios
                if ratio <= _FAST
            ],
            0.0,
        ),
    ]


def _more(experiment: Asked, rows: Rows, name: str, ratio: float) -> list[float]:
    """Points lost at the largest micro-batch less those at the smallest, by seed."""
    ends = (experiment.swept[-1], experiment.swept[0])
    pair = (experiment.loss(rows, name, b, ratio) for b in ends)
    return [round(large - small, 9) for large, small in zip(*pair, strict=True)]


def mutants(experiment: Asked) -> Sequence[Mutant]:
    """Errors by claim; see the module.

    Args:
        experiment: with its settings.
    """
    least, most = min(experiment.batches), max(experiment.batches)
    batches = (experiment.swept[0], experiment.swept[-1])
    stale = exchanged("algorithm", "SGD", "TTv2", batch=most)
    taken = exchanged("algorithm", "AGAD", "E-RIDER")
    return (
        Mutant(
            "near",
            f"E-RIDER's micro-batches of {least} are of {most} samples",
            exchanged("batch", least, most, algorithm="E-RIDER", ratio=None),
        ),
        Mutant("sgd", "SGD's rows are TTv2's", stale),
        Mutant("calm", "TTv2's rows are SGD's", stale),
        Mutant("slow", "AGAD's rows are E-RIDER's", taken),
        Mutant("slow_others", "E-RIDER's rows are AGAD's", taken),
        Mutant(
            "staler",
            "micro-batches of the sweep change places",
            each([exchanged("batch", *batches, ratio=ratio) for ratio in experiment.ratios]),
        ),
    )
