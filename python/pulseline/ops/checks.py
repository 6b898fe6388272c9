"""What the operators refuse: one sentence each, with argument, value and remedy."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from ..configs.update import FIDELITIES, LOWRANK_FIDELITIES
from ..errors import ConfigError
from .layout import Counters, PulseSettings, UpdateKey

__all__ = [
    "COUNTERS",
    "check_average",
    "check_counters",
    "check_fired",
    "check_tensor",
    "check_update",
    "elsewhere",
    "refuse_device",
    "refuse_matrix",
    "refuse_mixture",
    "refuse_traced",
    "refuse_value",
    "refuse_weight",
]

_SOURCES = ("", "x", "d")
_MOST_SLOTS = 1 << 20  # numbers of words and slots fit the draw field of the counter
_MOST_GROUP = 256
_LEAST, _LARGEST = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
_INFINITE = float("inf")
COUNTERS = len(Counters._fields)
_MOST_TILE = (1 << 32) - 1


def refuse_traced(what: str = "traced into a graph") -> NoReturn:
    """Refuse an analog layer in a graph of torch, which holds no crossbar.

    Args:
        what: happens to the layer, for the message.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        f"an analog layer is {what}, which would bypass its noise and its pulses; run the module "
        "itself, torch.compile is fine"
    )


def check_tensor(value: object) -> None:
    """Refuse anything but a tensor.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(value, Tensor):
        if type(value).__module__ == "torch.fx.proxy":
            refuse_traced()
        raise ConfigError(
            f"an argument is a {type(value).__name__}; convert it with "
            "torch.as_tensor(argument, dtype=torch.float32)"
        )


def refuse_matrix(name: str, t: Tensor, columns: int) -> None:
    """Refuse an operand that is no matrix of float32 with so many columns.

    Args:
        name: what the message calls it. t: the operand. columns: how many it must have.

    Raises:
        ConfigError: its dtype or shape.
    """
    if t.dtype is not torch.float32:
        raise ConfigError(f"{name} has dtype {t.dtype}; convert it with .float()")
    if t.dim() != 2 or t.shape[1] != columns:
        raise ConfigError(f"{name} has shape {tuple(t.shape)}; use (samples, {columns})")


def refuse_weight(t: Tensor) -> None:
    """Refuse a weight that is no contiguous float32 matrix on the CPU.

    Raises:
        ConfigError: its dtype, shape, strides or device.
    """
    if t.dtype is not torch.float32 or t.dim() != 2 or not t.is_contiguous() or not t.is_cpu:
        raise ConfigError(
            f"weight has dtype {t.dtype} and shape {tuple(t.shape)} on {t.device}; use a "
            "contiguous float32 matrix where x is (tiles keep float32, do not call .half() on them)"
        )


def check_average(average: Tensor | None) -> None:
    """Refuse a running average, if there is one, that is not one float32 number.

    Raises:
        ConfigError: its dtype or size.
    """
    if average is not None and (average.dtype is not torch.float32 or average.numel() != 1):
        raise ConfigError(f"average has shape {tuple(average.shape)}; use one float32 number")


def refuse_value(source: int, sample: int) -> None:
    """Say where a kernel met a NaN or an infinity.

    Args:
        source: 1: x, 2: d. sample: row of it.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        f"{_SOURCES[source]}[{sample}] holds a NaN or an infinity; nothing was written, "
        "check the learning rate and the loss"
    )


def refuse_device(name: str, t: Tensor, weight: Tensor) -> None:
    """Say that an operand is not where the weight is.

    Args:
        name: what the message calls it. t: the operand. weight: whose device counts.

    Raises:
        ConfigError: always.
    """
    where = "the CPU" if weight.is_cpu else str(weight.device)
    remedy = ".cpu()" if weight.is_cpu else f".to({str(weight.device)!r})"
    raise ConfigError(f"{name} is on {t.device} and the weight on {where}; move it with {remedy}")


def elsewhere(t: Tensor, weight: Tensor) -> bool:
    """Whether two tensors are on different devices; on the CPU without making device objects.

    Args:
        t, weight: the tensors.
    """
    return not (t.is_cpu and weight.is_cpu) and t.device != weight.device


def check_update(
    weight: Tensor,
    x: Tensor,
    d: Tensor,
    lr: float,
    pulses: PulseSettings,
    key: UpdateKey,
    on: str,
) -> None:
    """Refuse an update that no backend can run.

    Args:
        weight: (rows, cols). x: (samples, cols). d: (samples, rows). lr: learning rate.
        pulses: the trains. key: whose draws. on: type of device everything must be on.

    Raises:
        ConfigError: shapes, dtypes, devices or settings out of their range.
    """
    here = weight.is_cpu if on == "cpu" else weight.device.type == on
    if (
        weight.dtype is not torch.float32
        or weight.dim() != 2
        or not weight.is_contiguous()
        or not here
    ):
        refuse_weight(weight)
    rows, cols = weight.shape
    for name, t, columns in (("x", x, cols), ("d", d, rows)):
        if t.dtype is not torch.float32 or t.dim() != 2 or t.shape[1] != columns:
            refuse_matrix(name, t, columns)
        if elsewhere(t, weight):
            refuse_device(name, t, weight)
    if x.shape[0] != d.shape[0]:
        raise ConfigError(f"x has {x.shape[0]} samples and d has {d.shape[0]}; use as many of each")
    if not 0 <= lr < _INFINITE:
        raise ConfigError(f"lr is {lr}; use a finite learning rate >= 0")
    granularity = pulses.granularity
    if not (pulses.fixed_bl or pulses.update_bl_management) and lr > granularity * _MOST_SLOTS:
        raise ConfigError(
            f"lr is {lr}, a train of more than {_MOST_SLOTS} slots of {granularity}; "
            "lower it, or switch fixed_bl or update_bl_management on"
        )
    if not (
        1 <= pulses.desired_bl <= _MOST_SLOTS
        and _LEAST <= granularity <= _LARGEST
        and 0 <= key.fidelity < len(FIDELITIES)
        and 0 <= key.tile_id <= _MOST_TILE
        and key.seed >= 0
        and 0 <= pulses.group_size <= _MOST_GROUP
        and (pulses.noise == 0 or pulses.noise == 1)
    ):
        _refuse_settings(pulses, key)
    if pulses.noise and FIDELITIES[key.fidelity] not in LOWRANK_FIDELITIES:
        known = " and ".join(LOWRANK_FIDELITIES)
        raise ConfigError(
            f"noise is lowrank with fidelity {FIDELITIES[key.fidelity]}; {known} draw it"
        )


def _refuse_settings(pulses: PulseSettings, key: UpdateKey) -> None:
    for name, value, least, most in (
        ("desired_bl", pulses.desired_bl, 1, _MOST_SLOTS),
        ("granularity", pulses.granularity, _LEAST, _LARGEST),
        ("group_size", pulses.group_size, 0, _MOST_GROUP),
        ("the number of the noise", pulses.noise, 0, 1),
        ("the number of the fidelity", key.fidelity, 0, len(FIDELITIES) - 1),
        ("seed", key.seed, 0, (1 << 63) - 1),
        ("tile_id", key.tile_id, 0, _MOST_TILE),
    ):
        if not least <= value <= most or (name.startswith("the") and value != int(value)):
            raise ConfigError(f"{name} is {value}; use a number from {least} to {most}")


def check_counters(counters: Tensor, beside: Tensor) -> int:
    """The address of an array's counters.

    Args:
        counters: int64, as many as :class:`.layout.Counters`. beside: a tensor of the array.

    Raises:
        ConfigError: another dtype, number or device.
    """
    if (
        counters.dtype is not torch.int64
        or counters.numel() != COUNTERS
        or not counters.is_contiguous()
    ):
        raise ConfigError(
            f"counters has dtype {counters.dtype} and shape {tuple(counters.shape)}; "
            f"use {len(Counters._fields)} int64: {', '.join(Counters._fields)}"
        )
    if elsewhere(counters, beside):
        refuse_device("counters", counters, beside)
    return counters.data_ptr()


def check_fired(fired: Tensor | None, weight: Tensor) -> None:
    """Refuse counts of pulses, if there are any, that a kernel cannot add to.

    Args:
        fired: two int64 or more, or None. weight: where they must be.

    Raises:
        ConfigError: another dtype, number or device.
    """
    if fired is None:
        return
    if elsewhere(fired, weight):
        refuse_device("fired", fired, weight)
    if fired.dtype is not torch.int64 or fired.numel() < 2 or not fired.is_contiguous():
        raise ConfigError(
            f"fired has dtype {fired.dtype} and shape {tuple(fired.shape)}; use two int64 or more"
        )


def refuse_mixture(weight: Tensor, **others: Tensor) -> None:
    """Refuse a meta tensor among real ones, which comes here instead of to a kernel.

    Args:
        weight: whose device counts. others: by their names.

    Raises:
        ConfigError: one of them is elsewhere.
    """
    for name, t in others.items():
        if t.device != weight.device:
            raise ConfigError(
                f"{name} is on {t.device} and the weight on {weight.device}; move one"
            )
