"""Patches: the rows that a convolution multiplies, unfolded where they are taken.

A pending pair of a convolution is (patches, d): what is held is the image, and whoever pulses it,
or wants the matrix that it means, walks its rows in chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..ops import Unfolding, unfold

__all__ = ["GROUP_ROWS", "Patches", "chunk_rows", "outer_sum", "parts"]

GROUP_ROWS = 512  # of a sample: where updates that join samples close their groups
_FLOATS = 1 << 19  # of a chunk's rows, if that is many rows, and four times as many at most
_FEW, _MANY = 128, 4096


class Patches:
    """A (positions, columns) matrix that is not there; slices of it are.

    Args:
        image: (samples, channels, ...) float32.
        how: where the elements of its patches come from.
    """

    def __init__(self, image: Tensor, how: Unfolding) -> None:
        self.image, self.how = image, how

    @property
    def shape(self) -> torch.Size:
        """(positions of all samples, columns)."""
        return torch.Size((len(self), self.how.columns))

    def __len__(self) -> int:
        return self.image.shape[0] * self.how.positions

    def __getitem__(self, part: slice) -> Tensor:
        first, last, _ = part.indices(len(self))
        return unfold(self.image, self.how, first, last)

    def apply(self, fn: Callable[[Tensor], Tensor]) -> Patches:
        """Patches of what a function makes of the image."""
        return Patches(fn(self.image), self.how)

    def groups(self) -> Iterator[slice]:
        """Positions, cut where updates close their groups: between samples, and every 512 rows."""
        each = self.how.positions
        for sample in range(self.image.shape[0]):
            first = sample * each
            for start in range(first, first + each, GROUP_ROWS):
                yield slice(start, min(start + GROUP_ROWS, first + each))


def chunk_rows(width: int, least: int = _FEW) -> int:
    """Rows of a chunk such that it takes about 2 MB, and 8 MB at most but for very wide ones.

    Args:
        width: numbers that go with a row. least: rows, where they take no more than 8 MB.
    """
    width = max(width, 1)
    return max(min(_FLOATS // width, _MANY), min(least, 4 * _FLOATS // width), 1)


def parts(x: Tensor | Patches, least: int = _FEW) -> Iterator[slice]:
    """The rows of one side of a pair, in chunks; a tensor is one.

    Args:
        x: rows. least: see :func:`chunk_rows`.
    """
    step = chunk_rows(x.shape[1], least) if isinstance(x, Patches) else max(len(x), 1)
    for first in range(0, len(x), step):
        yield slice(first, min(first + step, len(x)))


def outer_sum(x: Tensor | Patches, d: Tensor, blocks: int) -> Tensor:
    """``d^T x`` over all rows, of each block.

    Args:
        x: (samples, columns of all blocks). d: (samples, rows). blocks: of the matrix.

    Returns:
        (rows, columns of a block).
    """
    cols = x.shape[1] // blocks
    total = torch.zeros(blocks, d.shape[1] // blocks, cols, dtype=torch.float32, device=d.device)
    for part in parts(x):
        rows, errors = x[part], d[part]
        size = (len(rows), blocks, -1)
        total.baddbmm_(errors.view(size).permute(1, 2, 0), rows.view(size).transpose(0, 1))
    return total.flatten(0, 1)
