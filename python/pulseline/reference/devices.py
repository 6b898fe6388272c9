"""Device models: construction of a crosspoint and its noise-free step.

Equations and sources: the dataclasses in :mod:`pulseline.devices`. Random numbers are drawn in
float32 and stored as bfloat16; the stored value is the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..devices import (
    ConstantStep,
    ExpStep,
    LinearStep,
    PiecewiseStep,
    PowStep,
    PowStepReference,
    PulsedDevice,
    SoftBounds,
    SoftBoundsReference,
)
from .arithmetic import (
    LOG2E,
    bf16_nearest,
    exp2_poly,
    f32,
    fma,
    from_bits,
    log_poly,
    power_poly,
)
from .rng import (
    ASYMMETRY,
    CORRUPT,
    GAIN,
    INITIALISATION,
    LOWER_BOUND,
    MODEL_DOWN,
    MODEL_UP,
    REFERENCE,
    STUCK_AT,
    UPPER_BOUND,
    ParameterDraws,
    Stream,
)


class Stored(NamedTuple):
    """What a crosspoint keeps: int32 (rows, cols), pairs of bf16, the first in the upper half."""

    step: Tensor  # up, down: signed steps at weight 0
    slope: Tensor  # change of the up and the down step with the weight
    bound: Tensor  # hi, lo


@dataclass(frozen=True)
class Crosspoints:
    """The stored pairs as float32 (rows, cols), and what additive noise scales with."""

    up: Tensor
    down: Tensor
    slope_up: Tensor
    slope_down: Tensor
    hi: Tensor
    lo: Tensor
    noise_up: Tensor
    noise_down: Tensor

    @classmethod
    def unpack(cls, stored: Stored) -> Crosspoints:
        """Split the pairs."""
        pairs = (*stored, stored.step)
        return cls(*(half for pair in pairs for half in (_first(pair), _second(pair))))

    @classmethod
    def of(cls, device: PulsedDevice, stored: Stored) -> Crosspoints:
        """Split the pairs; ``up`` and ``down`` become the steps at w = 0."""
        c = cls.unpack(stored)
        if not isinstance(device, SoftBoundsReference):
            return c
        return replace(c, up=0.0 - c.slope_up * c.hi, down=0.0 - c.slope_down * c.lo)


def _pack(first: Tensor, second: Tensor) -> Tensor:
    """Two float32 as a pair of the nearest bf16."""
    return (bf16_nearest(first) << 16 | bf16_nearest(second)).to(torch.int32)


def _bounds(hi: Tensor, lo: Tensor) -> Tensor:
    """The pair (|hi|, -|lo|): 0 is +0 above and -0 below."""
    return _pack(hi.abs(), -lo.abs())


def _first(pair: Tensor) -> Tensor:
    return from_bits(pair.to(torch.int64) & 0xFFFF0000)


def _second(pair: Tensor) -> Tensor:
    return from_bits(pair.to(torch.int64) << 16 & 0xFFFF0000)


def _positive(x: Tensor) -> Tensor:
    return x.clamp(min=2.0**-40)  # keeps a slope finite


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
    return _pack(up, -down), _bounds(hi, lo)


# ---- what a model adds: (device, step pair, bound pair, draws) -> stored pairs ----


def _as_drawn(_device: PulsedDevice, step: Tensor, bound: Tensor, _draws: ParameterDraws) -> Stored:
    return Stored(step, torch.zeros_like(step), bound)


def _linear(device: LinearStep, step: Tensor, bound: Tensor, draws: ParameterDraws) -> Stored:
    if device.mean_bound_reference:
        hi, lo = f32(device.w_max), f32(-device.w_min)
    else:
        hi, lo = _first(bound), -_second(bound)
    up = f32(device.gamma_up) * (1.0 + f32(device.gamma_up_dtod) * draws.normal(MODEL_UP))
    down = f32(device.gamma_down) * (1.0 + f32(device.gamma_down_dtod) * draws.normal(MODEL_DOWN))
    slope_up = -(_first(step) * up) / _positive(hi)
    slope_down = (_second(step) * down) / _positive(lo)
    return Stored(step, _pack(slope_up, slope_down), bound)


def _soft(_device: SoftBounds, step: Tensor, bound: Tensor, _draws: ParameterDraws) -> Stored:
    slope_up = -_first(step) / _positive(_first(bound))
    slope_down = _second(step) / _positive(-_second(bound))
    return Stored(step, _pack(slope_up, slope_down), bound)


def _shift(bound_hi: Tensor, bound_lo: Tensor, reference: Tensor) -> Tensor:
    """Bounds of w = v - reference."""
    return _bounds(bound_hi - reference, bound_lo - reference)


def _soft_reference(
    device: SoftBoundsReference, step: Tensor, bound: Tensor, draws: ParameterDraws
) -> Stored:
    """Soft bounds on v = w + reference: the steps of v, slopes and bounds of w."""
    up, down = _first(step), _second(step)
    spread_up = (1.0 + f32(device.slope_up_dtod) * draws.normal(MODEL_UP)).abs().clamp(min=0.0625)
    spread_down = (
        (1.0 + f32(device.slope_down_dtod) * draws.normal(MODEL_DOWN)).abs().clamp(min=0.0625)
    )
    hi, lo = _positive(_first(bound)) / spread_up, -(_positive(-_second(bound)) / spread_down)
    slope_up, slope_down = -up / hi, -down / lo
    reference = f32(device.reference_mean) + f32(device.reference_std) * draws.normal(REFERENCE)
    if device.subtract_symmetry_point:
        reference = reference - (up + down) / (slope_up + slope_down).clamp(max=-(2.0**-100))
    reference = torch.maximum(torch.minimum(reference, hi), lo)
    slopes = _pack(slope_up, slope_down)
    return Stored(step, slopes, _shift(hi, lo, reference))


def _powers(device: PowStep, draws: ParameterDraws) -> Tensor:
    gain = 1.0 + f32(device.pow_gamma_dtod) * draws.normal(MODEL_UP)
    bias = f32(device.pow_up_down_dtod) * draws.normal(MODEL_DOWN)
    up = ((gain + f32(min(device.pow_up_down, 0.0))) + bias).abs() * f32(device.pow_gamma)
    down = ((gain - f32(max(device.pow_up_down, 0.0))) - bias).abs() * f32(device.pow_gamma)
    return _pack(up, down)


def _pow(device: PowStep, step: Tensor, bound: Tensor, draws: ParameterDraws) -> Stored:
    return Stored(step, _powers(device, draws), bound)


def _pow_reference(
    device: PowStepReference, step: Tensor, bound: Tensor, draws: ParameterDraws
) -> Stored:
    """PowStep on v = w + reference: only the bounds know."""
    powers, hi, lo = _powers(device, draws), _first(bound), _second(bound)
    reference = f32(device.reference_mean) + f32(device.reference_std) * draws.normal(REFERENCE)
    if device.subtract_symmetry_point:
        up, down = log_poly(_positive(_first(step))), log_poly(_positive(-_second(step)))
        x, width = torch.full_like(hi, 0.5), 0.25
        for _ in range(24):
            rising = up + _first(powers) * log_poly(1.0 - x)
            falling = down + _second(powers) * log_poly(x)
            x = torch.where(rising > falling, x + width, x - width)
            width /= 2
        reference = reference + (lo + (hi - lo) * x)
    reference = torch.maximum(torch.minimum(reference, hi), lo)
    return Stored(step, powers, _shift(hi, lo, reference))


def _piecewise(device: PiecewiseStep, step: Tensor, bound: Tensor, draws: ParameterDraws) -> Stored:
    tilts = (
        (f32(spread) * draws.normal(n)).clamp(-1.0, 1.0)
        for spread, n in ((device.tilt_up_dtod, MODEL_UP), (device.tilt_down_dtod, MODEL_DOWN))
    )
    return Stored(step, _pack(*tilts), bound)


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


def pow_step(_device: PowStep, c: Crosspoints, w: Tensor, up: Tensor) -> Tensor:
    """``(distance to the bound / range)^p step``."""
    distance = torch.where(up, c.hi - w, w - c.lo) * (1.0 / _positive(c.hi - c.lo))
    power = power_poly(distance, torch.where(up, c.slope_up, c.slope_down))
    return power * torch.where(up, c.up, c.down)


def piecewise_step(device: PiecewiseStep, c: Crosspoints, w: Tensor, up: Tensor) -> Tensor:
    """``P(w) (1 + tilt z) step``: P linear between nodes, z from -1 to 1 over the range."""
    results = []
    for nodes, tilt in ((device.piecewise_up, c.slope_up), (device.piecewise_down, c.slope_down)):
        intervals = f32(len(nodes) - 1)
        t = (w - c.lo) * (intervals / _positive(c.hi - c.lo))
        left = t.to(torch.int64)
        table = torch.tensor([*nodes, nodes[-1]], dtype=torch.float32)
        y = fma(t - left, table[left + 1] - table[left], table[left])
        z = fma(t, f32(2.0) / intervals, f32(-1.0))
        results.append(fma(y * tilt, z, y).clamp(min=0.0))
    return torch.where(up, results[0], results[1]) * torch.where(up, c.up, c.down)


# ---- additive noise: (device, crosspoints, w, up, step) -> what sigma xi multiplies ----


def step_noise(_device: PulsedDevice, c: Crosspoints, _w: Tensor, up: Tensor, _f: Tensor) -> Tensor:
    """The stored step: at weight 0, or at v = 0 of a device with a reference."""
    return torch.where(up, c.noise_up, c.noise_down)


def complex_noise(device: ExpStep, c: Crosspoints, w: Tensor, _up: Tensor, f: Tensor) -> Tensor:
    """``|f| + add + slope |w|``; nothing on a stuck device."""
    moves = (c.up - c.down) > 0
    add, slope = f32(device.dw_min_std_add), f32(device.dw_min_std_slope)
    rest = fma(torch.where(moves, slope, f32(0.0)), w.abs(), torch.where(moves, add, f32(0.0)))
    return f.abs() + rest


class Model(NamedTuple):
    """A device model: the dataclass of its parameters and its functions."""

    parameters: type[PulsedDevice]
    build: Callable[[Any, Tensor, Tensor, ParameterDraws], Stored]
    step: Callable[[Any, Crosspoints, Tensor, Tensor], Tensor]
    noise: Callable[[Any, Crosspoints, Tensor, Tensor, Tensor], Tensor] = step_noise


DEVICES: dict[str, Model] = {
    "ConstantStep": Model(ConstantStep, _as_drawn, constant_step),
    "LinearStep": Model(LinearStep, _linear, affine_step),
    "SoftBounds": Model(SoftBounds, _soft, affine_step),
    "ExpStep": Model(ExpStep, _as_drawn, exp_step, complex_noise),
    "SoftBoundsReference": Model(SoftBoundsReference, _soft_reference, affine_step),
    "PowStep": Model(PowStep, _pow, pow_step),
    "PowStepReference": Model(PowStepReference, _pow_reference, pow_step),
    "PiecewiseStep": Model(PiecewiseStep, _piecewise, piecewise_step),
}


def additive_noise(device: PulsedDevice) -> bool:
    """Whether cycle noise does not scale with the step alone."""
    if isinstance(device, ExpStep):
        return device.dw_min_std_add != 0 or device.dw_min_std_slope != 0
    return not getattr(device, "mult_noise", True)


def construct(
    device: PulsedDevice, rows: int, cols: int, seed: int = 0, tile_id: int = 0
) -> Stored:
    """Draw every crosspoint of a (rows, cols) matrix: a function of (seed, tile_id, i, j)."""
    draws = ParameterDraws(Stream(seed, tile_id), rows, cols)
    step, bound = _pulsed(device, draws)
    stored = DEVICES[device.name].build(device, step, bound, draws)
    if device.corrupt_devices_prob > 0:
        value = f32(device.corrupt_devices_range) * (2.0 * draws.uniform(STUCK_AT) - 1.0)
        stuck = draws.uniform(CORRUPT) < f32(device.corrupt_devices_prob)
        zero = torch.zeros_like(value)
        dead = Stored(
            _pack(zero, -zero),
            torch.zeros_like(stored.slope),
            _bounds(value.clamp(min=0.0), value.clamp(max=0.0)),
        )
        stored = Stored(*(torch.where(stuck, d, s) for d, s in zip(dead, stored, strict=True)))
    return stored


def initial_normals(rows: int, cols: int, seed: int = 0, tile_id: int = 0) -> Tensor:
    """Standard normals (rows, cols) that initialise weights."""
    return ParameterDraws(Stream(seed, tile_id), rows, cols, INITIALISATION).normal(0)
