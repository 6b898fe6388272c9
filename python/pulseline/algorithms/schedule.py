"""When columns are transferred: a function of the number of samples alone.

Transfer n (from 0) reads column ``(start(sweep) + n) mod cols`` of sweep ``n // cols``. Runs of
transfers that lie within one sweep read columns that follow each other, no column twice: a run is
what a rule handles at once.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import ops

__all__ = ["Run", "all_columns", "due", "line_numbers", "runs", "taps_of"]


@dataclass(slots=True)
class Run:
    """Transfers of one sweep whose columns follow each other.

    Attributes:
        number: of the first transfer. samples: of the update, after which each of them happens.
        columns: that they read. sweep: its number. ends: whether the last column of the sweep is
            among them.
    """

    number: int
    samples: list[int]
    columns: slice
    sweep: int
    ends: bool

    def __len__(self) -> int:
        return len(self.samples)


def due(before: int, samples: int, every: int, reads: int = 1) -> list[int]:
    """The samples of an update behind which a column is read, each as often as it is.

    Args:
        before: samples of earlier updates. samples: of this one. every: from one transfer to the
            next. reads: columns of a transfer.
    """
    first = every - 1 - before % every
    return [s for s in range(first, samples, every) for _ in range(reads)]


def runs(
    number: int, samples: list[int], cols: int, start: tuple[int, int] | None = None
) -> list[Run]:
    """Transfers of an update, cut at the ends of sweeps.

    Args:
        number: of the first. samples: behind which each happens. cols: of the matrix.
        start: Philox key of the columns that sweeps start at; None: column 0.
    """
    found, first = [], 0
    while first < len(samples):
        sweep, place = divmod(number + first, cols)
        begin = 0 if start is None else _start(start, sweep, cols)
        column = (begin + place) % cols
        last = min(len(samples), first + min(cols - place, cols - column))
        ends = place + last - first == cols
        columns = slice(column, column + last - first)
        found.append(Run(number + first, samples[first:last], columns, sweep, ends))
        first = last
    return found


def all_columns(cols: int, device: torch.device) -> Tensor:
    """Numbers of all columns as pulses take them, int32.

    Args:
        cols: how many. device: where.
    """
    return torch.arange(cols, dtype=torch.int32, device=device)


def line_numbers(first: int, last: int) -> Tensor:
    """Numbers for draws, int64 on the CPU.

    Args:
        first, last: from the one to before the other.
    """
    return torch.arange(first, last, dtype=torch.int64, device="cpu")


def _start(key: tuple[int, int], sweep: int, cols: int) -> int:
    number = line_numbers(sweep, sweep + 1)
    drawn = ops.uniforms(ops.DrawKey(*key), "column_choice", number, torch.zeros_like(number))
    return min(int(float(drawn) * cols), cols - 1)


def taps_of(of: list[Run]) -> Tensor:
    """(sample, column) of every transfer as int32 on the CPU, in order.

    Args:
        of: the runs.
    """
    pairs = array("i")
    for run in of:
        own = array("i", run.samples) * 2
        own[::2] = array("i", run.samples)
        own[1::2] = array("i", range(run.columns.start, run.columns.stop))
        pairs += own
    if not pairs:
        return torch.empty(0, 2, dtype=torch.int32, device="cpu")
    return torch.frombuffer(pairs, dtype=torch.int32).view(-1, 2)  # three times faster than tensor
