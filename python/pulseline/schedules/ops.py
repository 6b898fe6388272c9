"""Operations of stages, what became of them, and the one rule that orders them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "Event",
    "Op",
    "Program",
    "Span",
    "Times",
    "four",
    "next_kind",
    "stage_time",
]


class Op(NamedTuple):
    """One operation of one stage; ``str`` gives the text form, for example ``2F7``.

    Attributes:
        stage: from 1.
        kind: "F", "B", "U" or "flush".
        mb: micro-batch; of U the last one whose gradient it applies, of a flush the last before it.
    """

    stage: int
    kind: str
    mb: int

    def __str__(self) -> str:
        return f"{self.stage}{self.kind}{self.mb}"


class Event(NamedTuple):
    """An operation that took place: in which clock cycle, with which weight version.

    Attributes:
        cycle: from 0. stage: from 1. kind: "F", "B" or "U". mb: micro-batch.
        version: updates that the stage had made when the operation began.
    """

    cycle: int
    stage: int
    kind: str
    mb: int
    version: int


class Span(NamedTuple):
    """An operation that took place, or would on modelled hardware, with its start and end.

    Attributes:
        stage: from 1. kind: "F", "B" or "U". mb: micro-batch. version: as in :class:`Event`.
        start, end: in any one unit: seconds of a measured run, nanoseconds of a modelled one.
    """

    stage: int
    kind: str
    mb: int
    version: int
    start: float
    end: float


Program = Sequence[Op]
# t_F, t_B, t_U of one micro-batch at one stage. Where updates pulse a crossbar of their own, t_U is
# what of them keeps F and B waiting, and a fourth time what runs beside F and B.
Times = tuple[float, float, float] | tuple[float, float, float, float]


def four(times: Times) -> tuple[float, float, float, float]:
    """Times with the fourth, which is 0 where it is left out."""
    t_f, t_b, t_u, *beside = times
    return t_f, t_b, t_u, beside[0] if beside else 0.0


def stage_time(times: Times) -> float:
    """``max(t_F + t_B + t_U, t_beside)``: what a stage takes per micro-batch by itself.

    Args:
        times: of the stage.
    """
    t_f, t_b, t_u, beside = four(times)
    return max(t_f + t_b + t_u, beside)


def next_kind(forwards: int, backwards: int, known: int, depth: int) -> str:
    """What a stage does next after that many passes: "F", "B", or "" when its work is done.

    The one rule behind every program: keep ``depth`` micro-batches in flight while there are more
    of the ``known`` ones, take a backward pass otherwise.

    Args:
        forwards, backwards: passes of the stage so far.
        known: micro-batches that may enter. depth: most micro-batches in flight.
    """
    if forwards < known and forwards - backwards < depth:
        return "F"
    return "B" if backwards < forwards else ""
