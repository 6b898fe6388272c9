"""The tiles of models and lists of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..identity import refuse_twins
from ..parameter import AnalogParameter
from ..tile import Tile

__all__ = ["refuse_twin_tiles", "tiles_of"]


def tiles_of(named: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Tile]]:
    """The tile of every analog parameter among ``named``, once.

    Args:
        named: (name, parameter), as ``named_parameters()`` gives them.

    Returns:
        (name without ``.weight``, tile) in order.
    """
    seen: set[int] = set()
    for name, parameter in named:
        if isinstance(parameter, AnalogParameter) and id(parameter.analog_tile) not in seen:
            seen.add(id(parameter.analog_tile))
            yield name.removesuffix(".weight"), parameter.analog_tile


def refuse_twin_tiles(named: Iterable[tuple[str, Any]]) -> None:
    """Raise ConfigError if two tiles among ``named`` draw the same random numbers.

    Args:
        named: (name, parameter), as ``named_parameters()`` gives them. A tile that comes several
            times because its layer is shared is one.
    """
    refuse_twins((name, tile.identity) for name, tile in tiles_of(named))
