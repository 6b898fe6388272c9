"""SoftBoundsReference in plain torch: the reference is folded into the bounds."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...devices import SoftBoundsReference
from ..arithmetic import f32
from ..rng import MODEL_DOWN, MODEL_UP, ParameterDraws
from .model import (
    Crosspoints,
    Model,
    Stored,
    affine_step,
    first,
    pack,
    positive,
    reference_of,
    second,
    shifted,
    without_mult_noise,
)

__all__ = ["MODEL", "at_weight_zero", "construct"]


def construct(
    device: SoftBoundsReference, step: Tensor, bound: Tensor, draws: ParameterDraws
) -> Stored:
    """Soft bounds on v = w + reference: the steps of v, slopes and bounds of w.

    Args:
        device: its slopes and reference. step, bound: pairs of v as drawn. draws: of both.
    """
    up, down = first(step), second(step)
    spread_up = (1.0 + f32(device.slope_up_dtod) * draws.normal(MODEL_UP)).abs().clamp(min=0.0625)
    spread_down = (
        (1.0 + f32(device.slope_down_dtod) * draws.normal(MODEL_DOWN)).abs().clamp(min=0.0625)
    )
    hi, lo = positive(first(bound)) / spread_up, -(positive(-second(bound)) / spread_down)
    slope_up, slope_down = -up / hi, -down / lo
    reference = reference_of(device, draws)
    if device.subtract_symmetry_point:
        reference = reference - (up + down) / (slope_up + slope_down).clamp(max=-(2.0**-100))
    reference = torch.maximum(torch.minimum(reference, hi), lo)
    slopes = pack(slope_up, slope_down)
    return Stored(step, slopes, shifted(hi, lo, reference))


def at_weight_zero(c: Crosspoints) -> Crosspoints:
    """Steps at w = 0; the noise keeps scaling with those at v = 0."""
    return replace(c, up=0.0 - c.slope_up * c.hi, down=0.0 - c.slope_down * c.lo)


MODEL = Model(affine_step, construct, without_mult_noise, prepare=at_weight_zero)
