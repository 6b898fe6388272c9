"""A torch module and its analog counterpart on ideal devices with perfect reads, side by side."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

import pulseline as pl

ORACLE = pl.Crossbar("ideal", io=pl.configs.IOConfig.perfect())
NOISY = pl.Crossbar(pl.devices.SoftBounds(w_max=0.6, w_min=-0.6, dw_min=0.001))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Normals within 2."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).clamp(-2, 2)


def floats(results: Any) -> list[Tensor]:
    """The tensors of numbers in what a module returns."""
    found = [t for t in tree_leaves(results) if isinstance(t, Tensor)]
    found += [t.data for t in tree_leaves(results) if isinstance(t, nn.utils.rnn.PackedSequence)]
    return [t for t in found if t.is_floating_point()]


def train_once(module: nn.Module, arguments: Any, options: dict[str, Any], lr: float) -> list[Any]:
    """Results, gradients of the inputs, and the module as a torch module behind one step.

    The loss is a sum of all results with weights in [-1, 1], divided by their number.
    """
    analog = any(isinstance(one, pl.Cell) for one in module.modules())
    kind: Any = pl.optim.AnalogSGD if analog else torch.optim.SGD
    optimizer = kind(module.parameters(), lr=lr)

    def leaf(one: Any) -> Any:
        if not (isinstance(one, Tensor) and one.is_floating_point()):
            return one
        return one.detach().clone().requires_grad_()

    inputs = tree_map(leaf, arguments)
    torch.manual_seed(5)  # of dropout
    found = floats(module(*inputs, **options))
    weighted = [(t * torch.arange(t.numel()).view(t.shape).cos()).mean() for t in found]
    torch.stack(weighted).sum().backward()
    optimizer.step()
    grads = [
        one.grad for one in tree_leaves(inputs) if isinstance(one, Tensor) and one.grad is not None
    ]
    after = pl.to_digital(module) if analog else module
    return [found, grads, after.state_dict()]


def same_as_torch(
    module: nn.Module, arguments: Any, options: dict[str, Any] | None = None, atol: float = 2.0**-16
) -> nn.Module:
    """Demand results, gradients and weights behind a step of torch; returns the analog module."""
    analog = pl.to_analog(module, ORACLE, seed=0)
    want = train_once(module, arguments, options or {}, lr=0.1)
    got = train_once(analog, arguments, options or {}, lr=0.1)
    module.zero_grad()
    assert list(got[2]) == list(want[2])
    assert want[0], "nothing to compare"
    torch.testing.assert_close(got, want, rtol=0, atol=atol)
    return analog
