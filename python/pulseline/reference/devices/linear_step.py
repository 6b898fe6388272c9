"""LinearStep in plain torch: the slopes; a step is ``step + slope w``."""

from __future__ import annotations

from torch import Tensor

from ...devices import LinearStep
from ..arithmetic import f32
from ..rng import MODEL_DOWN, MODEL_UP, ParameterDraws
from .model import Model, Stored, affine_step, first, pack, positive, second, without_mult_noise

__all__ = ["MODEL", "construct"]


def construct(device: LinearStep, step: Tensor, bound: Tensor, draws: ParameterDraws) -> Stored:
    """Steps and bounds as drawn, slopes over the mean or the crosspoint's own bounds.

    Args:
        device: its slopes. step, bound: pairs as drawn. draws: of the slopes' spread.
    """
    if device.mean_bound_reference:
        hi, lo = f32(device.w_max), f32(-device.w_min)
    else:
        hi, lo = first(bound), -second(bound)
    up = f32(device.gamma_up) * (1.0 + f32(device.gamma_up_dtod) * draws.normal(MODEL_UP))
    down = f32(device.gamma_down) * (1.0 + f32(device.gamma_down_dtod) * draws.normal(MODEL_DOWN))
    slope_up = -(first(step) * up) / positive(hi)
    slope_down = (second(step) * down) / positive(lo)
    return Stored(step, pack(slope_up, slope_down), bound)


MODEL = Model(affine_step, construct, without_mult_noise)
