"""SoftBounds in plain torch: the slopes; a step is ``step + slope w``."""

from __future__ import annotations

from torch import Tensor

from ...devices import SoftBounds
from ..rng import ParameterDraws
from .model import Model, Stored, affine_step, first, pack, positive, second, without_mult_noise

__all__ = ["MODEL", "construct"]


def construct(_device: SoftBounds, step: Tensor, bound: Tensor, _draws: ParameterDraws) -> Stored:
    """Slopes that bring a step to 0 at its bound.

    Args:
        step, bound: pairs as drawn.
    """
    slope_up = -first(step) / positive(first(bound))
    slope_down = second(step) / positive(-second(bound))
    return Stored(step, pack(slope_up, slope_down), bound)


MODEL = Model(affine_step, construct, without_mult_noise)
