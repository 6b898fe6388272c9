"""The matrices of a digital model and their numbers, which decide the devices they get.

Matrices are numbered before anything is converted: a number depends on the model alone, not on
which layers become analog nor on where the model is cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from ..arrays import AnalogParameter
from ..errors import ConfigError

# Behind the name of the module that a parameter is of; parametrizations stand in between.
_OWN = re.compile(r"(^|\.)(parametrizations\..*|[^.]*)$")

__all__ = ["MATRICES", "TileIds", "tile_ids"]

# Beside the parameters of a module of several analog layers: which of them hold a parameter of the
# digital one.
MATRICES = "_pulseline_matrices"


class TileIds(NamedTuple):
    """A parameter that holds matrices: its name, the id of the first, their number."""

    name: str
    first: int
    number: int


def tile_ids(model: nn.Module) -> list[TileIds]:
    """Every parameter of two or more dimensions in ``named_parameters()`` order, numbered.

    A shared parameter counts once, under its first name; embeddings count, as do frozen and analog
    ones. ``in_proj_weight`` of attention holds three matrices (q, k, v), a parameter of three
    dimensions one per entry of its first (stacked experts), the weight of a convolution one.

    Raises:
        ConfigError: a lazy parameter has no shape yet.
    """
    found: list[TileIds] = []
    first = 0
    modules = dict(model.named_modules())
    for name, owner, parameter in _parameters(model):
        count = _count(name, owner, parameter)
        if count and isinstance(parameter, AnalogParameter):
            name, count = _of_torch(name, modules)
        if count:
            found.append(TileIds(name, first, count))
            first += count
    return found


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """(name, owner, parameter) in ``named_parameters()`` order; the arrays of a cell are one."""
    modules = dict(model.named_modules())
    cells: set[int] = set()
    for name, parameter in model.named_parameters():
        owner = modules[_OWN.sub("", name)]
        if not isinstance(parameter, AnalogParameter):
            yield name, owner, parameter
        elif id(parameter.cell) not in cells:
            cells.add(id(parameter.cell))
            yield f"{name.rpartition('cell.arrays.')[0]}weight", owner, parameter


def _of_torch(name: str, modules: dict[str, nn.Module]) -> tuple[str, int]:
    """What an analog layer's weight is called in the digital model, and its matrices from here."""
    layer = name.removesuffix(".weight")
    around, _, last = layer.rpartition(".")
    for digital, layers in vars(modules[around]).get(MATRICES, {}).items():
        if last in layers:
            here = f"{around}.{digital}" if around else digital
            return here, len(layers) if last == layers[0] else 0
    return name, 1


def _count(name: str, owner: nn.Module, parameter: Tensor) -> int:
    """Matrices in a parameter; 0 if it is a vector or a number."""
    if is_lazy(parameter):
        raise ConfigError(f"{name} has no shape yet; run the model once before it is converted")
    if parameter.dim() < 2:
        return 0
    if isinstance(parameter, AnalogParameter):
        return 1
    if isinstance(owner, nn.MultiheadAttention) and name.endswith("in_proj_weight"):
        return 3
    stacked = parameter.dim() == 3 and not isinstance(owner, _ConvNd)
    return parameter.shape[0] if stacked else 1
