"""Pipeline training: stages, executors, checkpoints; schedules are data of their own."""

from __future__ import annotations

from . import checkpoint
from .pipeline import Pipeline
from .stage import Record, Stage, Update

__all__ = ["Pipeline", "Record", "Stage", "Update", "checkpoint"]
