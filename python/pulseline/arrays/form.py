"""Form: the shape in which torch sees a matrix, such as the weight of a convolution."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Form"]


class Form(NamedTuple):
    """A view of a matrix: rows are outputs, columns are the inputs of a block times a kernel.

    A transposed layer of several blocks with several outputs each has no such view of its memory:
    its parameter is the matrix, and takes values of either shape.

    Attributes:
        shape: of torch's weight: (outputs, inputs of a block, ...), or (inputs, outputs of a block,
            ...).
        swapped: the latter, which transposed convolutions have.
        blocks: of the matrix, one behind the other.
    """

    shape: tuple[int, ...]
    swapped: bool = False
    blocks: int = 1

    def seen(self, matrix: Tensor) -> Tensor:
        """What torch sees of a matrix: a view of it if it is contiguous."""
        if self.swapped and self.blocks > 1 and self.shape[1] > 1:
            return matrix
        return self.torchs(matrix)

    def torchs(self, matrix: Tensor) -> Tensor:
        """A matrix in torch's shape: a copy where there is no such view."""
        if not self.swapped:
            return matrix.reshape(self.shape)
        inputs, outputs, *kernel = self.shape
        split = matrix.reshape(self.blocks, outputs, inputs // self.blocks, *kernel)
        return split.transpose(1, 2).flatten(0, 1)

    def matrix(self, seen: Tensor) -> Tensor:
        """The matrix of values in torch's shape: a view of what :meth:`seen` gave."""
        if self.swapped:
            inputs, outputs, *kernel = self.shape
            split = seen.reshape(self.blocks, inputs // self.blocks, outputs, *kernel)
            seen = split.transpose(1, 2).flatten(0, 1)
        return seen.flatten(1)
