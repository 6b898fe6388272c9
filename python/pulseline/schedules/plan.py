"""Pipeline schedules as data: who does what, in which order, at which clock cycle.

Notation of Analog-SGD-AP (arXiv 2410.15155): M stages m = 1..M, micro-batches k = 0, 1, ...
In one clock cycle a stage does one forward (F) or one backward (B) pass of one micro-batch; with
``full_duplex`` one of each. An update (U) takes no cycle of its own: it closes the cycle of the
backward pass before it. A message that is sent in cycle t can be used from cycle t + 1 on. A
*flush* is a point where nothing is in flight; what lies between two flushes is a *segment*.

======================  ===============  ====================  ==============  =================
schedule                F(k, m) in       B(k, m) in            cycles for K    in flight at m
======================  ===============  ====================  ==============  =================
sequential              2Mk + m - 1      2Mk + 2M - m          2MK             1
synchronous 1F1B        s + 2b + m - 1   s + 2b + 2M - m       2(M+B-1) K/B    min(B, M-m+1)
synchronous GPipe       s + b + m - 1    s + B+M-1 + b + M-m   2(M+B-1) K/B    B
asynchronous            2k + m - 1       2k + 2M - m           2(K+M-1)        M - m + 1
asynchronous duplex     k + m - 1        k + 2M - 1 - m        K + 2M - 2      2(M-m) + 1
======================  ===============  ====================  ==============  =================

(k = sB + b inside mini-batch s of B micro-batches; a short last mini-batch of B' costs
2(M+B'-1).) Every program is the one-forward-one-backward order with a *depth* D(m): at most D
micro-batches are in flight at stage m. Updates after every B then make F stale by D - 1.
A plan is programs; :class:`pulseline.schedules.Schedule` adds the clock, whose closed forms above
are compared with the planner and with an independent clock in the tests.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

from ..errors import ConfigError
from .ops import Op, Program, next_kind

__all__ = ["KINDS", "ORDERS", "UPDATES", "Plan", "count_of", "one_of"]

KINDS = ("sequential", "synchronous", "asynchronous")
ORDERS = ("1f1b", "gpipe")
UPDATES = ("pulsed", "averaged")

P = TypeVar("P", bound="Plan")


def count_of(name: str, value: int, least: int = 1) -> int:
    """Refuse what is no whole number.

    Args:
        name: what the message calls it. value: to be looked at. least: smallest number allowed.

    Returns:
        The value.

    Raises:
        ConfigError: it is no integer >= ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} is {value!r}; use an integer >= {least}")
    return value


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse an unknown word.

    Args:
        name: what the message calls it. value: to be looked at. known: the words there are.

    Raises:
        ConfigError: the value is none of them.
    """
    if value not in known:
        raise ConfigError(f"{name} is {value!r}; use one of {', '.join(known)}")


@dataclass(frozen=True)
class Plan:
    """What every stage does in which order, without times.

    Attributes:
        kind: "sequential", "synchronous" or "asynchronous".
        micro_batches: micro-batches per update and flush (sequential, synchronous and warm-up).
        order: "1f1b" or "gpipe".
        full_duplex: a stage does an F and a B in one cycle.
        depths: micro-batches in flight per stage, replacing the schedule's own.
        flush_every: micro-batches between two flushes of the asynchronous one.
        update: what an update does with the n micro-batches of a mini-batch: "pulsed" applies each,
            "averaged" their mean (digital parameters and Ideal tiles only).
        warmup: micro-batches that the asynchronous one runs synchronously at first.

    Raises:
        ConfigError: a value out of its range, or one that belongs to another kind.
    """

    kind: str
    micro_batches: int = 1
    order: str = "1f1b"
    full_duplex: bool = False
    depths: tuple[int, ...] | None = None
    flush_every: int | None = None
    update: str = "pulsed"
    warmup: int = 0

    def __post_init__(self) -> None:
        one_of("schedule", self.kind, KINDS)
        one_of("order", self.order, ORDERS)
        one_of("update", self.update, UPDATES)
        count_of("micro_batches", self.micro_batches)
        count_of("warmup", self.warmup, 0)
        own = self.full_duplex or self.warmup or (self.depths, self.flush_every) != (None, None)
        if self.kind != "asynchronous" and own:
            raise ConfigError(
                f"schedule is {self.kind!r} with full_duplex, inflight, flush_every or warmup; use "
                "them with 'asynchronous'"
            )
        if self.kind == "asynchronous" and self.update != "pulsed":
            raise ConfigError(
                "update is 'averaged' without mini-batches to average over; use the synchronous "
                "schedule"
            )
        if self.flush_every is not None:
            count_of("flush_every", self.flush_every)
        if self.depths is not None:
            self._check_depths(self.depths)

    def _check_depths(self, depths: tuple[int, ...]) -> None:
        for depth in depths:
            count_of("every entry of inflight", depth)
        if any(here < later for here, later in pairwise(depths)):
            raise ConfigError(
                f"inflight is {list(depths)}, which deadlocks; use numbers that do not grow "
                "towards the last stage"
            )

    @property
    def updates_at_flush(self) -> bool:
        """True: one update per mini-batch, at its flush. False: one after every backward pass."""
        return self.kind != "asynchronous"

    @property
    def segment(self) -> int | None:
        """Micro-batches between two flushes that the schedule itself asks for; None: no limit."""
        return self.micro_batches if self.updates_at_flush else self.flush_every

    def shares_update(self, k: int) -> bool:
        """Whether an update covers micro-batch k and others."""
        return self.micro_batches > 1 and (self.updates_at_flush or k < self.warmup)

    def described(self) -> dict[str, Any]:
        """What a run must share to continue another one."""
        return asdict(self)

    @property
    def interval(self) -> int:
        """Clock cycles between two micro-batches that enter stage 1."""
        return 1 if self.full_duplex or self.order == "gpipe" else 2

    def at(self: P, start: int) -> P:
        """The schedule of the segment whose first micro-batch is ``start``, warm-up resolved."""
        if not self.warmup:
            return self
        if start >= self.warmup:
            return replace(self, warmup=0, micro_batches=1)
        return type(self)("synchronous", min(self.micro_batches, self.warmup - start))

    def phases(self: P, micro_batches: int) -> list[tuple[P, int]]:
        """Warm-up and the rest of a run: (schedule without warm-up, its micro-batches)."""
        count_of("micro_batches", micro_batches, 0)
        warm = min(self.warmup, micro_batches)
        rest = micro_batches - warm
        found = [(type(self)("synchronous", self.micro_batches), warm)] if warm else []
        return [*found, (self.at(self.warmup), rest)] if rest else found

    def check_stages(self, stages: int) -> int:
        """Refuse a number of stages that the schedule cannot run on.

        Returns:
            The number.

        Raises:
            ConfigError: it is no integer >= 1, or ``depths`` are of another number of stages.
        """
        count_of("stages", stages)
        if self.depths is not None and len(self.depths) != stages:
            raise ConfigError(
                f"inflight has {len(self.depths)} entries for {stages} stages; use one per stage"
            )
        return stages

    def _below(self, stages: int, m: int) -> int:
        self.check_stages(stages)
        count_of("stage", m)
        if m > stages:
            raise ConfigError(f"stage is {m!r}; use 1 to {stages}")
        return stages - m

    def depth(self, stages: int, m: int) -> int:
        """Bound on the micro-batches in flight at stage m: D(m) of the module's text.

        Args:
            stages: M. m: stage, from 1.

        Raises:
            ConfigError: there is no such stage.
        """
        below = self._below(stages, m)
        if self.depths is not None:
            return self.depths[m - 1]
        if self.kind == "sequential":
            return 1
        if self.order == "gpipe":
            return self.micro_batches
        return 2 * below + 1 if self.full_duplex else below + 1

    def inflight(self, stages: int, m: int, micro_batches: int | None = None) -> int:
        """Peak of the micro-batches in flight at stage m.

        Args:
            stages: M. m: stage, from 1.
            micro_batches: length of the run; None: as long as it takes to reach the peak.
        """
        if micro_batches is None:
            micro_batches = self.warmup + max(self.depth(stages, m), self.micro_batches)
        return max(
            (
                min(phase.depth(stages, m), phase.segment or count, count)
                for phase, count in self.phases(micro_batches)
            ),
            default=0,
        )

    def staleness(self, stages: int, m: int) -> int:
        """Updates between the weights that F and that B of one micro-batch see, steady state.

        Args:
            stages: M. m: stage, from 1.
        """
        return 0 if self.updates_at_flush else self.depth(stages, m) - 1

    def versions(self, stages: int, m: int, k: int) -> tuple[int, int]:
        """Weight versions that F(k, m) and B(k, m) use, counted in updates since the start.

        Asynchronous: F uses max(version at the last flush, k - (D(m) - 1)), B uses k; after a
        warm-up both counts start at its end.

        Args:
            stages: M. m: stage, from 1. k: micro-batch, from 0.

        Returns:
            (version of F, version of B).
        """
        stale = self.staleness(stages, m)
        if self.updates_at_flush or k < self.warmup:
            return k // self.micro_batches, k // self.micro_batches
        before = -(-self.warmup // self.micro_batches)
        k -= self.warmup
        start = 0 if self.flush_every is None else k - k % self.flush_every
        return before + max(start, k - stale), before + k

    def segments(self, micro_batches: int) -> list[int]:
        """Sizes of the segments that a run of so many micro-batches falls into."""
        sizes: list[int] = []
        for phase, count in self.phases(micro_batches):
            size = phase.segment or count
            whole, rest = divmod(count, size)
            sizes += [size] * whole + ([rest] if rest else [])
        return sizes

    def ops(self, stages: int, micro_batches: int) -> tuple[Program, ...]:
        """The programs: for each stage its operations in order. Nothing else decides results.

        Args:
            stages: M. micro_batches: length of the run.

        Returns:
            One program per stage, first stage first.
        """
        self.check_stages(stages)
        programs: list[list[Op]] = [[] for _ in range(stages)]
        first = 0
        for phase, count in self.phases(micro_batches):
            sizes = phase.segments(count)
            for m, program in enumerate(programs, start=1):
                program += phase._program(m, phase.depth(stages, m), sizes, first)
            first += count
        return tuple(tuple(program) for program in programs)

    def _program(self, m: int, depth: int, sizes: list[int], first: int) -> list[Op]:
        ops: list[Op] = []
        done = first
        for size in sizes:
            forwards = backwards = done
            done += size
            while kind := next_kind(forwards, backwards, done, depth):
                if kind == "F":
                    ops.append(Op(m, "F", forwards))
                    forwards += 1
                    continue
                ops.append(Op(m, "B", backwards))
                if not self.updates_at_flush:
                    ops.append(Op(m, "U", backwards))
                backwards += 1
            if self.updates_at_flush:
                ops.append(Op(m, "U", done - 1))
            ops.append(Op(m, "flush", done - 1))
        return ops
