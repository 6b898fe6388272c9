"""Linear layers of other packages whose weight is (inputs, outputs): ``y = x W + b``.

Language models bring such a class under the name ``Conv1D``. It is known by what it is, not by
where it comes from: that name, a weight of two dimensions and at most a bias, ``nf`` outputs, and a
forward pass that gives these numbers on a probe.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..configs import Crossbar
from ..identity import Identity
from .linear import AnalogLinear

__all__ = ["AnalogInputMajor", "input_major", "is_input_major"]

_F32 = torch.float32
_SHELL = "_pulseline_shell"


class AnalogInputMajor(AnalogLinear):
    """The counterpart of a layer that computes ``x W + b``; see :class:`AnalogLinear`."""

    digital = nn.Module  # the class of the layer that it is made from

    def shell(self) -> nn.Module:
        """The layer that it was made from, without values."""
        made: nn.Module = copy.deepcopy(self.__dict__[_SHELL])
        return made

    def digital_weight(self, weight: Tensor | None = None) -> Tensor:
        """The weight as the other layer holds it: transposed, either way."""
        return super().digital_weight(weight).T


def input_major(
    module: Any, crossbar: Crossbar, identities: Mapping[str, Identity]
) -> AnalogInputMajor:
    """What conversion makes of such a layer.

    Args:
        module: stays as it is. crossbar: of the new one. identities: that of "weight".
    """
    inputs, outputs = module.weight.shape
    bias = module._parameters.get("bias") is not None
    analog = AnalogInputMajor(inputs, outputs, bias, crossbar, seed=identities["weight"])
    analog.cell.program(module.weight.data.T.contiguous())
    analog.cell.requires_grad_(module.weight.requires_grad)
    if bias and analog.bias is not None:
        analog.bias.data.copy_(module.bias.data)
        analog.bias.requires_grad_(module.bias.requires_grad)
    analog.train(module.training)
    analog.__dict__[_SHELL] = _shell(module)
    return analog


def _shell(module: nn.Module) -> nn.Module:
    """A module of its class and attributes, parameters without values, no hooks."""
    made = type(module).__new__(type(module))
    nn.Module.__init__(made)
    for name, value in vars(module).items():
        if name not in vars(made):
            vars(made)[name] = copy.deepcopy(value)
    for name, p in module._parameters.items():
        empty = None if p is None else nn.Parameter(torch.empty_like(p, device="meta"))
        made.register_parameter(name, empty)
    return made


def is_input_major(module: nn.Module) -> bool:
    """Whether a module computes ``x W + b`` with a weight (inputs, outputs)."""
    own: Any = module
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    if type(module).__name__ != "Conv1D" or weight is None or weight.dim() != 2:
        return False
    if module._buffers or module._modules or getattr(own, "nf", None) != weight.shape[1]:
        return False
    known = {"weight"} if bias is None else {"weight", "bias"}
    if {name for name, p in module._parameters.items() if p is not None} != known:
        return False
    return weight.is_meta or weight.dtype is not _F32 or _probed(own, weight, bias)


def _probed(module: Any, weight: Tensor, bias: Tensor | None) -> bool:
    with torch.no_grad():
        x = torch.arange(2 * weight.shape[0], dtype=_F32, device=weight.device).cos().view(2, -1)
        want = x @ weight if bias is None else x @ weight + bias
        try:
            got = type(module).forward(module, x)
        except Exception:
            return False
        # another order of the sums: each within n 2^-24 of what their terms add up to
        limit = 2.0**-23 * (weight.shape[0] + 2) * (x.abs() @ weight.abs() + want.abs() + 1e-30)
        alike = isinstance(got, Tensor) and got.shape == want.shape
        return alike and bool(((got - want).abs() <= limit).all())
