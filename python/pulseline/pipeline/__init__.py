"""Pipeline training: stages, executors, checkpoints; schedules are data of their own."""

from __future__ import annotations

from . import checkpoint
from .audit import staleness
from .measured import measured_balance
from .options import Options
from .pipeline import Pipeline
from .stage import Record, Stage, Update
from .step_rates import torch_lr

__all__ = [
    "Options",
    "Pipeline",
    "Record",
    "Stage",
    "Update",
    "checkpoint",
    "measured_balance",
    "staleness",
    "torch_lr",
]
