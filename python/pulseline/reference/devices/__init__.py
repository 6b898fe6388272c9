"""Device models in plain torch: construction of a crosspoint and its noise-free step.

Equations and sources: the dataclasses in :mod:`pulseline.devices`. Each model has a file here of
the same name as its dataclass, which ends in ``MODEL``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ... import devices
from ...devices import PulsedDevice
from ..arithmetic import LOG2E, exp2_poly, f32
from ..rng import (
    ASYMMETRY,
    CORRUPT,
    GAIN,
    INITIALISATION,
    LOWER_BOUND,
    STUCK_AT,
    UPPER_BOUND,
    ParameterDraws,
    Stream,
)
from .model import Crosspoints, Model, Stored, bounds, model_named, pack

__all__ = [
    "DEVICES",
    "Crosspoints",
    "Model",
    "Stored",
    "additive_noise",
    "construct",
    "initial_normals",
]

DEVICES: dict[str, Model] = {name: model_named(name) for name in devices.DEVICES}


def _pulsed(device: PulsedDevice, draws: ParameterDraws) -> tuple[Tensor, Tensor]:
    """Step and bound pairs of every crosspoint."""
    one = f32(1.0)
    hi = f32(device.w_max) * (one + f32(device.w_max_dtod) * draws.normal(UPPER_BOUND))
    lo = f32(device.w_min) * (one + f32(device.w_min_dtod) * draws.normal(LOWER_BOUND))
    hi, lo = torch.maximum(hi, lo), torch.minimum(hi, lo)
    xi = f32(device.dw_min_dtod) * draws.normal(GAIN)
    bias = f32(device.up_down_dtod) * draws.normal(ASYMMETRY)
    gain = exp2_poly(xi * f32(LOG2E)) if device.dw_min_dtod_log_normal else one + xi
    up = ((gain + f32(min(device.up_down, 0.0))) + bias).abs() * f32(device.dw_min)
    down = ((gain - f32(max(device.up_down, 0.0))) - bias).abs() * f32(device.dw_min)
    return pack(up, -down), bounds(hi, lo)


def additive_noise(device: PulsedDevice) -> bool:
    """Whether cycle noise does not scale with the step alone."""
    return DEVICES[device.name].additive(device)


def construct(
    device: PulsedDevice, rows: int, cols: int, seed: int = 0, tile_id: int = 0
) -> Stored:
    """Draw every crosspoint of a matrix.

    Args:
        device: whose parameters and spreads. rows, cols: of the matrix.
        seed, tile_id: whose random numbers.

    Returns:
        The stored pairs, int32 (rows, cols) each.
    """
    draws = ParameterDraws(Stream(seed, tile_id), rows, cols)
    step, bound = _pulsed(device, draws)
    stored = DEVICES[device.name].build(device, step, bound, draws)
    if device.corrupt_devices_prob > 0:
        value = f32(device.corrupt_devices_range) * (2.0 * draws.uniform(STUCK_AT) - 1.0)
        stuck = draws.uniform(CORRUPT) < f32(device.corrupt_devices_prob)
        zero = torch.zeros_like(value)
        dead = Stored(
            pack(zero, -zero),
            torch.zeros_like(stored.slope),
            bounds(value.clamp(min=0.0), value.clamp(max=0.0)),
        )
        stored = Stored(*(torch.where(stuck, d, s) for d, s in zip(dead, stored, strict=True)))
    return stored


def initial_normals(rows: int, cols: int, seed: int = 0, tile_id: int = 0) -> Tensor:
    """Standard normals that initialise weights.

    Args:
        rows, cols: of the matrix. seed, tile_id: whose random numbers.

    Returns:
        float32 (rows, cols).
    """
    return ParameterDraws(Stream(seed, tile_id), rows, cols, INITIALISATION).normal(0)
