"""Pipeline training: stages, executors, checkpoints; schedules are data of their own."""

from __future__ import annotations

from . import checkpoint
from .options import Options
from .pipeline import Pipeline
from .stage import Record, Stage, Update
from .step_rates import torch_lr

__all__ = ["Options", "Pipeline", "Record", "Stage", "Update", "checkpoint", "torch_lr"]
