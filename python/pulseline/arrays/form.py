"""Form: the shape in which torch sees a matrix, such as the weight of a convolution."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Form"]


class Form(NamedTuple):
    """A view of a (rows, cols) matrix: rows are outputs, columns are inputs times a kernel.

    Attributes:
        shape: as torch sees it: (outputs, inputs, ...), or (inputs, outputs, ...).
        swapped: the latter, which transposed convolutions have.
    """

    shape: tuple[int, ...]
    swapped: bool = False

    def seen(self, matrix: Tensor) -> Tensor:
        """The view of a matrix that torch sees; never a copy of a contiguous one."""
        if not self.swapped:
            return matrix.reshape(self.shape)
        inputs, outputs, *kernel = self.shape
        return matrix.reshape(outputs, inputs, *kernel).transpose(0, 1)

    def matrix(self, seen: Tensor) -> Tensor:
        """The matrix of what torch sees, a view of :meth:`seen`."""
        if self.swapped:
            seen = seen.transpose(0, 1)
        return seen.reshape(seen.shape[0], -1) if seen.numel() else seen.flatten(1)
