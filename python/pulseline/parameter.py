"""AnalogParameter: what torch sees of a tile, and the one number that an optimizer gives it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from .errors import ConfigError

__all__ = ["AnalogParameter", "check_lr"]

_LARGEST = torch.finfo(torch.float32).max


class AnalogParameter(nn.Parameter):
    """The weight of a tile, in normalised conductance units; only its tile may move it."""

    analog_tile: Any  # its Tile, which lies above

    def __reduce_ex__(self, protocol: Any) -> Any:
        return AnalogParameter, (self.data, self.requires_grad), {"analog_tile": self.analog_tile}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.analog_tile = state["analog_tile"]

    def __deepcopy__(self, memo: dict[int, Any]) -> AnalogParameter:
        if id(self) in memo:
            copied: AnalogParameter = memo[id(self)]
            return copied
        result = AnalogParameter(self.data.clone(), self.requires_grad)
        memo[id(self)] = result
        result.analog_tile = copy.deepcopy(self.analog_tile, memo)
        return result


def check_lr(lr: float | Tensor) -> float:
    """The learning rate as a number; ConfigError unless it is finite (as float32) and >= 0."""
    if not hasattr(lr, "__float__") or not 0 <= float(lr) <= _LARGEST:
        raise ConfigError(f"lr is {lr}; use a finite learning rate >= 0")
    return float(lr)
