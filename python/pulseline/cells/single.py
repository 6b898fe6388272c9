"""One array that every update pulses."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..ops import Batch
from .cell import Cell

__all__ = ["Single"]


class Single(Cell):
    """Plain pulsed SGD: what is read is what is pulsed. See :class:`pulseline.Cell`."""

    def update(self, x: Tensor, d: Tensor, lr: float, batch: Batch | None = None) -> None:
        """Pulse the array, which checks everything itself; see :meth:`pulseline.Cell.update`."""
        array: Any = self._modules["arrays"]._modules["0"]  # type: ignore[union-attr]
        array.pulse(x, d, lr, batch)
