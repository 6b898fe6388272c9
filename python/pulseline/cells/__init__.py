"""What stands for a matrix: one array, or an algorithm of several."""

from __future__ import annotations

from .cell import Cell
from .make import make_cell
from .numbers import cell_of
from .single import Single

__all__ = ["Cell", "Single", "cell_of", "make_cell"]
