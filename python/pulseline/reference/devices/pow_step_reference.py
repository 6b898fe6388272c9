"""PowStepReference in plain torch: only the bounds know of the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from ...devices import PowStepReference
from ..arithmetic import log_poly
from ..rng import ParameterDraws
from .model import Model, Stored, first, positive, reference_of, second, shifted
from .pow_step import pow_step, powers

__all__ = ["MODEL", "construct"]


def construct(
    device: PowStepReference, step: Tensor, bound: Tensor, draws: ParameterDraws
) -> Stored:
    """PowStep on v = w + reference: only the bounds know.

    Args:
        device: its power and reference. step, bound: pairs of v as drawn. draws: of both.
    """
    slopes, hi, lo = powers(device, draws), first(bound), second(bound)
    reference = reference_of(device, draws)
    if device.subtract_symmetry_point:
        up, down = log_poly(positive(first(step))), log_poly(positive(-second(step)))
        x, width = torch.full_like(hi, 0.5), 0.25
        for _ in range(24):
            rising = up + first(slopes) * log_poly(1.0 - x)
            falling = down + second(slopes) * log_poly(x)
            x = torch.where(rising > falling, x + width, x - width)
            width /= 2
        reference = reference + (lo + (hi - lo) * x)
    reference = torch.maximum(torch.minimum(reference, hi), lo)
    return Stored(step, slopes, shifted(hi, lo, reference))


MODEL = Model(pow_step, construct)
