"""Schedule: a plan in clock cycles; closed forms where there are any, the planner elsewhere."""

from __future__ import annotations

from collections import deque
from operator import itemgetter

from ..errors import ConfigError
from .ops import Event, Op
from .plan import Plan, count_of
from .planner import Planner

__all__ = ["Schedule"]


class Schedule(Plan):
    """One schedule; build it with the functions of ``named.py``, with :func:`.listed.from_ops` from
    a list of operations, or as :class:`.delayed.Delayed`. Its fields: :class:`Plan`."""

    def planner(self, stages: int) -> Planner:
        """What decides in which clock cycle each operation of so many stages takes place."""
        return Planner(self, self.check_stages(stages))

    def _run(self, stages: int, micro_batches: int) -> Planner:
        planner = self.planner(stages)
        planner.feed(micro_batches)
        return planner

    def segment_cycles(self, stages: int, size: int) -> int:
        """Clock cycles of one segment of ``size`` micro-batches, from fill to flush.

        Args:
            stages: M. size: micro-batches of the segment.
        """
        self.check_stages(stages)
        if size == 0:
            return 0
        if self.depths is not None:
            whole = Schedule(self.kind, full_duplex=self.full_duplex, depths=self.depths)
            planner = whole._run(stages, size)
            deque(planner.advance(drain=True), maxlen=0)
            return planner.cycles
        if self.kind == "sequential":
            return 2 * stages * size
        if self.full_duplex:
            return size + 2 * stages - 2
        return 2 * (size + stages - 1)

    def _phase_cycles(self, stages: int, count: int) -> int:
        sizes = self.segments(count)
        return sum(sizes.count(n) * self.segment_cycles(stages, n) for n in set(sizes))

    def cycles(self, stages: int, micro_batches: int) -> int:
        """Clock cycles of a run: the sum over its segments.

        Args:
            stages: M. micro_batches: length of the run.
        """
        return sum(p._phase_cycles(stages, n) for p, n in self.phases(micro_batches))

    def density(self, stages: int, micro_batches: int) -> float:
        """Share of the cycles in which a stage computes (full duplex: of its 2 slots a cycle).

        Args:
            stages: M. micro_batches: length of the run.

        Returns:
            From 0 to 1.
        """
        slots = sum(
            p._phase_cycles(stages, n) * (2 if p.full_duplex else 1)
            for p, n in self.phases(micro_batches)
        )
        return 2 * micro_batches / slots if slots else 0.0

    def speedup(self, stages: int, micro_batches: int) -> float:
        """Cycles of the sequential schedule over the cycles of this one, at equal samples.

        Args:
            stages: M. micro_batches: length of the run.

        Returns:
            Up to M, or 2M in full duplex; 1 for an empty run.
        """
        cycles = self.cycles(stages, micro_batches)
        return 2 * stages * micro_batches / cycles if cycles else 1.0

    def cycle(self, stages: int, op: Op, micro_batches: int) -> int:
        """Clock cycle of an F or B by the closed form.

        Args:
            stages: M. op: the operation. micro_batches: length of the run.

        Raises:
            ConfigError: the operation is not part of the run, or has no closed form: U, flush,
                ``inflight`` depths and warm-up.
        """
        below = self._below(stages, op.stage)
        if self.depths is not None or self.warmup or op.kind not in ("F", "B"):
            raise ConfigError(f"operation {op} has no closed form; take its cycle from events()")
        if not 0 <= op.mb < micro_batches:
            raise ConfigError(
                f"operation {op} is not part of the run; use micro-batches below {micro_batches}"
            )
        size = self.segment or micro_batches
        before, k = divmod(op.mb, size)
        size = min(size, micro_batches - before * size)
        start = before * self.segment_cycles(stages, self.segment or 0)
        step = 2 * stages if self.kind == "sequential" else self.interval
        enter = start + step * k
        if op.kind == "F":
            return enter + op.stage - 1
        if self.order == "gpipe":
            return enter + size + stages - 1 + below
        return enter + stages + below - (1 if self.full_duplex else 0)

    def events(self, stages: int, micro_batches: int) -> list[Event]:
        """Events of an ideal run, ordered by cycle, stage and operation.

        Args:
            stages: M. micro_batches: length of the run.
        """
        count_of("micro_batches", micro_batches, 0)
        planned = self._run(stages, micro_batches).advance(drain=True)
        version = [0] * stages
        events: list[Event] = []
        for cycle, m, kind, k in sorted(planned, key=itemgetter(0, 1)):
            events.append(Event(cycle, m + 1, kind, k, version[m]))
            version[m] += kind == "U"
        return events
