"""AnalogLinear: torch.nn.Linear with its matrix on crossbars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..devices import Device
from ..io import IOConfig, Mapping, UpdateConfig
from ..tile import AnalogParameter, Tile
from .function import Read


class AnalogLinear(nn.Module):
    """``y = read(W, x) + b``: the product is analog, the bias digital.

    Shapes as torch.nn.Linear: (*, in_features) to (*, out_features), float32. In ``eval()`` mode
    reads use draws of their own and advance no counter; the draws restart when the mode is entered.

    Args:
        in_features, out_features, bias: as torch.nn.Linear.
        device, io, update, mapping, seed, tile_id: see :class:`pulseline.Tile`.

    Raises:
        ConfigError: a bad size, dtype or shape, in one sentence.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        device: Device | None = None,
        io: IOConfig | None = None,
        update: UpdateConfig | None = None,
        mapping: Mapping | None = None,
        seed: int = 0,
        tile_id: int = 0,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.tile = Tile(
            out_features, in_features, device, io, update, mapping, seed=seed, tile_id=tile_id
        )
        self.weight: AnalogParameter = self.tile.weight
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.tile.initialise()

    def forward(self, x: Tensor) -> Tensor:
        flat = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
        training = self.training
        if torch.is_grad_enabled():
            y: Tensor = Read.apply(flat, self.weight, self.tile, training)
        else:
            y = self.tile.forward(flat) if training else self.tile.evaluate(flat)
        if x.dim() != 2:
            y = y.reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias

    def train(self, mode: bool = True) -> AnalogLinear:
        """Switch mode; entering evaluation restarts its draws."""
        if not mode:
            self.tile.begin_evaluation()
        super().train(mode)
        return self

    def get_extra_state(self) -> Tensor:
        """Identity and counters of the tile."""
        return self.tile.state()

    def set_extra_state(self, state: Tensor) -> None:
        """Take over identity and counters; refuses those of another configuration."""
        self.tile.load_state(state)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.tile.clip()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AnalogLinear:
        super()._apply(fn, recurse)
        tile = self.tile
        where = self.weight.device
        if tile.step is not None and tile.slope is not None and tile.bound is not None:
            tile.step, tile.slope = tile.step.to(where), tile.slope.to(where)
            tile.bound = tile.bound.to(where)
        return self

    def extra_repr(self) -> str:
        """Sizes, device and identity."""
        return (
            f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, "
            f"device={self.tile.device.name}, seed={self.tile.seed}, tile_id={self.tile.tile_id}"
        )
