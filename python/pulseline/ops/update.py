"""The pulsed update: ``pulseline::update_``.

Checks raise :class:`ConfigError` before anything is written. On CUDA see :mod:`.cuda.launch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _cpu
from ..errors import ConfigError
from .checks import (
    address,
    check_counters,
    check_fired,
    check_shapes,
    check_tapped,
    operand,
    refuse_matrix,
    refuse_mixture,
    refuse_value,
    weight_address,
)
from .crosspoints import FLAT, model_index
from .cuda.batch import Batch
from .cuda.launch import Update
from .cuda.outcomes import Outcomes
from .layout import PulseSettings, UpdateKey, checked, columns_of, refuse_blocks
from .library import LIBRARY, direct, eager, implement

__all__ = ["device_arguments", "run_update", "update_", "update_cpu", "update_cuda"]

_I32 = torch.int32
_BLOCKS = UpdateKey._fields.index("block_rows")
_threads = torch.get_num_threads


def update_cpu(
    weight: Tensor,
    step: Tensor | None,
    slope: Tensor | None,
    bound: Tensor | None,
    x: Tensor,
    d: Tensor,
    lr: float,
    device: str,
    params: Sequence[float],
    pulses: Sequence[float],
    counters: Tensor,
    key: Sequence[int],
    fired: Tensor | None = None,
    taps: Tensor | None = None,
    tapped: Tensor | None = None,
) -> int:
    """``pulseline::update_`` of CPU tensors, see :func:`update_`.

    Raises:
        ConfigError: shapes, dtypes, devices or settings, or a value that is not finite.
    """
    w_at = weight_address(weight, "cpu")
    rows, cols = weight.shape
    x = operand("x", x, columns_of(weight, key, _BLOCKS), weight)
    d = operand("d", d, rows, weight)
    index, addresses = device_arguments(device, params, weight, step, slope, bound)
    held = (w_at, *addresses, index, params, check_counters(counters, weight))
    how = (pulses, key, check_fired(fired, weight), check_tapped(taps, tapped, weight))
    return run_update(held, (rows, cols), x, d, lr, how)


def run_update(
    held: tuple[int, int, int, int, int, Sequence[float], int],
    sizes: tuple[int, int],
    x: Tensor,
    d: Tensor,
    lr: float,
    how: tuple[Sequence[float], Sequence[int], int, tuple[int, int, int] | None],
) -> int:
    """An update on the CPU whose tensors have been looked at.

    Args:
        held: addresses of weight, step, slope and bound, number and parameters of the model,
            address of the counters. sizes: rows and columns.
        x, d, lr: see :func:`update_`. how: pulses, key, the address of ``fired`` and what
            :func:`check_tapped` says of taps, see there.

    Returns:
        How many lines saturated.

    Raises:
        ConfigError: samples of x without one of d, or a value that is not finite.
    """
    w, step, slope, bound, index, params, counters = held
    pulses, key, fired, taps = how
    rows, cols = sizes
    batch = x.shape[0]
    if batch != d.shape[0]:
        check_shapes(x, d)
    arguments = (
        w,
        step,
        slope,
        bound,
        x.data_ptr(),
        d.data_ptr(),
        rows,
        cols,
        batch,
        lr,
        index,
        params,
        pulses,
        counters,
        key,
        _threads(),
        fired,
    )
    code = _cpu.update(*arguments) if taps is None else _cpu.update_tapped(*arguments, *taps)
    if code >= 0:
        refuse_value(code % 2 + 1, code // 2)
    return -1 - code


def _update_cpu(*arguments: Any, **named: Any) -> None:
    update_cpu(*arguments, **named)


def update_cuda(
    weight: Tensor,
    step: Tensor | None,
    slope: Tensor | None,
    bound: Tensor | None,
    x: Tensor,
    d: Tensor,
    lr: float,
    device: str,
    params: Sequence[float],
    pulses: Sequence[float],
    counters: Tensor,
    key: Sequence[int],
    fired: Tensor | None = None,
    taps: Tensor | None = None,
    tapped: Tensor | None = None,
    batch: Batch | None = None,
    outcomes: Outcomes | None = None,
) -> None:
    """``pulseline::update_`` of CUDA tensors.

    Args:
        weight, step, slope, bound, x, d, lr, device, params, pulses, counters, key, fired, taps,
            tapped, batch, outcomes: see :func:`update_`.

    Raises:
        ConfigError: see :func:`update_`.
        BackendError: there are no kernels, or no GPU.
    """
    weight_address(weight, weight.device.type)
    refuse_blocks(weight, key, _BLOCKS)
    rows, cols = weight.shape
    x, d = operand("x", x, cols, weight), operand("d", d, rows, weight)
    check_shapes(x, d)
    index, _ = device_arguments(device, params, weight, step, slope, bound)
    pairs = (step, slope, bound) if index >= 0 else (None, None, None)
    check_fired(fired, weight)
    check_counters(counters, weight)
    settings, whose = checked(PulseSettings, pulses), checked(UpdateKey, key)
    rest = (lr, index, params, settings, counters, whose, fired, outcomes)
    update = Update(weight, pairs, x, d, *rest)
    task, at = update.task(0), check_tapped(taps, tapped, weight)
    _cpu.check_update(*task, index)
    if at is not None and at[1]:
        _cpu.check_tapped(*task[:3], index, *at)
        if index < 0:
            raise ConfigError(
                "device is 'Ideal' with taps on a GPU, where its samples are one product; cut the "
                "update at taps"
            )
        update = update._replace(taps=taps, tapped=tapped)
    if batch is not None:
        batch.add(update)
        return
    if outcomes is not None:
        outcomes.check(wait=False)
    with Batch() as alone:
        alone.add(update)


def device_arguments(
    device: str,
    params: Sequence[float],
    weight: Tensor,
    step: Tensor | None,
    slope: Tensor | None,
    bound: Tensor | None,
) -> tuple[int, tuple[int, int, int]]:
    """Number of the compiled model, and addresses of its pairs.

    Args:
        device, params: name and parameters. weight: of the array. step, slope, bound: its pairs.

    Returns:
        The number, -1: the ideal device; and the addresses, 0 where there is no pair.

    Raises:
        ConfigError: an unknown model, or a pair that it lacks or that no operator takes.
    """
    if device == "Ideal":
        return -1, (0, 0, 0)
    index = model_index(device, params)
    if step is slope is bound is None:  # drawn anew
        return index, (0, 0, 0)
    if step is None or bound is None or (slope is None and device not in FLAT):
        missing = "step" if step is None else "slope" if slope is None else "bound"
        raise ConfigError(
            f"device {device!r} lacks its {missing}; build it with construct, or give no pairs, "
            "which are then drawn anew"
        )
    shape = weight.shape
    return index, (
        address("step", step, _I32, shape, weight),
        0 if slope is None else address("slope", slope, _I32, shape, weight),
        address("bound", bound, _I32, shape, weight),
    )


implement("update_", _update_cpu, update_cuda)


@torch.library.register_fake("pulseline::update_", lib=LIBRARY)
def _update_fake(
    weight: Tensor,
    step: Tensor | None,
    slope: Tensor | None,
    bound: Tensor | None,
    x: Tensor,
    d: Tensor,
    *others: object,
) -> None:
    taps = 7  # of the others, on the CPU
    rest = {f"argument {n + 6}": t for n, t in enumerate(others) if n != taps}
    refuse_mixture(weight, x=x, d=d, step=step, slope=slope, bound=bound, **rest)
    key: Any = others[5]
    refuse_matrix("x", x, columns_of(weight, key, _BLOCKS))
    refuse_matrix("d", d, weight.shape[0])


_update_op = torch.ops.pulseline.update_.default


def update_(
    weight: Tensor,
    step: Tensor | None,
    slope: Tensor | None,
    bound: Tensor | None,
    x: Tensor,
    d: Tensor,
    lr: float,
    device: str,
    params: Sequence[float],
    pulses: Sequence[float],
    counters: Tensor,
    key: Sequence[int],
    fired: Tensor | None = None,
    taps: Tensor | None = None,
    tapped: Tensor | None = None,
    batch: Batch | None = None,
    outcomes: Outcomes | None = None,
) -> int:
    """``pulseline::update_``: pulse the weight in place, samples in order.

    Args:
        weight: (rows, cols) float32. step, slope, bound: int32 pairs of ``construct`` (slope: None
            for a model without one), or None for the ideal device and for pairs that are drawn
            anew, with the same bits. x: (samples, cols), d: (samples, rows) float32.
        lr: learning rate >= 0. device, params: name and parameters of the model.
        pulses: :class:`PulseSettings`. counters: of the array,
            advanced by the samples. key: :class:`UpdateKey`.
        fired: int64, where the weight is; counts of coincidences and of slots are added to its
            first two elements.
        taps: (T, 2) int32 in the CPU's memory, sample and column, in the order of samples; of a
            dense matrix and of ``exact``, ``strict``, ``expected`` or, on the CPU, the ideal
            device: what joins samples must be cut.
        tapped: (rows, T) float32, where the weight is, written: what each column holds right after
            its sample, with the bits of a batch that is cut there. On a GPU that update is launched
            by itself, at once; where a value is not finite, columns as they stay.
        batch: on a GPU, whose launches it shares; None: its own, at once.
        outcomes: on a GPU, who is told of values that are not finite, later; None: the caller,
            who waits.

    Returns:
        How many lines of samples saturated: would have had to fire in more slots than there are, so
        that less than ``lr d x^T`` arrives. Counted on the CPU, and 0 where torch's dispatcher or a
        GPU stands between.

    Raises:
        ConfigError: shapes, dtypes, devices, settings out of their range, or a value that is not
            finite; nothing was written.
    """
    arguments: list[Any] = [weight, step, slope, bound, x, d, lr, device, params, pulses]
    arguments += [counters, key, fired, taps, tapped]
    if direct(x):
        return update_cpu(*arguments)
    if (batch is not None or outcomes is not None) and x.is_cuda and eager(x):
        arguments += [batch, outcomes]
        update_cuda(*arguments)
    else:
        _update_op(*arguments)
    return 0
