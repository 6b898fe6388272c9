"""Operators that act between pulses: ``pulseline::retain_``, ``reset_``, ``disturb_``, ``redraw_``.

Decay, drift and diffusion of one event, resets, and write noise: see
:mod:`pulseline.devices.pulsed`. All change their first argument in place, with the same bits on
CUDA, where they run on torch's current stream and nothing waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _cpu
from .checks import (
    address,
    check_counters,
    check_shapes,
    operand,
    refuse_mixture,
    refuse_value,
    weight_address,
)
from .cuda.batch import Batch
from .cuda.launch import Redraw, Update, launch_on
from .layout import FIDELITY_INDEX, PulseSettings, UpdateKey, checked
from .library import LIBRARY, eager, implement

__all__ = [
    "disturb_",
    "disturb_cuda",
    "drift_log2",
    "redraw_",
    "redraw_cuda",
    "reset_",
    "reset_cuda",
    "retain_",
    "retain_cuda",
]

_EXACT, _EXPECTED = FIDELITY_INDEX["exact"], FIDELITY_INDEX["expected"]
_F32, _I32 = torch.float32, torch.int32
_threads = torch.get_num_threads


def _between(
    reset: bool,
    weight: Tensor,
    step: Tensor,
    bound: Tensor,
    words: Tensor,
    amount: float,
    k: int,
    key: Sequence[int],
) -> tuple[Any, ...]:
    """What ``retain`` of either backend takes."""
    at = weight_address(weight, weight.device.type)
    rows, cols = weight.shape
    return (
        at,
        address("step", step, _I32, (rows, cols), weight),
        address("bound", bound, _I32, (rows, cols), weight),
        address("words", words, _I32, (2, rows, cols), weight),
        *(rows, cols, reset, amount, k, key),
    )


def _retain(*arguments: Any) -> None:
    _cpu.retain(*(*_between(False, *arguments), _threads()))


def _reset(*arguments: Any) -> None:
    _cpu.retain(*(*_between(True, *arguments), _threads()))


def retain_cuda(weight: Tensor, *rest: Any) -> None:
    """``pulseline::retain_`` of CUDA tensors.

    Args:
        weight: (rows, cols) float32. rest: as of the operator.

    Raises:
        ConfigError: shapes, dtypes or devices.
    """
    launch_on(weight, "retain", _between(False, weight, *rest))


def reset_cuda(weight: Tensor, *rest: Any) -> None:
    """``pulseline::reset_`` of CUDA tensors.

    Args:
        weight: (rows, cols) float32. rest: as of the operator.

    Raises:
        ConfigError: shapes, dtypes or devices.
    """
    launch_on(weight, "retain", _between(True, weight, *rest))


def _cells(visible: Tensor, hidden: Tensor, step: Tensor) -> tuple[int, int, int]:
    """Addresses of hidden, step and visible."""
    at = weight_address(visible, visible.device.type)
    shape = visible.shape
    return (
        address("hidden", hidden, _F32, shape, visible),
        address("step", step, _I32, shape, visible),
        at,
    )


def _programmed(
    visible: Tensor,
    hidden: Tensor,
    step: Tensor,
    deviation: float,
    counters: Tensor,
    key: Sequence[int],
) -> tuple[Any, ...]:
    """What ``disturb`` of either backend takes."""
    cells = _cells(visible, hidden, step)
    held = check_counters(counters, visible)
    return (*cells, *visible.shape, deviation, held, key)


def _disturb(*arguments: Any) -> None:
    _cpu.disturb(*(*_programmed(*arguments), _threads()))


def disturb_cuda(visible: Tensor, *rest: Any) -> None:
    """``pulseline::disturb_`` of CUDA tensors.

    Args:
        visible: (rows, cols) float32, what is read. rest: as of the operator.

    Raises:
        ConfigError: shapes, dtypes or devices.
    """
    launch_on(visible, "disturb", _programmed(visible, *rest))


def _redraw(
    visible: Tensor,
    hidden: Tensor,
    step: Tensor,
    x: Tensor,
    d: Tensor,
    lr: float,
    pulses: Sequence[float],
    deviation: float,
    counters: Tensor,
    key: Sequence[int],
) -> None:
    cells = _cells(visible, hidden, step)
    x, d = _pair(visible, x, d)
    held = check_counters(counters, visible)
    rest = (*visible.shape, x.shape[0], lr, deviation, pulses, held, key, _threads())
    code = _cpu.redraw(*cells, x.data_ptr(), d.data_ptr(), *rest)
    if code >= 0:
        refuse_value(code % 2 + 1, code // 2)


def redraw_cuda(
    visible: Tensor,
    hidden: Tensor,
    step: Tensor,
    x: Tensor,
    d: Tensor,
    lr: float,
    pulses: Sequence[float],
    deviation: float,
    counters: Tensor,
    key: Sequence[int],
    batch: Batch | None = None,
) -> None:
    """``pulseline::redraw_`` of CUDA tensors.

    Args:
        visible, hidden, step, x, d, lr, pulses, deviation, counters, key, batch: see
            :func:`redraw_`.

    Raises:
        ConfigError: shapes, dtypes or devices.
    """
    _cells(visible, hidden, step)
    check_counters(counters, visible)
    x, d = _pair(visible, x, d)
    # How the pulses' own noise is drawn does not matter here, and takes memory; all fidelities that
    # have trains have the same.
    plain = checked(PulseSettings, pulses)._replace(noise=0.0, group_size=0.0)
    whose = checked(UpdateKey, key)
    whose = whose._replace(fidelity=_EXPECTED if whose.fidelity == _EXPECTED else _EXACT)
    update = Update(visible, (step,) * 3, x, d, lr, -1, (), plain, counters, whose, None)
    _cpu.check_redraw(*update.task(0), hidden.data_ptr(), deviation)
    if batch is not None:
        batch.redraw(Redraw(update, hidden, deviation))
        return
    with Batch() as alone:
        alone.redraw(Redraw(update, hidden, deviation))


def _pair(visible: Tensor, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """x and d as the kernels take them."""
    rows, cols = visible.shape
    x, d = operand("x", x, cols, visible), operand("d", d, rows, visible)
    check_shapes(x, d)
    return x, d


for _name, _kernel, _kernel_cuda in (
    ("retain_", _retain, retain_cuda),
    ("reset_", _reset, reset_cuda),
    ("disturb_", _disturb, disturb_cuda),
    ("redraw_", _redraw, redraw_cuda),
):
    implement(_name, _kernel, _kernel_cuda)


def _in_place_fake(weight: Tensor, *others: object) -> None:
    refuse_mixture(weight, **{f"argument {n}": t for n, t in enumerate(others, 1)})


for _name in ("retain_", "reset_", "disturb_", "redraw_"):
    torch.library.register_fake(f"pulseline::{_name}", _in_place_fake, lib=LIBRARY)

retain_ = torch.ops.pulseline.retain_.default
reset_ = torch.ops.pulseline.reset_.default
disturb_ = torch.ops.pulseline.disturb_.default
_redraw_op = torch.ops.pulseline.redraw_.default


def redraw_(
    visible: Tensor,
    hidden: Tensor,
    step: Tensor,
    x: Tensor,
    d: Tensor,
    lr: float,
    pulses: Sequence[float],
    deviation: float,
    counters: Tensor,
    key: Sequence[int],
    batch: Batch | None = None,
) -> None:
    """``pulseline::redraw_``: write noise anew where the pulses of an update came.

    Args:
        visible, hidden: what is read, what the update moved. step: of ``construct``.
        x, d, lr, pulses, key: as of the update. counters: as it left them. deviation: of the noise.
        batch: on a GPU, that of the update.

    Raises:
        ConfigError: shapes, dtypes or devices.
    """
    if batch is not None and visible.is_cuda and eager(x):
        redraw_cuda(visible, hidden, step, x, d, lr, pulses, deviation, counters, key, batch)
    else:
        _redraw_op(visible, hidden, step, x, d, lr, pulses, deviation, counters, key)


def drift_log2(t: int) -> float:
    """``log2((t + 1) / t)`` by its series: the same bits on every machine."""
    y, power, total = 1 / (2 * t + 1), 1 / (2 * t + 1), 0.0
    for n in range(1, 60, 2):
        total += power / n
        power *= y * y
    return 2 * total / 0.6931471805599453
