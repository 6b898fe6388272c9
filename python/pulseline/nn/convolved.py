"""Convolved: a cell that reads images, position by position.

Forward unfolds a chunk of positions, reads its rows and puts them where they belong; backward reads
errors and adds up what falls on each element, in the order of positions. No copy of more than a
chunk exists, and chunks change no bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..arrays import Patches, chunk_rows
from ..cells import Cell
from ..ops import check_finite, fold_, unfold
from ..torch_private import not_compiled_within
from .windows import Windows, unfoldings

__all__ = ["Convolved"]

_Read = Callable[..., Tensor]


class Convolved:
    """What :class:`pulseline.nn.function.Read` takes for a cell; everything else is the cell's.

    Args:
        cell: of a (outputs, channels times kernel) matrix.
        windows: which elements it multiplies. sizes: of the images.

    Raises:
        ConfigError: the images are too small.
    """

    @not_compiled_within
    def __init__(self, cell: Cell, windows: Windows, sizes: tuple[int, ...]) -> None:
        self.cell = cell
        self.inputs, self.outputs, self.sizes = unfoldings(windows, sizes)
        self._image = (windows.channels, *sizes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cell, name)

    def read(self, v: Tensor, transposed: bool = False) -> Tensor:
        """A read in training of every position.

        Args:
            v: (samples, channels, ...). transposed: (samples, outputs, ...) errors.

        Returns:
            (samples, outputs, ...); transposed: (samples, channels, ...).

        Raises:
            ConfigError: a value is not finite, or see :meth:`pulseline.Array.read`.
        """
        return (self._back if transposed else self._there)(v, self.cell.read)

    def evaluate(self, v: Tensor, transposed: bool = False) -> Tensor:
        """As :meth:`read`, advancing no training counter.

        Args:
            v, transposed: see there.
        """
        return (self._back if transposed else self._there)(v, self.cell.evaluate)

    @not_compiled_within
    def pair(self, x: Tensor, d: Tensor, own: bool) -> tuple[Patches, Tensor]:
        """What a backward pass leaves pending: the image, and the errors of every position.

        Args:
            x: (samples, channels, ...). d: (samples, outputs, ...). own: makes no difference.
        """
        rows = unfold(d, self.outputs, 0, d.shape[0] * self.outputs.positions)
        return Patches(x.clone(), self.inputs), rows

    @not_compiled_within
    def _there(self, x: Tensor, read: _Read) -> Tensor:
        check_finite(1, x)
        y = x.new_empty((x.shape[0], self.outputs.channels, *self.sizes))
        for first, last in self._chunks(x.shape[0]):
            fold_(y, read(unfold(x, self.inputs, first, last)), self.outputs, first)
        return y

    @not_compiled_within
    def _back(self, d: Tensor, read: _Read) -> Tensor:
        check_finite(2, d)
        x = d.new_zeros((d.shape[0], *self._image))
        for first, last in self._chunks(d.shape[0]):
            rows = read(unfold(d, self.outputs, first, last), transposed=True)
            fold_(x, rows, self.inputs, first)
        return x

    def _chunks(self, samples: int) -> list[tuple[int, int]]:
        step = chunk_rows(self.inputs.columns + self.outputs.channels)
        last = samples * self.inputs.positions
        return [(first, min(first + step, last)) for first in range(0, last, step)]
