"""Shown: an array of a cell whose reads see more than the array holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .weight import Weighted

__all__ = ["Shown"]


class Shown(Weighted):
    """An array that may be read as another matrix: a sum that its cell keeps.

    Attributes:
        shown: (rows, cols) what is read instead of what it holds, normalised; or None.
    """

    shown: Tensor | None

    @torch.no_grad()
    def show(self, matrix: Tensor) -> None:
        """Have reads see another matrix until the next call.

        Args:
            matrix: (rows, cols), normalised, where the weight is.
        """
        shown = self.shown
        if shown is None or shown.shape != matrix.shape or shown.device != matrix.device:
            self.shown = matrix
        elif shown is not matrix:
            shown.copy_(matrix)

    @torch.no_grad()
    def write(self, matrix: Tensor) -> None:
        """Program normalised values: ``out_scale`` stays what it is.

        Args:
            matrix: (rows, cols), finite; clipped to the bounds of each crosspoint.
        """
        array: Any = self
        array._write(lambda part: matrix[part])

    def _tell(self) -> None:
        """Say to the cell that the array was written by something else than an update."""
        cell = self._parameters["weight"].cell  # type: ignore[union-attr]
        if cell is not None and not cell.updating:
            cell.refresh()
