"""AnalogLinear: torch.nn.Linear with its matrix on crossbars."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..devices import Device
from ..errors import ConfigError
from ..identity import Identity
from ..io import IOConfig, UpdateConfig
from ..io import Mapping as TileMapping
from ..ops import check_tensor
from ..parameter import AnalogParameter
from ..tile import Tile
from .function import Read


class AnalogLinear(nn.Module):
    """``y = read(W, x) + b``: the product is analog, the bias digital.

    Shapes as torch.nn.Linear: (*, in_features) to (*, out_features), float32. In ``eval()`` mode
    reads use draws of their own and advance no counter; the draws restart when the mode is entered.
    A deep copy is the same devices; ``layer.tile.reseed()`` gives it its own.

    Args:
        in_features, out_features, bias: as torch.nn.Linear.
        device, io, update, mapping, seed, tile_id: see :class:`pulseline.Tile`. Without a seed
            every layer has devices and noise of its own.

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
        mapping: TileMapping | None = None,
        seed: int | Identity | None = None,
        tile_id: int | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.tile = Tile(
            out_features, in_features, device, io, update, mapping, seed=seed, tile_id=tile_id
        )
        self.weight: AnalogParameter = self.tile.weight
        self.bias = None
        if bias:
            self.bias = nn.Parameter(torch.zeros(out_features, dtype=torch.float32, device="cpu"))
        if self.tile.hidden is not None:
            self.register_buffer("hidden", self.tile.hidden)
        self.tile.initialise()

    def forward(self, x: Tensor) -> Tensor:
        check_tensor(x)
        flat = x if x.dim() == 2 else self._flat(x)
        training = self.training
        if torch.is_grad_enabled():
            y: Tensor = Read.apply(flat, self.weight, self.tile, training)
        else:
            y = self.tile.forward(flat) if training else self.tile.evaluate(flat)
        if x.dim() != 2:
            y = y.reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias

    def _flat(self, x: Tensor) -> Tensor:
        """Leading dimensions as one; sizes 0 included."""
        if x.dim() == 0 or x.shape[-1] != self.in_features:
            raise ConfigError(f"x has shape {tuple(x.shape)}; use (..., {self.in_features})")
        return x.reshape(math.prod(x.shape[:-1]), self.in_features)

    def train(self, mode: bool = True) -> AnalogLinear:
        """Switch mode; entering evaluation restarts its draws."""
        if not mode:
            self.tile.begin_evaluation()
        super().train(mode)
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """Identity, settings and counters of the tile."""
        return self.tile.state()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over identity and counters; refuses those of another configuration."""
        self.tile.load_state(state)

    def check_state(self, state: Mapping[str, Any], prefix: str = "", whole: bool = True) -> None:
        """Refuse entries of a state_dict that this layer cannot take over; changes nothing.

        A weight means nothing without its tile's scale and identity, so the entries come together;
        with ``whole=False`` all of them may be absent.

        Raises:
            ConfigError: an entry is missing, misshapen, not finite, or of a tile of another
                configuration.
        """
        own: dict[str, Tensor | None] = dict(self.named_parameters(recurse=False))
        own.update(self.named_buffers(recurse=False))
        own["_extra_state"] = None
        missing = [prefix + name for name in own if prefix + name not in state]
        if missing and (whole or len(missing) < len(own)):
            raise ConfigError(
                f"state lacks {missing[0]}; load the whole state_dict() of an analog model, "
                "or convert a digital one with to_analog"
            )
        if missing:
            return
        for name, parameter in own.items():
            value = state[prefix + name]
            if parameter is None:
                self.tile.check_state(value, f"layer {prefix[:-1]}" if prefix else "layer")
            elif value.shape != parameter.shape:
                shapes = f"{tuple(value.shape)}; this layer holds {tuple(parameter.shape)}"
                raise ConfigError(f"state holds {prefix}{name} of shape {shapes}")
            elif not torch.isfinite(value).all():
                raise ConfigError(
                    f"state holds a NaN or an infinity in {prefix}{name}; load another"
                )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        self.check_state(state_dict, prefix, whole=False)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if self.weight is not self.tile.weight:  # assign=True put a plain parameter there
            self.weight = self.tile.adopt(self.weight)
        self._adopt_hidden()
        self.tile.clip()

    def _adopt_hidden(self) -> None:
        """The tile's hidden weight is this module's buffer, whatever torch put there."""
        if self.tile.hidden is not None:
            self.tile.hidden = self.get_buffer("hidden")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AnalogLinear:
        super()._apply(fn, recurse)
        tile = self.tile
        if self.weight is not tile.weight:  # torch makes a new parameter for a foreign device
            self.weight = tile.adopt(self.weight)
        self._adopt_hidden()
        where = self.weight.device
        if tile.step is not None and tile.slope is not None and tile.bound is not None:
            tile.step, tile.slope = tile.step.to(where), tile.slope.to(where)
            tile.bound = tile.bound.to(where)
        if tile._retention is not None:
            tile._retention = tile._retention.to(where)
        tile.averages = tile.averages.to(where)
        if tile.fired is not None:
            tile.fired = tile.fired.to(where)
        return self

    def extra_repr(self) -> str:
        """Sizes, device and identity."""
        return (
            f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, "
            f"device={self.tile.device.name}, seed={self.tile.seed}, tile_id={self.tile.tile_id}"
        )
