"""PowStep in plain torch: the slope pair stores the powers."""

from __future__ import annotations

import torch
from torch import Tensor

from ...devices import PowStep
from ..arithmetic import f32, power_poly
from ..rng import MODEL_DOWN, MODEL_UP, ParameterDraws
from .model import Crosspoints, Model, Stored, pack, positive

__all__ = ["MODEL", "construct", "pow_step", "powers"]


def powers(device: PowStep, draws: ParameterDraws) -> Tensor:
    """The pair (p_up, p_down).

    Args:
        device: its power and spreads. draws: of them.
    """
    gain = 1.0 + f32(device.pow_gamma_dtod) * draws.normal(MODEL_UP)
    bias = f32(device.pow_up_down_dtod) * draws.normal(MODEL_DOWN)
    up = ((gain + f32(min(device.pow_up_down, 0.0))) + bias).abs() * f32(device.pow_gamma)
    down = ((gain - f32(max(device.pow_up_down, 0.0))) - bias).abs() * f32(device.pow_gamma)
    return pack(up, down)


def construct(device: PowStep, step: Tensor, bound: Tensor, draws: ParameterDraws) -> Stored:
    """Steps and bounds as drawn, powers for slopes.

    Args:
        device: its power. step, bound: pairs as drawn. draws: of the powers.
    """
    return Stored(step, powers(device, draws), bound)


def pow_step(_device: PowStep, c: Crosspoints, w: Tensor, up: Tensor) -> Tensor:
    """``(distance to the bound / range)^p step``.

    Args:
        c: crosspoints. w: (rows, cols) weights. up: bool, the direction.
    """
    distance = torch.where(up, c.hi - w, w - c.lo) * (1.0 / positive(c.hi - c.lo))
    power = power_poly(distance, torch.where(up, c.slope_up, c.slope_down))
    return power * torch.where(up, c.up, c.down)


MODEL = Model(pow_step, construct)
