"""ExpStep in plain torch, with its complex noise."""

from __future__ import annotations

import torch
from torch import Tensor

from ...devices import ExpStep
from ..arithmetic import LOG2E, exp2_poly, f32, fma
from .model import Crosspoints, Model, positive

__all__ = ["MODEL", "complex_noise", "exp_step", "is_complex"]


def exp_step(device: ExpStep, c: Crosspoints, w: Tensor, up: Tensor) -> Tensor:
    """``max(1 - A e^(+-g z), 0) step`` with ``z = 2 a w / (hi - lo) + b``, as a power of two.

    Args:
        device: its curve. c: crosspoints. w: (rows, cols) weights. up: bool, the direction.
    """
    rate_up, rate_down = (f32(g) * f32(LOG2E) for g in (device.gamma_up, -device.gamma_down))
    rate = torch.where(up, rate_up, rate_down)
    scale = (2.0 * f32(device.a)) / positive(c.hi - c.lo)
    power = exp2_poly(fma(w, scale * rate, f32(device.b) * rate))
    y = fma(-torch.where(up, f32(device.a_up), f32(device.a_down)), power, f32(1.0))
    return y.clamp(min=0.0) * torch.where(up, c.up, c.down)


def is_complex(device: ExpStep) -> bool:
    """Whether noise has a part beside the step's."""
    return device.dw_min_std_add != 0 or device.dw_min_std_slope != 0


def complex_noise(device: ExpStep, c: Crosspoints, w: Tensor, _up: Tensor, f: Tensor) -> Tensor:
    """``|f| + add + slope |w|``; nothing on a stuck device.

    Args:
        device: its noise. c: crosspoints. w: (rows, cols) weights. f: noise-free steps.
    """
    moves = (c.up - c.down) > 0
    add, slope = f32(device.dw_min_std_add), f32(device.dw_min_std_slope)
    rest = fma(torch.where(moves, slope, f32(0.0)), w.abs(), torch.where(moves, add, f32(0.0)))
    return f.abs() + rest


MODEL = Model(exp_step, additive=is_complex, noise=complex_noise)
