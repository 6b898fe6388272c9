"""Schedules of one's own: any list of operations per stage that keeps the order of micro-batches.

A list covers K micro-batches, numbered from 0, and ends with nothing in flight; the run repeats it,
with a flush in between. What a stage may do is free but for three rules, without which results
would depend on the clock or a gradient would be lost:

* F0, F1, .. and B0, B1, .. each come once and in order, B of a micro-batch after its F;
* ``Uk`` comes after Bk and before B(k+1), and applies every pass since the update before it; one
  comes after the last B;
* the stages do not wait for each other in a circle.

An operation runs in the first clock cycle in which its stage is free and its message has arrived.
Where fewer than K micro-batches are left at a drain, the operations of the others are left out,
and an update that was to follow them comes after the last pass there is.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

from ..errors import ConfigError
from .ops import Op, Program
from .plan import count_of
from .planner import Planned, Planner, Segment
from .schedule import Schedule

__all__ = ["Listed", "ListedPlanner", "from_ops"]


def from_ops(programs: Sequence[str | Iterable[Op | str]]) -> Schedule:
    """A schedule that runs these operations.

    Args:
        programs: of each stage, first one first: text such as ``"F0 F1 B0 U0 B1 U1"``, or
            operations; ``schedules.asynchronous().ops(stages, K)`` gives some to begin with.

    Returns:
        The schedule; its ``staleness``, ``versions``, ``events`` and ``cycles`` are those of the
        list.

    Raises:
        ConfigError: an operation is missing, twice, or in a place where it cannot be, or the
            stages wait for each other for ever; the sentence names it.
    """
    if isinstance(programs, str):
        raise ConfigError(f"programs is {programs!r:.60}; use a list with one text per stage")
    read = tuple(_read(m, program) for m, program in enumerate(programs, start=1))
    return Listed("listed", programs=read)


def _read(m: int, program: str | Iterable[Op | str]) -> tuple[Op, ...]:
    """Operations of stage m; flushes, which are where the list ends, are left out."""
    words = program.split() if isinstance(program, str) else program
    found = []
    for word in words:
        if isinstance(word, tuple) and word[1:2] == ("flush",):
            continue
        match = re.fullmatch(r"(\d*)([FBU])(\d+)", "".join(map(str, word)))
        if match is None or int(match[1] or m) != m:
            raise ConfigError(
                f"stage {m} has operation {str(word)!r:.60}; use F, B or U and a micro-batch, such "
                "as F0"
            )
        found.append(Op(m, match[2], int(match[3])))
    return tuple(found)


@dataclass(frozen=True)
class Listed(Schedule):
    """What :func:`from_ops` makes.

    Attributes:
        programs: operations of each stage, without flushes.

    Raises:
        ConfigError: see :func:`from_ops`.
    """

    programs: tuple[tuple[Op, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.programs:
            raise ConfigError("programs is empty; give at least one stage")
        for m in range(1, len(self.programs) + 1):
            self._check_order(m)
        planner = self.planner(len(self.programs))
        planner.feed(self.size)
        for _ in planner.advance():
            pass
        if waiting := planner.waiting():
            raise ConfigError(f"the stages wait for each other: {waiting}; use another order")

    def _check_order(self, m: int) -> None:
        """Refuse what breaks the rules that one stage can break alone."""
        done = {"F": 0, "B": 0, "U": 0}  # the next micro-batch of each
        for op in self.programs[m - 1]:
            wrong = ""
            if op.kind != "U" and op.mb != done[op.kind]:
                wrong = f"where {op.kind}{done[op.kind]} is due"
            elif op.kind == "B" and op.mb >= done["F"]:
                wrong = f"before F{op.mb}"
            elif op.kind == "U" and op.mb != done["B"] - 1:
                last = f"B{done['B'] - 1}" if done["B"] else "no B"
                wrong = f"after {last}, whose micro-batch it has to name"
            elif op.kind == "U" and done["U"] > op.mb:
                wrong = "with nothing to apply"
            if wrong:
                raise ConfigError(f"stage {m} has {op.kind}{op.mb} {wrong}; use another order")
            done[op.kind] = op.mb + 1
        size = self.size
        for kind, what in (("F", "no F"), ("B", "no B"), ("U", "no U after B")):
            if done[kind] != size or not size:
                raise ConfigError(
                    f"stage {m} has {what}{done[kind] if kind != 'U' else size - 1}; give every "
                    "stage F and B of the same micro-batches, and a U after the last B"
                )

    @property
    def size(self) -> int:
        """K: micro-batches of the list."""
        return max(sum(op.kind == "F" for op in program) for program in self.programs)

    @property
    def segment(self) -> int | None:
        return self.size

    @property
    def updates_at_flush(self) -> bool:
        return False

    def shares_update(self, k: int) -> bool:
        return any(self._covered(program, k % self.size) for program in self.programs)

    @staticmethod
    def _covered(program: Program, k: int) -> bool:
        updates = [op.mb for op in program if op.kind == "U"]
        after = next(mb for mb in updates if mb >= k)
        return after != k or (k > 0 and k - 1 not in updates)

    def check_stages(self, stages: int) -> int:
        if count_of("stages", stages) != len(self.programs):
            raise ConfigError(
                f"schedule lists operations of {len(self.programs)} stages and there are {stages}; "
                "use one list per stage"
            )
        return stages

    def program(self, m: int, size: int) -> list[Op]:
        """Operations of stage m on the first micro-batches of the list.

        Args:
            m: stage, from 1. size: micro-batches, at most K.
        """
        found: list[Op] = []
        applied = last = 0
        for op in self.programs[m - 1]:
            if op.kind != "U":
                found += [op] if op.mb < size else []
                last += op.kind == "B" and op.mb < size
            elif last > applied:
                found.append(Op(m, "U", last - 1))
                applied = last
        return found

    def _program(self, m: int, depth: int, sizes: list[int], first: int) -> list[Op]:
        ops: list[Op] = []
        for size in sizes:
            ops += [Op(m, op.kind, op.mb + first) for op in self.program(m, size)]
            first += size
            ops.append(Op(m, "flush", first - 1))
        return ops

    def depth(self, stages: int, m: int) -> int:
        self._below(stages, m)
        return self._peak(m, self.size)

    def inflight(self, stages: int, m: int, micro_batches: int | None = None) -> int:
        self._below(stages, m)
        return self._peak(m, min(self.size, self.size if micro_batches is None else micro_batches))

    def _peak(self, m: int, size: int) -> int:
        peak = now = 0
        for op in self.program(m, size):
            now += (op.kind == "F") - (op.kind == "B")
            peak = max(peak, now)
        return peak

    def staleness(self, stages: int, m: int) -> int:
        """The largest number of updates between F and B of one micro-batch at stage m."""
        pairs = (self.versions(stages, m, k) for k in range(self.size))
        return max(b - f for f, b in pairs)

    def versions(self, stages: int, m: int, k: int) -> tuple[int, int]:
        self._below(stages, m)
        program = self.programs[m - 1]
        kinds = [op.kind for op in program]
        whole, k = divmod(k, self.size)
        f, b = (kinds[: program.index(Op(m, kind, k))].count("U") for kind in "FB")
        before = whole * kinds.count("U")
        return before + f, before + b

    def segment_cycles(self, stages: int, size: int) -> int:
        self.check_stages(stages)
        planner = self.planner(stages)
        planner.feed(size)
        for _ in planner.advance(drain=True):
            pass
        return planner.cycles

    def cycle(self, stages: int, op: Op, micro_batches: int) -> int:
        raise ConfigError(f"operation {op} has no closed form; take its cycle from events()")

    def planner(self, stages: int) -> ListedPlanner:
        return ListedPlanner(self, stages)


class ListedPlanner(Planner):
    """Decides in which clock cycle the operations of a list take place.

    Args:
        schedule: the list. stages: how many.
    """

    schedule: Listed

    def __init__(self, schedule: Listed, stages: int) -> None:
        self._free = [0] * stages  # first cycle in which each stage can do something
        self._at = [0] * stages  # its next operation
        super().__init__(schedule, stages)
        self._programs = [schedule.program(m, schedule.size) for m in range(1, stages + 1)]

    def waiting(self) -> str:
        """Which operations wait for what, if a segment has begun and stands."""
        return ", ".join(
            f"stage {m + 1} with {op.kind}{op.mb} for stage {m + (2 if op.kind == 'B' else 0)}"
            for m, op in ((m, self._next(m, self._programs)) for m in range(self._stages))
            if op is not None and not self.flushed
        )

    def _next(self, m: int, programs: list[list[Op]]) -> Op | None:
        return programs[m][self._at[m]] if self._at[m] < len(programs[m]) else None

    def _begin(self, start: int) -> None:
        super()._begin(start)
        self._at = [0] * self._stages
        self._free = [self.cycles] * self._stages

    def _segment(self, drain: bool) -> Generator[Planned, None, bool]:
        size = self.schedule.size
        known = min(self.micro_batches - self._start, size)
        if known == 0:
            return False
        closed = drain or known == size
        programs = self._programs
        if closed and known < size:
            programs = [self.schedule.program(m, known) for m in range(1, self._stages + 1)]
        while True:
            ready = [(t, m) for m in range(self._stages) if (t := self._ready(m, known, programs))]
            if not ready:
                break
            now, m = min(ready)
            yield self._operate_listed(m, now - 1, programs)
        self.cycles = max(self._free)
        if any(self._next(m, programs) for m in range(self._stages)):
            return False
        self.segments.append(Segment(known, self.cycles - self._start_cycle))
        self._begin(self._start + known)
        return True

    def _ready(self, m: int, known: int, programs: list[list[Op]]) -> int:
        """One more than the cycle of stage m's next operation; 0: it has to wait."""
        op = self._next(m, programs)
        if op is None or op.mb >= known:
            return 0
        if op.kind == "U":  # closes the cycle of what came before
            return self._free[m]
        links = self._down[m] if op.kind == "F" else self._up[m]
        ends = m == 0 if op.kind == "F" else m == self._stages - 1
        if ends:
            return self._free[m] + 1
        return max(self._free[m], links[0] + 1) + 1 if links else 0

    def _operate_listed(self, m: int, now: int, programs: list[list[Op]]) -> Planned:
        """Plan stage m's next operation in a cycle."""
        op = programs[m][self._at[m]]
        self._at[m] += 1
        if op.kind == "F":
            if m:
                self._down[m].popleft()
            if m + 1 < self._stages:
                self._down[m + 1].append(now)
        elif op.kind == "B":
            if m + 1 < self._stages:
                self._up[m].popleft()
            if m:
                self._up[m - 1].append(now)
        if op.kind != "U":
            self._free[m] = now + 1
        return now, m, op.kind, self._start + op.mb
