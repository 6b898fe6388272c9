"""torch's schedule CSV read back: the other half of pulseline.schedules.torch_csv, for its tests.

Cells of communication are dropped, since programs imply it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from itertools import pairwise

from clock import clock
from pulseline.errors import ConfigError
from pulseline.schedules import Op, Program, Schedule, asynchronous, synchronous

_CELL = re.compile(r"(\d+)([A-Z_]+)(\d*)")
_DROPPED = ("SEND_F", "RECV_F", "SEND_B", "RECV_B", "UNSHARD", "RESHARD", "REDUCE_GRAD")


def from_torch_csv(text: str, update: str = "flush") -> tuple[Program, ...]:
    """Programs of a torch schedule CSV with one stage per rank.

    ``update``: "flush" puts one update at the end, as torch's optimizer does; "each" one after
    every B. Raises ConfigError for schedules that split B or give a rank several stages, for
    missing or repeated passes, and for a deadlock.
    """
    if update not in ("flush", "each"):
        raise ConfigError(f"update is {update!r}; use 'flush' or 'each'")
    programs = [
        _program(rank, row, update) for rank, row in enumerate(csv.reader(io.StringIO(text)))
    ]
    _check(programs)
    clock(programs)
    return tuple(programs)


def _program(rank: int, row: Sequence[str], update: str) -> Program:
    ops: list[Op] = []
    for cell in row:
        found = _CELL.fullmatch(cell.strip())
        if found is None:
            if cell.strip():
                raise ConfigError(f"cell {cell!r} of rank {rank} is not of the form 1F3")
            continue
        stage, kind, mb = found.groups()
        if kind in _DROPPED:
            continue
        if kind not in ("F", "B"):
            raise ConfigError(
                f"cell {cell!r} of rank {rank} splits or joins passes; use a schedule of F and B"
            )
        if int(stage) != rank:
            raise ConfigError(
                f"cell {cell!r} runs on rank {rank}; use a schedule with one stage per rank"
            )
        if not mb:
            raise ConfigError(f"cell {cell!r} of rank {rank} lacks its micro-batch")
        ops.append(Op(rank + 1, kind, int(mb)))
        if update == "each" and kind == "B":
            ops.append(Op(rank + 1, "U", int(mb)))
    last = max((op.mb for op in ops), default=-1)
    if update == "flush" and ops:
        ops.append(Op(rank + 1, "U", last))
    return (*ops, Op(rank + 1, "flush", last))


def _check(programs: Sequence[Program]) -> None:
    """Every stage runs F and B of the same micro-batches 0..K-1, once and in order."""
    if not programs:
        raise ConfigError("the schedule is empty: it needs one row per stage")
    count = sum(op.kind == "F" for op in programs[0])
    for program in programs:
        for kind in ("F", "B"):
            if [op.mb for op in program if op.kind == kind] != list(range(count)):
                raise ConfigError(
                    f"stage {program[-1].stage} must run {kind} of micro-batches 0 to {count - 1} "
                    "once each and in order"
                )


def recognise(programs: Sequence[Program]) -> Schedule:
    """The schedule that makes these programs, to be run by a Pipeline.

    Raises ConfigError if they do not keep a fixed number of micro-batches in flight.
    """
    stages = len(programs)
    count = sum(op.kind == "F" for op in programs[0])
    plain: list[Schedule] = [synchronous(count), synchronous(count, "gpipe"), asynchronous()]
    peaks = [_peak(program) for program in programs]
    if all(here >= later for here, later in pairwise(peaks)):
        plain.append(asynchronous(inflight=peaks))
    for plan in plain:
        if [list(p) for p in plan.ops(stages, count)] == [list(p) for p in programs]:
            return plan
    raise ConfigError(
        "the programs do not keep a fixed number of micro-batches in flight: use 1F1B, GPipe or "
        "the asynchronous order"
    )


def _peak(program: Program) -> int:
    flight = peak = 0
    for op in program:
        flight += {"F": 1, "B": -1}.get(op.kind, 0)
        peak = max(peak, flight)
    return max(peak, 1)
