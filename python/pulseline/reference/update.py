"""The pulsed update (Gokmen & Vlasov 2016), sample by sample, slot by slot.

A positive coincidence count raises the weight: the driver feeds sign(-x_j d_i).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..devices import Device, PulsedDevice
from ..errors import ConfigError
from ..io import UpdateConfig
from .arithmetic import f32, fma, square_root
from .devices import DEVICES, Crosspoints, Stored
from .rng import (
    COLUMN_STRIDE,
    CYCLE_NOISE,
    PULSES,
    ROW_STRIDE,
    SLOT_NOISE,
    Keys,
    Stream,
    cycle_normal,
    draw4,
    draw_keys,
    hash32,
    uniform24,
)

SLOTS_PER_WORD = 31  # a longer train is cut into words, each a sub-sample of its own
_COMPARE_SLOTS = 10  # up to here two slots take the halves of one hash
_ROUNDING_DRAW = 16


class Train(NamedTuple):
    """Pulse trains of samples: slots (0: silent) and factors from value to probability."""

    bl: Tensor
    scale_x: Tensor
    scale_d: Tensor


def manage(
    x_max: Tensor, d_max: Tensor, lr: float, granularity: float, config: UpdateConfig
) -> Train:
    """Update management and update BL management of samples with these largest magnitudes."""
    rate, g, desired = f32(lr), f32(granularity), f32(config.desired_bl)
    k = (((rate * x_max) * d_max) / g).clamp(max=1e30)  # finite if it overflows
    bl = desired.expand_as(k)
    if config.update_bl_management:
        bl = torch.minimum(torch.ceil(k).clamp(min=1.0), desired)
        base = square_root(rate / (g * bl))
    elif not config.fixed_bl and g * desired < rate:
        bl = torch.ceil(rate / g).clamp(min=1.0).expand_as(k)
        base = torch.ones_like(k)
    else:
        base = square_root(rate / (g * bl))
    scale_x = scale_d = base
    if config.update_management:
        d = torch.where(k > desired, d_max * (desired / k), d_max)
        x, r = square_root(x_max), square_root(d)
        scale_x, scale_d = base * (r / x), base * (x / r)
    fires = (x_max > 0) & (d_max > 0) & (rate > 0)
    return Train(torch.where(fires, bl, f32(0.0)).to(torch.int64), scale_x, scale_d)


def pulse_train(p16: Tensor, line: Tensor, key: Keys, slots: int) -> Tensor:
    """Which of ``slots`` (at most 31) fire: bool (slots, lines).

    A slot fires if its uniform 16-bit number is below ``p16``; 65536 fires all. Up to 10 slots
    take the halves of five hashes; above, bit b of slot s's number is the complement of bit s of
    hash b.
    """
    slot = torch.arange(slots)[:, None]
    if slots <= _COMPARE_SLOTS:
        word = torch.arange((slots + 1) // 2)[:, None]
        hashes = hash32(line * COLUMN_STRIDE + word * ROW_STRIDE, key)
        numbers = hashes[slot[:, 0] // 2] >> 16 * (slot % 2) & 0xFFFF
    else:
        bit = torch.arange(16)[:, None]
        hashes = hash32(line * COLUMN_STRIDE + bit * ROW_STRIDE, key)
        numbers = (1 - (hashes >> slot[:, :, None] & 1) << bit).sum(1)
    return numbers < p16


def line_train(value: Tensor, scale: Tensor, key: Keys, slots: int) -> Tensor:
    """Trains of all lines of one sample: probability min(scale |value|, 1), rounded at random."""
    line = torch.arange(value.numel())
    u = uniform24(hash32(line * COLUMN_STRIDE + _ROUNDING_DRAW * ROW_STRIDE, key))
    p = (scale * value.abs()).clamp(max=1.0)
    p16 = (p * 65536.0 + u).clamp(max=65536.0).to(torch.int64)
    return pulse_train(p16, line, key, slots)


def _clip(w: Tensor, c: Crosspoints) -> Tensor:
    return torch.maximum(torch.minimum(w, c.hi), c.lo)


def _pulse(
    device: PulsedDevice, c: Crosspoints, w: Tensor, up: Tensor, n: Tensor, xi: Tensor
) -> Tensor:
    """n coincidences at once: ``clip(w + (n + sigma sqrt(n) xi) f)``, f the step at w."""
    f = DEVICES[device.name].step(device, c, w, up)
    count = n.to(torch.float32)
    root = square_root(count) * f32(device.dw_min_std)
    if getattr(device, "mult_noise", True):
        moved = fma(fma(root, xi, count), f, w)
    else:
        moved = fma(root * xi, torch.where(up, c.up, c.down), fma(count, f, w))
    return torch.where(n > 0, _clip(moved, c), w)


def _pulsed_sample(
    w: Tensor,
    c: Crosspoints,
    x: Tensor,
    d: Tensor,
    device: PulsedDevice,
    config: UpdateConfig,
    fidelity: str,
    lr: float,
    stream: Stream,
    k: int,
) -> Tensor:
    rows, columns = torch.arange(d.numel())[:, None], torch.arange(x.numel())
    train = manage(x.abs().max(), d.abs().max(), lr, device.granularity, config)
    up = (x < 0) != (d < 0)[:, None]
    for word, first in enumerate(range(0, int(train.bl), SLOTS_PER_WORD)):
        slots = min(int(train.bl) - first, SLOTS_PER_WORD)
        key = draw4(stream, PULSES, k, 0, word)
        fires_x = line_train(x, train.scale_x, Keys(*key[:2]), slots)
        fires_d = line_train(d, train.scale_d, Keys(*key[2:]), slots)
        both = fires_d[:, :, None] & fires_x[:, None, :]
        if fidelity == "exact":
            xi = cycle_normal(rows, columns, draw_keys(stream, CYCLE_NOISE, k, word))
            w = _pulse(device, c, w, up, both.sum(0), xi)
            continue
        for slot in range(slots):
            if both[slot].any():
                noise = draw_keys(stream, SLOT_NOISE, k, word << 5 | slot)
                xi = cycle_normal(rows, columns, noise)
                w = _pulse(device, c, w, up, both[slot].to(torch.int64), xi)
    return w


def _expected_sample(
    w: Tensor, c: Crosspoints, x: Tensor, d: Tensor, device: PulsedDevice, lr: float
) -> Tensor:
    """``clip(w + |lr x d| / g f)``: no trains, no noise (Wu et al. 2024)."""
    pulses = ((f32(lr) * d.abs()) / f32(device.granularity))[:, None] * x.abs()
    f = DEVICES[device.name].step(device, c, w, (x < 0) != (d < 0)[:, None])
    return torch.where(pulses > 0, _clip(fma(pulses, f, w), c), w)


def update(
    weight: Tensor,
    stored: Stored | None,
    x: Tensor,
    d: Tensor,
    device: Device,
    config: UpdateConfig,
    *,
    lr: float,
    seed: int = 0,
    tile_id: int = 0,
    k: int = 0,
) -> Tensor:
    """``W <- W - lr d x^T`` realised by pulses, samples in order; returns the new weights.

    Args:
        weight: (rows, cols), within the bounds. stored: see :func:`construct`; None if ideal.
        x: (samples, cols). d: (samples, rows). k: running number of the first sample.

    Raises:
        ConfigError: x or d is not finite; a fidelity that is not specified here.
    """
    if not (torch.isfinite(x).all() and torch.isfinite(d).all()):
        raise ConfigError("x or d holds a NaN or an infinity; pass finite values")
    w = weight.clone()
    if w.numel() == 0:
        return w
    if not isinstance(device, PulsedDevice):
        for xs, ds in zip(x, d, strict=True):
            w = fma(-(f32(lr) * ds)[:, None], xs, w)
        return w
    if stored is None:
        raise ConfigError("stored is None; build the crosspoints with construct")
    fidelity = device.default_fidelity if config.fidelity == "auto" else config.fidelity
    if fidelity not in ("strict", "exact", "expected"):
        raise ConfigError(f"fidelity is {fidelity!r}; the reference has strict, exact, expected")
    c, stream = Crosspoints.unpack(stored), Stream(seed, tile_id)
    for b, (xs, ds) in enumerate(zip(x, d, strict=True)):
        if fidelity == "expected":
            w = _expected_sample(w, c, xs, ds, device, lr)
        else:
            w = _pulsed_sample(w, c, xs, ds, device, config, fidelity, lr, stream, k + b)
    return w + 0.0  # a stored weight is never -0
