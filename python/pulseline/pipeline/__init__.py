"""Pipeline training: schedules as data, stages, executors, timelines."""

from __future__ import annotations

from pulseline.pipeline.clock import Event, Op, clock
from pulseline.pipeline.pipeline import Pipeline
from pulseline.pipeline.schedule import Schedule, asynchronous, named, sequential, synchronous
from pulseline.pipeline.simulate import Segment
from pulseline.pipeline.stage import Record, Stage, Update

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
