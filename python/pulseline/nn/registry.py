"""Which modules have an analog counterpart, and what builds it.

A builder takes over one module: its matrices on crossbars, everything else as it was. What owns no
builder stays digital, and the report of the conversion says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from ..configs import Crossbar
from ..errors import ConfigError
from ..identity import Identity
from .attention import AnalogMultiheadAttention
from .base import AnalogLayer
from .composite import Composite
from .conv import (
    AnalogConv,
    AnalogConv1d,
    AnalogConv2d,
    AnalogConv3d,
    AnalogConvTranspose1d,
    AnalogConvTranspose2d,
    AnalogConvTranspose3d,
)
from .input_major import input_major, is_input_major
from .linear import AnalogLinear
from .recurrent import (
    AnalogGRU,
    AnalogGRUCell,
    AnalogLSTM,
    AnalogLSTMCell,
    AnalogRNN,
    AnalogRNNCell,
)

__all__ = [
    "COMPOSITES",
    "CONVOLUTIONS",
    "Builder",
    "analog_conv",
    "analog_linear",
    "builder_of",
    "missing",
    "register",
]

COMPOSITES: tuple[type[Composite], ...] = (
    *(AnalogMultiheadAttention, AnalogRNN, AnalogLSTM, AnalogGRU),
    *(AnalogRNNCell, AnalogLSTMCell, AnalogGRUCell),
)

# (module, its crossbar, {parameter: identity of its first matrix}) -> its counterpart
Builder = Callable[[Any, Crossbar, Mapping[str, Identity]], nn.Module]


def register(kind: type[nn.Module], builder: Builder) -> None:
    """Say what conversion makes of modules of one class, subclasses not included.

    Args:
        kind: class of digital modules; a second builder replaces the first.
        builder: called with a module, its crossbar and, for each of the module's parameters that
            hold matrices (names as in ``named_parameters()``), the :class:`pulseline.Identity` of
            the first; further matrices of a parameter have the ``tile_id`` that follow. It returns
            the analog module, weights programmed, and leaves the given one alone.

    Raises:
        ConfigError: ``kind`` is no class of modules or ``builder`` cannot be called.
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ConfigError(f"kind is {kind!r:.60}; use a class of torch.nn modules")
    if not callable(builder):
        raise ConfigError(f"builder is {builder!r:.60}; use a function")
    _BUILDERS[kind] = builder


def builder_of(module: nn.Module) -> Builder | None:
    """What builds the counterpart of a module; None: it has none."""
    kind = type(module)
    if is_parametrized(module):  # torch gives it a class of its own
        kind = kind.__base__ or kind
    found = _BUILDERS.get(kind)
    return input_major if found is None and is_input_major(module) else found


def analog_linear(
    layer: nn.Linear, crossbar: Crossbar, identities: Mapping[str, Identity]
) -> AnalogLinear:
    """The :class:`AnalogLinear` of a linear layer: weights programmed, bias digital.

    Args:
        layer: stays as it is. crossbar: of the new one. identities: that of "weight".
    """
    bias = layer.bias is not None
    analog = AnalogLinear(
        layer.in_features, layer.out_features, bias, crossbar, seed=identities["weight"]
    )
    _take_over(analog, layer)
    return analog


def analog_conv(layer: Any, crossbar: Crossbar, identities: Mapping[str, Identity]) -> AnalogConv:
    """The counterpart of a convolution, see :mod:`pulseline.nn.conv`.

    Args:
        layer: stays as it is. crossbar: of the new one. identities: that of "weight".
    """
    names = ["in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation"]
    names += ["groups", "padding_mode"]
    given = {name: getattr(layer, name) for name in names}
    if layer.transposed:
        given["output_padding"] = layer.output_padding
    bias = layer.bias is not None
    kind = CONVOLUTIONS[type(layer)]
    analog = kind(**given, bias=bias, crossbar=crossbar, seed=identities["weight"])
    _take_over(analog, layer)
    return analog


def _take_over(analog: AnalogLayer, layer: Any) -> None:
    """Weight, bias, what is frozen, and the mode of a digital layer."""
    analog.cell.program(layer.weight.data)
    analog.cell.requires_grad_(layer.weight.requires_grad)
    if layer.bias is not None and analog.bias is not None:
        analog.bias.data.copy_(layer.bias.data)
        analog.bias.requires_grad_(layer.bias.requires_grad)
    analog.train(layer.training)


CONVOLUTIONS: Mapping[type[nn.Module], type[AnalogConv]] = MappingProxyType(
    {
        kind.digital: kind
        for kind in (
            *(AnalogConv1d, AnalogConv2d, AnalogConv3d),
            *(AnalogConvTranspose1d, AnalogConvTranspose2d, AnalogConvTranspose3d),
        )
    }
)
_BUILDERS: dict[type[nn.Module], Builder] = {
    nn.Linear: analog_linear,
    **dict.fromkeys(CONVOLUTIONS, analog_conv),
}
_BUILDERS |= {kind.digital: kind.of for kind in COMPOSITES}


def missing(module: nn.Module) -> list[str]:
    """Matrices of a module of torch's that are none of its parameters: computed, or one twice."""
    found = next((kind for kind in COMPOSITES if kind.digital is type(module)), None)
    return found.missing(module) if found is not None else []
