"""Schedules in time: periods, in-flight depths and run lengths for stages of unequal speed.

Stage m takes t_F, t_B, t_U per micro-batch and a message c to its neighbour. With depths D(m)
the steady state of the asynchronous order is a cycle of events with two kinds of loop:

* a stage by itself: ``t_F + t_B + t_U`` per micro-batch;
* down from stage i to stage j and back up: F at i..j, then B at j..i of the micro-batch that is
  D(j) - 1 earlier, then U at i. It holds D(i) - D(j) + 1 micro-batches and takes
  ``sum_{i..j} (t_F + t_B) + 2 c (j - i) + t_U(i)``.

The period is the largest time per micro-batch over all loops (the maximum cycle mean of the event
graph; no other simple loops exist on a chain). The pipeline is free of bubbles when it equals the
slowest stage's own time; solving that for D(i), from the last stage up, gives the least depths.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .clock import Span, Times, timed

if TYPE_CHECKING:
    from .plan import Schedule


def check_times(times: Sequence[Times], latency: float = 0.0) -> None:
    """Raise ConfigError unless every time is finite and >= 0 and no stage is instantaneous."""
    if not math.isfinite(latency) or latency < 0:
        raise ConfigError(f"latency is {latency}; use a finite time >= 0")
    for m, stage in enumerate(times, start=1):
        if len(stage) != 3 or not all(math.isfinite(t) and t >= 0 for t in stage):
            raise ConfigError(f"times of stage {m} are {stage}; use three finite numbers >= 0")
        if sum(stage) <= 0:
            raise ConfigError(f"times of stage {m} are {stage}; at least one must be > 0")


def _loop(times: Sequence[Times], i: int, j: int, latency: float) -> float:
    """Time of the loop from stage i down to stage j and back (from 0)."""
    passes = sum(t_f + t_b for t_f, t_b, _ in times[i : j + 1])
    return passes + 2 * latency * (j - i) + times[i][2]


def period(times: Sequence[Times], depths: Sequence[int], latency: float = 0.0) -> float:
    """Steady-state time per micro-batch of the asynchronous order with those depths."""
    check_times(times, latency)
    slowest = 0.0
    for i in range(len(times)):
        for j in range(i, len(times)):
            slowest = max(slowest, _loop(times, i, j, latency) / (depths[i] - depths[j] + 1))
    return slowest


def auto_depths(times: Sequence[Times], latency: float = 0.0) -> tuple[int, ...]:
    """The least in-flight depths that keep the slowest stage busy all the time.

    Link latency buys utilisation with staleness: equal stages need M - m + 1 without it and
    2(M-m) + 1 when a message takes as long as a pass.
    """
    check_times(times, latency)
    best = max((sum(stage) for stage in times), default=1.0)
    last = len(times) - 1
    depths = [1] * len(times)
    for i in reversed(range(last)):
        rounded = [
            depths[j] - 1 + math.ceil(_loop(times, i, j, latency) / best - 1e-9)
            for j in range(i + 1, last + 1)
        ]
        depths[i] = max(depths[i + 1], *rounded)
    return tuple(depths)


def modelled_spans(
    plan: Schedule, times: Sequence[Times], micro_batches: int, latency: float = 0.0
) -> list[Span]:
    """The first ``micro_batches`` of a run under ``plan`` on stages of such speed, by start."""
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
    plan: Schedule, times: Sequence[Times], segments: Iterable[int], latency: float = 0.0
) -> float:
    """Time of a run whose flushes left segments of those sizes, each timed once per size."""
    check_times(times, latency)
    known: dict[tuple[Schedule, int], float] = {}
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
