"""From a configuration to a cell."""

from __future__ import annotations

from ..configs import Crossbar
from ..errors import ConfigError
from ..identity import Identity
from .cell import Cell
from .single import Single

__all__ = ["make_cell"]


def make_cell(rows: int, cols: int, crossbar: Crossbar, identity: Identity) -> Cell:
    """The cell that the algorithm of a crossbar makes; without one, a single array.

    Args:
        rows, cols: of the matrix. crossbar: its settings. identity: of its array 0.

    Raises:
        ConfigError: the algorithm makes something else.
    """
    made = (crossbar.algorithm or Single)(rows, cols, crossbar, identity)
    if not isinstance(made, Cell):
        raise ConfigError(f"algorithm made a {type(made).__name__}; use one that makes a Cell")
    return made
