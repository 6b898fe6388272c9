"""PiecewiseStep in plain torch: the slope pair stores the tilts."""

from __future__ import annotations

import torch
from torch import Tensor

from ...devices import PiecewiseStep
from ..arithmetic import f32, fma
from ..rng import MODEL_DOWN, MODEL_UP, ParameterDraws
from .model import Crosspoints, Model, Stored, pack, positive

__all__ = ["MODEL", "construct", "piecewise_step"]


def construct(device: PiecewiseStep, step: Tensor, bound: Tensor, draws: ParameterDraws) -> Stored:
    """Steps and bounds as drawn, tilts for slopes.

    Args:
        device: its tilts. step, bound: pairs as drawn. draws: of the tilts.
    """
    tilts = (
        (f32(spread) * draws.normal(n)).clamp(-1.0, 1.0)
        for spread, n in ((device.tilt_up_dtod, MODEL_UP), (device.tilt_down_dtod, MODEL_DOWN))
    )
    return Stored(step, pack(*tilts), bound)


def piecewise_step(device: PiecewiseStep, c: Crosspoints, w: Tensor, up: Tensor) -> Tensor:
    """``P(w) (1 + tilt z) step``: P linear between nodes, z from -1 to 1 over the range.

    Args:
        device: its nodes. c: crosspoints. w: (rows, cols) weights. up: bool, the direction.
    """
    results = []
    for nodes, tilt in ((device.piecewise_up, c.slope_up), (device.piecewise_down, c.slope_down)):
        intervals = f32(len(nodes) - 1)
        t = (w - c.lo) * (intervals / positive(c.hi - c.lo))
        left = t.to(torch.int64)
        table = torch.tensor([*nodes, nodes[-1]], dtype=torch.float32)
        y = fma(t - left, table[left + 1] - table[left], table[left])
        z = fma(t, f32(2.0) / intervals, f32(-1.0))
        results.append(fma(y * tilt, z, y).clamp(min=0.0))
    return torch.where(up, results[0], results[1]) * torch.where(up, c.up, c.down)


MODEL = Model(piecewise_step, construct)
