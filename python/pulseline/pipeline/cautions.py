"""What a schedule and an algorithm do not do well together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from ..arrays import cells_of
from ..schedules import Delayed, Schedule
from .stage import Stage

__all__ = ["LEAST_PERIODS", "caution_choppers"]

# AGAD lost at most two points of the digits from chop periods of 31 (26 to 54) times the staleness
# on; E-RIDER and c-TTv2 more at the largest one, whatever the period: docs/algorithms.md.
LEAST_PERIODS = 50


def caution_choppers(stages: Sequence[Stage], schedule: Schedule, micro_batch: int) -> None:
    """Warn where signs flip faster than stale gradients can follow.

    A flip throws the fast array to the other side of its reference; gradients that are stale by as
    long steer it the wrong way meanwhile.

    Args:
        stages: all of them. schedule: that they follow; of :class:`Delayed` nothing is said, whose
            delays nobody knows before. micro_batch: samples.
    """
    if isinstance(schedule, Delayed):
        return
    for stage in stages:
        stale = schedule.staleness(len(stages), stage.index) * micro_batch
        for cell in cells_of(stage.module.parameters()):
            if 0 < cell.chop_period < LEAST_PERIODS * stale:
                warnings.warn(
                    f"signs of matrix {cell.identity.tile_id} in stage {stage.index} flip every "
                    f"{cell.chop_period:.0f} samples, and its gradients are {stale} samples stale; "
                    f"use a chop at least {LEAST_PERIODS * stale / cell.chop_period:.2g} times "
                    "smaller, a smaller micro_batch_size, or an algorithm without choppers",
                    stacklevel=4,
                )
