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
from ..devices.pulsed import RETENTION
from ..errors import ConfigError
from .checks import (
    address,
    check_counters,
    check_shapes,
    operand,
    refuse_mixture,
    refuse_value,
    weight_address,
)
from .crosspoints import model_index
from .cuda.batch import Batch
from .cuda.launch import Redraw, Update, launch_on, pairs_anew
from .layout import (
    FIDELITY_INDEX,
    DrawKey,
    PulseSettings,
    UpdateKey,
    checked,
    columns_of,
    refuse_blocks,
)
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
_NOTHING = (0.0,) * len(RETENTION)
_F32, _I32 = torch.float32, torch.int32
_BLOCKS = UpdateKey._fields.index("block_rows")
_DRAWN = DrawKey._fields.index("block_rows")
_threads = torch.get_num_threads


def _population(stored: bool, device: str, params: Sequence[float]) -> tuple[int, Sequence[float]]:
    """Number of the compiled model and its parameters; -1: pairs are stored."""
    return (-1, ()) if stored else (model_index(device, params), params)


def _all_or_none(weight: Tensor, **pairs: Tensor | None) -> list[int]:
    """Addresses of the pairs of crosspoints; 0: none are stored."""
    missing = [name for name, t in pairs.items() if t is None]
    if missing and len(missing) < len(pairs):
        raise ConfigError(
            f"{missing[0]} is None; give all of {', '.join(pairs)}, or none to draw them anew"
        )
    shapes = {"words": (2, *weight.shape)}
    return [
        0 if t is None else address(name, t, _I32, shapes.get(name, weight.shape), weight)
        for name, t in pairs.items()
    ]


def _between(
    reset: bool,
    weight: Tensor,
    step: Tensor | None,
    bound: Tensor | None,
    words: Tensor | None,
    amount: float,
    k: int,
    key: Sequence[int],
    device: str = "",
    params: Sequence[float] = (),
    retention: Sequence[float] = (),
) -> tuple[Any, ...]:
    """What ``retain`` of either backend takes."""
    at = weight_address(weight, weight.device.type)
    stored = step is not None
    return (
        *(at, *_all_or_none(weight, step=step, bound=bound, words=words)),
        *(*weight.shape, reset, amount, k, key, *_population(stored, device, params)),
        _NOTHING if stored else retention,
    )


def _retain(*arguments: Any) -> None:
    _cpu.retain(*(*_between(False, *arguments), _threads()))


def _reset(*arguments: Any) -> None:
    _cpu.retain(*(*_between(True, *arguments), _threads()))


def _between_cuda(reset: bool, weight: Tensor, *rest: Any) -> None:
    """``retain`` on a GPU; what is not stored is drawn for this call."""
    *arguments, model, params, retention = _between(reset, weight, *rest)
    refuse_blocks(weight, arguments[-1], _DRAWN)
    if model >= 0:
        key, sizes = arguments[-1], weight.shape
        step, _, bound = pairs_anew(weight, model, params, key)
        words = torch.empty((2, *sizes), dtype=_I32, device=weight.device)
        launch_on(weight, "construct_retention", (retention, key, *sizes, words.data_ptr()))
        assert step is not None
        assert bound is not None
        arguments[1:4] = step.data_ptr(), bound.data_ptr(), words.data_ptr()
    launch_on(weight, "retain", arguments)


def retain_cuda(weight: Tensor, *rest: Any) -> None:
    """``pulseline::retain_`` of CUDA tensors.

    Args:
        weight: (rows, cols) float32. rest: as of the operator.

    Raises:
        ConfigError: shapes, dtypes or devices.
    """
    _between_cuda(False, weight, *rest)


def reset_cuda(weight: Tensor, *rest: Any) -> None:
    """``pulseline::reset_`` of CUDA tensors.

    Args:
        weight: (rows, cols) float32. rest: as of the operator.

    Raises:
        ConfigError: shapes, dtypes or devices.
    """
    _between_cuda(True, weight, *rest)


def _cells(visible: Tensor, hidden: Tensor, step: Tensor | None) -> tuple[int, int, int]:
    """Addresses of hidden, step (0: drawn anew) and visible."""
    at = weight_address(visible, visible.device.type)
    (pair,) = _all_or_none(visible, step=step)
    return address("hidden", hidden, _F32, visible.shape, visible), pair, at


def _programmed(
    visible: Tensor,
    hidden: Tensor,
    step: Tensor | None,
    deviation: float,
    counters: Tensor,
    key: Sequence[int],
    device: str = "",
    params: Sequence[float] = (),
) -> tuple[Any, ...]:
    """What ``disturb`` of either backend takes."""
    cells = _cells(visible, hidden, step)
    held = check_counters(counters, visible)
    whose = _population(step is not None, device, params)
    return (*cells, *visible.shape, deviation, held, key, *whose)


def _disturb(*arguments: Any) -> None:
    _cpu.disturb(*(*_programmed(*arguments), _threads()))


def disturb_cuda(visible: Tensor, *rest: Any) -> None:
    """``pulseline::disturb_`` of CUDA tensors.

    Args:
        visible: (rows, cols) float32, what is read. rest: as of the operator.

    Raises:
        ConfigError: shapes, dtypes or devices.
    """
    *arguments, model, params = _programmed(visible, *rest)
    refuse_blocks(visible, arguments[-1], _DRAWN)
    if model >= 0:
        step, _, _ = pairs_anew(visible, model, params, arguments[-1])
        assert step is not None
        arguments[1] = step.data_ptr()
    launch_on(visible, "disturb", arguments)


def _redraw(
    visible: Tensor,
    hidden: Tensor,
    step: Tensor | None,
    x: Tensor,
    d: Tensor,
    lr: float,
    pulses: Sequence[float],
    deviation: float,
    counters: Tensor,
    key: Sequence[int],
    device: str = "",
    params: Sequence[float] = (),
) -> None:
    cells = _cells(visible, hidden, step)
    x, d = _pair(visible, x, d, key)
    held, whose = check_counters(counters, visible), _population(step is not None, device, params)
    rest = (*visible.shape, x.shape[0], lr, deviation, pulses, held, key, *whose, _threads())
    code = _cpu.redraw(*cells, x.data_ptr(), d.data_ptr(), *rest)
    if code >= 0:
        refuse_value(code % 2 + 1, code // 2)


def redraw_cuda(
    visible: Tensor,
    hidden: Tensor,
    step: Tensor | None,
    x: Tensor,
    d: Tensor,
    lr: float,
    pulses: Sequence[float],
    deviation: float,
    counters: Tensor,
    key: Sequence[int],
    device: str = "",
    params: Sequence[float] = (),
    batch: Batch | None = None,
) -> None:
    """``pulseline::redraw_`` of CUDA tensors.

    Args:
        visible, hidden, step, x, d, lr, pulses, deviation, counters, key, device, params, batch:
            see :func:`redraw_`.

    Raises:
        ConfigError: shapes, dtypes or devices.
    """
    _cells(visible, hidden, step)
    check_counters(counters, visible)
    refuse_blocks(visible, key, _BLOCKS)
    x, d = _pair(visible, x, d, key)
    # How the pulses' own noise is drawn does not matter here, and takes memory; all fidelities that
    # have trains have the same.
    plain = checked(PulseSettings, pulses)._replace(noise=0.0, group_size=0.0)
    whose = checked(UpdateKey, key)
    whose = whose._replace(fidelity=_EXPECTED if whose.fidelity == _EXPECTED else _EXACT)
    population, pairs = _population(step is not None, device, params), (step, step, step)
    update = Update(visible, pairs, x, d, lr, *population, plain, counters, whose, None)
    _cpu.check_redraw(*update.task(0), hidden.data_ptr(), deviation)
    if batch is not None:
        batch.redraw(Redraw(update, hidden, deviation))
        return
    with Batch() as alone:
        alone.redraw(Redraw(update, hidden, deviation))


def _pair(visible: Tensor, x: Tensor, d: Tensor, key: Sequence[int]) -> tuple[Tensor, Tensor]:
    """x and d as the kernels take them."""
    x = operand("x", x, columns_of(visible, key, _BLOCKS), visible)
    d = operand("d", d, visible.shape[0], visible)
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
    step: Tensor | None,
    x: Tensor,
    d: Tensor,
    lr: float,
    pulses: Sequence[float],
    deviation: float,
    counters: Tensor,
    key: Sequence[int],
    device: str = "",
    params: Sequence[float] = (),
    batch: Batch | None = None,
) -> None:
    """``pulseline::redraw_``: write noise anew where the pulses of an update came.

    Args:
        visible, hidden: what is read, what the update moved. step: of ``construct``; None: drawn
            anew as that of the model ``device`` with ``params``.
        x, d, lr, pulses, key: as of the update. counters: as it left them. deviation: of the noise.
        batch: on a GPU, that of the update.

    Raises:
        ConfigError: shapes, dtypes or devices.
    """
    arguments = (visible, hidden, step, x, d, lr, pulses, deviation, counters, key, device, params)
    if batch is not None and visible.is_cuda and eager(x):
        redraw_cuda(*arguments, batch)
    else:
        _redraw_op(*arguments)


def drift_log2(t: int) -> float:
    """``log2((t + 1) / t)`` by its series: the same bits on every machine."""
    y, power, total = 1 / (2 * t + 1), 1 / (2 * t + 1), 0.0
    for n in range(1, 60, 2):
        total += power / n
        power *= y * y
    return 2 * total / 0.6931471805599453
