"""Operations, events, and the clock that turns programs into events.

A program is the list of operations of one stage, in order. The clock knows nothing of schedules:
it starts each operation in the first cycle in which its stage is free, its place in the list has
come, and its input has arrived. A message that is sent in cycle t can be used from cycle t + 1
on. It is therefore an independent check of the closed forms in ``schedule.py``, and it finds
programs that deadlock.
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


Program = Sequence[Op]


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
