"""Updates that forget the order of pulses: ``grouped`` and ``moments``.

A crosspoint gets n_k pulses of either direction k in one step. With f_k the noise-free step at w
before it and l_k its slope df/dw,

    A = sum n_k f_k        B = sum n_k l_k
    w <- clip(w + phi(B) (A + sqrt(v) xi)),            phi(B) = (e^B - 1) / B
    v = sigma^2 (n_up e_up^2 + n_down e_down^2) + var(n_up) f_up^2 + var(n_down) f_down^2

(e = f, or what sigma xi multiplies where noise is additive): the flow of the mean step over unit
time. Affine steps s + l w are first scaled by ln(1 + l) / l, so that the flow multiplies by 1 + l
for each pulse. On devices that are not affine B is the secant slope of the flow over half a step,
and - phi(B) E / 2 with E = A B / (n_up + n_down) joins A: what a pulse would do to itself. One
gaussian xi per crosspoint and group.

``grouped`` counts coincidences of consecutive samples. ``moments`` knows only how many slots c of
its BL each line fired: coincidences are then hypergeometric, mean c_x c_d / BL, variance
c_x (BL - c_x) c_d (BL - c_d) / (BL^2 (BL - 1)), which are products of a row and a column.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..configs import UpdateConfig
from ..devices import PulsedDevice
from .arithmetic import f32, fma
from .devices import DEVICES, Crosspoints, additive_noise
from .rng import (
    COLUMN_STRIDE,
    GROUP_NOISE,
    RANK_UNIT,
    ROW_STRIDE,
    Stream,
    byte_sum_normal,
    draw_keys,
    hash32,
    rank_noise,
)
from .trains import Train, manage, pulse_number, sample_trains

__all__ = [
    "GROUP_SAMPLES",
    "GROUP_TRAVEL",
    "Counts",
    "Rule",
    "group_sizes",
    "grouped_counts",
    "moments_counts",
    "noise_width",
    "relax",
    "relaxation",
    "relaxed_update",
    "to_flow",
]

GROUP_SAMPLES = 256  # most samples of a group
GROUP_TRAVEL = 0.3  # grouped: most expected steps of a group, as a part of the weight range


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

    Args:
        x_max, d_max: (samples,) largest magnitudes. device: whose range. config: which of the two.
        lr: learning rate.
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
    """Coincidences of all samples of a group.

    Args:
        x: (samples, cols). d: (samples, rows). train: of every sample.
        stream: whose random numbers. k: number of the first sample.

    Returns:
        Counts without variance; None if no sample fires.
    """
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

    Args:
        x: (samples, cols). d: (samples, rows). train: of every sample.
        stream: whose random numbers. k: number of the first sample.

    Returns:
        Counts; None if no sample fires.
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


def noise_width(v: Tensor, scale: Tensor) -> Tensor:
    """``scale sqrt(v)`` within 6.6e-4: 1 / sqrt(v) from halved exponent bits, one Newton step.

    Args:
        v: >= 0, float32. scale: of its shape, or one number.
    """
    y = (0x5F200000 - (v.view(torch.int32) >> 1)).view(torch.float32)
    t = v * y
    return t * fma(t * y, f32(-0.70394967) * scale, f32(1.681912) * scale)


def relaxation(b: Tensor) -> Tensor:
    """``(e^b - 1) / b``: series to b^3 for |b| <= 1/2, else ``1 / (1 - b/2 + b^2/12)``."""
    series = fma(fma(fma(b, f32(1.0 / 24.0), f32(1.0 / 6.0)), b, f32(0.5)), b, f32(1.0))
    return torch.where(
        b.abs() > 0.5, 1.0 / fma(b, fma(b, f32(1.0 / 12.0), f32(-0.5)), f32(1.0)), series
    )


def _clip(w: Tensor, c: Crosspoints) -> Tensor:
    return torch.maximum(torch.minimum(w, c.hi), c.lo)


def to_flow(device: PulsedDevice, c: Crosspoints) -> Crosspoints:
    """Steps whose flow reaches in unit time what one pulse does: times ``ln(1 + l) / l``.

    By its series to l^2. Devices that are not affine keep theirs.

    Args:
        device: whose steps. c: crosspoints.
    """
    if not device.affine:
        return c

    def rate(slope: Tensor) -> Tensor:
        return fma(fma(slope, f32(1.0 / 3.0), f32(-0.5)), slope, f32(1.0))

    up, down = rate(c.slope_up), rate(c.slope_down)
    return Crosspoints(
        *(c.up * up, c.down * down, c.slope_up * up, c.slope_down * down, c.hi, c.lo),
        *(c.noise_up * up, c.noise_down * down),
    )


def _bend(
    device: PulsedDevice, c: Crosspoints, w: Tensor, n: Counts, move: Tensor
) -> tuple[Tensor, Tensor | None]:
    """B and, of devices that are not affine, E from the move A."""
    if device.affine:
        return fma(n.up, c.slope_up, n.down * c.slope_down), None
    step = DEVICES[device.name].step
    half = _clip(fma(move, f32(0.5), w), c)
    yes = torch.ones_like(w, dtype=torch.bool)
    later = fma(n.up, step(device, c, half, yes), n.down * step(device, c, half, ~yes))
    secant = (((later - move) * 2.0) / move).clamp(max=3.0)
    b = torch.where(move.abs() > 0, secant, f32(0.0))
    return b, (move * b) / (n.up + n.down).clamp(min=1.0)


def relax(
    device: PulsedDevice,
    c: Crosspoints,
    w: Tensor,
    n: Counts,
    xi: Tensor,
    unit: float = 1.0,
    uncertain: bool = False,
) -> Tensor:
    """One relaxation step of a group.

    Without pulses the move and its variance are exactly 0: a weight within its bounds keeps its
    bits.

    Args:
        device: whose steps. c: crosspoints that went through :func:`to_flow`.
        w: (rows, cols) weights. n: pulses of the group. xi: (rows, cols) normals / ``unit``.
        unit: inverse standard deviation of xi. uncertain: variances of the counts enter.

    Returns:
        The new weights.
    """
    yes = torch.ones_like(w, dtype=torch.bool)
    step = DEVICES[device.name].step
    f_up, f_down = step(device, c, w, yes), step(device, c, w, ~yes)
    moved_up, moved_down = n.up * f_up, n.down * f_down
    if additive_noise(device):
        noise = DEVICES[device.name].noise
        e_up, e_down = noise(device, c, w, yes, f_up), noise(device, c, w, ~yes, f_down)
        cycle = fma(n.up, e_up * e_up, n.down * (e_down * e_down))
    else:
        cycle = fma(moved_up, f_up, moved_down * f_down)
    sigma = f32(device.dw_min_std) * f32(unit)  # xi has the standard deviation 1 / unit
    if uncertain:
        count = fma(n.variance_up, f_up * f_up, n.variance_down * (f_down * f_down))
        width = noise_width(fma(cycle, sigma * sigma, count), f32(1.0))
    else:
        width = noise_width(cycle, sigma)
    b, own = _bend(device, c, w, n, moved_up + moved_down)
    phi, move = relaxation(b), fma(width, xi, moved_up + moved_down)
    if own is not None:
        move = fma(own * phi, f32(-0.5), move)
    return _clip(fma(move, phi, w), c)


class Rule(NamedTuple):
    """What turns samples into pulses: devices, trains, their learning rate and random numbers."""

    device: PulsedDevice
    config: UpdateConfig
    lr: float
    stream: Stream


def relaxed_update(w: Tensor, c: Crosspoints, x: Tensor, d: Tensor, rule: Rule, k: int) -> Tensor:
    """All samples, group by group; the noise of a group belongs to its first sample's k.

    Args:
        w: (rows, cols) weights. c: crosspoints. x: (samples, cols). d: (samples, rows).
        rule: devices, trains and random numbers. k: number of the first sample.

    Returns:
        The new weights.
    """
    if x.shape[0] == 0:
        return w
    device, config, lr, stream = rule
    x_max, d_max = x.abs().amax(1), d.abs().amax(1)
    train = manage(x_max, d_max, lr, device.granularity, config)
    moments = config.fidelity == "moments"
    counts_of = moments_counts if moments else grouped_counts
    c = to_flow(device, c)
    line = torch.arange(d.shape[1])[:, None] * ROW_STRIDE
    base = line + torch.arange(x.shape[1]) * COLUMN_STRIDE
    first = 0
    for size in group_sizes(x_max, d_max, device, config, lr):
        part = slice(first, first + size)
        counts = counts_of(x[part], d[part], Train(*(v[part] for v in train)), stream, k + first)
        if counts is not None:
            if config.noise == "lowrank":
                xi, unit = rank_noise(w.shape[0], w.shape[1], stream, k + first, 0), RANK_UNIT
            else:
                xi, unit = (
                    byte_sum_normal(hash32(base, draw_keys(stream, GROUP_NOISE, k + first, 0))),
                    1.0,
                )
            w = relax(device, c, w, counts, xi, unit, moments)
        first += size
    return w
