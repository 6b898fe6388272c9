"""Programs as the schedule CSV of torch.distributed.pipelining.

The format that ``_PipelineScheduleRuntime._load_csv`` reads ("compute_only"): one row per rank,
cells such as ``1F3`` with stages from 0. torch has no update: its optimizer steps after the whole
schedule.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from .ops import Program

__all__ = ["to_torch_csv"]


def to_torch_csv(programs: Sequence[Program]) -> str:
    """The F and B of the programs, one row per stage; updates and flushes have no cell."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    for program in programs:
        writer.writerow(
            [f"{op.stage - 1}{op.kind}{op.mb}" for op in program if op.kind in ("F", "B")]
        )
    return text.getvalue()
