"""What the operators refuse: one sentence each, with argument, value and remedy."""

from __future__ import annotations

import torch
from torch import Tensor

from ..configs.update import FIDELITIES, LOWRANK_FIDELITIES
from ..errors import ConfigError
from .layout import Counters, PulseSettings, UpdateKey

_SOURCES = ("", "x", "d")
_MOST_SLOTS = 1 << 20  # numbers of words and slots fit the draw field of the counter
_MOST_GROUP = 256
_LEAST, _LARGEST = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
_INFINITE = float("inf")
COUNTERS = len(Counters._fields)
_MOST_TILE = (1 << 32) - 1


def check_tensor(value: object) -> None:
    """Raise ConfigError for anything but a tensor."""
    if not isinstance(value, Tensor):
        raise ConfigError(
            f"got a {type(value).__name__} where a tensor is needed; convert it with "
            "torch.as_tensor(x, dtype=torch.float32)"
        )


def refuse_matrix(name: str, t: Tensor, columns: int) -> None:
    if t.dtype is not torch.float32:
        raise ConfigError(f"{name} has dtype {t.dtype}; convert it with .float()")
    if t.dim() != 2 or t.shape[1] != columns:
        raise ConfigError(f"{name} has shape {tuple(t.shape)}; use (samples, {columns})")


def refuse_weight(t: Tensor) -> None:
    if t.dtype is not torch.float32 or t.dim() != 2 or not t.is_contiguous() or not t.is_cpu:
        raise ConfigError(
            f"weight has dtype {t.dtype} and shape {tuple(t.shape)} on {t.device}; use a "
            "contiguous float32 matrix where x is (tiles keep float32, do not call .half() on them)"
        )


def check_average(average: Tensor | None) -> None:
    """Raise ConfigError unless a running average, if there is one, is one float32 number."""
    if average is not None and (average.dtype is not torch.float32 or average.numel() != 1):
        raise ConfigError(f"average has shape {tuple(average.shape)}; use one float32 number")


def refuse_value(source: int, sample: int) -> None:
    raise ConfigError(
        f"{_SOURCES[source]}[{sample}] holds a NaN or an infinity; nothing was written, "
        "check the learning rate and the loss"
    )


def refuse_device(name: str, t: Tensor, weight: Tensor) -> None:
    where = "the CPU" if weight.is_cpu else str(weight.device)
    remedy = ".cpu()" if weight.is_cpu else f".to({str(weight.device)!r})"
    raise ConfigError(f"{name} is on {t.device} and the weight on {where}; move it with {remedy}")


def elsewhere(t: Tensor, weight: Tensor) -> bool:
    """Whether ``t`` is on another device; on the CPU without the cost of two device objects."""
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
    """Refuse what no backend can run; ``on``: the type of device everything must be on."""
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

    Raises:
        ConfigError: they are not int64, as many as :class:`.layout.Counters`, beside the weight.
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
    """Raise ConfigError unless the counts, if there are any, are int64 and beside the weight."""
    if fired is None:
        return
    if elsewhere(fired, weight):
        refuse_device("fired", fired, weight)
    if fired.dtype is not torch.int64 or fired.numel() < 2 or not fired.is_contiguous():
        raise ConfigError(
            f"fired has dtype {fired.dtype} and shape {tuple(fired.shape)}; use two int64 or more"
        )


def refuse_mixture(weight: Tensor, **others: Tensor) -> None:
    """A meta tensor among real ones comes here instead of to a kernel."""
    for name, t in others.items():
        if t.device != weight.device:
            raise ConfigError(
                f"{name} is on {t.device} and the weight on {weight.device}; move one"
            )
