"""AnalogParameter: what torch sees of an array, and the one number that an optimizer gives it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError

__all__ = ["AnalogParameter", "check_lr"]

_LARGEST = torch.finfo(torch.float32).max


class AnalogParameter(nn.Parameter):
    """The weight of an array, in normalised conductance units; only its cell may move it.

    Where a copy goes, its cell goes too: an optimizer that is copied or pickled still finds it.
    """

    cell: Any = None  # its Cell, which lies above and sets it

    def __reduce_ex__(self, protocol: Any) -> Any:
        return AnalogParameter, (self.data, self.requires_grad), {"cell": self.cell}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.cell = state["cell"]

    def __deepcopy__(self, memo: dict[int, Any]) -> AnalogParameter:
        if id(self) not in memo:
            copied = memo[id(self)] = AnalogParameter(self.data.clone(), self.requires_grad)
            copied.cell = copy.deepcopy(self.cell, memo)
        found: AnalogParameter = memo[id(self)]
        return found


def check_lr(lr: float | Tensor) -> float:
    """The learning rate as a number; ConfigError unless it is finite (as float32) and >= 0."""
    if not hasattr(lr, "__float__") or not 0 <= float(lr) <= _LARGEST:
        raise ConfigError(f"lr is {lr}; use a finite learning rate >= 0")
    return float(lr)
