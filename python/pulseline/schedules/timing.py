"""Schedules in time: periods, in-flight depths and run lengths for stages of unequal speed.

Stage m takes t_F, t_B, t_U per micro-batch and a message c to its neighbour. With depths D(m)
the steady state of the asynchronous order is a cycle of events with two kinds of loop:

* a stage by itself: ``t_F + t_B + t_U`` per micro-batch;
* down from stage i to stage j and back up: F at i..j, then B at j..i of the micro-batch that is
  D(j) - 1 earlier, then U at i. It holds D(i) - D(j) + 1 micro-batches and takes
  ``sum_{i..j} (t_F + t_B) + 2 c (j - i) + t_U(i)``.

An update may sit on a crossbar of its own, which F and B do not read. Then its pulses take
t_beside on that crossbar while F and B go on, and only its writes, t_U, keep them waiting. They
come when the pulses have ended and the stage hands over its next pairs: at its next update, or
before the flush. Such a stage by itself has a second loop, ``t_beside`` per micro-batch, so that it
takes ``max(t_F + t_B + t_U, t_beside)``.

The period is the largest time per micro-batch over all loops (the maximum cycle mean of the event
graph; no other simple loops exist on a chain). The pipeline is free of bubbles when it equals the
slowest stage's own time; solving that for D(i), from the last stage up, gives the least depths.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ..errors import ConfigError
from .ops import Program, Span, Times, four, stage_time
from .plan import Plan

__all__ = ["auto_depths", "check_times", "loop_time", "modelled_spans", "run_time", "timed"]


def check_times(times: Sequence[Times], latency: float = 0.0) -> None:
    """Refuse durations that no pipeline can have.

    Args:
        times: of every stage, see :data:`.ops.Times`. latency: of a message, in the same unit.

    Raises:
        ConfigError: a time is negative or not finite, or no stage takes any.
    """
    if not math.isfinite(latency) or latency < 0:
        raise ConfigError(f"latency is {latency}; use a finite time >= 0")
    for m, stage in enumerate(times, start=1):
        if len(stage) not in (3, 4) or not all(math.isfinite(t) and t >= 0 for t in stage):
            raise ConfigError(f"times of stage {m} are {stage}; use three finite numbers >= 0")
    if times and not any(map(sum, times)):
        raise ConfigError("times are 0 in every stage; use at least one that is > 0")


def loop_time(times: Sequence[Times], i: int, j: int, latency: float) -> float:
    """Time of the loop from stage i down to stage j and back.

    Args:
        times: of every stage, see :data:`.ops.Times`. i, j: first and last stage, from 0.
        latency: of a message, in the same unit.
    """
    passes = sum(stage[0] + stage[1] for stage in times[i : j + 1])
    return passes + 2 * latency * (j - i) + times[i][2]


def auto_depths(times: Sequence[Times], latency: float = 0.0) -> tuple[int, ...]:
    """The least in-flight depths that keep the slowest stage busy all the time.

    Link latency buys utilisation with staleness: equal stages need M - m + 1 without it and
    2(M-m) + 1 when a message takes as long as a pass.

    Args:
        times: of every stage, see :data:`.ops.Times`. latency: of a message, in the same unit.

    Returns:
        A depth per stage.

    Raises:
        ConfigError: see :func:`check_times`.
    """
    check_times(times, latency)
    best = max((stage_time(stage) for stage in times), default=1.0)
    last = len(times) - 1
    depths = [1] * len(times)
    for i in reversed(range(last)):
        rounded = [
            depths[j] - 1 + math.ceil(loop_time(times, i, j, latency) / best - 1e-9)
            for j in range(i + 1, last + 1)
        ]
        depths[i] = max(depths[i + 1], *rounded)
    return tuple(depths)


class _TimedClock:
    """State of one run with durations; stages are numbered from 0 here."""

    def __init__(self, programs: Sequence[Program], times: Sequence[Times], latency: float) -> None:
        self.programs, self.times, self.latency = programs, [four(t) for t in times], latency
        stages = len(programs)
        self.next = [0] * stages
        self.version = [0] * stages
        self.applied = [-1] * stages
        self.free = [0.0] * stages
        self.beside = [0.0] * stages  # when the crossbar of the updates is free
        self.owed = [0.0] * stages  # writes of an update that its pulses still hold up
        self.last: list[int | None] = [None] * stages  # that update among the spans
        self.arrived: dict[tuple[str, int, int], float] = {}
        self.spans: list[Span] = []

    def run(self, per_micro_batch: bool) -> list[Span]:
        while True:
            moved = [self.advance(m, per_micro_batch) for m in range(len(self.programs))]
            if any(moved):
                continue
            if all(n == len(p) for n, p in zip(self.next, self.programs, strict=True)):
                self.write()
                self.spans.sort(key=lambda span: span.start)
                return self.spans
            self.pass_flush()

    def advance(self, m: int, per_micro_batch: bool) -> bool:
        """Run everything of stage m whose input is there; True if there was anything."""
        program, first, last = self.programs[m], self.next[m], len(self.programs) - 1
        t_f, t_b, t_u, t_beside = self.times[m]
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
                arrival = self.beside[m] if t_beside else start
                count = mb - self.applied[m] if per_micro_batch else 1
                length = (t_beside or t_u) * count
            else:
                break
            if arrival is None:
                break
            start = max(start, arrival)
            end = start + length
            if kind == "U" and t_beside:  # the writes of the update before come now
                self.free[m], self.beside[m] = start + self.owed[m], end
                self.owed[m], self.last[m] = t_u * count, len(self.spans)
            else:
                self.free[m] = end
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

    def write(self) -> None:
        """What updates still owe, behind their pulses; their spans then end with it."""
        for m, last in enumerate(self.last):
            if last is not None:
                self.free[m] = max(self.free[m], self.beside[m]) + self.owed[m]
                self.spans[last] = self.spans[last]._replace(end=self.free[m])
                self.owed[m], self.last[m] = 0.0, None

    def pass_flush(self) -> None:
        """Let all stages past a flush once every one of them stands at it."""
        ended = [n == len(p) for n, p in zip(self.next, self.programs, strict=True)]
        heads = [p[n] for n, p, end in zip(self.next, self.programs, ended, strict=True) if not end]
        if any(ended) or any(op.kind != "flush" for op in heads):
            stuck = ", ".join(map(str, heads))
            raise ConfigError(f"the programs deadlock, waiting at {stuck}; use those of a Schedule")
        self.write()
        self.free = [max(self.free)] * len(self.free)
        self.next = [n + 1 for n in self.next]


def timed(
    programs: Sequence[Program],
    times: Sequence[Times],
    latency: float = 0.0,
    per_micro_batch: bool = True,
) -> list[Span]:
    """When each operation runs on stages of such speed.

    A stage is half duplex: one operation at a time (an update on a crossbar of its own goes on
    beside those that follow it), its input having arrived ``latency`` after the neighbour's pass
    ended (the error leaves before the neighbour's update). Micro-batches
    enter stage 1 as soon as it is free.

    Args:
        programs: one per stage. times: of every stage, see :data:`.ops.Times`.
        latency: of a message, in the same unit.
        per_micro_batch: an update that applies n micro-batches takes n t_U; False: one t_U (their
            mean is applied at once).

    Returns:
        Spans ordered by start, in that unit.

    Raises:
        ConfigError: the programs deadlock.
    """
    return _TimedClock(programs, times, latency).run(per_micro_batch)


def modelled_spans(
    plan: Plan, times: Sequence[Times], micro_batches: int, latency: float = 0.0
) -> list[Span]:
    """The first micro-batches of a run under a plan, on stages of such speed.

    Args:
        plan: of the run. times: of every stage, see :data:`.ops.Times`.
        micro_batches: how many. latency: of a message, in the unit of the times.

    Returns:
        Spans ordered by start, in that unit.

    Raises:
        ConfigError: see :func:`check_times`.
    """
    check_times(times, latency)
    spans: list[Span] = []
    first, start, version = 0, 0.0, 0
    for phase, count in plan.phases(micro_batches):
        found = timed(phase.ops(len(times), count), times, latency, plan.update == "pulsed")
        spans += [
            Span(m, kind, mb + first, v + version, a + start, b + start)
            for m, kind, mb, v, a, b in found
        ]
        first += count
        start = max((span.end for span in spans), default=0.0)
        version += len(phase.segments(count)) if phase.updates_at_flush else count
    return spans


def run_time(
    plan: Plan, times: Sequence[Times], segments: Iterable[int], latency: float = 0.0
) -> float:
    """Time of a run that was cut by flushes, each size of segment timed once.

    Args:
        plan: of the run. times: of every stage, see :data:`.ops.Times`.
        segments: micro-batches of each. latency: of a message, in the unit of the times.

    Returns:
        The sum over the segments, in that unit.

    Raises:
        ConfigError: see :func:`check_times`.
    """
    check_times(times, latency)
    known: dict[tuple[Plan, int], float] = {}
    total, first = 0.0, 0
    for size in segments:
        phase = plan.at(first)
        if (phase, size) not in known:
            programs = phase.ops(len(times), size)
            spans = timed(programs, times, latency, plan.update == "pulsed")
            known[phase, size] = max((span.end for span in spans), default=0.0)
        total += known[phase, size]
        first += size
    return total
