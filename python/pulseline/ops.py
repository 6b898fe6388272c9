"""Operators on crossbars, registered with torch: the only importer of the compiled modules.

Schemas, checks, dispatch and fake kernels (for torch.compile and FakeTensor) of ``pulseline::read``,
``pulseline::update_``, ``pulseline::construct`` and ``pulseline::initial_normals``. Checks raise
:class:`ConfigError` before anything is written; a backend that cannot run raises
:class:`BackendError`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from . import _cpu
from .devices import DEVICES
from .errors import BackendError, ConfigError
from .io import FIDELITIES

NUMBERING: int = _cpu.NUMBERING
PURPOSES: dict[str, int] = dict(_cpu.PURPOSES)
DEVICE_INDEX: dict[str, int] = {name: i for i, (name, _) in enumerate(_cpu.DEVICES)}
FIDELITY_INDEX = {name: i for i, name in enumerate(FIDELITIES)}
FIELDS: dict[str, tuple[str, ...]] = {n: tuple(f.split(",")) for n, f in _cpu.DEVICES}

_LIBRARY = torch.library.Library("pulseline", "DEF")
# key: seed, tile_id, k, purpose, tile_in, tile_out
_LIBRARY.define("read(Tensor x, Tensor weight, bool transposed, int[] key, float[] io) -> Tensor")
# train: see UpdateConfig; key: seed, tile_id, k, fidelity
_LIBRARY.define(
    "update_(Tensor(a!) weight, Tensor? step, Tensor? slope, Tensor? bound, Tensor x, Tensor d, "
    "str device, float[] params, float[] train, int[] key) -> ()"
)
_LIBRARY.define(
    "construct(str device, float[] params, int rows, int cols, int seed, int tile_id) "
    "-> (Tensor, Tensor, Tensor)"
)
_LIBRARY.define("initial_normals(int rows, int cols, int seed, int tile_id) -> Tensor")

_SOURCES = ("", "x", "d")
_MASK64 = (1 << 64) - 1


def use_isa(name: str) -> None:
    """Run the CPU kernels of one instruction set: baseline, avx2, avx512f or avx512.

    Raises:
        ConfigError: the name is unknown or this processor lacks the instructions.
    """
    if not _cpu.use_isa(name):
        known = ", ".join(_cpu.isas())
        raise ConfigError(f"PULSELINE_ISA is {name!r}; this machine runs {known}")


if _isa := os.environ.get("PULSELINE_ISA"):
    use_isa(_isa)


def info() -> dict[str, object]:
    """What runs here: isa, isas, threads, cuda (yes or no) and cuda_reason."""
    return {
        "isa": _cpu.isa(),
        "isas": list(_cpu.isas()),
        "threads": torch.get_num_threads(),
        "cuda": False,
        "cuda_reason": "this build has no CUDA kernels",
    }


def _matrix(name: str, t: Tensor, columns: int) -> Tensor:
    if t.dtype is not torch.float32:
        raise ConfigError(f"{name} has dtype {t.dtype}; convert it with .float()")
    if t.dim() != 2 or t.shape[1] != columns:
        raise ConfigError(f"{name} has shape {tuple(t.shape)}; use (samples, {columns})")
    return t if t.is_contiguous() else t.contiguous()


def _weight(t: Tensor) -> None:
    if t.dtype is not torch.float32 or t.dim() != 2 or not t.is_contiguous():
        raise ConfigError(
            f"weight has dtype {t.dtype} and shape {tuple(t.shape)}; "
            "use a contiguous float32 matrix (tiles keep float32, do not call .half() on them)"
        )


def _finite(status: tuple[int, int]) -> None:
    source, sample = status
    if source:
        raise ConfigError(
            f"{_SOURCES[source]}[{sample}] holds a NaN or an infinity; nothing was written, "
            "check the learning rate and the loss"
        )


def _read_cpu(
    x: Tensor, weight: Tensor, transposed: bool, key: Sequence[int], io: Sequence[float]
) -> Tensor:
    _weight(weight)
    rows, cols = weight.shape
    x = _matrix("d" if transposed else "x", x, rows if transposed else cols)
    y = x.new_empty((x.shape[0], cols if transposed else rows))
    seed, tile_id, k, purpose, tile_in, tile_out = key
    _finite(
        _cpu.read(
            weight.data_ptr(),
            x.data_ptr(),
            y.data_ptr(),
            rows,
            cols,
            x.shape[0],
            transposed,
            tile_in,
            tile_out,
            seed & _MASK64,
            tile_id,
            k,
            purpose,
            io,
            torch.get_num_threads(),
        )
    )
    return y


def _update_cpu(
    weight: Tensor,
    step: Tensor | None,
    slope: Tensor | None,
    bound: Tensor | None,
    x: Tensor,
    d: Tensor,
    device: str,
    params: Sequence[float],
    train: Sequence[float],
    key: Sequence[int],
) -> None:
    _weight(weight)
    rows, cols = weight.shape
    x, d = _matrix("x", x, cols), _matrix("d", d, rows)
    if x.shape[0] != d.shape[0]:
        raise ConfigError(f"x has {x.shape[0]} samples and d has {d.shape[0]}; use as many of each")
    lr = train[0]
    if not 0 <= lr < float("inf"):
        raise ConfigError(f"lr is {lr}; use a finite learning rate >= 0")
    pairs = (0, 0, 0)
    if device != "Ideal":
        if device not in DEVICE_INDEX or len(params) != len(FIELDS[device]):
            raise ConfigError(f"device is {device!r} with {len(params)} parameters; see DEVICES")
        if step is None or slope is None or bound is None:
            raise ConfigError(f"device {device!r} lacks its parameters; build them with construct")
        for name, t in (("step", step), ("slope", slope), ("bound", bound)):
            if t.shape != weight.shape or t.dtype is not torch.int32 or not t.is_contiguous():
                raise ConfigError(f"{name} has shape {tuple(t.shape)}; use the weight's, as int32")
        pairs = (step.data_ptr(), slope.data_ptr(), bound.data_ptr())
    seed, tile_id, k, fidelity = key
    _finite(
        _cpu.update(
            weight.data_ptr(),
            *pairs,
            x.data_ptr(),
            d.data_ptr(),
            rows,
            cols,
            x.shape[0],
            seed & _MASK64,
            tile_id,
            k,
            train,
            DEVICE_INDEX.get(device, -1),
            params,
            fidelity,
            torch.get_num_threads(),
        )
    )


def _construct(
    device: str, params: Sequence[float], rows: int, cols: int, seed: int, tile_id: int
) -> tuple[Tensor, Tensor, Tensor]:
    if device not in DEVICE_INDEX or len(params) != len(FIELDS[device]):
        known = ", ".join(DEVICES)
        raise ConfigError(f"device is {device!r} with {len(params)} parameters; use one of {known}")
    pairs = [torch.empty((rows, cols), dtype=torch.int32) for _ in range(3)]
    _cpu.construct(
        DEVICE_INDEX[device],
        params,
        seed & _MASK64,
        tile_id,
        rows,
        cols,
        *(t.data_ptr() for t in pairs),
        torch.get_num_threads(),
    )
    return pairs[0], pairs[1], pairs[2]


def _initial_normals(rows: int, cols: int, seed: int, tile_id: int) -> Tensor:
    out = torch.empty((rows, cols))
    _cpu.initial_normals(seed & _MASK64, tile_id, rows, cols, out.data_ptr())
    return out


def _no_cuda(*_: object) -> None:
    raise BackendError(f"a CUDA tensor came in, but {info()['cuda_reason']}; move it to the CPU")


_LIBRARY.impl("read", _read_cpu, "CPU")
_LIBRARY.impl("update_", _update_cpu, "CPU")
_LIBRARY.impl("read", _no_cuda, "CUDA")
_LIBRARY.impl("update_", _no_cuda, "CUDA")
_LIBRARY.impl("construct", _construct, "CompositeExplicitAutograd")
_LIBRARY.impl("initial_normals", _initial_normals, "CompositeExplicitAutograd")


@torch.library.register_fake("pulseline::read", lib=_LIBRARY)
def _read_fake(
    x: Tensor, weight: Tensor, transposed: bool, key: Sequence[int], io: Sequence[float]
) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[1 if transposed else 0]))


@torch.library.register_fake("pulseline::update_", lib=_LIBRARY)
def _update_fake(*_: object) -> None:
    return None


@torch.library.register_fake("pulseline::construct", lib=_LIBRARY)
def _construct_fake(
    device: str, params: Sequence[float], rows: int, cols: int, seed: int, tile_id: int
) -> tuple[Tensor, Tensor, Tensor]:
    pairs = [torch.empty((rows, cols), dtype=torch.int32) for _ in range(3)]
    return pairs[0], pairs[1], pairs[2]


@torch.library.register_fake("pulseline::initial_normals", lib=_LIBRARY)
def _initial_normals_fake(rows: int, cols: int, seed: int, tile_id: int) -> Tensor:
    return torch.empty((rows, cols))


read = torch.ops.pulseline.read.default
update_ = torch.ops.pulseline.update_.default
construct = torch.ops.pulseline.construct.default
initial_normals = torch.ops.pulseline.initial_normals.default
