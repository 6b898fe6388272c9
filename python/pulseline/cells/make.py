"""From a configuration to a cell."""

from __future__ import annotations

from ..configs import Crossbar
from ..errors import ConfigError
from ..identity import Identity
from .cell import Cell
from .single import Single

__all__ = ["make_cell"]


def make_cell(
    rows: int, cols: int, crossbar: Crossbar, identity: Identity, blocks: int = 1
) -> Cell:
    """The cell that the algorithm of a crossbar makes; without one, a single array.

    Args:
        rows, cols: of the matrix. crossbar: its settings. identity: of its array 0.
        blocks: of a block-diagonal matrix.

    Raises:
        ConfigError: the algorithm makes something else, or the blocks would share something.
    """
    if blocks > 1:
        _refuse_shared(crossbar, blocks)
        return Single(rows, cols, crossbar, identity, blocks)
    made = (crossbar.algorithm or Single)(rows, cols, crossbar, identity)
    if not isinstance(made, Cell):
        raise ConfigError(f"algorithm made a {type(made).__name__}; use one that makes a Cell")
    return made


def _refuse_shared(crossbar: Crossbar, blocks: int) -> None:
    """What is one for all blocks of an array."""
    text = f"with groups = {blocks}"
    if crossbar.algorithm is not None:
        raise ConfigError(f"algorithm is given {text}; leave it out, or use a layer of one group")
    for read in (crossbar.io.forward, crossbar.io.backward):
        if read.ir_drop != "none":
            raise ConfigError(f"ir_drop is {read.ir_drop!r} {text}; use 'none', or one group")
        if read.noise_management == "average_abs_max":
            raise ConfigError(
                f"noise_management is 'average_abs_max' {text}; use 'abs_max', or one group"
            )
