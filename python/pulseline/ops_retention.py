"""Operators that act between pulses: ``pulseline::retain_``, ``reset_``, ``disturb_``, ``redraw_``.

Decay, drift and diffusion once per mini-batch, resets, and write noise: see
:mod:`pulseline.devices.pulsed`. All change their first argument in place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _cpu
from .errors import BackendError, ConfigError

_LIBRARY = torch.library.Library("pulseline", "FRAGMENT")
_LIBRARY.define(
    "construct_retention(float[] params, int rows, int cols, int seed, int tile_id) -> Tensor"
)
# key: seed, tile_id, k
_LIBRARY.define(
    "retain_(Tensor(a!) weight, Tensor step, Tensor bound, Tensor words, float drift, int[] key) "
    "-> ()"
)
_LIBRARY.define(
    "reset_(Tensor(a!) weight, Tensor step, Tensor bound, Tensor words, float std, int[] key) -> ()"
)
_LIBRARY.define(
    "disturb_(Tensor(a!) visible, Tensor hidden, Tensor step, float deviation, int[] key) -> ()"
)
_LIBRARY.define(
    "redraw_(Tensor(a!) visible, Tensor hidden, Tensor step, Tensor x, Tensor d, float[] train, "
    "float deviation, int[] key) -> ()"
)
_threads = torch.get_num_threads


def _check(name: str, t: Tensor, shape: Sequence[int], dtype: torch.dtype) -> int:
    """The address of a contiguous tensor of this shape and dtype."""
    if tuple(t.shape) != tuple(shape) or t.dtype is not dtype or not t.is_contiguous():
        raise ConfigError(
            f"{name} has shape {tuple(t.shape)} and dtype {t.dtype}; "
            f"use a contiguous {tuple(shape)} of {dtype}"
        )
    return t.data_ptr()


def _construct(params: Sequence[float], rows: int, cols: int, seed: int, tile_id: int) -> Tensor:
    words = torch.empty((2, rows, cols), dtype=torch.int32, device="cpu")
    _cpu.construct_retention(params, seed, tile_id, rows, cols, words.data_ptr(), _threads())
    return words


def _between(
    weight: Tensor,
    step: Tensor,
    bound: Tensor,
    words: Tensor,
    amount: float,
    key: Sequence[int],
    reset: bool,
) -> None:
    rows, cols = weight.shape
    seed, tile_id, k = key
    _cpu.retain(
        _check("weight", weight, (rows, cols), torch.float32),
        _check("step", step, (rows, cols), torch.int32),
        _check("bound", bound, (rows, cols), torch.int32),
        _check("words", words, (2, rows, cols), torch.int32),
        rows,
        cols,
        seed,
        tile_id,
        k,
        reset,
        amount,
        _threads(),
    )


def _retain(
    weight: Tensor, step: Tensor, bound: Tensor, words: Tensor, drift: float, key: Sequence[int]
) -> None:
    _between(weight, step, bound, words, drift, key, False)


def _reset(
    weight: Tensor, step: Tensor, bound: Tensor, words: Tensor, std: float, key: Sequence[int]
) -> None:
    _between(weight, step, bound, words, std, key, True)


def _disturb(
    visible: Tensor, hidden: Tensor, step: Tensor, deviation: float, key: Sequence[int]
) -> None:
    rows, cols = visible.shape
    seed, tile_id, k = key
    _cpu.disturb(
        _check("hidden", hidden, (rows, cols), torch.float32),
        _check("step", step, (rows, cols), torch.int32),
        _check("visible", visible, (rows, cols), torch.float32),
        rows,
        cols,
        seed,
        tile_id,
        k,
        deviation,
        _threads(),
    )


def _redraw(
    visible: Tensor,
    hidden: Tensor,
    step: Tensor,
    x: Tensor,
    d: Tensor,
    train: Sequence[float],
    deviation: float,
    key: Sequence[int],
) -> None:
    rows, cols = visible.shape
    seed, tile_id, k = key
    batch = x.shape[0]
    x, d = x.contiguous(), d.contiguous()
    _cpu.redraw(
        _check("hidden", hidden, (rows, cols), torch.float32),
        _check("step", step, (rows, cols), torch.int32),
        _check("visible", visible, (rows, cols), torch.float32),
        _check("x", x, (batch, cols), torch.float32),
        _check("d", d, (batch, rows), torch.float32),
        rows,
        cols,
        batch,
        seed,
        tile_id,
        k,
        train,
        deviation,
        _threads(),
    )


def _no_cuda(*_: object) -> None:
    raise BackendError("devices that change between pulses run on the CPU alone; use .cpu()")


_LIBRARY.impl("construct_retention", _construct, "CompositeExplicitAutograd")
for _name, _kernel in (
    ("retain_", _retain),
    ("reset_", _reset),
    ("disturb_", _disturb),
    ("redraw_", _redraw),
):
    _LIBRARY.impl(_name, _kernel, "CPU")
    _LIBRARY.impl(_name, _no_cuda, "CUDA")


@torch.library.register_fake("pulseline::construct_retention", lib=_LIBRARY)
def _construct_fake(
    params: Sequence[float], rows: int, cols: int, seed: int, tile_id: int
) -> Tensor:
    return torch.empty((2, rows, cols), dtype=torch.int32)


def _in_place_fake(*_: object) -> None:
    return None


for _name in ("retain_", "reset_", "disturb_", "redraw_"):
    torch.library.register_fake(f"pulseline::{_name}", _in_place_fake, lib=_LIBRARY)

construct_retention = torch.ops.pulseline.construct_retention.default
retain_ = torch.ops.pulseline.retain_.default
reset_ = torch.ops.pulseline.reset_.default
disturb_ = torch.ops.pulseline.disturb_.default
redraw_ = torch.ops.pulseline.redraw_.default


def drift_log2(t: int) -> float:
    """``log2((t + 1) / t)`` by its series: the same bits on every machine."""
    y, power, total = 1 / (2 * t + 1), 1 / (2 * t + 1), 0.0
    for n in range(1, 60, 2):
        total += power / n
        power *= y * y
    return 2 * total / 0.6931471805599453
