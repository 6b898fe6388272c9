"""The ``sim`` executor: all stages in one thread, one clock cycle after the other.

Every stage follows its program (``schedule.next_kind``); an operation starts in the first cycle
in which its stage is free and its input has arrived. Micro-batches may be fed at any time: the
clock then runs through every cycle that is decided by what is known, and stops before the first
one that would differ if one more micro-batch came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ..errors import BackendError, StageFailed
from .link import Link
from .schedule import Schedule
from .stage import Stage


class Segment(NamedTuple):
    """A finished segment: micro-batches between two flushes, and the clock cycles they took."""

    micro_batches: int
    cycles: int


def _reason(error: Exception) -> str:
    """One line that says what went wrong inside a stage."""
    text = str(error)
    if "modified by an inplace operation" in text:
        return (
            "the optimizer's step tells autograd, which then refuses the gradients of what is in "
            "flight: use AnalogSGD"
        )
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"


class Simulator:
    """Runs ``stages`` under ``schedule``; ``cycles`` counts all cycles so far."""

    def __init__(self, stages: Sequence[Stage], schedule: Schedule, keep: int = 65536) -> None:
        self.stages = list(stages)
        self.schedule = schedule
        self.cycles = 0
        self.segments: deque[Segment] = deque(maxlen=keep)
        count = len(self.stages)
        self._depths = [schedule.depth(count, m) for m in range(1, count + 1)]
        self._forwards = [0] * count
        self._backwards = [0] * count
        self._down = [Link() for _ in range(count)]
        self._up = [Link() for _ in range(count)]
        self._inputs: deque[Tensor] = deque()
        self._targets: deque[Tensor] = deque()
        self._losses: list[Tensor] | None = None
        self._known = 0
        self._start = 0
        self._start_cycle = 0

    @property
    def flushed(self) -> bool:
        """Nothing is in flight and nothing waits."""
        return self._known == self._start

    @property
    def micro_batches(self) -> int:
        """Micro-batches that were fed so far."""
        return self._known

    def feed(self, x: Tensor, target: Tensor) -> None:
        """Queue one micro-batch."""
        self._inputs.append(x)
        self._targets.append(target)
        self._known += 1

    def advance(self, losses: list[Tensor] | None = None, drain: bool = False) -> None:
        """Run every decided cycle; with ``drain``, until nothing is in flight.

        ``losses`` receives the detached loss of each micro-batch that reaches the end. When a
        stage fails, all that is in flight is dropped, weights stay as they are, and StageFailed
        says where.
        """
        self._losses = losses
        try:
            while self._run_segment(drain):
                pass
        except BaseException:
            self._abandon()
            raise
        finally:
            self._losses = None

    def _run_segment(self, drain: bool) -> bool:
        """Run the segment as far as it is decided; True if it ended and another may follow."""
        size = self.schedule.segment
        end = self._known if size is None else min(self._known, self._start + size)
        if end == self._start:
            return False
        closed = drain or end - self._start == size
        idle = 0
        while self._backwards[0] < end:
            if not closed and self._undecided(end):
                return False
            idle = 0 if self._cycle(end) else idle + 1
            if idle > self.schedule.interval:
                raise BackendError(f"the pipeline stalled in clock cycle {self.cycles}")
            self.cycles += 1
        if not closed:
            return False
        if self.schedule.updates_at_flush:
            for m in range(len(self.stages)):
                self._update(m, end - 1)
        self.segments.append(Segment(end - self._start, self.cycles - self._start_cycle))
        self._start, self._start_cycle = end, self.cycles
        return True

    def _undecided(self, end: int) -> bool:
        """Would some stage act differently in this cycle if micro-batch ``end`` were known?"""
        for m, depth in enumerate(self._depths):
            forwards, backwards = self._forwards[m], self._backwards[m]
            if forwards < end or forwards - backwards >= depth:
                continue
            if m == 0 and self.cycles >= self._entry(end):
                return True
            if backwards < forwards and self._grad_ready(m):
                return True
        return False

    def _entry(self, k: int) -> int:
        """First cycle in which micro-batch k may enter stage 1."""
        return self._start_cycle + self.schedule.interval * (k - self._start)

    def _grad_ready(self, m: int) -> bool:
        return m == len(self.stages) - 1 or self._up[m].ready(self.cycles)

    def _cycle(self, end: int) -> bool:
        """One clock cycle of all stages; True if any of them did something."""
        now = self.cycles
        busy = False
        duplex = self.schedule.full_duplex
        for m, depth in enumerate(self._depths):
            kind = self._operate(m, end, depth, now)
            if kind:
                busy = True
                if duplex:
                    self._operate(m, end, depth, now, kind)
        return busy

    def _operate(self, m: int, end: int, depth: int, now: int, after: str = "") -> str:
        """Run stage m's next operation if it can start and is not of kind ``after``."""
        forwards, backwards = self._forwards[m], self._backwards[m]
        kind = ""
        try:
            if forwards < end and forwards - backwards < depth:
                if after != "F" and (
                    self._down[m].ready(now) if m else now >= self._entry(forwards)
                ):
                    kind = "F"
                    self._forward(m, forwards, now)
            elif backwards < forwards and after != "B" and self._grad_ready(m):
                kind = "B"
                self._backward(m, backwards, now)
                if not self.schedule.updates_at_flush:
                    self._update(m, backwards)
        except (StageFailed, KeyboardInterrupt):
            raise
        except Exception as error:
            k = forwards if kind == "F" else backwards
            raise StageFailed(m + 1, kind, k, _reason(error)) from error
        return kind

    def _forward(self, m: int, k: int, now: int) -> None:
        stage = self.stages[m]
        stage.time = now
        x = self._down[m].get(m + 1, "F", k) if m else self._inputs.popleft()
        if m + 1 < len(self.stages):
            self._down[m + 1].put(now, k, stage.forward(k, x))
        else:
            loss = stage.forward(k, x, self._targets.popleft())
            if self._losses is not None:
                self._losses.append(loss)
        self._forwards[m] += 1

    def _backward(self, m: int, k: int, now: int) -> None:
        stage = self.stages[m]
        stage.time = now
        grad = self._up[m].get(m + 1, "B", k) if m + 1 < len(self.stages) else None
        message = stage.backward(k, grad)
        if message is not None:
            self._up[m - 1].put(now, k, message)
        self._backwards[m] += 1

    def _update(self, m: int, k: int) -> None:
        """U closes the cycle of the stage's latest B, whose time it takes."""
        try:
            self.stages[m].update(k)
        except Exception as error:
            raise StageFailed(m + 1, "U", k, _reason(error)) from error

    def _abandon(self) -> None:
        """Drop everything in flight; the pipeline stands at a flush point again."""
        for link in (*self._down, *self._up):
            link.clear()
        for stage in self.stages:
            stage.abandon()
        self._inputs.clear()
        self._targets.clear()
        self._forwards = [self._known] * len(self.stages)
        self._backwards = list(self._forwards)
        self._start, self._start_cycle = self._known, self.cycles
