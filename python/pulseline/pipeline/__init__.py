"""Pipeline training: schedules as data, stages, executors, timelines."""

from __future__ import annotations

from . import checkpoint
from .clock import Event, Op, Span, clock
from .pipeline import Pipeline
from .planner import Segment
from .schedule import Schedule, asynchronous, named, sequential, synchronous
from .stage import Record, Stage, Update

__all__ = [
    "Event",
    "Op",
    "Pipeline",
    "Record",
    "Schedule",
    "Segment",
    "Span",
    "Stage",
    "Update",
    "asynchronous",
    "checkpoint",
    "clock",
    "named",
    "sequential",
    "synchronous",
]
