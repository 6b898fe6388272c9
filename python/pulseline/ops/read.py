"""Reads: ``pulseline::read_`` and ``pulseline::read_chain_``, the product of a crossbar.

Checks raise :class:`ConfigError` before anything is written. On CUDA see :mod:`.cuda.read`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _cpu
from .checks import (
    check_average,
    check_counters,
    operand,
    refuse_matrix,
    refuse_mixture,
    refuse_value,
    weight_address,
)
from .cuda.read import read as read_cuda
from .layout import ReadKey, columns_of
from .library import LIBRARY, direct, implement

__all__ = ["read_", "read_chain_", "read_cpu", "run_read"]

_BLOCKS = ReadKey._fields.index("block_rows")
_threads = torch.get_num_threads


def read_cpu(
    x: Tensor,
    weight: Tensor,
    transposed: bool,
    counters: Tensor,
    key: Sequence[int],
    settings: Sequence[float],
    converters: Sequence[float] | None = None,
    average: Tensor | None = None,
) -> Tensor:
    """Both reads of CPU tensors, see :func:`read_` and :func:`read_chain_`.

    Args:
        converters, average: None: the plain read.

    Raises:
        ConfigError: a tensor or a setting that cannot be read, or a value that is not finite.
    """
    held = (weight_address(weight, "cpu"), check_counters(counters, weight))
    chain = None if converters is None else (converters, average)
    return run_read(x, weight, held, transposed, key, settings, chain)


def run_read(
    x: Tensor,
    weight: Tensor,
    held: tuple[int, int],
    transposed: bool,
    key: Sequence[int],
    settings: Sequence[float],
    chain: tuple[Sequence[float], Tensor | None] | None,
) -> Tensor:
    """A read on the CPU of an array whose own tensors have been looked at.

    Args:
        x, weight, transposed, key, settings: see :func:`read_`.
        held: addresses of the weight and of the counters.
        chain: converters and average of :func:`read_chain_`; None: the plain read.

    Raises:
        ConfigError: see :func:`read_chain_`.
    """
    rows, cols = weight.shape
    columns = columns_of(weight, key, _BLOCKS)
    inputs, outputs = (rows, columns) if transposed else (columns, rows)
    x = operand("d" if transposed else "x", x, inputs, weight)
    batch = x.shape[0]
    y = x.new_empty((batch, outputs))  # float32 on the CPU, as x is
    at = (held[0], x.data_ptr(), y.data_ptr())
    if chain is None:
        code = _cpu.read(*at, rows, cols, batch, transposed, held[1], key, settings, _threads())
    else:
        converters, average = chain
        code = _cpu.read_chain(
            *(*at, check_average(average, weight), rows, cols, batch),
            *(transposed, held[1], key, settings, converters, _threads()),
        )
    if code >= 0:
        refuse_value(2 if transposed else 1, code // 2)
    return y


implement("read_", read_cpu, read_cuda)
implement("read_chain_", read_cpu, read_cuda)


@torch.library.register_fake("pulseline::read_", lib=LIBRARY)
@torch.library.register_fake("pulseline::read_chain_", lib=LIBRARY)
def _read_fake(
    x: Tensor,
    weight: Tensor,
    transposed: bool,
    counters: Tensor,
    key: Sequence[int],
    *others: object,
) -> Tensor:
    name = "d" if transposed else "x"
    rest = {f"argument {n}": t for n, t in enumerate(others, 5)}
    refuse_mixture(weight, **{name: x}, counters=counters, **rest)
    rows, cols = weight.shape[0], columns_of(weight, key, _BLOCKS)
    refuse_matrix(name, x, rows if transposed else cols)
    return x.new_empty((x.shape[0], cols if transposed else rows))


_read_op = torch.ops.pulseline.read_.default
_read_chain_op = torch.ops.pulseline.read_chain_.default


def read_(
    x: Tensor,
    weight: Tensor,
    transposed: bool,
    counters: Tensor,
    key: Sequence[int],
    settings: Sequence[float],
) -> Tensor:
    """``pulseline::read_``: analog product of every row of ``x`` with the weight.

    Args:
        x: (samples, inputs) float32. weight: (rows, cols) float32, contiguous; of several blocks,
            see :class:`ReadKey`, one behind the other.
        transposed: False: y = W x; True: y = W^T x.
        counters: of the array, advanced by the samples. key: :class:`ReadKey`.
        settings: :class:`ReadSettings`.

    Returns:
        (samples, outputs) float32.

    Raises:
        ConfigError: a tensor or a setting that cannot be read, or a value that is not finite.
    """
    if direct(x):
        return read_cpu(x, weight, transposed, counters, key, settings)
    y: Tensor = _read_op(x, weight, transposed, counters, key, settings)
    return y


def read_chain_(
    x: Tensor,
    weight: Tensor,
    transposed: bool,
    counters: Tensor,
    key: Sequence[int],
    settings: Sequence[float],
    converters: Sequence[float],
    average: Tensor | None,
) -> Tensor:
    """``pulseline::read_chain_``: a read with options; :func:`read_` where they are off.

    Args:
        x, weight, transposed, counters, key, settings: see :func:`read_`.
        converters: :class:`ConverterSettings`.
        average: running average of ``average_abs_max``, (1,) float32, <= 0: none yet; it is moved
            if ``converters.advance``.

    Returns:
        (samples, outputs) float32.

    Raises:
        ConfigError: see :func:`read_`.
    """
    if direct(x):
        return read_cpu(x, weight, transposed, counters, key, settings, converters, average)
    y: Tensor = _read_chain_op(x, weight, transposed, counters, key, settings, converters, average)
    return y
