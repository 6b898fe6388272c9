"""Updates that forget the order of pulses: ``grouped`` and ``moments``.

A crosspoint gets n_up and n_down pulses in one step. With f the noise-free step at w before it and,
on affine devices (f = s + l w), rates weighted by kappa(l) = ln(1 + l) / l,

    A = n_up kappa_up s_up + n_down kappa_down s_down        B = the same of the slopes l
    w <- clip(w + (A + B w + sqrt(v) xi) / (1 - B/2 + B^2/12))
    v = sigma^2 (n_up e_up^2 + n_down e_down^2) + var(n_up) f_up^2 + var(n_down) f_down^2

(e = f, or what sigma xi multiplies where noise is additive), which is the flow dw/dt = A + B w over
unit time: n pulses of one direction multiply the distance to the fixed point by (1 + l)^n. On other
devices A + B w is n_up f_up + n_down f_down, and B its secant slope over half a step. One gaussian
xi per crosspoint and group.

``grouped`` counts coincidences of consecutive samples. ``moments`` knows only how many slots c of
its BL each line fired: coincidences are then hypergeometric, mean c_x c_d / BL, variance
c_x (BL - c_x) c_d (BL - c_d) / (BL^2 (BL - 1)), which are products of a row and a column.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..devices import PulsedDevice
from ..io import UpdateConfig
from .arithmetic import f32, fma, square_root
from .devices import DEVICES, Crosspoints, additive_noise, affine_step, constant_step
from .rng import (
    COLUMN_STRIDE,
    GROUP_NOISE,
    ROW_STRIDE,
    Stream,
    byte_sum_normal,
    draw_keys,
    hash32,
)
from .trains import Train, manage, pulse_number, sample_trains

GROUP_SAMPLES = 256  # most samples of a group
GROUP_TRAVEL = 0.3  # grouped: most expected steps of a group, as a part of the weight range
AFFINE_STEPS = (constant_step, affine_step)  # a constant step has slope 0


class Counts(NamedTuple):
    """Pulses of a group and the variance of their number, float32 (rows, cols)."""

    up: Tensor
    down: Tensor
    variance_up: Tensor
    variance_down: Tensor


def group_sizes(
    x_max: Tensor, d_max: Tensor, device: PulsedDevice, config: UpdateConfig, lr: float
) -> list[int]:
    """How many consecutive samples each group takes; all samples, silent ones too.

    A group closes when it is full (``moments``: after 256 samples) or, ``grouped``, before the sum
    of its samples' ``k granularity / (w_max - w_min)`` would exceed 0.3.
    """
    grouped = config.fidelity == "grouped"
    full = config.group_size if grouped and config.group_size > 0 else GROUP_SAMPLES
    coarseness = f32(device.granularity / (device.w_max - device.w_min))
    sizes, travel = [0], f32(0.0)
    for steps in pulse_number(x_max, d_max, lr, device.granularity) * coarseness:
        far = grouped and bool(travel + steps > f32(GROUP_TRAVEL))
        if sizes[-1] == full or (far and sizes[-1] > 0):
            sizes.append(0)
            travel = f32(0.0)
        sizes[-1] += 1
        travel = travel + steps
    return sizes


# ---- counts of a group ----


def grouped_counts(x: Tensor, d: Tensor, train: Train, stream: Stream, k: int) -> Counts | None:
    """Coincidences of all samples of a group; None if no sample fires."""
    up = down = torch.zeros(d.shape[1], x.shape[1])
    for b, (xs, ds) in enumerate(zip(x, d, strict=True)):
        raises = ((xs < 0) != (ds < 0)[:, None]).float()
        one = Train(*(v[b] for v in train))
        for fires_x, fires_d in sample_trains(xs, ds, one, stream, k + b):
            n = fires_d.float().t() @ fires_x.float()  # small integers: exact
            up, down = up + n * raises, down + n * (1.0 - raises)
    return Counts(up, down, *torch.zeros(2, *up.shape)) if bool((train.bl > 0).any()) else None


def moments_counts(x: Tensor, d: Tensor, train: Train, stream: Stream, k: int) -> Counts | None:
    """Mean and variance of the coincidences of a batch, given the pulses of every line.

    Four sums over samples, each one chain of fma in order: counts and variances, both plain and
    signed (up minus down).
    """
    total, balance, variance, variance_balance = torch.zeros(4, d.shape[1], x.shape[1])
    for b, (xs, ds) in enumerate(zip(x, d, strict=True)):
        one = Train(*(v[b] for v in train))
        if one.bl == 0:
            continue
        words = list(sample_trains(xs, ds, one, stream, k + b))
        bl = one.bl.float()
        column = torch.cat([w[0] for w in words]).sum(0).float()
        row = torch.cat([w[1] for w in words]).sum(0).float()
        column_spread, row_spread = column * (bl - column), row * (bl - row)
        row_spread = row_spread / ((bl * bl) * (bl - 1.0)) if one.bl > 1 else row * 0.0
        row = (row / bl)[:, None]
        row_spread = row_spread[:, None]
        sign_x = torch.where(xs < 0, f32(-1.0), f32(1.0))
        sign_d = torch.where(ds < 0, f32(1.0), f32(-1.0))[:, None]
        balance = fma(sign_d * row, sign_x * column, balance)
        total = fma(row, column, total)
        variance_balance = fma(sign_d * row_spread, sign_x * column_spread, variance_balance)
        variance = fma(row_spread, column_spread, variance)
    if not bool((train.bl > 0).any()):
        return None
    halves = (total + balance, total - balance)
    spreads = (variance + variance_balance, variance - variance_balance)
    return Counts(*((v * 0.5).clamp(min=0.0) for v in (*halves, *spreads)))


# ---- the step ----


def kappa(slope: Tensor) -> Tensor:
    """``ln(1 + l) / l`` to l^6, l clamped to [-1 + 2^-8, 1].

    Relative error below |l|^7 / (8 (1 - |l|)).
    """
    slope = slope.clamp(-1.0 + 2.0**-8, 1.0)
    p = f32(1.0 / 7.0).expand_as(slope)
    for n in (-6.0, 5.0, -4.0, 3.0, -2.0, 1.0):
        p = fma(p, slope, f32(1.0 / n))
    return p


def _clip(w: Tensor, c: Crosspoints) -> Tensor:
    return torch.maximum(torch.minimum(w, c.hi), c.lo)


def _drift(
    device: PulsedDevice, c: Crosspoints, w: Tensor, n: Counts, f_up: Tensor, f_down: Tensor
) -> tuple[Tensor, Tensor]:
    """``A + B w`` and ``B``."""
    step = DEVICES[device.name].step
    if step in AFFINE_STEPS:
        k_up, k_down = kappa(c.slope_up), kappa(c.slope_down)
        b = fma(n.up, c.slope_up * k_up, n.down * (c.slope_down * k_down))
        return fma(b, w, fma(n.up, c.up * k_up, n.down * (c.down * k_down))), b
    move = fma(n.up, f_up, n.down * f_down)
    half = _clip(fma(move, f32(0.5), w), c)
    yes = torch.ones_like(w, dtype=torch.bool)
    later = fma(n.up, step(device, c, half, yes), n.down * step(device, c, half, ~yes))
    secant = (((later - move) * 2.0) / move).clamp(max=3.0)
    return move, torch.where(move.abs() > 0, secant, f32(0.0))


def relax(
    device: PulsedDevice, c: Crosspoints, w: Tensor, n: Counts, xi: Tensor, uncertain: bool
) -> Tensor:
    """One relaxation step of all crosspoints; ``uncertain``: variances of the counts enter.

    Without pulses the move and its variance are exactly 0: a weight within its bounds keeps its
    bits.
    """
    yes = torch.ones_like(w, dtype=torch.bool)
    step = DEVICES[device.name].step
    f_up, f_down = step(device, c, w, yes), step(device, c, w, ~yes)
    move, b = _drift(device, c, w, n, f_up, f_down)
    e_up, e_down = f_up, f_down
    if additive_noise(device):
        noise = DEVICES[device.name].noise
        e_up, e_down = noise(device, c, w, yes, f_up), noise(device, c, w, ~yes, f_down)
    cycle = fma(n.up, e_up * e_up, n.down * (e_down * e_down))
    square = f32(device.dw_min_std) * f32(device.dw_min_std)
    variance = cycle * square
    if uncertain:
        count = fma(n.variance_up, f_up * f_up, n.variance_down * (f_down * f_down))
        variance = fma(cycle, square, count)
    move = fma(square_root(variance), xi, move)
    return _clip(w + move / fma(b, fma(b, f32(1.0 / 12.0), f32(-0.5)), f32(1.0)), c)


def relaxed_update(
    w: Tensor,
    c: Crosspoints,
    x: Tensor,
    d: Tensor,
    device: PulsedDevice,
    config: UpdateConfig,
    lr: float,
    stream: Stream,
    k: int,
) -> Tensor:
    """All samples, group by group; the noise of a group belongs to its first sample's k."""
    if x.shape[0] == 0:
        return w
    x_max, d_max = x.abs().amax(1), d.abs().amax(1)
    train = manage(x_max, d_max, lr, device.granularity, config)
    moments = config.fidelity == "moments"
    counts_of = moments_counts if moments else grouped_counts
    line = torch.arange(d.shape[1])[:, None] * ROW_STRIDE
    base = line + torch.arange(x.shape[1]) * COLUMN_STRIDE
    first = 0
    for size in group_sizes(x_max, d_max, device, config, lr):
        part = slice(first, first + size)
        counts = counts_of(x[part], d[part], Train(*(v[part] for v in train)), stream, k + first)
        if counts is not None:
            xi = byte_sum_normal(hash32(base, draw_keys(stream, GROUP_NOISE, k + first, 0)))
            w = relax(device, c, w, counts, xi, moments)
        first += size
    return w
