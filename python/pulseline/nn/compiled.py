"""Reads inside graphs of torch.compile: two operators, which a graph calls and does not look into.

``pulseline_nn::cell_read`` is ``y = W x`` of a cell, ``pulseline_nn::cell_backward`` what its
backward pass does: ``W^T d``, and the pair (x, d) left pending. A graph holds a cell by a number, a
tensor, so that graphs of equal layers are one. Both have effects that no schema tells (counters,
noise, pairs), so they are registered as such: torch keeps every call, and their order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..cells import cell_of
from ..torch_private import gradient_node, has_effects, not_compiled_within
from .function import leave, read

__all__ = ["compiled_read"]

_LIBRARY = torch.library.Library("pulseline_nn", "DEF")
_LIBRARY.define(
    "cell_read(Tensor x, Tensor number, Tensor? anchor, int outputs, bool training) -> Tensor"
)
_LIBRARY.define(
    "cell_backward(Tensor d, Tensor x, Tensor number, bool training, bool wanted, bool trains) "
    "-> Tensor"
)

# Stands for the weight, which a graph must not see: where it gets a gradient, weights do.
with torch.inference_mode(False):
    _ANCHOR = torch.zeros((), dtype=torch.float32, device="cpu", requires_grad=True)
_LEAF = gradient_node(_ANCHOR)


def _read(x: Tensor, number: Tensor, anchor: Tensor | None, outputs: int, training: bool) -> Tensor:
    cell = cell_of(number)
    x = x.detach()
    y: Tensor = cell.read(x) if training else cell.evaluate(x)
    return y


def _backward(
    d: Tensor, x: Tensor, number: Tensor, training: bool, wanted: bool, trains: bool
) -> Tensor:
    cell = cell_of(number)
    d = d.detach().contiguous()
    g = d.new_empty(0)
    if wanted:
        g = (cell.read if training else cell.evaluate)(d, transposed=True)
    if trains and cell.weight.requires_grad:
        leave(cell, _LEAF, x.detach(), d, False, wanted)
    return g


_LIBRARY.impl("cell_read", _read, "CompositeExplicitAutograd")
_LIBRARY.impl("cell_backward", _backward, "CompositeExplicitAutograd")


@torch.library.register_fake("pulseline_nn::cell_read", lib=_LIBRARY)
def _read_fake(
    x: Tensor, number: Tensor, anchor: Tensor | None, outputs: int, training: bool
) -> Tensor:
    return x.new_empty((x.shape[0], outputs))


@torch.library.register_fake("pulseline_nn::cell_backward", lib=_LIBRARY)
def _backward_fake(
    d: Tensor, x: Tensor, number: Tensor, training: bool, wanted: bool, trains: bool
) -> Tensor:
    return x.new_empty(x.shape) if wanted else x.new_empty(0)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, number, _, _, training = inputs
    ctx.save_for_backward(x, number)
    ctx.training = training


def _differentiate(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
    x, number = ctx.saved_tensors
    wanted, trains = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
    g = _backward_op(d, x, number, ctx.training, wanted, trains)
    return (g if wanted else None), None, None, None, None


torch.library.register_autograd(
    "pulseline_nn::cell_read", _differentiate, setup_context=_remember, lib=_LIBRARY
)
_read_op = torch.ops.pulseline_nn.cell_read.default
_backward_op = torch.ops.pulseline_nn.cell_backward.default
has_effects(_read_op)
has_effects(_backward_op)


def compiled_read(x: Tensor, cell: Any, training: bool) -> Tensor:
    """``y = W x`` of a cell where torch.compile makes a graph.

    Hooks on the weight see pairs, which are no tensors of a graph: it breaks for them.

    Args:
        x: (samples, cols). cell: that is read. training: see :func:`pulseline.nn.function.read`.
    """
    weight = cell.weight
    if cell.hooked:
        return _outside(x, weight, cell, training)
    anchor = _ANCHOR if weight.requires_grad else None
    y: Tensor = _read_op(x, cell.number, anchor, weight.shape[0], training)
    return y


@not_compiled_within
def _outside(x: Tensor, weight: Tensor, cell: Any, training: bool) -> Tensor:
    return read(x, weight, cell, training)
