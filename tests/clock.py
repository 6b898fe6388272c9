"""The oracle of schedules: a clock that knows programs and nothing of schedules.

It starts each operation in the first cycle in which its stage is free, its place in the list has
come, and its input has arrived. A message that is sent in cycle t can be used from cycle t + 1 on.
So it checks closed forms and the planner independently, and finds programs that deadlock.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pulseline.errors import ConfigError
from pulseline.schedules import Event, Op, Program, Schedule

_OP_TEXT = re.compile(r"(\d+)(F|B|U|flush)(\d+)")


def parse(text: str) -> Op:
    """The operation whose ``str`` is the text."""
    found = _OP_TEXT.fullmatch(text)
    assert found is not None, text
    return Op(int(found[1]), found[2], int(found[3]))


def events(plan: Schedule, stages: int, micro_batches: int) -> list[Event]:
    """Events of a run of the schedule by the clock."""
    found: list[Event] = []
    first = cycle = version = 0
    for phase, count in plan.phases(micro_batches):
        ran = clock(phase.ops(stages, count), phase.interval, phase.full_duplex)
        found += [Event(t + cycle, m, kind, k + first, v + version) for t, m, kind, k, v in ran]
        first, cycle = first + count, cycle + max((e.cycle for e in ran), default=-1) + 1
        version += len(phase.segments(count))
    return found


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
