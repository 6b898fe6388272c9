"""Operations, events, and the two clocks that turn programs into events.

A program is the list of operations of one stage, in order. The clock knows nothing of schedules:
it starts each operation in the first cycle in which its stage is free, its place in the list has
come, and its input has arrived. A message that is sent in cycle t can be used from cycle t + 1
on. It is therefore an independent check of the closed forms in ``schedule.py``, and it finds
programs that deadlock. :func:`timed` does the same with durations in place of cycles.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import ConfigError

_OP_TEXT = re.compile(r"(\d+)(F|B|U|flush)(\d+)")


class Op(NamedTuple):
    """One operation of one stage; ``str`` gives the text form, for example ``2F7``.

    ``stage`` counts from 1. For U, ``mb`` is the last micro-batch whose gradient it applies; for
    ``flush`` it is the last micro-batch before the flush.
    """

    stage: int
    kind: str
    mb: int

    def __str__(self) -> str:
        return f"{self.stage}{self.kind}{self.mb}"

    @classmethod
    def parse(cls, text: str) -> Op:
        """The inverse of ``str``; raises ConfigError on anything else."""
        found = _OP_TEXT.fullmatch(text.strip())
        if found is None or int(found[1]) < 1:
            raise ConfigError(
                f"operation {text!r} is not of the form 2F7: use stage >= 1, one of F, B, U or "
                "flush, and a micro-batch number"
            )
        return cls(int(found[1]), found[2], int(found[3]))


class Event(NamedTuple):
    """An operation that took place: in which clock cycle, with which weight version.

    ``version`` counts the updates that the stage had made when the operation began.
    """

    cycle: int
    stage: int
    kind: str
    mb: int
    version: int


class Span(NamedTuple):
    """An operation that took place, or would on modelled hardware, with its start and end.

    Times are in any one unit: seconds of a measured run, nanoseconds of a modelled one.
    """

    stage: int
    kind: str
    mb: int
    version: int
    start: float
    end: float


Program = Sequence[Op]
Times = tuple[float, float, float]  # t_F, t_B, t_U of one micro-batch at one stage


def next_kind(forwards: int, backwards: int, known: int, depth: int) -> str:
    """What a stage does next after that many passes: "F", "B", or "" when its work is done.

    The one rule behind every program: keep ``depth`` micro-batches in flight while there are more
    of the ``known`` ones, take a backward pass otherwise.
    """
    if forwards < known and forwards - backwards < depth:
        return "F"
    return "B" if backwards < forwards else ""


class _Clock:
    """State of one clock run; stages are numbered from 0 here."""

    def __init__(self, programs: Sequence[Program], interval: int, full_duplex: bool) -> None:
        self.programs = programs
        self.interval = interval
        self.full_duplex = full_duplex
        stages = len(programs)
        self.next = [0] * stages
        self.version = [0] * stages
        self.sent: dict[tuple[str, int, int], int] = {}
        self.events: list[Event] = []
        self.base_cycle = self.base_mb = 0

    def head(self, m: int) -> Op | None:
        program = self.programs[m]
        return program[self.next[m]] if self.next[m] < len(program) else None

    def run(self) -> list[Event]:
        cycle = 0
        while any(self.head(m) is not None for m in range(len(self.programs))):
            moved = [self.cycle_of_stage(m, cycle) for m in range(len(self.programs))]
            if not any(moved) and not self.waits_for_entry(cycle):
                stuck = ", ".join(str(op) for m in range(len(moved)) if (op := self.head(m)))
                raise ConfigError(f"the schedule deadlocks in cycle {cycle}, waiting at {stuck}")
            cycle += 1
            self.pass_flush(cycle)
        return self.events

    def cycle_of_stage(self, m: int, cycle: int) -> bool:
        """Run what stage m can do in this cycle; True if it did anything."""
        busy: list[str] = []
        while (op := self.head(m)) is not None and op.kind != "flush":
            if op.kind != "U":
                full = op.kind in busy if self.full_duplex else bool(busy)
                if full or not self.ready(m, op, cycle):
                    break
                busy.append(op.kind)
                self.sent[op.kind, m, op.mb] = cycle
            elif not busy:
                raise ConfigError(f"operation {op} must follow a backward pass of its stage")
            self.events.append(Event(cycle, m + 1, op.kind, op.mb, self.version[m]))
            self.version[m] += op.kind == "U"
            self.next[m] += 1
        return bool(busy)

    def ready(self, m: int, op: Op, cycle: int) -> bool:
        """Has the input of this F or B arrived?"""
        late = cycle + 1
        if op.kind == "F":
            if m == 0:
                return cycle >= self.entry(op.mb)
            return self.sent.get(("F", m - 1, op.mb), late) < cycle
        if self.sent.get(("F", m, op.mb), late) > cycle:
            return False
        return m == len(self.programs) - 1 or self.sent.get(("B", m + 1, op.mb), late) < cycle

    def entry(self, mb: int) -> int:
        """First cycle in which a micro-batch may enter stage 1."""
        return self.base_cycle + self.interval * (mb - self.base_mb)

    def waits_for_entry(self, cycle: int) -> bool:
        op = self.head(0)
        return op is not None and op.kind == "F" and cycle < self.entry(op.mb)

    def pass_flush(self, cycle: int) -> None:
        """Let all stages past a flush once every one of them stands at it."""
        heads = [self.head(m) for m in range(len(self.programs))]
        if all(op is not None and op.kind == "flush" for op in heads):
            self.base_cycle = cycle
            self.base_mb = heads[0].mb + 1 if heads[0] else 0
            self.next = [n + 1 for n in self.next]


def clock(programs: Sequence[Program], interval: int = 2, full_duplex: bool = False) -> list[Event]:
    """The events of an ideal run of the programs, ordered by cycle, stage and operation.

    ``interval``: cycles between two micro-batches that enter stage 1. ``full_duplex``: one F and
    one B per cycle and stage instead of one of the two. Raises ConfigError on a deadlock.
    """
    return _Clock(programs, interval, full_duplex).run()


class _TimedClock:
    """State of one run with durations; stages are numbered from 0 here."""

    def __init__(self, programs: Sequence[Program], times: Sequence[Times], latency: float) -> None:
        self.programs, self.times, self.latency = programs, times, latency
        stages = len(programs)
        self.next = [0] * stages
        self.version = [0] * stages
        self.applied = [-1] * stages
        self.free = [0.0] * stages
        self.arrived: dict[tuple[str, int, int], float] = {}
        self.spans: list[Span] = []

    def run(self, per_micro_batch: bool) -> list[Span]:
        while True:
            moved = [self.advance(m, per_micro_batch) for m in range(len(self.programs))]
            if any(moved):
                continue
            if all(n == len(p) for n, p in zip(self.next, self.programs, strict=True)):
                self.spans.sort(key=lambda span: span.start)
                return self.spans
            self.pass_flush()

    def advance(self, m: int, per_micro_batch: bool) -> bool:
        """Run everything of stage m whose input is there; True if there was anything."""
        program, first, last = self.programs[m], self.next[m], len(self.programs) - 1
        t_f, t_b, t_u = self.times[m]
        while self.next[m] < len(program):
            _, kind, mb = program[self.next[m]]
            start = self.free[m]
            if kind == "F":
                arrival = self.arrived.get(("F", m, mb)) if m else start
                length = t_f
            elif kind == "B":
                arrival = self.arrived.get(("B", m, mb)) if m < last else start
                length = t_b
            elif kind == "U":
                arrival = start
                length = t_u * (mb - self.applied[m] if per_micro_batch else 1)
            else:
                break
            if arrival is None:
                break
            start = max(start, arrival)
            self.free[m] = end = start + length
            self.spans.append(Span(m + 1, kind, mb, self.version[m], start, end))
            if kind == "U":
                self.version[m] += 1
                self.applied[m] = mb
            elif kind == "F":
                self.arrived["F", m + 1, mb] = end + self.latency
            else:
                self.arrived["B", m - 1, mb] = end + self.latency
            self.next[m] += 1
        return self.next[m] > first

    def pass_flush(self) -> None:
        """Let all stages past a flush once every one of them stands at it."""
        ended = [n == len(p) for n, p in zip(self.next, self.programs, strict=True)]
        heads = [p[n] for n, p, end in zip(self.next, self.programs, ended, strict=True) if not end]
        if any(ended) or any(op.kind != "flush" for op in heads):
            stuck = ", ".join(map(str, heads))
            raise ConfigError(f"the schedule deadlocks, waiting at {stuck}")
        self.free = [max(self.free)] * len(self.free)
        self.next = [n + 1 for n in self.next]


def timed(
    programs: Sequence[Program],
    times: Sequence[Times],
    latency: float = 0.0,
    per_micro_batch: bool = True,
) -> list[Span]:
    """When each operation runs if stage m takes ``times[m]`` = (t_F, t_B, t_U), ordered by start.

    A stage is half duplex: one operation at a time, its input having arrived ``latency`` after
    the neighbour's pass ended (the error leaves before the neighbour's update). Micro-batches
    enter stage 1 as soon as it is free. An update that applies n micro-batches takes n t_U, or
    one t_U with ``per_micro_batch=False`` (their mean is applied at once). Raises ConfigError on
    a deadlock.
    """
    return _TimedClock(programs, times, latency).run(per_micro_batch)
