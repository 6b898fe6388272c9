"""The arrays of models and lists of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..identity import refuse_twins
from .array import Array
from .parameter import AnalogParameter

__all__ = ["arrays_of", "cells_of", "refuse_twin_arrays"]


def cells_of(parameters: Iterable[Any]) -> Iterator[Any]:
    """The cell of every analog parameter, once and in order."""
    return (cell for _, cell in _named_cells(("", parameter) for parameter in parameters))


def _named_cells(named: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """(name of its first parameter, cell), each cell once."""
    seen: set[int] = set()
    for name, parameter in named:
        if isinstance(parameter, AnalogParameter) and id(parameter.cell) not in seen:
            seen.add(id(parameter.cell))
            yield name, parameter.cell


def arrays_of(named: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Array]]:
    """The arrays of the cells of all analog parameters among ``named``, once.

    Args:
        named: (name, parameter), as ``named_parameters()`` gives them.

    Returns:
        (name of the layer, array) in order.
    """
    for name, cell in _named_cells(named):
        layer = name.rpartition(".cell.arrays.")[0] or name
        for array in cell.arrays:
            yield layer, array


def refuse_twin_arrays(named: Iterable[tuple[str, Any]]) -> None:
    """Raise ConfigError if two arrays among ``named`` draw the same random numbers.

    Args:
        named: (name, parameter), as ``named_parameters()`` gives them. An array that comes several
            times because its layer is shared is one.
    """
    refuse_twins((name, array.identity) for name, array in arrays_of(named))
