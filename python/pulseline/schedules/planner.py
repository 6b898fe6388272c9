"""The planner: which operations are decided, in which clock cycle; counters only, no tensors.

Every stage follows its program (``ops.next_kind``); an operation starts in the first cycle
in which its stage is free and its input has arrived. Micro-batches may be announced at any time:
the clock then runs through every cycle that is decided by what is known, and stops before the
first one that would differ if one more micro-batch came. All executors run what one planner
yields, each in its own way, and so leave the same events; on several machines every process
plans the whole pipeline for itself and comes to the same plan.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import NamedTuple

from ..errors import BackendError
from .plan import Plan

__all__ = ["KEPT", "Planned", "Planner", "Segment"]

KEPT = 65536  # finished segments that are remembered

# Clock cycle, stage (from 0), kind (F, B or U), micro-batch. A plain tuple: one per operation.
Planned = tuple[int, int, str, int]


class Segment(NamedTuple):
    """A finished segment: micro-batches between two flushes, and the clock cycles they took."""

    micro_batches: int
    cycles: int


class Planner:
    """Decides which operations take place in which clock cycle.

    Args:
        schedule: to be followed. stages: how many.
        keep: finished segments that are remembered, the newest ones.

    Attributes:
        cycles: clock cycles so far. micro_batches: announced so far. segments: finished ones.
    """

    def __init__(self, schedule: Plan, stages: int, keep: int = KEPT) -> None:
        self.schedule = schedule
        self.cycles = 0
        self.micro_batches = 0
        self.segments: deque[Segment] = deque(maxlen=keep)
        self._stages = stages
        self._plan = schedule.at(0)
        self._depths = self._depths_of(self._plan)
        self._down: list[deque[int]] = [deque() for _ in range(stages)]
        self._up: list[deque[int]] = [deque() for _ in range(stages)]
        self._forwards = [0] * stages
        self._backwards = [0] * stages
        self._last_backward = [0] * stages
        self._start = 0
        self._start_cycle = 0

    @property
    def flushed(self) -> bool:
        """Nothing is in flight and nothing waits."""
        return self.micro_batches == self._start

    def feed(self, count: int = 1) -> None:
        """Announce ``count`` more micro-batches."""
        self.micro_batches += count

    def advance(self, drain: bool = False) -> Iterator[Planned]:
        """Every operation that is decided, by cycle; with ``drain``, all until nothing is left.

        An update comes after the backward pass whose cycle it closes; one at a flush comes last,
        with the cycle of its stage's latest backward pass.

        Args:
            drain: nothing more will be announced: finish what is in flight.

        Raises:
            BackendError: nothing moves any more, which is a fault of the planner.
        """
        while (yield from self._segment(drain)):
            pass

    def _begin(self, start: int) -> None:
        """Begin a segment with micro-batch ``start``; after a warm-up its schedule is another."""
        self._start, self._start_cycle = start, self.cycles
        plan = self.schedule.at(start)
        if plan != self._plan:
            self._plan, self._depths = plan, self._depths_of(plan)

    def _depths_of(self, plan: Plan) -> list[int]:
        return [plan.depth(self._stages, m) for m in range(1, self._stages + 1)]

    def restore(self, micro_batches: int, cycles: int, segments: Iterable[Segment] = ()) -> None:
        """Stand at a flush point of an earlier run.

        Args:
            micro_batches, cycles: of that run so far. segments: that it has finished.
        """
        self.micro_batches, self.cycles = micro_batches, cycles
        self.segments.clear()
        self.segments.extend(segments)
        self._stand()

    def abandon(self) -> None:
        """Forget what is in flight; the pipeline stands at a flush point again."""
        if not self.flushed:
            self.cycles += 1
        self._stand()

    def _stand(self) -> None:
        for times in (*self._down, *self._up):
            times.clear()
        self._forwards = [self.micro_batches] * self._stages
        self._backwards = list(self._forwards)
        self._begin(self.micro_batches)

    def _segment(self, drain: bool) -> Generator[Planned, None, bool]:
        """Run the segment as far as it is decided; True if it ended and another may follow."""
        plan = self._plan
        size = plan.segment
        end = self.micro_batches if size is None else min(self.micro_batches, self._start + size)
        if end == self._start:
            return False
        closed = drain or end - self._start == size
        idle = 0
        while self._backwards[0] < end:
            if not closed and self._undecided(end):
                return False
            idle += 1
            for planned in self._cycle(end):
                idle = 0
                yield planned
            if idle > plan.interval:
                raise BackendError(
                    f"the planner stalled in clock cycle {self.cycles}, a fault of pulseline; "
                    "report it with the schedule"
                )
            self.cycles += 1
        if not closed:
            return False
        if plan.updates_at_flush:
            for m, cycle in enumerate(self._last_backward):
                yield cycle, m, "U", end - 1
        self.segments.append(Segment(end - self._start, self.cycles - self._start_cycle))
        self._begin(end)
        return True

    def _undecided(self, end: int) -> bool:
        """Would some stage act differently in this cycle if micro-batch ``end`` were known?"""
        for m, depth in enumerate(self._depths):
            forwards, backwards = self._forwards[m], self._backwards[m]
            if forwards < end or forwards - backwards >= depth:
                continue
            if m == 0 and self.cycles >= self._entry(end):
                return True
            if backwards < forwards and self._error_ready(m):
                return True
        return False

    def _entry(self, k: int) -> int:
        """First cycle in which micro-batch k may enter stage 1."""
        return self._start_cycle + self._plan.interval * (k - self._start)

    def _error_ready(self, m: int) -> bool:
        times = self._up[m]
        return m == self._stages - 1 or (bool(times) and times[0] < self.cycles)

    def _cycle(self, end: int) -> list[Planned]:
        """One clock cycle of all stages."""
        planned: list[Planned] = []
        duplex = self._plan.full_duplex
        for m, depth in enumerate(self._depths):
            kind = self._operate(m, end, depth, planned)
            if kind and duplex:
                self._operate(m, end, depth, planned, kind)
        return planned

    def _operate(
        self, m: int, end: int, depth: int, planned: list[Planned], after: str = ""
    ) -> str:
        """Plan stage m's next operation if it can start and is not of kind ``after``."""
        now = self.cycles
        forwards, backwards = self._forwards[m], self._backwards[m]
        if forwards < end and forwards - backwards < depth:
            arrived = self._down[m]
            ready = (arrived and arrived[0] < now) if m else now >= self._entry(forwards)
            if after == "F" or not ready:
                return ""
            if m:
                arrived.popleft()
            if m + 1 < self._stages:
                self._down[m + 1].append(now)
            planned.append((now, m, "F", forwards))
            self._forwards[m] += 1
            return "F"
        if backwards < forwards and after != "B" and self._error_ready(m):
            if m + 1 < self._stages:
                self._up[m].popleft()
            if m:
                self._up[m - 1].append(now)
            planned.append((now, m, "B", backwards))
            self._last_backward[m] = now
            if not self._plan.updates_at_flush:
                planned.append((now, m, "U", backwards))
            self._backwards[m] += 1
            return "B"
        return ""
