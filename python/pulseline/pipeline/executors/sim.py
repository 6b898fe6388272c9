"""The ``sim`` executor: all stages in one thread, one clock cycle after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from ...schedules import Planned
from ..stage import Stage
from .execute import Local, perform
from .link import Link

__all__ = ["Simulator"]


class Simulator(Local):
    """Runs operations in the order of the plan; a failure stops all stages in the same cycle."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__(stages, Link)

    def run(self, plan: Iterable[Planned], losses: list[Tensor], drain: bool = False) -> None:
        """Run all of a plan.

        Args:
            plan: operations by cycle. losses: receives those of micro-batches that reach the end.
            drain: changes nothing here.

        Raises:
            StageFailed: the first operation that failed.
        """
        stages, ends = self.local, self.ends
        try:
            for cycle, m, kind, k in plan:
                perform(stages[m], ends[m], cycle, kind, k)
        finally:
            self.hand_over(losses)
