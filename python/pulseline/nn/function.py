"""Autograd of a cell: forward and backward are reads, the update waits for the optimizer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ..cells import Cell
from ..errors import ConfigError


class Read(Function):
    """``y = W x`` whose backward reads the cell as it is at that moment.

    Only x is saved: a crossbar holds one version of its weights, there is nothing to stash. In
    training the backward leaves (x, d) pending on the cell for the optimizer; both are finite, so
    that a step that has begun does not fail half way. A frozen weight leaves nothing.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, cell: Cell, training: bool) -> Tensor:
        ctx.cell = cell
        ctx.training = training
        ctx.save_for_backward(x)
        return cell.read(x) if training else cell.evaluate(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None]:
        cell: Cell = ctx.cell
        d = grads[0].contiguous()
        g = None
        if ctx.needs_input_grad[0]:
            g = (cell.read if ctx.training else cell.evaluate)(d, transposed=True)
        if ctx.training and ctx.needs_input_grad[1]:
            # On a GPU the host would have to wait: its update refuses by itself.
            looked_at = g is not None or not d.is_cpu
            if not looked_at and not math.isfinite(d.sum().item()) and not torch.isfinite(d).all():
                raise ConfigError(
                    "d holds a NaN or an infinity; nothing is pending for this layer, "
                    "check the learning rate and the loss"
                )
            # A copy: the caller may reuse its buffer before the optimizer comes.
            cell.pending.append((ctx.saved_tensors[0].detach().clone(), d))
        return g, None, None, None
