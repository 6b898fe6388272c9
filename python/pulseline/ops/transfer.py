"""What algorithms of several arrays need beside reads and updates, none of which knows one.

``pulseline::pulse_`` applies counted pulses to single crosspoints, ``pulseline::convert`` is the
converter chain of one-hot reads on values that are there, :func:`uniforms` are single draws. All
are numbered by the host, which counts lines and reads of an array; same bits on CUDA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from .. import _cpu
from ..errors import ConfigError
from .checks import address, check_fired, check_tensor, refuse_mixture, weight_address
from .cuda.launch import launch_on, pairs_anew
from .layout import ConverterSettings, CountedAddresses, DrawKey
from .library import LIBRARY, direct, implement
from .update import device_arguments

__all__ = [
    "DRAWS",
    "MOST_COUNTED",
    "convert",
    "convert_cpu",
    "convert_cuda",
    "pulse_",
    "pulse_cpu",
    "pulse_cuda",
    "run_counted",
    "uniforms",
]

# Purposes of draws that are no sample's, by name; see csrc/core/rng.h.
DRAWS: Mapping[str, int] = MappingProxyType(dict(_cpu.DRAWS))
MOST_COUNTED: int = _cpu.MOST_COUNTED  # pulses of a crosspoint in one call
_F32, _I32, _I64 = torch.float32, torch.int32, torch.int64
_CPU = torch.device("cpu")
_PLAIN = ConverterSettings()
_threads = torch.get_num_threads


# ---- counted pulses ----


def _lines(weight: Tensor, columns: Tensor, counts: Tensor) -> tuple[int, int, int]:
    """How many lines, and the addresses of columns and counts."""
    check_tensor(columns)
    check_tensor(counts)
    if columns.dim() != 1 or columns.dtype is not _I32:
        raise ConfigError(
            f"columns have dtype {columns.dtype} and shape {tuple(columns.shape)}; use int32 "
            "(lines,)"
        )
    lines = columns.shape[0]
    at = address("columns", columns, _I32, (lines,), weight)
    return lines, at, address("counts", counts, _F32, (weight.shape[0], lines), weight)


def run_counted(
    held: tuple[int, int, int, int, int, Sequence[float], int],
    weight: Tensor,
    columns: Tensor,
    counts: Tensor,
    number: int,
    key: Sequence[int],
    rest: tuple[Tensor | None, Tensor | None, float] = (None, None, 0.0),
) -> None:
    """Counted pulses on the CPU where the tensors of the array have been looked at.

    Args:
        held: addresses of weight, step, slope and bound, number and parameters of the model, and
            what it does not need. weight: of the array.
        columns, counts, number, key: see :func:`pulse_`. rest: fired, visible, deviation, see
            there.

    Raises:
        ConfigError: see there.
    """
    lines, columns_at, counts_at = _lines(weight, columns, counts)
    fired, visible, deviation = rest
    at = CountedAddresses(
        *held[:4],
        columns_at,
        counts_at,
        check_fired(fired, weight),
        0 if visible is None else address("visible", visible, _F32, weight.shape, weight),
    )
    rows, cols = weight.shape
    _cpu.pulse_counted(at, rows, cols, lines, number, held[4], held[5], deviation, key, _threads())


def _counted(
    weight: Tensor,
    step: Tensor | None,
    slope: Tensor | None,
    bound: Tensor | None,
    columns: Tensor,
    counts: Tensor,
    number: int,
    device: str,
    params: Sequence[float],
    key: Sequence[int],
    fired: Tensor | None = None,
    visible: Tensor | None = None,
    deviation: float = 0.0,
) -> tuple[Any, ...]:
    """What ``pulse_counted`` of either backend takes, before threads or a stream."""
    w_at = weight_address(weight, weight.device.type)
    lines, columns_at, counts_at = _lines(weight, columns, counts)
    if device == "Ideal":
        if len(params) != 1:
            raise ConfigError(
                f"device is 'Ideal' with {len(params)} parameters; use one, the granularity"
            )
        index, pairs = -1, (0, 0, 0)
    else:
        index, pairs = device_arguments(device, params, weight, step, slope, bound)
    at = CountedAddresses(
        w_at,
        *pairs,
        columns_at,
        counts_at,
        check_fired(fired, weight),
        0 if visible is None else address("visible", visible, _F32, weight.shape, weight),
    )
    return at, *weight.shape, lines, number, index, params, deviation, key


def pulse_cpu(*arguments: Any) -> None:
    """``pulseline::pulse_`` of CPU tensors.

    Args:
        arguments: see :func:`pulse_`.

    Raises:
        ConfigError: see there.
    """
    _cpu.pulse_counted(*(*_counted(*arguments), _threads()))


def pulse_cuda(weight: Tensor, *rest: Any) -> None:
    """``pulseline::pulse_`` of CUDA tensors, on torch's current stream; waits to look at counts.

    Args:
        weight: (rows, cols) float32. rest: see :func:`pulse_`.

    Raises:
        ConfigError: see there.
        BackendError: there are no kernels, or no GPU.
    """
    described = _counted(weight, *rest)
    at, rows, cols, lines, number, model, params, deviation, key = described
    columns, counts = rest[3], rest[4]
    host = columns.cpu()
    _cpu.check_counted(at._replace(columns=host.data_ptr()), *described[1:])
    _check_counts(counts)
    if model >= 0 and not at.step:
        pairs = pairs_anew(weight, model, params, DrawKey(*key[:2]))
        step, slope, bound = (0 if t is None else t.data_ptr() for t in pairs)
        at = at._replace(step=step, slope=slope, bound=bound)
    sizes = (rows, cols, lines)
    launch_on(weight, "pulse_counted", (at, *sizes, number, model, params, deviation, key))
    fired = rest[9] if len(rest) > 9 else None
    if fired is not None and counts.numel():
        size = counts.abs().to(_I64)
        fired[0] += size.sum()
        fired[1] += size.amax(0).sum()


def _check_counts(counts: Tensor) -> None:
    """Refuse what is no whole number of pulses."""
    wrong = (counts != counts.round()) | ~(counts.abs() <= MOST_COUNTED)
    if bool(wrong.any()):
        row, line = (int(n) for n in wrong.nonzero()[0])
        raise ConfigError(
            f"counts[{row}, {line}] is {float(counts[row, line]):g}; use a whole number from "
            f"{-MOST_COUNTED} to {MOST_COUNTED}"
        )


# ---- converters ----


def _converted(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values as a kernel takes them, and where they go."""
    check_tensor(values)
    if values.dim() != 2 or values.dtype is not _F32:
        raise ConfigError(
            f"values have dtype {values.dtype} and shape {tuple(values.shape)}; use float32 "
            "(rows, reads)"
        )
    if values.layout is torch.strided and not values.is_nested:
        values = values.resolve_neg().contiguous()
    address("values", values, _F32, tuple(values.shape), values)
    return values, torch.empty_like(values, memory_format=torch.contiguous_format)


def convert_cpu(
    values: Tensor,
    number: int,
    key: Sequence[int],
    settings: Sequence[float],
    converters: Sequence[float] = _PLAIN,
) -> Tensor:
    """``pulseline::convert`` of CPU tensors.

    Args:
        values, number, key, settings, converters: see :func:`convert`.

    Raises:
        ConfigError: see there.
    """
    values, out = _converted(values)
    at, (rows, reads) = (values.data_ptr(), out.data_ptr()), values.shape
    _cpu.convert(*at, rows, reads, number, key, settings, converters, _threads())
    return out


def convert_cuda(
    values: Tensor,
    number: int,
    key: Sequence[int],
    settings: Sequence[float],
    converters: Sequence[float] = _PLAIN,
) -> Tensor:
    """``pulseline::convert`` of CUDA tensors, on torch's current stream.

    Args:
        values, number, key, settings, converters: see :func:`convert`.

    Raises:
        ConfigError: see there.
        BackendError: there are no kernels, or no GPU.
    """
    values, out = _converted(values)
    at = (values.data_ptr(), out.data_ptr(), *values.shape)
    launch_on(values, "convert", (*at, number, key, settings, converters))
    return out


implement("pulse_", pulse_cpu, pulse_cuda)
implement("convert", convert_cpu, convert_cuda)


@torch.library.register_fake("pulseline::pulse_", lib=LIBRARY)
def _pulse_fake(weight: Tensor, *others: object) -> None:
    refuse_mixture(weight, **{f"argument {n}": t for n, t in enumerate(others, 1)})


@torch.library.register_fake("pulseline::convert", lib=LIBRARY)
def _convert_fake(values: Tensor, *_: object) -> Tensor:
    return values.new_empty(values.shape)


_pulse_op = torch.ops.pulseline.pulse_.default
_convert_op = torch.ops.pulseline.convert.default


def pulse_(
    weight: Tensor,
    step: Tensor | None,
    slope: Tensor | None,
    bound: Tensor | None,
    columns: Tensor,
    counts: Tensor,
    number: int,
    device: str,
    params: Sequence[float],
    key: Sequence[int],
    fired: Tensor | None = None,
    visible: Tensor | None = None,
    deviation: float = 0.0,
) -> None:
    """``pulseline::pulse_``: counted, signed pulses on single crosspoints, in place.

    Of ``exact``, up to 31 pulses are joined as those of a sample are; of ``strict`` each is on its
    own; of ``expected`` they are joined and without noise; ``grouped`` and ``moments`` count as
    exact. Noise is drawn crosspoint by crosspoint (never in low rank). Crosspoints without a pulse
    keep every bit. The ideal device: ``w + n granularity``, product and sum rounded.

    Args:
        weight: (rows, cols) float32. step, slope, bound: as of :func:`.update.update_`.
        columns: (lines,) int32, all different; neighbours are fast.
        counts: (rows, lines) float32, whole numbers of at most ``MOST_COUNTED`` pulses; n > 0
            raises the weight.
        number: of the first line: line t draws as ``number + t``.
        device, params: name and parameters of the model; of "Ideal" its granularity.
        key: :class:`.layout.UpdateKey`, of a dense matrix.
        fired: int64; the pulses are added to its first element, and to its second the slots that
            they take: line after line, until the last row of each is done.
        visible: what is read where pulses move a hidden weight; gets write noise of ``deviation``
            wherever a pulse came, drawn by the number of the line.

    Raises:
        ConfigError: shapes, dtypes, devices, settings out of their range, a column that comes
            twice, or a count that is not whole; nothing was written.
    """
    arguments = (weight, step, slope, bound, columns, counts, number, device, params, key, fired)
    if direct(weight):
        pulse_cpu(*arguments, visible, deviation)
    else:
        _pulse_op(*arguments, visible, deviation)


def convert(
    values: Tensor,
    number: int,
    key: Sequence[int],
    settings: Sequence[float],
    converters: Sequence[float] = _PLAIN,
) -> Tensor:
    """``pulseline::convert``: values as reads of one driven line each would give them.

    ``ADC(w q + sqrt(out_noise^2 + w_noise^2 q^2) xi)`` with ``q = 1 + inp_noise xi`` of the line
    that is driven; nothing else is, and nothing is scaled: neither noise nor bound management,
    nor ``out_scale``, nor the DAC act. Two passes, non-linearity and spreads of the outputs (of the
    first segment of inputs), pcm noise and stochastic rounding do as in any read. What is not
    finite stays so.

    Args:
        values: (rows, reads) float32, normalised weights of a column each.
        number: of the first read: read t draws as ``number + t``.
        key: :class:`.layout.DrawKey` of the array. settings: :class:`.layout.ReadSettings`.
        converters: :class:`.layout.ConverterSettings`.

    Returns:
        (rows, reads) float32.

    Raises:
        ConfigError: shape, dtype, settings out of their range, or wires, by which a crosspoint
            depends on all others.
    """
    if direct(values):
        return convert_cpu(values, number, key, settings, converters)
    y: Tensor = _convert_op(values, number, key, settings, converters)
    return y


# ---- single draws ----


def uniforms(
    key: Sequence[int], purpose: str, numbers: Tensor, indices: Tensor, draw: int = 0
) -> Tensor:
    """Uniform numbers in [0, 1) on a grid of 2^-24: the first word of single draws.

    Args:
        key: :class:`.layout.DrawKey` of the array. purpose: one of ``DRAWS``.
        numbers, indices: int64 on the CPU, of shapes that broadcast: k, below 2^63, and index,
            below 2^32. draw: below 2^24.

    Returns:
        float32 on the CPU, of the broadcast shape.

    Raises:
        ConfigError: an unknown purpose, or numbers that are none or out of their range.
    """
    if purpose not in DRAWS:
        raise ConfigError(f"purpose is {purpose!r}; use one of {', '.join(DRAWS)}")
    if not isinstance(draw, int) or not 0 <= draw < 1 << 24:
        raise ConfigError(f"draw is {draw!r}; use a whole number from 0 to {(1 << 24) - 1}")
    for name, t, bits in (("numbers", numbers, 63), ("indices", indices, 32)):
        check_tensor(t)
        if t.dtype is not _I64 or not t.is_cpu:
            raise ConfigError(f"{name} are {t.dtype} on {t.device}; use int64 on the CPU")
        if t.numel() and not (t.min() >= 0 and (bits == 63 or t.max() < 1 << bits)):
            raise ConfigError(
                f"{name} reach from {t.min()} to {t.max()}; use whole numbers from 0 to "
                f"{(1 << bits) - 1}"
            )
    k, index = (t.contiguous() for t in torch.broadcast_tensors(numbers, indices))
    out = torch.empty(k.shape, dtype=_F32, device=_CPU)
    where = (k.data_ptr(), index.data_ptr(), draw, k.numel(), out.data_ptr())
    _cpu.uniforms(key, DRAWS[purpose], *where)
    return out
