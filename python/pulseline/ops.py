"""Operators on crossbars, registered with torch: the only importer of the compiled modules.

Schemas, checks, dispatch and fake kernels (for torch.compile and FakeTensor) of
``pulseline::read``, ``pulseline::read_chain_``, ``pulseline::update_``, ``pulseline::construct``
and ``pulseline::initial_normals``. Checks raise
:class:`ConfigError` before anything is written; a backend that cannot run raises
:class:`BackendError`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from . import _cpu, ops_cuda, ops_read_cuda
from .devices import DEVICES
from .errors import ConfigError
from .ops_checks import (
    check_average,
    check_fired,
    check_tensor,
    check_update,
    elsewhere,
    refuse_device,
    refuse_matrix,
    refuse_mixture,
    refuse_value,
    refuse_weight,
)
from .ops_cuda import check_updates as check_updates
from .ops_cuda import settle as settle
from .ops_layout import FIDELITY_INDEX as FIDELITY_INDEX
from .ops_layout import NUMBERING as NUMBERING
from .ops_layout import PURPOSES as PURPOSES
from .ops_layout import ConverterSettings as ConverterSettings
from .ops_layout import DrawKey as DrawKey
from .ops_layout import PulseSettings as PulseSettings
from .ops_layout import ReadKey as ReadKey
from .ops_layout import ReadSettings as ReadSettings
from .ops_layout import UpdateKey as UpdateKey
from .ops_layout import checked
from .ops_read_cuda import set_cuda_products as set_cuda_products
from .ops_wires import wire_currents as wire_currents

DEVICE_INDEX: dict[str, int] = {name: i for i, (name, *_) in enumerate(_cpu.DEVICES)}
# Fields of a compiled model; ``curve[18]`` takes 18 numbers.
_DECLARED = {name: fields.split(",") for name, fields, *_ in _cpu.DEVICES}
FIELDS: dict[str, tuple[str, ...]] = {
    name: tuple(field.partition("[")[0] for field in fields) for name, fields in _DECLARED.items()
}
_PARAMETERS = {
    name: sum(int(field.partition("[")[2].rstrip("]") or 1) for field in fields)
    for name, fields in _DECLARED.items()
}

_LIBRARY = torch.library.Library("pulseline", "DEF")
# k: number of the first sample. key, settings, converters, pulses: NamedTuples of ops_layout
_LIBRARY.define(
    "read(Tensor x, Tensor weight, bool transposed, int k, int[] key, float[] settings) -> Tensor"
)
_LIBRARY.define(
    "read_chain_(Tensor x, Tensor weight, bool transposed, int k, int[] key, float[] settings, "
    "float[] converters, Tensor(a!)? average) -> Tensor"
)
_LIBRARY.define(
    "update_(Tensor(a!) weight, Tensor? step, Tensor? slope, Tensor? bound, Tensor x, Tensor d, "
    "float lr, str device, float[] params, float[] pulses, int k, int[] key, "
    "Tensor(b!)? fired=None) -> ()"
)
_LIBRARY.define(
    "construct(str device, float[] params, int rows, int cols, int seed, int tile_id) "
    "-> (Tensor, Tensor, Tensor)"
)
_LIBRARY.define("initial_normals(int rows, int cols, int seed, int tile_id) -> Tensor")

_MASK64 = (1 << 64) - 1
_F32 = torch.float32
_CPU = torch.device("cpu")  # whatever the default device is
_threads = torch.get_num_threads
_modes = torch._C._len_torch_dispatch_stack


def use_isa(name: str) -> None:
    """Run the CPU kernels of one instruction set: baseline, avx2, avx512f or avx512.

    Raises:
        ConfigError: the name is unknown or this processor lacks the instructions.
    """
    if not _cpu.use_isa(name):
        known = ", ".join(_cpu.isas())
        raise ConfigError(f"PULSELINE_ISA is {name!r}; this machine runs {known}")


def check_environment() -> None:
    """Apply PULSELINE_ISA.

    Raises:
        ConfigError: see :func:`use_isa`.
    """
    if isa := os.environ.get("PULSELINE_ISA"):
        use_isa(isa)


try:
    check_environment()
except ConfigError as error:  # the command line says it in one sentence and stops
    warnings.warn(f"{error}; using {_cpu.isa()}", RuntimeWarning, stacklevel=2)


def info() -> dict[str, object]:
    """What runs here: isa, isas, threads, cuda (yes or no) and cuda_reason."""
    return {
        "isa": _cpu.isa(),
        "isas": list(_cpu.isas()),
        "threads": torch.get_num_threads(),
        "cuda": not (why := ops_cuda.reason()),
        "cuda_reason": why,
    }


def _read_cpu(
    x: Tensor,
    weight: Tensor,
    transposed: bool,
    k: int,
    key: Sequence[int],
    settings: Sequence[float],
    converters: Sequence[float] | None = None,
    average: Tensor | None = None,
) -> Tensor:
    """Both reads; without converters the plain one."""
    if (
        weight.dtype is not _F32
        or weight.dim() != 2
        or not weight.is_contiguous()
        or not weight.is_cpu
    ):
        refuse_weight(weight)
    rows, cols = weight.shape
    inputs, outputs = (rows, cols) if transposed else (cols, rows)
    if x.dtype is not _F32 or x.dim() != 2 or x.shape[1] != inputs:
        refuse_matrix("d" if transposed else "x", x, inputs)
    if not x.is_cpu:
        refuse_device("d" if transposed else "x", x, weight)
    if not x.is_contiguous():
        x = x.contiguous()
    batch = x.shape[0]
    y = torch.empty((batch, outputs), dtype=_F32, device=_CPU)
    w_at, x_at, y_at = weight.data_ptr(), x.data_ptr(), y.data_ptr()
    size = (rows, cols, batch)
    if converters is None:
        code = _cpu.read(w_at, x_at, y_at, *size, transposed, k, key, settings, _threads())
    else:
        check_average(average)
        if average is not None and not average.is_cpu:
            refuse_device("average", average, weight)
        held = 0 if average is None else average.data_ptr()
        code = _cpu.read_chain(
            *(w_at, x_at, y_at, held), *size, transposed, k, key, settings, converters, _threads()
        )
    if code >= 0:
        refuse_value(2 if transposed else 1, code // 2)
    return y


def _update_cpu(
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
    k: int,
    key: Sequence[int],
    fired: Tensor | None = None,
) -> None:
    settings, whose = checked(PulseSettings, pulses), checked(UpdateKey, key)
    check_update(weight, x, d, lr, settings, k, whose, "cpu")
    check_fired(fired, weight)
    x, d = x.contiguous(), d.contiguous()
    index, addresses = -1, (0, 0, 0)
    if device != "Ideal":
        index, pairs = _device_arguments(device, params, weight, step, slope, bound)
        addresses = (pairs[0].data_ptr(), pairs[1].data_ptr(), pairs[2].data_ptr())
    code = _cpu.update(
        weight.data_ptr(),
        *addresses,
        x.data_ptr(),
        d.data_ptr(),
        weight.shape[0],
        weight.shape[1],
        x.shape[0],
        lr,
        index,
        params,
        settings,
        k,
        whose,
        _threads(),
        0 if fired is None else fired.data_ptr(),
    )
    if code >= 0:
        refuse_value(code % 2 + 1, code // 2)


def _update_cuda(
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
    k: int,
    key: Sequence[int],
    fired: Tensor | None = None,
) -> None:
    settings, whose = checked(PulseSettings, pulses), checked(UpdateKey, key)
    check_update(weight, x, d, lr, settings, k, whose, weight.device.type)
    index, pairs = -1, (weight,) * 3
    if device != "Ideal":
        index, pairs = _device_arguments(device, params, weight, step, slope, bound)
    check_fired(fired, weight)
    x, d = x.contiguous(), d.contiguous()
    ops_cuda.update(
        ops_cuda.Update(weight, pairs, x, d, lr, index, params, settings, k, whose, fired)
    )


def _device_arguments(
    device: str,
    params: Sequence[float],
    weight: Tensor,
    step: Tensor | None,
    slope: Tensor | None,
    bound: Tensor | None,
) -> tuple[int, tuple[Tensor, Tensor, Tensor]]:
    """Index of the compiled model; step, slope and bound, checked."""
    index = DEVICE_INDEX.get(device, -1)
    if index < 0 or len(params) != _PARAMETERS[device]:
        raise ConfigError(f"device is {device!r} with {len(params)} parameters; see DEVICES")
    if step is None or slope is None or bound is None:
        missing = "step" if step is None else "slope" if slope is None else "bound"
        raise ConfigError(f"device {device!r} lacks its {missing}; build it with construct")
    pairs, shape = (step, slope, bound), weight.shape
    for name, t in zip(("step", "slope", "bound"), pairs, strict=True):
        if t.shape != shape or t.dtype is not torch.int32 or not t.is_contiguous():
            raise ConfigError(f"{name} has shape {tuple(t.shape)}; use the weight's, as int32")
        if elsewhere(t, weight):
            refuse_device(name, t, weight)
    return index, pairs


def _construct(
    device: str, params: Sequence[float], rows: int, cols: int, seed: int, tile_id: int
) -> tuple[Tensor, Tensor, Tensor]:
    if device not in DEVICE_INDEX or len(params) != _PARAMETERS[device]:
        known = ", ".join(DEVICES)
        raise ConfigError(f"device is {device!r} with {len(params)} parameters; use one of {known}")
    step, slope, bound = (
        torch.empty((rows, cols), dtype=torch.int32, device=_CPU) for _ in range(3)
    )
    _cpu.construct(
        DEVICE_INDEX[device],
        params,
        seed & _MASK64,
        tile_id,
        rows,
        cols,
        step.data_ptr(),
        slope.data_ptr(),
        bound.data_ptr(),
        torch.get_num_threads(),
    )
    return step, slope, bound


def _initial_normals(rows: int, cols: int, seed: int, tile_id: int) -> Tensor:
    out = torch.empty((rows, cols), dtype=_F32, device=_CPU)
    _cpu.initial_normals(seed & _MASK64, tile_id, rows, cols, out.data_ptr(), _threads())
    return out


_LIBRARY.impl("read", _read_cpu, "CPU")
_LIBRARY.impl("read_chain_", _read_cpu, "CPU")
_LIBRARY.impl("update_", _update_cpu, "CPU")
_LIBRARY.impl("read", ops_read_cuda.read, "CUDA")
_LIBRARY.impl("read_chain_", ops_read_cuda.read, "CUDA")
_LIBRARY.impl("update_", _update_cuda, "CUDA")
_LIBRARY.impl("construct", _construct, "CompositeExplicitAutograd")
_LIBRARY.impl("initial_normals", _initial_normals, "CompositeExplicitAutograd")


@torch.library.register_fake("pulseline::read", lib=_LIBRARY)
@torch.library.register_fake("pulseline::read_chain_", lib=_LIBRARY)
def _read_fake(x: Tensor, weight: Tensor, transposed: bool, *_: object) -> Tensor:
    refuse_mixture(weight, **{"d" if transposed else "x": x})
    return x.new_empty((x.shape[0], weight.shape[1 if transposed else 0]))


@torch.library.register_fake("pulseline::update_", lib=_LIBRARY)
def _update_fake(
    weight: Tensor,
    step: Tensor | None,
    slope: Tensor | None,
    bound: Tensor | None,
    x: Tensor,
    d: Tensor,
    *_: object,
) -> None:
    refuse_mixture(weight, x=x, d=d)


@torch.library.register_fake("pulseline::construct", lib=_LIBRARY)
def _construct_fake(
    device: str, params: Sequence[float], rows: int, cols: int, seed: int, tile_id: int
) -> tuple[Tensor, Tensor, Tensor]:
    pairs = [torch.empty((rows, cols), dtype=torch.int32, device=_CPU) for _ in range(3)]
    return pairs[0], pairs[1], pairs[2]


@torch.library.register_fake("pulseline::initial_normals", lib=_LIBRARY)
def _initial_normals_fake(rows: int, cols: int, seed: int, tile_id: int) -> Tensor:
    return torch.empty((rows, cols), dtype=_F32, device=_CPU)


_read_op = torch.ops.pulseline.read.default
_read_chain_op = torch.ops.pulseline.read_chain_.default
_update_op = torch.ops.pulseline.update_.default
construct = torch.ops.pulseline.construct.default
initial_normals = torch.ops.pulseline.initial_normals.default


def _direct(t: Tensor) -> bool:
    """Plain eager CPU tensors skip torch's dispatcher: it costs as much as a small read."""
    if type(t) is not Tensor:
        check_tensor(t)
        return False
    return not torch.compiler.is_compiling() and t.is_cpu and not _modes()


def read(
    x: Tensor,
    weight: Tensor,
    transposed: bool,
    k: int,
    key: Sequence[int],
    settings: Sequence[float],
) -> Tensor:
    """``pulseline::read``: analog product of every row of ``x`` with the weight.

    Args:
        x: (samples, inputs) float32. weight: (rows, cols) float32, contiguous.
        transposed: False: y = W x; True: y = W^T x.
        k: running number of the first sample. key: :class:`ReadKey`.
        settings: :class:`ReadSettings`.

    Returns:
        (samples, outputs) float32.
    """
    if _direct(x):
        return _read_cpu(x, weight, transposed, k, key, settings)
    y: Tensor = _read_op(x, weight, transposed, k, key, settings)
    return y


def read_chain_(
    x: Tensor,
    weight: Tensor,
    transposed: bool,
    k: int,
    key: Sequence[int],
    settings: Sequence[float],
    converters: Sequence[float],
    average: Tensor | None,
) -> Tensor:
    """``pulseline::read_chain_``: a read with options; :func:`read` where they are off.

    Args:
        converters: :class:`ConverterSettings`.
        average: running average of ``average_abs_max``, (1,) float32, <= 0: none yet; it is moved
            if ``converters.advance``.
    """
    if _direct(x):
        return _read_cpu(x, weight, transposed, k, key, settings, converters, average)
    y: Tensor = _read_chain_op(x, weight, transposed, k, key, settings, converters, average)
    return y


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
    k: int,
    key: Sequence[int],
    fired: Tensor | None = None,
) -> None:
    """``pulseline::update_``: pulse the weight in place, samples in order.

    Args:
        weight: (rows, cols) float32. step, slope, bound: int32 pairs of ``construct``, or None for
            the ideal device. x: (samples, cols), d: (samples, rows) float32.
        lr: learning rate >= 0. device, params: name and parameters of the model.
        pulses: :class:`PulseSettings`. k: running number of the first sample.
        key: :class:`UpdateKey`.
        fired: int64, where the weight is; counts of coincidences and of slots are added to its
            first two elements.
    """
    if _direct(x):
        _update_cpu(weight, step, slope, bound, x, d, lr, device, params, pulses, k, key, fired)
    else:
        _update_op(weight, step, slope, bound, x, d, lr, device, params, pulses, k, key, fired)
