"""Learning rates that are a function of the micro-batch: no flush is needed to change them.

The update of micro-batch k takes the rate of k, in every stage and whenever it comes: stage m makes
that update 2M - m cycles after k entered, others at other times. An update of several micro-batches
takes that of the last one. So a run depends on k alone, not on how it was fed, flushed or resumed.

A function is asked once per micro-batch, when that is fed, in every process, and before anything
runs: what cannot be a rate is refused while nothing has changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError

__all__ = ["StepRate", "StepRates", "torch_lr"]

# Of a micro-batch's number, from 0: one number for all stages, or one per stage.
StepRate = Callable[[int], "float | Sequence[float]"]

_LARGEST = torch.finfo(torch.float32).max


class StepRates:
    """What a function gives, checked.

    Args:
        name: of the option, for messages. function: of the micro-batch.
        stages: how many.
    """

    def __init__(self, name: str, function: StepRate, stages: int) -> None:
        self.name, self.function, self.stages = name, function, stages

    def of(self, first: int, count: int) -> list[tuple[float, ...]]:
        """Rates of micro-batches.

        Args:
            first: number of the first one. count: how many.

        Returns:
            One rate per stage for each of them.

        Raises:
            ConfigError: the function raises, or gives something else.
        """
        return [self._of(k) for k in range(first, first + count)]

    def _of(self, k: int) -> tuple[float, ...]:
        try:
            value = self.function(k)
        except Exception as error:
            raise ConfigError(
                f"{self.name} raises {type(error).__name__} ({error!s:.60}) for micro-batch "
                f"{k}; use a function that gives every micro-batch a number"
            ) from error
        if isinstance(value, (list, tuple)):
            if len(value) != self.stages:
                raise ConfigError(
                    f"{self.name} gives {len(value)} numbers for micro-batch {k} and there are "
                    f"{self.stages} stages; use one number, or one per stage"
                )
            return tuple(self._number(one, k) for one in value)
        return (self._number(value, k),) * self.stages

    def _number(self, value: Any, k: int) -> float:
        shaped = isinstance(value, Tensor) and value.numel() != 1
        if isinstance(value, (bool, str)) or shaped or not hasattr(value, "__float__"):
            number = math.nan
        else:
            number = float(value)
        if not 0 <= number <= _LARGEST:
            told = repr(value) if isinstance(value, (int, float, str)) else type(value).__name__
            raise ConfigError(
                f"{self.name} gives {told:.60} for micro-batch {k}; use a finite number >= 0"
            )
        return number


def torch_lr(make: Callable[[torch.optim.Optimizer], Any], lr: float) -> StepRate:
    """A scheduler of torch as a function of the micro-batch.

    Args:
        make: the scheduler of an optimizer, such as
            ``lambda optimizer: CosineAnnealingLR(optimizer, 10_000)``; its step is a micro-batch.
        lr: that the optimizer begins with.

    Returns:
        For ``Pipeline(..., lr=)``; it steps through the micro-batches once and remembers them.

    Raises:
        ConfigError: the scheduler cannot step without being told more.
    """
    nothing = torch.zeros(1, dtype=torch.float32, device="cpu")
    optimizer = torch.optim.SGD([nn.Parameter(nothing)], lr=lr)
    scheduler = make(optimizer)
    known: list[float] = []

    def rate(k: int) -> float:
        while len(known) <= k:
            known.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()  # before the scheduler, as torch wants it; nothing has a gradient
            scheduler.step()
        return known[k]

    try:
        rate(1)
    except TypeError as error:
        raise ConfigError(
            f"make gives a {type(scheduler).__name__} ({error}); use a scheduler whose step() "
            "takes nothing"
        ) from None
    return rate
