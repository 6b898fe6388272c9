"""Drop-in torch modules whose matrices live on crossbars."""

from __future__ import annotations

from .convert import to_analog
from .linear import AnalogLinear
from .tile_ids import tile_ids

__all__ = ["AnalogLinear", "tile_ids", "to_analog"]
