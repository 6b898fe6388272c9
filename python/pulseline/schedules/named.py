"""The schedules by name: sequential, synchronous (1F1B and GPipe), asynchronous.

What a schedule is, its closed forms and its programs: ``plan.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigError
from .ops import Times
from .plan import count_of, one_of
from .schedule import Schedule
from .timing import auto_depths

__all__ = [
    "NAMES",
    "asynchronous",
    "named",
    "sequential",
    "synchronous",
]


def sequential(micro_batches: int = 1, update: str = "pulsed") -> Schedule:
    """One micro-batch at a time through all stages.

    Args:
        micro_batches: micro-batches per update.
        update: "pulsed" or "averaged", see :class:`.plan.Plan`.

    Returns:
        The schedule.

    Raises:
        ConfigError: a value out of its range.
    """
    return Schedule("sequential", micro_batches, update=update)


def synchronous(micro_batches: int = 8, order: str = "1f1b", update: str = "pulsed") -> Schedule:
    """Mini-batches that are flushed and updated together.

    Args:
        micro_batches: per mini-batch.
        order: "1f1b" (B as soon as it can) or "gpipe" (all F first).
        update: "pulsed" or "averaged", see :class:`.plan.Plan`.

    Returns:
        The schedule.

    Raises:
        ConfigError: a value out of its range.
    """
    return Schedule("synchronous", micro_batches, order, update=update)


def asynchronous(
    full_duplex: bool = False,
    inflight: Sequence[int] | str | None = None,
    flush_every: int | None = None,
    *,
    warmup: int = 0,
    micro_batches: int = 8,
    times: Sequence[Times] | None = None,
    latency: float = 0.0,
) -> Schedule:
    """Analog-SGD-AP: no flush, every stage updates right after each of its backward passes.

    Args:
        full_duplex: an F and a B per cycle (pipelined back-propagation, staleness 2(M-m)).
        inflight: depth per stage instead of M-m+1 (staleness = depth - 1); "auto": the least that
            keeps the slowest stage busy.
        flush_every: empty the pipeline after so many micro-batches; None: never.
        warmup: micro-batches run synchronously at first.
        micro_batches: per mini-batch of the warm-up.
        times: for "auto": (t_F, t_B, t_U) of every stage, in any one unit; a fourth of what runs
            beside them.
        latency: for "auto": of a message, in that unit.

    Returns:
        The schedule.

    Raises:
        ConfigError: a value out of its range, or "auto" without times or with full duplex.
    """
    if inflight == "auto":
        if times is None or full_duplex:
            raise ConfigError(
                "inflight is 'auto' in full duplex or without times; use half duplex and times=, "
                "one (t_F, t_B, t_U) per stage"
            )
        inflight = auto_depths(times, latency)
    elif isinstance(inflight, str):
        raise ConfigError(f"inflight is {inflight!r}; use 'auto' or one number per stage")
    return Schedule(
        "asynchronous",
        count_of("micro_batches", micro_batches) if warmup else 1,
        full_duplex=full_duplex,
        depths=None if inflight is None else tuple(inflight),
        flush_every=flush_every,
        warmup=warmup,
    )


NAMES = ("async", "sync", "sequential", "gpipe", "duplex")
_WHOLE = {"asynchronous": "async", "synchronous": "sync"}


def named(name: str, micro_batches: int = 8) -> Schedule:
    """The schedule of that name.

    Args:
        name: one of NAMES, "asynchronous" or "synchronous".
        micro_batches: per mini-batch, of "sync" and "gpipe".

    Returns:
        The schedule.

    Raises:
        ConfigError: there is no such name, or ``micro_batches`` < 1.
    """
    name = _WHOLE.get(name, name)
    one_of("schedule", name, NAMES)
    if name == "sync":
        return synchronous(micro_batches)
    if name == "gpipe":
        return synchronous(micro_batches, "gpipe")
    if name == "sequential":
        return sequential()
    return asynchronous(full_duplex=name == "duplex")
