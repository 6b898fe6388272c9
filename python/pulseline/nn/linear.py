"""AnalogLinear: torch.nn.Linear with its matrix on crossbars."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..arrays import AnalogParameter, Fixed, Settings, refuse_conversion
from ..cells import make_cell
from ..cells.cell import check_entry
from ..configs import Crossbar
from ..devices import Device
from ..errors import ConfigError
from ..identity import Identity, check_integer, identify
from ..ops import check_tensor, refuse_traced
from ..torch_private import functorch_is_active
from .function import read

__all__ = ["AnalogLinear"]

_F32 = torch.float32
_HERE = (
    "the weight of an analog layer is on its crossbar: it cannot be replaced, computed from others "
    "(pruning, spectral_norm, parametrizations, functional_call) or shared with another module; "
    "write its values with layer.cell.program(values), or share the whole layer"
)
_TRACED = "traced into a graph or transformed (torch.jit.trace, torch.export, torch.func)"


class _Parameters(dict[str, Any]):
    """The bias; who looks for a weight here would exchange it behind the crossbar's back."""

    def __contains__(self, name: object) -> bool:
        if name == "weight":
            raise ConfigError(_HERE)
        return super().__contains__(name)

    def __missing__(self, name: str) -> Any:
        if name == "weight":
            raise ConfigError(_HERE)
        raise KeyError(name)

    def __delitem__(self, name: str) -> None:
        if name == "weight":
            raise ConfigError(_HERE)
        super().__delitem__(name)


class AnalogLinear(Settings, nn.Module):
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

    bias: nn.Parameter | None

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
        self.__dict__["_parameters"] = _Parameters()
        self.in_features, self.out_features = in_features, out_features
        check_integer("out_features", out_features, 31)
        check_integer("in_features", in_features, 31)
        crossbar = Crossbar.of(crossbar, **settings)
        self.cell = make_cell(out_features, in_features, crossbar, identify(seed, tile_id))
        with torch.inference_mode(False):
            zeros = torch.zeros(out_features, dtype=torch.float32, device="cpu")
            self.register_parameter("bias", nn.Parameter(zeros) if bias else None)
        self.cell.initialise()

    crossbar = Fixed(lambda layer: layer.cell.crossbar, "build the layer anew")

    @property
    def identity(self) -> Identity:
        """Whose random numbers the layer draws."""
        return self.cell.identity

    @property
    def weight(self) -> AnalogParameter:
        """What is read, in the units of the layer; what is written to it is programmed."""
        return self.cell.weight

    @weight.setter
    def weight(self, value: object) -> None:
        if value is not self.cell.weight:
            raise ConfigError(_HERE)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As torch's, but for the weight and what would compute it.

        Raises:
            ConfigError: another tensor comes as the weight, or the weight under another name.
        """
        if name == "weight" or isinstance(param, AnalogParameter):
            if name != "weight" or param is not self.cell.weight:
                raise ConfigError(_HERE)
            return
        super().register_parameter(name, param)

    def reset_parameters(self) -> None:
        """Draw weight and bias anew from torch's generator, as torch.nn.Linear does."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
            nn.init.uniform_(self.bias, -bound, bound)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """As torch's, with the layer behind its cell: so its weight comes before its bias."""
        found = list(super().named_modules(memo, prefix, remove_duplicate))
        yield from (*found[1:], *found[:1])

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined]
            refuse_traced(_TRACED)
        check_tensor(x)
        if x.dtype is not _F32 and torch.is_autocast_enabled(x.device.type):
            x = x.float()  # a crossbar has its own precision: its converters'
        flat = x if x.dim() == 2 else self._flat(x)
        cell: Any = self._modules["cell"]  # not by attribute: torch looks those up in Python
        training = self.training
        weight: Any = cell.weight
        if getattr(weight, "cell", weight) is not cell:
            raise ConfigError(_HERE)
        try:
            y = read(flat, weight, cell, training)
        except RuntimeError:
            if not functorch_is_active():  # which torch.func is
                raise
            refuse_traced(_TRACED)
        if x.dim() != 2:
            y = y.reshape(*x.shape[:-1], self.out_features)
        b = self._parameters["bias"]
        return y if b is None else y + b

    def _flat(self, x: Tensor) -> Tensor:
        """Leading dimensions as one; sizes 0 included."""
        if x.dim() == 0 or x.shape[-1] != self.in_features:
            raise ConfigError(f"x has shape {tuple(x.shape)}; use (..., {self.in_features})")
        return x.reshape(math.prod(x.shape[:-1]), self.in_features)

    def _apply(self, fn: Any, recurse: bool = True) -> AnalogLinear:
        refuse_conversion(fn)
        super()._apply(fn, recurse)
        return self

    def train(self, mode: bool = True) -> AnalogLinear:
        """Switch mode; entering evaluation restarts its draws."""
        if not mode:
            self.cell.begin_evaluation()
        super().train(mode)
        return self

    def check_state(self, state: Mapping[str, Any], prefix: str = "", whole: bool = True) -> None:
        """Refuse entries of a state_dict that this layer cannot take over; changes nothing.

        Args:
            state: a state_dict. prefix: of this layer's names in it.
            whole: False: all entries may be absent.

        Raises:
            ConfigError: an entry is missing, misshapen, not finite, or of a cell of another
                configuration.
        """
        name = f"layer {prefix[:-1]}" if prefix else "layer"
        if self.bias is not None and f"{prefix}bias" in state:
            check_entry(f"{prefix}bias", state[f"{prefix}bias"], self.bias)
            whole = True
        elif self.bias is not None and (whole or f"{prefix}cell._extra_state" in state):
            raise ConfigError(
                f"state lacks {prefix}bias; load the whole state_dict() of an analog model, "
                "or convert a digital one with to_analog"
            )
        self.cell.check_state(state, f"{prefix}cell.", whole, name)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        self.check_state(state, prefix, whole=False)
        super()._load_from_state_dict(state, prefix, *rest)

    def extra_repr(self) -> str:
        """Sizes, device and identity."""
        one = self.cell.identity
        return (
            f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, "
            f"device={self.cell.crossbar.device.name}, seed={one.seed}, tile_id={one.tile_id}"
        )
