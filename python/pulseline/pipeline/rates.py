"""Learning rates that live with staleness: warm-up, and a smaller rate for staler stages.

Rescheduling (PipeMare, Yang et al. 2021, technique 1; it needs no copy of the weights): at
micro-batch t, stage m trains with ::

    lr_m(t) = lr / tau_m^(1 - min(t / T, 1))        tau_m = max(staleness of stage m, 1)

so the stages start at lr / tau and meet at lr after T micro-batches. Warm-up multiplies all of
them by min((t + 1) / n, 1). :func:`set_rates` changes them at flush points only;
``Pipeline(..., lr_factor=lambda k: rates.factors(plan, stages, k))`` at every update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..schedules import Schedule
from ..schedules.plan import count_of

if TYPE_CHECKING:
    from .pipeline import Pipeline

__all__ = ["Rates", "set_rates", "set_stage_lrs"]


@dataclass(frozen=True)
class Rates:
    """How the learning rate of each stage follows the run.

    Attributes:
        anneal: T in micro-batches, counted from the end of a synchronous warm-up; 0: no
            rescheduling.
        warmup: micro-batches over which the rate rises linearly; 0: none.

    Raises:
        ConfigError: a number is no integer >= 0.
    """

    anneal: int = 0
    warmup: int = 0

    def __post_init__(self) -> None:
        count_of("anneal", self.anneal, 0)
        count_of("warmup", self.warmup, 0)

    def factors(self, plan: Schedule, stages: int, t: int) -> list[float]:
        """lr_m(t) / lr of every stage.

        Args:
            plan: that the stages follow. stages: M. t: micro-batch.
        """
        rise = min((t + 1) / self.warmup, 1.0) if self.warmup else 1.0
        now = plan.at(t)
        return [
            rise * self.rescheduling(now.staleness(stages, m), t - plan.warmup)
            for m in range(1, stages + 1)
        ]

    def rescheduling(self, staleness: int, t: int) -> float:
        """``1 / tau^(1 - min(t/T, 1))``; 1 for a staleness of 0 or 1, and without ``anneal``.

        Args:
            staleness: of the stage, in updates. t: micro-batches since the warm-up.
        """
        if staleness < 2 or t >= self.anneal:
            return 1.0
        return float(staleness ** (t / self.anneal - 1))


def set_rates(pipe: Pipeline, lr: float, rates: Rates) -> list[float]:
    """Set the learning rate of every stage as the rates say; at a flush point only.

    Args:
        pipe: whose stages they are. lr: to be multiplied by the factors.
        rates: how they follow the run.

    Returns:
        The learning rate of every stage.

    Raises:
        ConfigError: micro-batches are in flight.
    """
    factors = rates.factors(pipe.schedule, len(pipe.stages), pipe.micro_batches)
    return set_stage_lrs(pipe, [lr * factor for factor in factors])


def set_stage_lrs(pipe: Pipeline, lrs: Sequence[float]) -> list[float]:
    """Give every stage its own learning rate; at a flush point only.

    Args:
        pipe: whose stages they are. lrs: one per stage.

    Returns:
        The same rates.

    Raises:
        ConfigError: micro-batches are in flight, there are more or fewer rates than stages, or the
            rate is a function of the micro-batch.
    """
    pipe.check_flushed("setting learning rates")
    pipe.check_free("setting learning rates")
    if len(lrs) != len(pipe.stages):
        raise ConfigError(
            f"lrs has {len(lrs)} entries for {len(pipe.stages)} stages; use one per stage"
        )
    for stage, lr in zip(pipe.stages, lrs, strict=True):
        stage.set_lr(lr)
    return list(lrs)
