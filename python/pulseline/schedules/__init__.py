"""Schedules as data: who does what, in which order, in which clock cycle; no torch."""

from __future__ import annotations

from .delayed import Delayed
from .listed import from_ops
from .named import NAMES, asynchronous, named, sequential, synchronous
from .ops import Event, Op, Program, Span, Times, stage_time
from .planner import Planned, Planner, Segment
from .schedule import Schedule
from .timeline import chrome_trace, gantt, text_grid, write_timelines
from .timing import auto_depths, check_times, modelled_spans, run_time
from .torch_csv import to_torch_csv

__all__ = [
    "NAMES",
    "Delayed",
    "Event",
    "Op",
    "Planned",
    "Planner",
    "Program",
    "Schedule",
    "Segment",
    "Span",
    "Times",
    "asynchronous",
    "auto_depths",
    "check_times",
    "chrome_trace",
    "from_ops",
    "gantt",
    "modelled_spans",
    "named",
    "run_time",
    "sequential",
    "stage_time",
    "synchronous",
    "text_grid",
    "to_torch_csv",
    "write_timelines",
]
