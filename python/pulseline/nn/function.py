"""Autograd of a cell: forward and backward are reads, the update waits for the optimizer.

``y = W x`` and ``g = W^T d`` are each other's derivative, so that second derivatives are reads too.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ..arrays import PendingGradient
from ..cells import Cell
from ..errors import ConfigError
from ..ops import is_finite
from ..torch_private import plain_apply, trained, will_accumulate

_MANY = 1000  # backward passes that nobody pulsed

__all__ = ["Read", "Transposed", "leave", "read"]


class Read(Function):
    """``y = W x`` whose backward reads the cell as it is at that moment.

    Only x is saved: a crossbar holds one version of its weights, there is nothing to stash. A
    backward pass that trains the weight leaves (x, d) pending on the cell for the optimizer; both
    are finite, so that a step that has begun does not fail half way. A frozen weight leaves
    nothing, nor does a backward pass for other gradients (``torch.autograd.grad``).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, cell: Cell, training: bool) -> Tensor:
        ctx.cell = cell
        ctx.training = training
        ctx.save_for_backward(x)
        return cell.read(x) if training else cell.evaluate(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cell: Cell = ctx.cell
        g, given = None, grads[0]
        d = given.contiguous()
        if ctx.needs_input_grad[0]:
            if torch.is_grad_enabled():  # create_graph=True
                g = Transposed.apply(given, cell.weight, cell, ctx.training)
            else:
                g = (cell.read if ctx.training else cell.evaluate)(d, transposed=True)
        if ctx.needs_input_grad[1]:
            (x,) = ctx.saved_tensors
            own, leaf = d is not given, ctx.next_functions[1][0]
            return g, leave(cell, leaf, x, d, own, g is not None), None, None
        return g, None, None, None


class Transposed(Function):
    """``g = W^T d``, where its derivative is wanted: a read whose backward is one of ``W``."""

    @staticmethod
    def forward(ctx: Any, d: Tensor, weight: Tensor, cell: Cell, training: bool) -> Tensor:
        ctx.cell = cell
        ctx.training = training
        ctx.save_for_backward(d)
        d = d.contiguous()
        return (cell.read if training else cell.evaluate)(d, transposed=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cell: Cell = ctx.cell
        y, given = None, grads[0]
        v = given.contiguous()
        if ctx.needs_input_grad[0]:
            if torch.is_grad_enabled():
                y = Read.apply(given, cell.weight, cell, ctx.training)
            else:
                y = cell.read(v) if ctx.training else cell.evaluate(v)
        if ctx.needs_input_grad[1]:
            (d,) = ctx.saved_tensors
            return y, leave(cell, ctx.next_functions[1][0], v, d, False, False), None, None
        return y, None, None, None


_apply = plain_apply(Read)


def read(x: Tensor, weight: Tensor, cell: Cell, training: bool) -> Tensor:
    """``y = W x`` of a cell, with a graph where grad mode asks for one.

    Args:
        x: (samples, cols). weight: the cell's parameter. cell: that is read.
        training: whether counters advance, see :meth:`pulseline.cells.Cell.evaluate`.

    Returns:
        (samples, rows).
    """
    if not torch.is_grad_enabled():
        return cell.read(x) if training else cell.evaluate(x)
    y: Tensor = (Read.apply if torch.compiler.is_compiling() else _apply)(x, weight, cell, training)
    return y


def leave(cell: Cell, leaf: Any, x: Tensor, d: Tensor, own: bool, looked_at: bool) -> Tensor | None:
    """Leave the pair for whoever the backward pass is for.

    Args:
        cell: of the pair. leaf: the node that accumulates the weight's gradient.
        x, d: inputs and errors. own: d is a copy of the caller's.
        looked_at: d was read and is finite.

    Returns:
        The gradient, for autograd to hand on; None: the pair is pending, or nobody wants it.

    Raises:
        ConfigError: d is not finite, or the pass is to be differentiated itself.
    """
    wanted = will_accumulate(leaf)
    if wanted is False or not trained(leaf):
        return None
    # On a GPU the host would have to wait: its update refuses by itself.
    looked_at = looked_at or not d.is_cpu
    if not looked_at and not is_finite(d):
        raise ConfigError(
            "d holds a NaN or an infinity; nothing is pending for this layer, "
            "check the learning rate and the loss"
        )
    if torch.is_grad_enabled():
        raise ConfigError(
            "create_graph=True asks for derivatives of the gradient of a crossbar's weight, which "
            "has none; ask torch.autograd.grad for inputs or digital parameters alone"
        )
    pair = cell.pair(x, d, own)
    if wanted is None or cell.hooked:
        weight = cell.weight
        return PendingGradient([pair], weight.shape, d.device, weight.array.form)
    cell.pending.append(pair)
    if len(cell.pending) == _MANY:
        warnings.warn(
            f"{_MANY} backward passes are pending for matrix {cell.identity.tile_id}; give its "
            "parameters to AnalogSGD and call step() or zero_grad(), or freeze the layer",
            RuntimeWarning,
            stacklevel=2,
        )
    return None
