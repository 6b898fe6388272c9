"""What the operators refuse: one sentence each, with argument, value and remedy.

Tensors are looked at here, by :func:`address` and :func:`operand`. Settings, memory that is not
there and memory that is written and read at once are looked at where they cross into the compiled
modules (``csrc/bind/limits.h``, ``checks.h``).
"""

from __future__ import annotations

import math
from typing import NoReturn

import torch
from torch import Tensor

from .. import _cpu
from ..errors import ConfigError
from .layout import Counters

__all__ = [
    "address",
    "check_average",
    "check_counters",
    "check_finite",
    "check_fired",
    "check_shapes",
    "check_sizes",
    "check_tapped",
    "check_taps",
    "check_tensor",
    "is_finite",
    "operand",
    "refuse_matrix",
    "refuse_memory",
    "refuse_mixture",
    "refuse_traced",
    "refuse_value",
    "weight_address",
]

_SOURCES = ("", "x", "d")
_F32, _I32, _I64, _STRIDED = torch.float32, torch.int32, torch.int64, torch.strided
_COUNTERS = (len(Counters._fields),)
_MOST_SIZE = (1 << 31) - 1


def refuse_traced(
    what: str = "an analog layer is traced into a graph",
    remedy: str = "run the module itself, torch.compile is fine",
) -> NoReturn:
    """Refuse crossbars in a graph of torch, which holds none: the sentence of all that do.

    Args:
        what: happens to what. remedy: for it.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(f"{what}, which would bypass noise and pulses of its crossbars; {remedy}")


def check_tensor(value: object) -> None:
    """Refuse anything but a tensor.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(value, Tensor):
        if type(value).__module__ == "torch.fx.proxy":
            refuse_traced()
        if isinstance(value, (tuple, list)) and any(isinstance(one, Tensor) for one in value):
            raise ConfigError(
                f"an argument is a {type(value).__name__} of tensors, such as recurrent layers "
                "return; take the one that is meant before this layer, such as argument[0]"
            )
        raise ConfigError(
            f"an argument is a {type(value).__name__}; convert it with "
            "torch.as_tensor(argument, dtype=torch.float32)"
        )


def is_finite(t: Tensor) -> bool:
    """No NaN and no infinity."""
    if type(t) is Tensor and _plain(t, _F32, t) and t.is_cpu:
        at = t.data_ptr()
        if at and t.untyped_storage().nbytes() >= t.nbytes:
            return _cpu.is_finite(at, t.numel())
    # The sum decides unless it overflows by itself.
    return math.isfinite(t.sum().item()) or bool(torch.isfinite(t).all())


def check_finite(source: int, t: Tensor) -> None:
    """Refuse an operand that is not finite; a GPU is not waited for: its kernels see to it.

    Args:
        source: 1: x, 2: d. t: the operand, samples first.

    Raises:
        ConfigError: which sample holds a NaN or an infinity.
    """
    if hasattr(t, "fake_mode"):  # torch's FakeTensor: a shape without a number
        return
    if t.device.type == "cpu" and not is_finite(t):
        bad = ~torch.isfinite(t).flatten(1).all(1)
        refuse_value(source, int(bad.to(torch.int8).argmax()))


def refuse_matrix(name: str, t: Tensor, columns: int) -> None:
    """Refuse an operand that is no matrix of float32 with so many columns.

    Args:
        name: what the message calls it. t: the operand. columns: how many it must have.

    Raises:
        ConfigError: its layout, dtype or shape.
    """
    _refuse_layout(name, t)
    if t.dtype is not _F32:
        raise ConfigError(f"{name} has dtype {t.dtype}; convert it with .float()")
    if t.dim() != 2 or t.shape[1] != columns:
        raise ConfigError(f"{name} has shape {tuple(t.shape)}; use (samples, {columns})")


def _refuse_layout(name: str, t: Tensor) -> None:
    if t.layout is not _STRIDED or t.is_nested or t.is_quantized:
        kind = "nested" if t.is_nested else "quantized" if t.is_quantized else str(t.layout)
        raise ConfigError(f"{name} is a {kind} tensor; use a dense one")


def _refuse_device(name: str, t: Tensor, beside: Tensor) -> None:
    if t.device == beside.device:
        return
    where = "the CPU" if beside.is_cpu else str(beside.device)
    remedy = ".cpu()" if beside.is_cpu else f".to({str(beside.device)!r})"
    raise ConfigError(f"{name} is on {t.device} and the weight on {where}; move it with {remedy}")


def refuse_memory(name: str, t: Tensor) -> None:
    """Refuse what has neither values nor an address; torch's lazy tensors have other values.

    Args:
        name: what the message calls it. t: the tensor.

    Raises:
        ConfigError: it is negated lazily, or has no memory.
    """
    if t.is_neg():
        raise ConfigError(f"{name} is negated lazily; use {name}.resolve_neg()")
    last = sum((size - 1) * step for size, step in zip(t.shape, t.stride(), strict=True))
    needed = (t.storage_offset() + last + 1) * t.element_size() if t.numel() else 0
    if t.numel() and (not t.data_ptr() or t.untyped_storage().nbytes() < needed):
        raise ConfigError(
            f"{name} has no memory, its storage was freed or never made; use a tensor with values"
        )


def _refuse(name: str, t: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    check_tensor(t)
    _refuse_layout(name, t)
    if t.dtype is not dtype or t.shape != shape or not t.is_contiguous():
        strides = "" if t.is_contiguous() else f" and strides {t.stride()}"
        raise ConfigError(
            f"{name} has shape {tuple(t.shape)} and dtype {t.dtype}{strides}; "
            f"use a contiguous {shape} of {dtype}"
        )


def _plain(t: Tensor, dtype: torch.dtype, beside: Tensor) -> bool:
    """Whether a kernel may take a tensor as it lies in memory, which is there."""
    try:
        return (
            t.dtype is dtype
            and t.layout is _STRIDED
            and t.is_contiguous()
            and not t.is_neg()
            and ((t.is_cpu and beside.is_cpu) or t.device == beside.device)
        )
    except (AttributeError, RuntimeError):  # no tensor; one of torch's kinds without strides
        return False


def address(
    name: str, t: Tensor, dtype: torch.dtype, shape: tuple[int, ...], beside: Tensor
) -> int:
    """Where a tensor of an operator lies; everything that a kernel takes for granted holds.

    Args:
        name: what the message calls it. t: the tensor. dtype, shape: what it must have.
        beside: where it must be.

    Returns:
        Its address; 0 where it has no elements.

    Raises:
        ConfigError: layout, dtype, shape, strides, device, lazy negation, or no memory.
    """
    if _plain(t, dtype, beside) and t.shape == shape:
        at = t.data_ptr()
        if at and t.untyped_storage().nbytes() >= t.nbytes:
            return at
    _refuse(name, t, dtype, shape)
    _refuse_device(name, t, beside)
    refuse_memory(name, t)
    return t.data_ptr()


def weight_address(t: Tensor, on: str) -> int:
    """Where a weight lies: a contiguous float32 matrix.

    Args:
        t: the weight. on: type of device it must be on.

    Raises:
        ConfigError: as of :func:`address`.
    """
    if _plain(t, _F32, t) and t.dim() == 2 and (t.is_cpu or on != "cpu"):
        at = t.data_ptr()
        if at and t.untyped_storage().nbytes() >= t.nbytes:
            return at
    check_tensor(t)
    _refuse_layout("weight", t)
    here = t.device.type == on
    if t.dtype is not _F32 or t.dim() != 2 or not t.is_contiguous() or not here:
        raise ConfigError(
            f"weight has dtype {t.dtype} and shape {tuple(t.shape)} on {t.device}; use a "
            "contiguous float32 matrix where x is (tiles keep float32, do not call .half() on them)"
        )
    refuse_memory("weight", t)
    return t.data_ptr()


def operand(name: str, t: Tensor, columns: int, beside: Tensor) -> Tensor:
    """An operand of a read or an update as a kernel takes it: a copy, if it lies otherwise.

    Args:
        name: what the message calls it. t: (samples, columns) float32. beside: where it must be.

    Returns:
        A contiguous tensor of its values.

    Raises:
        ConfigError: layout, dtype, shape or device, or no memory.
    """
    if (
        _plain(t, _F32, beside)
        and t.dim() == 2
        and t.shape[1] == columns
        and t.data_ptr()
        and t.untyped_storage().nbytes() >= t.nbytes
    ):
        return t
    check_tensor(t)
    refuse_matrix(name, t, columns)
    _refuse_device(name, t, beside)
    t = t.resolve_neg()
    refuse_memory(name, t)
    return t.contiguous()


def check_average(average: Tensor | None, beside: Tensor) -> int:
    """The address of a running average; 0: there is none.

    Args:
        average: one float32 number, or None. beside: where it must be.

    Raises:
        ConfigError: another dtype, number or device.
    """
    if average is None:
        return 0
    if average.numel() != 1:
        raise ConfigError(f"average has shape {tuple(average.shape)}; use one float32 number")
    return address("average", average, _F32, tuple(average.shape), beside)


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


def check_counters(counters: Tensor, beside: Tensor) -> int:
    """The address of an array's counters.

    Args:
        counters: int64, as many as :class:`.layout.Counters`. beside: a tensor of the array.

    Raises:
        ConfigError: as of :func:`address`.
    """
    return address("counters", counters, _I64, _COUNTERS, beside)


def check_fired(fired: Tensor | None, weight: Tensor) -> int:
    """The address of counts of pulses that a kernel adds to; 0: nobody counts.

    Args:
        fired: two int64 or more, or None. weight: where they must be.

    Raises:
        ConfigError: another dtype, number or device.
    """
    if fired is None:
        return 0
    if fired.dtype is not _I64 or fired.numel() < 2 or not fired.is_contiguous():
        raise ConfigError(
            f"fired has dtype {fired.dtype} and shape {tuple(fired.shape)}; use two int64 or more"
        )
    return address("fired", fired, _I64, tuple(fired.shape), weight)


def _taps_address(taps: Tensor) -> int:
    check_tensor(taps)
    if taps.dtype is not _I32 or taps.dim() != 2 or taps.shape[1] != 2 or not taps.is_cpu:
        raise ConfigError(
            f"taps have dtype {taps.dtype} and shape {tuple(taps.shape)} on {taps.device}; use an "
            "int32 (taps, 2) tensor of sample and column on the CPU"
        )
    return address("taps", taps, _I32, tuple(taps.shape), taps)


def check_tapped(
    taps: Tensor | None, tapped: Tensor | None, weight: Tensor
) -> tuple[int, int, int] | None:
    """Address and number of taps and address of their values; None: there are no taps.

    Args:
        taps: (taps, 2) int32, or None. tapped: (rows, taps) float32, or None. weight: of the array.

    Raises:
        ConfigError: one without the other, or as of :func:`address`.
    """
    if taps is None and tapped is None:
        return None
    if taps is None or tapped is None:
        missing, there = ("taps", "tapped") if taps is None else ("tapped", "taps")
        raise ConfigError(f"{missing} is None and {there} is given; use both or none")
    at, count = _taps_address(taps), taps.shape[0]
    return at, count, address("tapped", tapped, _F32, (weight.shape[0], count), weight)


def check_taps(taps: Tensor, samples: int, columns: int) -> None:
    """Refuse taps of samples or columns that there are not, or out of order.

    Args:
        taps: (taps, 2) int32, sample and column. samples, columns: how many there are.

    Raises:
        ConfigError: as said.
    """
    _cpu.check_taps(_taps_address(taps), taps.shape[0], samples, columns)


def check_shapes(x: Tensor, d: Tensor) -> None:
    """Refuse samples of x without one of d.

    Args:
        x, d: matrices, a row per sample.

    Raises:
        ConfigError: they differ in number.
    """
    if x.shape[0] != d.shape[0]:
        raise ConfigError(f"x has {x.shape[0]} samples and d has {d.shape[0]}; use as many of each")


def check_sizes(rows: int, cols: int) -> None:
    """Refuse the sizes of a matrix that cannot be.

    Args:
        rows, cols: of the matrix.

    Raises:
        ConfigError: one is negative or does not fit in 31 bits.
    """
    for name, size in (("rows", rows), ("cols", cols)):
        if not 0 <= size <= _MOST_SIZE:
            raise ConfigError(f"{name} is {size}; use a whole number from 0 to {_MOST_SIZE}")


def refuse_mixture(weight: Tensor, **others: object) -> None:
    """Refuse a meta tensor among real ones, which comes here instead of to a kernel.

    Args:
        weight: a matrix, whose device counts. others: by their names; what is no tensor is skipped.

    Raises:
        ConfigError: a tensor is elsewhere.
    """
    if weight.dim() != 2:
        raise ConfigError(f"weight has shape {tuple(weight.shape)}; use a matrix")
    for name, t in others.items():
        if isinstance(t, Tensor) and t.device != weight.device:
            raise ConfigError(
                f"{name} is on {t.device} and the weight on {weight.device}; move one"
            )
