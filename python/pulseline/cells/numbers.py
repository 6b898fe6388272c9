"""Cells by number: what a graph of torch.compile holds of one.

A number is a tensor, an input of the graph, so that nothing is compiled again for an equal layer.
It is of this process and of this very object: a copy gets its own, and no state holds it.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError

__all__ = ["cell_of", "enrol"]

_COUNT = itertools.count()
_CELLS: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def enrol(cell: Any) -> Tensor:
    """Give a cell its number; it is found while it lives."""
    number = next(_COUNT)
    _CELLS[number] = cell
    with torch.inference_mode(False):
        return torch.tensor(number, dtype=torch.int64, device="cpu")


def cell_of(number: Tensor) -> Any:
    """The cell of a number.

    Raises:
        ConfigError: it is gone.
    """
    key: Any = number.item()
    found = _CELLS.get(key)
    if found is None:
        raise ConfigError(
            "a compiled graph reads an analog layer that is gone; keep its model, or compile again"
        )
    return found
