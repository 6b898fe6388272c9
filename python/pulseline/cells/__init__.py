"""What stands for a matrix: one array, or an algorithm of several."""

from __future__ import annotations

from .cell import Cell
from .make import make_cell
from .single import Single

__all__ = ["Cell", "Single", "make_cell"]
