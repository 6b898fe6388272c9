"""What the experiment ``algorithms`` claims, and the errors that each claim must notice.

An error is planted by letting rows of another name, or of another offset, take the place of those
that a claim is made from: rows that were trained with that error. AGAD without its reference alone
would not do: its choppers bear most of an offset, as rows beside the table show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .mutants import Bend, Mutant, Rows, Value, each, exchanged
from .rows import column, select
from .statistics import Cell, Verdict, decide

__all__ = ["Asked", "label", "mutants", "verdicts"]

_SOUND = ("TTv1", "residual v1", "TTv2", "residual v2", "c-TTv2", "AGAD", "E-RIDER", "multi-tile")
_REFERENCED = ("AGAD", "E-RIDER")  # what measures its reference
_PLAIN = ("TTv1", "residual v1", "TTv2", "residual v2", "multi-tile")  # what trusts it
_ALIKE = "steps of the device are constant"
_CONSTANT = ("SGD", "SGD, constant steps")
_UNCHOPPED = ("c-TTv2", "c-TTv2 without choppers")
_NEITHER = (("AGAD", "TTv2"), ("E-RIDER", "residual v2"))  # the same but for choppers and reference
_FLAT = 1.5  # points that an offset costs at most
_LOST = 3.0  # points that it costs at least where nothing is done


class Asked(Protocol):
    """What claims ask the experiment for."""

    @property
    def states(self) -> tuple[int, ...]:
        """Numbers of states, the fewest first."""
        ...

    @property
    def offsets(self) -> tuple[float, ...]:
        """Offsets, none first and the largest last."""
        ...

    @property
    def rates(self) -> tuple[float, ...]:
        """Rates of SGD."""
        ...

    def best(self, rows: Rows, device: str, offset: float, name: str) -> list[float]:
        """Accuracy by seed, at the rate whose mean is best."""
        ...


def label(device: str) -> str:
    """What rows call a device: no number, which a file would give back as one.

    Args:
        device: "default", or a number of states.
    """
    return device if device == "default" else f"{device} states"


def verdicts(experiment: Asked, rows: Rows) -> list[Verdict]:
    """Of all claims.

    Args:
        experiment: with its settings. rows: of all seeds.
    """
    few, far = str(experiment.states[0]), experiment.offsets[-1]

    def cells(names: Sequence[str], device: str = few, offset: float = far) -> list[Cell]:
        best = experiment.best
        return [Cell(name, best(rows, device, offset, name)) for name in names]

    def rates(device: str, offset: float) -> list[Cell]:
        where: dict[str, Value] = {"device": label(device), "offset": offset}
        found = select(rows, part="accuracy", algorithm="SGD", **where)
        return [
            Cell(f"lr {lr:g}", column(select(found, lr=lr), "accuracy")) for lr in experiment.rates
        ]

    at = f"at {few} states and offset {far:g}"
    on = "on the default device"
    several = len(experiment.rates)
    words = f"plain pulses reach at most {{}} % at each of {several} rates"
    return [
        decide("default_sgd", f"{on} {words.format(92.5)}", rates("default", 0.0), high=92.5),
        decide(
            "default_others",
            f"{on} each of {', '.join(_SOUND)} reaches 95.5 %",
            cells(_SOUND, "default", 0.0),
            95.5,
        ),
        decide("default_mixed", f"{on} mixed reaches 94 %", cells(["mixed"], "default", 0.0), 94),
        decide("far_sgd", f"{at} {words.format(86)}", rates(few, far), high=86.0),
        decide("far_ttv2", f"{at} TTv2 reaches at most 92 %", cells(["TTv2"]), high=92.0),
        decide("far_chopped", f"{at} c-TTv2 reaches 93 %", cells(["c-TTv2"]), 93.0),
        decide("far_referenced", f"{at} AGAD and E-RIDER reach 96 %", cells(_REFERENCED), 96.0),
        decide(
            "flat",
            f"an offset of {far:g} costs AGAD and E-RIDER at most {_FLAT:g} points, at any states",
            _cost(experiment, rows, _REFERENCED),
            high=_FLAT,
        ),
        decide(
            "lost",
            f"it costs each of {', '.join(_PLAIN)} at least {_LOST:g} points",
            _cost(experiment, rows, _PLAIN),
            _LOST,
        ),
        *_programming(experiment, rows),
    ]


def _cost(experiment: Asked, rows: Rows, names: Sequence[str]) -> list[Cell]:
    """Points of accuracy between no offset and the largest, by seed."""
    found = []
    for count in experiment.states:
        for name in names:
            first, last = experiment.offsets[0], experiment.offsets[-1]
            ends = [experiment.best(rows, str(count), o, name) for o in (first, last)]
            values = [round(a - b, 9) for a, b in zip(*ends, strict=True)]
            found.append(Cell(f"{name}, {count} states", values))
    return found


def _programming(experiment: Asked, rows: Rows) -> list[Verdict]:
    def errors(name: str, offset: float) -> list[float]:
        mine = select(rows, part="programming", algorithm=name, offset=offset)
        return column(mine, "error")

    def over(name: str, offset: float, other: str, beside: float) -> list[float]:
        pair = zip(errors(name, offset), errors(other, beside), strict=True)
        return [one / two for one, two in pair]

    middle, first = 0.25, experiment.offsets[0]
    return [
        decide(
            "programming",
            f"at offset {middle:g} TTv2 programs more than 4 times worse than c-TTv2 and AGAD",
            [Cell(name, over("TTv2", middle, name, middle)) for name in ("c-TTv2", "AGAD")],
            4.0,
            ratios=True,
        ),
        decide(
            "programming_flat",
            "AGAD programs as well at every offset, within 10 %",
            [
                Cell(f"offset {o:g}", over("AGAD", o, "AGAD", first))
                for o in experiment.offsets
                if o != first
            ],
            1 / 1.1,
            1.1,
            ratios=True,
        ),
    ]


def mutants(experiment: Asked) -> Sequence[Mutant]:
    """Errors by claim; see the module.

    Args:
        experiment: with its settings.
    """
    default: dict[str, Value] = {"part": "accuracy", "device": "default"}
    return (
        Mutant("default_sgd", _ALIKE, _instead(_CONSTANT, **default)),
        Mutant(
            "default_others",
            "TTv2 transfers backwards",
            _instead(("TTv2", "TTv2 backwards"), **default),
        ),
        Mutant(
            "default_mixed",
            "mixed sums backwards",
            _instead(("mixed", "mixed backwards"), **default),
        ),
        *_with_offset(experiment),
        Mutant(
            "programming", "c-TTv2's choppers are off", _instead(_UNCHOPPED, part="programming")
        ),
        *(
            Mutant(
                claim,
                "AGAD neither chops nor has a reference",
                _instead(_NEITHER[0], part="programming"),
            )
            for claim in ("programming", "programming_flat")
        ),
    )


def _instead(pair: tuple[str, str], **where: Value) -> Bend:
    return exchanged("algorithm", *pair, **where)


def _with_offset(experiment: Asked) -> list[Mutant]:
    """Errors of the claims about offsets."""
    few = label(str(experiment.states[0]))
    first, far = experiment.offsets[0], experiment.offsets[-1]
    distant: dict[str, Value] = {"part": "accuracy", "offset": far}

    def nearer(*names: str) -> Bend:
        where: dict[str, Value] = {"part": "accuracy", "device": few}
        return each([exchanged("offset", first, far, algorithm=name, **where) for name in names])

    return [
        Mutant("far_sgd", _ALIKE, _instead(_CONSTANT, device=few, **distant)),
        Mutant("far_ttv2", "TTv2's device has no offset", nearer("TTv2")),
        Mutant(
            "far_chopped",
            "c-TTv2's choppers are off",
            _instead(_UNCHOPPED, device=few, **distant),
        ),
        *(
            Mutant(claim, f"{pair[0]} neither chops nor has a reference", _instead(pair, **distant))
            for claim in ("far_referenced", "flat")
            for pair in _NEITHER
        ),
        Mutant("lost", f"devices of {few} have their offset elsewhere", nearer(*_PLAIN)),
    ]
