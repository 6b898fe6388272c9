"""Reads inside graphs of torch.compile: operators, which a graph calls and does not look into.

``pulseline_nn::cell_read`` is ``y = W x`` of a cell as a layer calls it. What a graph is left with
are ``cell_forward``, the same without a derivative, and ``cell_backward``, what a backward pass
does: ``W^T d``, and the pair (x, d) left pending. Torch's registration of a derivative would cost
5 us in Python at every call of a graph that has no use for it any more; ``cell_read`` hands on
while a graph is made.

A graph holds a cell by a number, a tensor, so that graphs of equal layers are one, and the windows
of a convolution as a text: one guard, where every integer would be one. The operators have effects
that no schema tells (counters, noise, pairs), so they are registered as such: torch keeps every
call, and their order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..cells import Cell, cell_of
from ..torch_private import PlainTensors, gradient_node, has_effects, not_compiled_within
from .convolved import Convolved
from .function import leave, read
from .windows import Windows

__all__ = ["compiled_read"]

_LIBRARY = torch.library.Library("pulseline_nn", "DEF")
for schema in (
    "cell_read(Tensor x, Tensor number, Tensor? anchor, int outputs, str windows, bool training) "
    "-> Tensor",
    "cell_forward(Tensor x, Tensor number, int outputs, str windows, bool training) -> Tensor",
    "cell_backward(Tensor d, Tensor x, Tensor number, str windows, bool training, bool wanted, "
    "bool trains) -> Tensor",
):
    _LIBRARY.define(schema)

# Stands for the weight, which a graph must not see: where it gets a gradient, weights do.
with torch.inference_mode(False):
    _ANCHOR = torch.zeros((), dtype=torch.float32, device="cpu", requires_grad=True)
_LEAF = gradient_node(_ANCHOR)


def _reader(cell: Cell, x: Tensor, windows: str) -> Any:
    """What reads: the cell, or where there are windows what unfolds images for it."""
    if not windows:
        return cell
    return Convolved(cell, Windows.of(windows), tuple(x.shape[2:]))


def _forward(x: Tensor, number: Tensor, outputs: int, windows: str, training: bool) -> Tensor:
    by = _reader(cell_of(number), x, windows)
    x = x.detach()
    y: Tensor = by.read(x) if training else by.evaluate(x)
    return y


def _backward(
    d: Tensor,
    x: Tensor,
    number: Tensor,
    windows: str,
    training: bool,
    wanted: bool,
    trains: bool,
) -> Tensor:
    cell = cell_of(number)
    by = _reader(cell, x, windows)
    d = d.detach().contiguous()
    if wanted:
        g: Tensor = (by.read if training else by.evaluate)(d, transposed=True)
    else:
        g = d.new_empty(0)
    if trains:
        with PlainTensors():  # or the weight's class would be asked, for 1 us
            trains = cell.weight.requires_grad
    if trains:
        leave(by, _LEAF, x.detach(), d, False, wanted)
    return g


def _read(
    x: Tensor,
    number: Tensor,
    anchor: Tensor | None,
    outputs: int,
    windows: str,
    training: bool,
) -> Tensor:
    """``cell_read`` without a derivative: where inference mode makes a graph of it."""
    return _forward(x, number, outputs, windows, training)


class _Read(Function):
    """``cell_read`` with its derivative, see :class:`pulseline.nn.function.Read`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        number: Tensor,
        anchor: Tensor | None,
        outputs: int,
        windows: str,
        training: bool,
    ) -> Tensor:
        ctx.save_for_backward(x, number)
        ctx.windows, ctx.training = windows, training
        y: Tensor = _forward_op(x, number, outputs, windows, training)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, number = ctx.saved_tensors
        wanted, trains = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
        g = _backward_op(grads[0], x, number, ctx.windows, ctx.training, wanted, trains)
        return (g if wanted else None), None, None, None, None, None


def _differentiable(
    x: Tensor,
    number: Tensor,
    anchor: Tensor | None,
    outputs: int,
    windows: str,
    training: bool,
) -> Tensor:
    y: Tensor
    if torch.is_grad_enabled() and (x.requires_grad or anchor is not None):
        y = _Read.apply(x, number, anchor, outputs, windows, training)
    else:
        y = _forward_op(x, number, outputs, windows, training)
    return y


def _forward_fake(x: Tensor, number: Tensor, outputs: int, windows: str, training: bool) -> Tensor:
    sizes = Windows.of(windows).shape(tuple(x.shape[2:])) if windows else (outputs,)
    return x.new_empty((x.shape[0], *sizes))


def _read_fake(x: Tensor, number: Tensor, anchor: Tensor | None, *rest: Any) -> Tensor:
    return _forward_fake(x, number, *rest)


def _backward_fake(
    d: Tensor, x: Tensor, number: Tensor, windows: Any, training: bool, wanted: bool, trains: bool
) -> Tensor:
    return x.new_empty(x.shape) if wanted else x.new_empty(0)


_OPERATORS: dict[str, tuple[Any, Callable[..., Tensor], Any]] = {  # kernel, shapes, derivative
    "cell_read": (_read, _read_fake, _differentiable),
    "cell_forward": (_forward, _forward_fake, torch.library.fallthrough_kernel),
    "cell_backward": (_backward, _backward_fake, torch.library.fallthrough_kernel),
}
for name, (kernel, fake, derivative) in _OPERATORS.items():
    _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    _LIBRARY.impl(name, derivative, "Autograd")
    torch.library.register_fake(f"pulseline_nn::{name}", fake, lib=_LIBRARY)
    has_effects(getattr(torch.ops.pulseline_nn, name).default)
_read_op = torch.ops.pulseline_nn.cell_read.default
_forward_op = torch.ops.pulseline_nn.cell_forward.default
_backward_op = torch.ops.pulseline_nn.cell_backward.default


def compiled_read(x: Tensor, cell: Any, training: bool, outputs: int, windows: str = "") -> Tensor:
    """``y = W x`` of a cell where torch.compile makes a graph.

    Hooks on the weight see pairs, which are no tensors of a graph: it breaks for them.

    Args:
        x: (samples, cols), or images.
        cell: that is read. training: see :func:`pulseline.nn.function.read`.
        outputs: rows of the matrix. windows: of a convolution, see :meth:`.windows.Windows.text`.
    """
    weight = cell.weight
    if cell.hooked:
        return _outside(x, cell, windows, training)
    anchor = _ANCHOR if weight.requires_grad else None
    y: Tensor = _read_op(x, cell.number, anchor, outputs, windows, training)
    return y


@not_compiled_within
def _outside(x: Tensor, cell: Any, windows: str, training: bool) -> Tensor:
    return read(x, cell.weight, _reader(cell, x, windows), training)
