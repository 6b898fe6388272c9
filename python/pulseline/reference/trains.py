"""Pulse trains and their management (Gokmen & Vlasov 2016), sample by sample, slot by slot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..configs import UpdateConfig
from .arithmetic import f32, square_root
from .rng import (
    COLUMN_STRIDE,
    PULSES,
    ROW_STRIDE,
    Keys,
    Stream,
    draw4,
    hash32,
    uniform24,
)

__all__ = [
    "SLOTS_PER_WORD",
    "MeanPulses",
    "Train",
    "line_train",
    "manage",
    "mean_pulses",
    "pulse_number",
    "pulse_train",
    "sample_trains",
]

SLOTS_PER_WORD = 31  # a longer train is cut into words, each a sub-sample of its own
_COMPARE_SLOTS = 10  # up to here two slots take the halves of one hash
_ROUNDING_DRAW = 16


class Train(NamedTuple):
    """Pulse trains of samples.

    Attributes:
        bl: slots, 0: silent. scale_x, scale_d: from a value to the probability of a pulse.
    """

    bl: Tensor
    scale_x: Tensor
    scale_d: Tensor


def pulse_number(x_max: Tensor, d_max: Tensor, lr: float, granularity: float) -> Tensor:
    """``k = lr x_max d_max / granularity``: expected pulses where both are largest.

    Args:
        x_max, d_max: (samples,) largest magnitudes. lr: learning rate. granularity: mean step.
    """
    return (((f32(lr) * x_max) * d_max) / f32(granularity)).clamp(max=1e30)  # finite


def _finite(x: Tensor) -> Tensor:
    """An overflow is the largest number: times 0 it is 0."""
    return x.clamp(max=torch.finfo(torch.float32).max)


def manage(
    x_max: Tensor, d_max: Tensor, lr: float, granularity: float, config: UpdateConfig
) -> Train:
    """Update management and update BL management.

    Args:
        x_max, d_max: (samples,) largest magnitudes. lr: learning rate. granularity: mean step.
        config: which of the two, and the slots.
    """
    rate, g, desired = f32(lr), f32(granularity), f32(config.desired_bl)
    k = pulse_number(x_max, d_max, lr, granularity)
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
        scale_x, scale_d = _finite(base * (r / x)), _finite(base * (x / r))
    fires = (x_max > 0) & (d_max > 0) & (rate > 0)
    return Train(torch.where(fires, bl, f32(0.0)).to(torch.int64), scale_x, scale_d)


class MeanPulses(NamedTuple):
    """``E[n] = rate |x| |d|``, each magnitude at most up to where its line fires in every slot."""

    rate: Tensor
    most_x: Tensor
    most_d: Tensor


def mean_pulses(
    x_max: Tensor, d_max: Tensor, lr: float, granularity: float, config: UpdateConfig
) -> MeanPulses:
    """The mean number of coincidences.

    Args:
        x_max, d_max: (samples,) largest magnitudes. lr: learning rate. granularity: mean step.
        config: the trains.
    """
    train = manage(x_max, d_max, lr, granularity, config)
    rate, g = f32(lr), f32(granularity)
    fixed = config.fixed_bl or config.update_bl_management
    stretched = not fixed and bool(g * f32(config.desired_bl) < rate)
    mean = train.bl.to(torch.float32) if stretched else (rate / g).expand_as(train.scale_x)
    silent, zero = train.bl == 0, f32(0.0)
    return MeanPulses(
        torch.where(silent, zero, mean),
        torch.where(silent, zero, 1.0 / train.scale_x),
        torch.where(silent, zero, 1.0 / train.scale_d),
    )


def pulse_train(p16: Tensor, line: Tensor, key: Keys, slots: int) -> Tensor:
    """Which slots of a train fire.

    A slot fires if its uniform 16-bit number is below ``p16``; 65536 fires all. Up to 10 slots
    take the halves of five hashes; above, bit b of slot s's number is the complement of bit s of
    hash b.

    Args:
        p16: (lines,) probabilities times 65536. line: (lines,) their numbers.
        key: of the sub-sample. slots: at most 31.

    Returns:
        bool (slots, lines).
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
    """Trains of all lines of one sample: probability min(scale |value|, 1), rounded at random.

    Args:
        value: (lines,). scale: from value to probability. key: of the sub-sample.
        slots: at most 31.

    Returns:
        bool (slots, lines).
    """
    line = torch.arange(value.numel())
    u = uniform24(hash32(line * COLUMN_STRIDE + _ROUNDING_DRAW * ROW_STRIDE, key))
    p = (scale * value.abs()).clamp(max=1.0)
    p16 = (p * 65536.0 + u).clamp(max=65536.0).to(torch.int64)
    return pulse_train(p16, line, key, slots)


def sample_trains(
    x: Tensor, d: Tensor, train: Train, stream: Stream, k: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Sub-samples of sample k in order.

    Args:
        x: (cols,). d: (rows,). train: of the sample. stream: whose random numbers.
        k: number of the sample.

    Yields:
        bool (slots, cols) and bool (slots, rows).
    """
    for word, first in enumerate(range(0, int(train.bl), SLOTS_PER_WORD)):
        slots = min(int(train.bl) - first, SLOTS_PER_WORD)
        key = draw4(stream, PULSES, k, 0, word)
        yield (
            line_train(x, train.scale_x, Keys(*key[:2]), slots),
            line_train(d, train.scale_d, Keys(*key[2:]), slots),
        )
