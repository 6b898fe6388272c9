"""What a crosspoint is drawn with: ``construct``, ``construct_retention``, ``initial_normals``.

Every number is a function of (seed, tile_id, row, column). Drawn on the CPU, wherever it goes.
``first`` is the first of the rows that are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from .. import _cpu
from ..devices import DEVICES
from ..errors import ConfigError
from .checks import check_sizes
from .layout import DrawKey
from .library import LIBRARY

__all__ = [
    "DEVICE_INDEX",
    "FIELDS",
    "FLAT",
    "construct",
    "construct_pairs",
    "construct_retention",
    "initial_normals",
    "model_index",
]

DEVICE_INDEX = MappingProxyType({name: i for i, (name, *_) in enumerate(_cpu.DEVICES)})
# Fields of a compiled model; ``curve[18]`` takes 18 numbers.
_DECLARED = tuple((name, tuple(fields.split(","))) for name, fields, *_ in _cpu.DEVICES)
FIELDS = MappingProxyType(
    {name: tuple(field.partition("[")[0] for field in fields) for name, fields in _DECLARED}
)
_PARAMETERS = MappingProxyType(
    {
        name: sum(int(field.partition("[")[2].rstrip("]") or 1) for field in fields)
        for name, fields in _DECLARED
    }
)
# Models that store no slopes: their slope pair is left out.
FLAT = frozenset(name for name, _, _, slopes in _cpu.DEVICES if not slopes)
_CPU = torch.device("cpu")  # whatever the default device is
_threads = torch.get_num_threads


def model_index(device: str, params: Sequence[float]) -> int:
    """Number of a compiled model.

    Args:
        device: its name. params: numbers of its fields.

    Raises:
        ConfigError: an unknown name, or another number of parameters.
    """
    index = DEVICE_INDEX.get(device, -1)
    if index < 0 or len(params) != _PARAMETERS[device]:
        known = ", ".join(DEVICES)
        raise ConfigError(f"device is {device!r} with {len(params)} parameters; use one of {known}")
    return index


def _key(
    rows: int, cols: int, seed: int, tile_id: int, first: int = 0, block_rows: int = 0
) -> DrawKey:
    """Whose draws a matrix takes; refused before there is memory for it."""
    check_sizes(rows, cols)
    check_sizes(first, cols)
    check_sizes(first + rows, cols)
    key = DrawKey(seed, tile_id, block_rows)
    _cpu.check_key(key)
    return key


def construct_pairs(
    device: str,
    params: Sequence[float],
    rows: int,
    cols: int,
    key: tuple[int, int],
    first: int = 0,
    block_rows: int = 0,
    flat: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """``construct`` without the slope of a model that has none.

    Args:
        device, params: of the population. rows, cols, first: so many rows, from there on.
        key: seed and tile_id of the array. block_rows: of a block-diagonal one; 0: it is dense.
        flat: leave the slope of such a model out.

    Raises:
        ConfigError: an unknown model, sizes or a key out of range.
    """
    index, whose = model_index(device, params), _key(rows, cols, *key, first, block_rows)

    def words() -> Tensor:
        return torch.empty((rows, cols), dtype=torch.int32, device=_CPU)

    step, bound = words(), words()
    slope = None if flat and device in FLAT else words()
    at = 0 if slope is None else slope.data_ptr()
    sizes = (first, rows, cols)
    _cpu.construct(index, params, whose, *sizes, step.data_ptr(), at, bound.data_ptr(), _threads())
    return step, slope, bound


def _construct(
    device: str,
    params: Sequence[float],
    rows: int,
    cols: int,
    seed: int,
    tile_id: int,
    first: int = 0,
    block_rows: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    key = (seed, tile_id)
    made = construct_pairs(device, params, rows, cols, key, first, block_rows, flat=False)
    return made[0], made[1], made[2]  # type: ignore[return-value]


def _initial_normals(
    rows: int, cols: int, seed: int, tile_id: int, first: int = 0, block_rows: int = 0
) -> Tensor:
    key = _key(rows, cols, seed, tile_id, first, block_rows)
    out = torch.empty((rows, cols), dtype=torch.float32, device=_CPU)
    _cpu.initial_normals(key, first, rows, cols, out.data_ptr(), _threads())
    return out


def _construct_retention(
    settings: Sequence[float], rows: int, cols: int, seed: int, tile_id: int, block_rows: int = 0
) -> Tensor:
    key = _key(rows, cols, seed, tile_id, 0, block_rows)
    words = torch.empty((2, rows, cols), dtype=torch.int32, device=_CPU)
    _cpu.construct_retention(settings, key, rows, cols, words.data_ptr(), _threads())
    return words


LIBRARY.impl("construct", _construct, "CompositeExplicitAutograd")
LIBRARY.impl("construct_retention", _construct_retention, "CompositeExplicitAutograd")
LIBRARY.impl("initial_normals", _initial_normals, "CompositeExplicitAutograd")


@torch.library.register_fake("pulseline::construct", lib=LIBRARY)
def _construct_fake(
    device: str,
    params: Sequence[float],
    rows: int,
    cols: int,
    seed: int,
    tile_id: int,
    first: int = 0,
    block_rows: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    pairs = [torch.empty((rows, cols), dtype=torch.int32, device=_CPU) for _ in range(3)]
    return pairs[0], pairs[1], pairs[2]


@torch.library.register_fake("pulseline::initial_normals", lib=LIBRARY)
def _initial_normals_fake(
    rows: int, cols: int, seed: int, tile_id: int, first: int = 0, block_rows: int = 0
) -> Tensor:
    return torch.empty((rows, cols), dtype=torch.float32, device=_CPU)


@torch.library.register_fake("pulseline::construct_retention", lib=LIBRARY)
def _construct_retention_fake(
    settings: Sequence[float], rows: int, cols: int, seed: int, tile_id: int, block_rows: int = 0
) -> Tensor:
    return torch.empty((2, rows, cols), dtype=torch.int32, device=_CPU)


construct = torch.ops.pulseline.construct.default
construct_retention = torch.ops.pulseline.construct_retention.default
initial_normals = torch.ops.pulseline.initial_normals.default
