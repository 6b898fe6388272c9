"""Pipeline training: schedules as data, stages, executors, timelines."""

from __future__ import annotations

from .clock import Event, Op, clock
from .pipeline import Pipeline
from .schedule import Schedule, asynchronous, named, sequential, synchronous
from .simulate import Segment
from .stage import Record, Stage, Update

__all__ = [
    "Event",
    "Op",
    "Pipeline",
    "Record",
    "Schedule",
    "Segment",
    "Stage",
    "Update",
    "asynchronous",
    "clock",
    "named",
    "sequential",
    "synchronous",
]
