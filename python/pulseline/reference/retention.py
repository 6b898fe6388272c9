"""What happens between pulses: decay, drift and diffusion, resets, write noise.

Equations: :mod:`pulseline.devices.pulsed`; 1/T, b, D and nu are stored as bfloat16.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..configs import UpdateConfig
from ..devices import PulsedDevice
from .arithmetic import bf16_nearest, exp2_poly, f32, fma, from_bits
from .devices import Crosspoints, Stored
from .rng import (
    COLUMN_STRIDE,
    DIFFUSIVITY,
    DRIFT_EXPONENT,
    LIFETIME,
    PULSES,
    RESET_POINT,
    ROW_STRIDE,
    Keys,
    ParameterDraws,
    Stream,
    byte_sum_normal,
    draw4,
    draw_keys,
    hash32,
)
from .trains import SLOTS_PER_WORD, line_train, manage

__all__ = [
    "DIFFUSION",
    "PROGRAMMING",
    "RESET",
    "WRITE_NOISE",
    "Retention",
    "age",
    "disturb",
    "redraw",
    "reset",
    "retention",
]

DIFFUSION, RESET, WRITE_NOISE, PROGRAMMING = 12, 13, 14, 15


class Retention(NamedTuple):
    """Per crosspoint, float32 (rows, cols): decay rate 1/T, bias b, walk D, exponent nu."""

    rate: Tensor
    bias: Tensor
    walk: Tensor
    nu: Tensor


def retention(
    device: PulsedDevice, rows: int, cols: int, seed: int = 0, tile_id: int = 0
) -> Retention:
    """Draw what happens between pulses for every crosspoint.

    Args:
        device: its lifetimes. rows, cols: of the matrix. seed, tile_id: whose random numbers.
    """
    draws = ParameterDraws(Stream(seed, tile_id), rows, cols)
    r = [draws.normal(n) for n in (LIFETIME, RESET_POINT, DIFFUSIVITY, DRIFT_EXPONENT)]
    time = (f32(device.lifetime) * (1.0 + f32(device.lifetime_dtod) * r[0])).clamp(min=1.0)
    values = (
        1.0 / time if device.lifetime > 0 else torch.zeros_like(time),
        f32(device.reset) + f32(device.reset_dtod) * r[1],
        (f32(device.diffusion) * (1.0 + f32(device.diffusion_dtod) * r[2])).abs(),
        f32(device.drift_nu) * (1.0 + f32(device.drift_nu_dtod) * r[3]),
    )
    return Retention(*(from_bits(bf16_nearest(v) << 16) for v in values))


def _normals(shape: torch.Size, keys: Keys) -> Tensor:
    i, j = torch.arange(shape[0])[:, None], torch.arange(shape[1])
    return byte_sum_normal(hash32(i * ROW_STRIDE + j * COLUMN_STRIDE, keys))


def _stuck(c: Crosspoints) -> Tensor:
    return (c.up == 0) & (c.down == 0)


def _finish(before: Tensor, after: Tensor, c: Crosspoints) -> Tensor:
    clipped = torch.maximum(torch.minimum(after, c.hi), c.lo) + 0.0
    return torch.where(_stuck(c), before, clipped)


def age(
    w: Tensor, stored: Stored, r: Retention, drift: float, k: int, seed: int = 0, tile_id: int = 0
) -> Tensor:
    """One event: decay, drift by 2^(-nu drift), diffusion.

    Args:
        w: (rows, cols) weights. stored: steps and bounds. r: of every crosspoint.
        drift: log2 of the ratio of times. k: number of the event. seed, tile_id: whose draws.

    Returns:
        The new weights.
    """
    xi = _normals(w.shape, draw_keys(Stream(seed, tile_id), DIFFUSION, k, 0))
    moved = fma(-r.rate, w - r.bias, w)
    moved = moved * exp2_poly(-(r.nu * f32(drift)))
    return _finish(w, fma(r.walk, xi, moved), Crosspoints.unpack(stored))


def reset(
    w: Tensor, stored: Stored, r: Retention, std: float, k: int, seed: int = 0, tile_id: int = 0
) -> Tensor:
    """Every crosspoint at b + std xi.

    Args:
        w: (rows, cols) weights. stored: steps and bounds. r: with b of every crosspoint.
        std: of the new place. k: number of the event. seed, tile_id: whose draws.

    Returns:
        The new weights.
    """
    xi = _normals(w.shape, draw_keys(Stream(seed, tile_id), RESET, k, 0))
    return _finish(w, fma(f32(std), xi, r.bias), Crosspoints.unpack(stored))


def disturb(
    hidden: Tensor, stored: Stored, deviation: float, k: int, seed: int = 0, tile_id: int = 0
) -> Tensor:
    """What is read after programming: hidden + deviation xi.

    Args:
        hidden: (rows, cols), as programmed. stored: steps and bounds.
        deviation: of the write noise. k: number of the event. seed, tile_id: whose draws.
    """
    xi = _normals(hidden.shape, draw_keys(Stream(seed, tile_id), PROGRAMMING, k, 0))
    noisy = fma(f32(deviation), xi, hidden)
    return torch.where(_stuck(Crosspoints.unpack(stored)), hidden, noisy)


def redraw(
    visible: Tensor,
    hidden: Tensor,
    stored: Stored,
    x: Tensor,
    d: Tensor,
    device: PulsedDevice,
    config: UpdateConfig,
    *,
    lr: float,
    deviation: float,
    seed: int = 0,
    tile_id: int = 0,
    k: int = 0,
) -> Tensor:
    """What is read after an update: crosspoints that a pulse reached get the last sample's noise.

    Args:
        visible, hidden: (rows, cols) before and after the update. stored: steps and bounds.
        x, d, device, config, lr, seed, tile_id, k: those of the update.
        deviation: of the write noise.
    """
    stream, stuck = Stream(seed, tile_id), _stuck(Crosspoints.unpack(stored))
    for b, (xs, ds) in enumerate(zip(x, d, strict=True)):
        train = manage(xs.abs().max(), ds.abs().max(), lr, device.granularity, config)
        reached = torch.zeros(visible.shape, dtype=torch.bool)
        for word, first in enumerate(range(0, int(train.bl), SLOTS_PER_WORD)):
            slots = min(int(train.bl) - first, SLOTS_PER_WORD)
            key = draw4(stream, PULSES, k + b, 0, word)
            fires_x = line_train(xs, train.scale_x, Keys(*key[:2]), slots)
            fires_d = line_train(ds, train.scale_d, Keys(*key[2:]), slots)
            reached |= (fires_d[:, :, None] & fires_x[:, None, :]).any(0)
        xi = _normals(visible.shape, draw_keys(stream, WRITE_NOISE, k + b, 0))
        noisy = fma(f32(deviation), xi, hidden)
        visible = torch.where(reached & ~stuck, noisy, visible)
    return visible
