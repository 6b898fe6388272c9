"""The pulsed update (Gokmen & Vlasov 2016), sample by sample, slot by slot.

A positive coincidence count raises the weight: the driver feeds sign(-x_j d_i).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..configs import UpdateConfig
from ..devices import Device, PulsedDevice
from ..errors import ConfigError
from .arithmetic import f32, fma, square_root
from .devices import DEVICES, Crosspoints, Stored, additive_noise
from .relax import Rule, relaxed_update
from .rng import (
    CYCLE_NOISE,
    RANK_UNIT,
    SLOT_NOISE,
    Stream,
    cycle_normal,
    draw_keys,
    rank_noise,
)
from .trains import manage, mean_pulses, sample_trains

__all__ = ["pulse", "update"]


def _clip(w: Tensor, c: Crosspoints) -> Tensor:
    return torch.maximum(torch.minimum(w, c.hi), c.lo)


def pulse(
    device: PulsedDevice,
    c: Crosspoints,
    w: Tensor,
    up: Tensor,
    n: Tensor,
    xi: Tensor,
    unit: float = 1.0,
) -> Tensor:
    """n coincidences at once: ``clip(w + (n + sigma unit sqrt(n) xi) f)``, f the step at w.

    Args:
        device: the crosspoints' model. c: the crosspoints. w: their weights.
        up: which are raised. n: how many coincidences, at most 31; 0 leaves a weight.
        xi: standard normals times 1 / unit. unit: what noise is drawn in; 0: none.

    Returns:
        The new weights.
    """
    f = DEVICES[device.name].step(device, c, w, up)
    count = n.to(torch.float32)
    root = square_root(count) * (f32(device.dw_min_std) * f32(unit))
    if additive_noise(device):
        scale = DEVICES[device.name].noise(device, c, w, up, f)
        moved = fma(root * xi, scale, fma(count, f, w))
    else:
        moved = fma(fma(root, xi, count), f, w)
    return torch.where(n > 0, _clip(moved, c), w)


def _pulsed_sample(
    w: Tensor,
    c: Crosspoints,
    x: Tensor,
    d: Tensor,
    rule: Rule,
    k: int,
) -> Tensor:
    device, config, lr, stream = rule
    exact = config.resolve(device.default_fidelity) == "exact"
    rows, columns = torch.arange(d.numel())[:, None], torch.arange(x.numel())
    train = manage(x.abs().max(), d.abs().max(), lr, device.granularity, config)
    up = (x < 0) != (d < 0)[:, None]
    for word, (fires_x, fires_d) in enumerate(sample_trains(x, d, train, stream, k)):
        both = fires_d[:, :, None] & fires_x[:, None, :]
        if exact:
            if config.noise == "lowrank":
                xi, unit = rank_noise(d.numel(), x.numel(), stream, k, word), RANK_UNIT
            else:
                xi, unit = cycle_normal(rows, columns, draw_keys(stream, CYCLE_NOISE, k, word)), 1.0
            w = pulse(device, c, w, up, both.sum(0), xi, unit)
            continue
        for slot in range(len(both)):
            if both[slot].any():
                noise = draw_keys(stream, SLOT_NOISE, k, word << 5 | slot)
                xi = cycle_normal(rows, columns, noise)
                w = pulse(device, c, w, up, both[slot].to(torch.int64), xi)
    return w


def _expected_sample(
    w: Tensor,
    c: Crosspoints,
    x: Tensor,
    d: Tensor,
    rule: Rule,
) -> Tensor:
    """``clip(w + E[n] f)``: no trains, no noise (Wu et al. 2024); E[n] saturates as trains do."""
    device, config, lr, _ = rule
    mean = mean_pulses(x.abs().max(), d.abs().max(), lr, device.granularity, config)
    rate = (mean.rate * torch.minimum(d.abs(), mean.most_d)).clamp(
        max=torch.finfo(torch.float32).max
    )
    pulses = rate[:, None] * torch.minimum(x.abs(), mean.most_x)
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
    """``W <- W - lr d x^T`` realised by pulses, samples in order.

    Args:
        weight: (rows, cols), within the bounds. stored: see :func:`construct`; None if ideal.
        x: (samples, cols). d: (samples, rows). device: the crosspoints' model.
        config: trains and fidelity. lr: learning rate >= 0.
        seed, tile_id: whose random numbers. k: running number of the first sample.

    Returns:
        The new weights.

    Raises:
        ConfigError: x or d is not finite; stored is missing.
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
    fidelity = config.resolve(device.default_fidelity)
    c = Crosspoints.of(device, stored)
    rule = Rule(device, config, lr, Stream(seed, tile_id))
    if fidelity in ("grouped", "moments"):
        return relaxed_update(w, c, x, d, rule, k) + 0.0
    for b, (xs, ds) in enumerate(zip(x, d, strict=True)):
        if fidelity == "expected":
            w = _expected_sample(w, c, xs, ds, rule)
        else:
            w = _pulsed_sample(w, c, xs, ds, rule, k + b)
    return w + 0.0  # a stored weight is never -0
