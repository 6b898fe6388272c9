"""AnalogLinear: torch.nn.Linear with its matrix on crossbars."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..cells import make_cell
from ..configs import Crossbar
from ..devices import Device
from ..errors import ConfigError
from ..identity import Identity, check_integer, identify
from .base import AnalogLayer

__all__ = ["AnalogLinear"]


class AnalogLinear(AnalogLayer):
    """``y = read(W, x) + b``: the product is analog, the bias digital.

    Shapes as torch.nn.Linear: (*, in_features) to (*, out_features), float32. In ``eval()`` mode
    reads use draws of their own and advance no counter; the draws restart when the mode is entered.
    A deep copy is the same devices; ``layer.cell.reseed()`` gives it its own.

    Args:
        in_features, out_features, bias: as torch.nn.Linear.
        crossbar: configuration of the matrix, or a device.
        seed, tile_id: see :class:`pulseline.Array`. Without a seed every layer has devices and
            noise of its own.
        settings: ``device``, ``io``, ``update``, ``mapping``, ``algorithm`` by name, see
            :class:`pulseline.Crossbar`.

    Raises:
        ConfigError: a bad size, dtype or shape, in one sentence.
    """

    digital: ClassVar[type[nn.Module]] = nn.Linear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        crossbar: Crossbar | Device | None = None,
        *,
        seed: int | Identity | None = None,
        tile_id: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        check_integer("out_features", out_features, 31)
        check_integer("in_features", in_features, 31)
        crossbar = Crossbar.of(crossbar, **settings)
        cell = make_cell(out_features, in_features, crossbar, identify(seed, tile_id))
        self._hold(cell, out_features, bias)

    def forward(self, x: Tensor) -> Tensor:
        given, x = x, self._input(x)
        cell: Any = self._modules["cell"]  # not by attribute: torch looks those up in Python
        y = self._product(x if x.dim() == 2 else self._flat(x), cell)
        if x.dim() != 2:
            y = y.reshape(*x.shape[:-1], self.out_features)
        b = self._parameters["bias"]
        y = y if b is None else y + b
        return y if x is given else y.to(given.dtype)

    def _flat(self, x: Tensor) -> Tensor:
        """Leading dimensions as one; sizes 0 included."""
        if x.dim() == 0 or x.shape[-1] != self.in_features:
            raise ConfigError(f"x has shape {tuple(x.shape)}; use (..., {self.in_features})")
        return x.reshape(math.prod(x.shape[:-1]), self.in_features)

    def shell(self) -> nn.Module:
        """The nn.Linear without values."""
        sizes = (self.in_features, self.out_features, self.bias is not None)
        return nn.Linear(*sizes, device="meta", dtype=torch.float32)

    def extra_repr(self) -> str:
        """Sizes, device and identity."""
        sizes = f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"
        return f"{sizes}, {self._devices()}"
