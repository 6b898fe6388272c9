"""Device models: construction of a crosspoint and its noise-free step.

Equations and sources: the dataclasses in :mod:`pulseline.devices`. Random numbers are drawn in
float32 and stored as bfloat16; the stored value is the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..devices import ConstantStep, ExpStep, LinearStep, PulsedDevice, SoftBounds
from .arithmetic import (
    LOG2E,
    bf16_nearest,
    bf16_toward_zero,
    exp2_poly,
    f32,
    fma,
    from_bits,
    probit,
)
from .rng import DEVICE_PARAMETERS, INITIALISATION, Stream, Words, draw4


class Stored(NamedTuple):
    """What a crosspoint keeps: int32 (rows, cols), pairs of bf16, the first in the upper half."""

    step: Tensor  # up, down: signed steps at weight 0
    slope: Tensor  # change of the up and the down step with the weight
    bound: Tensor  # hi, lo


@dataclass(frozen=True)
class Crosspoints:
    """The stored pairs as float32 (rows, cols)."""

    up: Tensor
    down: Tensor
    slope_up: Tensor
    slope_down: Tensor
    hi: Tensor
    lo: Tensor

    @classmethod
    def unpack(cls, stored: Stored) -> Crosspoints:
        """Split the pairs."""
        values: list[Tensor] = []
        for pair in stored:
            words = pair.to(torch.int64)
            values += [from_bits(words & 0xFFFF0000), from_bits(words << 16 & 0xFFFF0000)]
        return cls(*values)


def _pack(first: Tensor, second: Tensor) -> Tensor:
    return (first << 16 | second).to(torch.int32)


def _first(pair: Tensor) -> Tensor:
    return from_bits(pair.to(torch.int64) & 0xFFFF0000)


def _second(pair: Tensor) -> Tensor:
    return from_bits(pair.to(torch.int64) << 16 & 0xFFFF0000)


def _positive(x: Tensor) -> Tensor:
    return x.clamp(min=2.0**-40)  # keeps a slope finite


def _pulsed(device: PulsedDevice, r: Words) -> tuple[Tensor, Tensor]:
    """Step and bound pairs of four random words per crosspoint."""
    one = f32(1.0)
    hi = f32(device.w_max) * (one + f32(device.w_max_dtod) * probit(r[0]))
    lo = f32(device.w_min) * (one + f32(device.w_min_dtod) * probit(r[1]))
    hi, lo = torch.maximum(hi, lo), torch.minimum(hi, lo)
    xi = f32(device.dw_min_dtod) * probit(r[2])
    bias = f32(device.up_down_dtod) * probit(r[3])
    gain = exp2_poly(xi * f32(LOG2E)) if device.dw_min_dtod_log_normal else one + xi
    up = ((gain + f32(min(device.up_down, 0.0))) + bias).abs() * f32(device.dw_min)
    down = ((gain - f32(max(device.up_down, 0.0))) - bias).abs() * f32(device.dw_min)
    bound = _pack(bf16_toward_zero(hi.abs()), bf16_toward_zero(-lo.abs()))
    return _pack(bf16_nearest(up), bf16_nearest(-down)), bound


# ---- slopes: (device, step pair, bound pair, second draw) -> slope pair ----


def _no_slopes(_device: PulsedDevice, step: Tensor, _bound: Tensor, _r: Words) -> Tensor:
    return torch.zeros_like(step)


def _linear_slopes(device: LinearStep, step: Tensor, bound: Tensor, r: Words) -> Tensor:
    if device.mean_bound_reference:
        hi, lo = f32(device.w_max), f32(-device.w_min)
    else:
        hi, lo = _first(bound), -_second(bound)
    up = f32(device.gamma_up) * (1.0 + f32(device.gamma_up_dtod) * probit(r[0]))
    down = f32(device.gamma_down) * (1.0 + f32(device.gamma_down_dtod) * probit(r[1]))
    slope_up = -(_first(step) * up) / _positive(hi)
    slope_down = (_second(step) * down) / _positive(lo)
    return _pack(bf16_nearest(slope_up), bf16_nearest(slope_down))


def _soft_slopes(_device: SoftBounds, step: Tensor, bound: Tensor, _r: Words) -> Tensor:
    slope_up = -_first(step) / _positive(_first(bound))
    slope_down = _second(step) / _positive(-_second(bound))
    return _pack(bf16_nearest(slope_up), bf16_nearest(slope_down))


# ---- steps: (device, crosspoints, w, up) -> signed noise-free step at w ----


def constant_step(_device: ConstantStep, c: Crosspoints, _w: Tensor, up: Tensor) -> Tensor:
    """``s_up`` or ``-s_down``."""
    return torch.where(up, c.up, c.down)


def affine_step(_device: PulsedDevice, c: Crosspoints, w: Tensor, up: Tensor) -> Tensor:
    """``step + slope w``: LinearStep and SoftBounds."""
    return fma(torch.where(up, c.slope_up, c.slope_down), w, torch.where(up, c.up, c.down))


def exp_step(device: ExpStep, c: Crosspoints, w: Tensor, up: Tensor) -> Tensor:
    """``max(1 - A e^(+-g z), 0) step`` with ``z = 2 a w / (hi - lo) + b``, as a power of two."""
    rate_up, rate_down = (f32(g) * f32(LOG2E) for g in (device.gamma_up, -device.gamma_down))
    rate = torch.where(up, rate_up, rate_down)
    scale = (2.0 * f32(device.a)) / _positive(c.hi - c.lo)
    power = exp2_poly(fma(w, scale * rate, f32(device.b) * rate))
    y = fma(-torch.where(up, f32(device.a_up), f32(device.a_down)), power, f32(1.0))
    return y.clamp(min=0.0) * torch.where(up, c.up, c.down)


class Model(NamedTuple):
    """A device model: the dataclass of its parameters and its two functions."""

    parameters: type[PulsedDevice]
    slopes: Callable[[Any, Tensor, Tensor, Words], Tensor]
    step: Callable[[Any, Crosspoints, Tensor, Tensor], Tensor]


DEVICES: dict[str, Model] = {
    "ConstantStep": Model(ConstantStep, _no_slopes, constant_step),
    "LinearStep": Model(LinearStep, _linear_slopes, affine_step),
    "SoftBounds": Model(SoftBounds, _soft_slopes, affine_step),
    "ExpStep": Model(ExpStep, _no_slopes, exp_step),
}


def construct(
    device: PulsedDevice, rows: int, cols: int, seed: int = 0, tile_id: int = 0
) -> Stored:
    """Draw every crosspoint of a (rows, cols) matrix: a function of (seed, tile_id, i, j)."""
    i, j = torch.arange(rows)[:, None], torch.arange(cols)
    stream = Stream(seed, tile_id)
    step, bound = _pulsed(device, draw4(stream, DEVICE_PARAMETERS, i, j, 0))
    more = draw4(stream, DEVICE_PARAMETERS, i, j, 1)
    return Stored(step, DEVICES[device.name].slopes(device, step, bound, more), bound)


def initial_normals(rows: int, cols: int, seed: int = 0, tile_id: int = 0) -> Tensor:
    """Standard normals (rows, cols) that initialise weights."""
    i, j = torch.arange(rows)[:, None], torch.arange(cols)
    return probit(draw4(Stream(seed, tile_id), INITIALISATION, i, j, 0)[0])
