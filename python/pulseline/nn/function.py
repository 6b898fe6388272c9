"""Autograd of a tile: forward and backward are reads, the update waits for the optimizer."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import Function

from ..tile import Tile


class Read(Function):
    """``y = W x`` whose backward reads the tile as it is at that moment.

    Only x is saved: a crossbar holds one version of its weights, there is nothing to stash. In
    training the backward leaves (x, d) pending on the tile for the optimizer.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, tile: Tile, training: bool) -> Tensor:
        ctx.tile = tile
        ctx.training = training
        ctx.save_for_backward(x)
        return tile.forward(x) if training else tile.evaluate(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None]:
        tile: Tile = ctx.tile
        d = grads[0].contiguous()
        g = None
        if ctx.needs_input_grad[0]:
            g = tile.backward(d) if ctx.training else tile.evaluate(d, transposed=True)
        if ctx.training:
            tile.pending.append((ctx.saved_tensors[0], d))
        return g, None, None, None
