"""Drop-in torch modules whose matrices live on crossbars."""

from __future__ import annotations

from .convert import to_analog
from .linear import AnalogLinear
from .registry import register
from .report import Clipping, ConversionReport, LayerReport, conversion
from .tile_ids import TileIds, tile_ids

__all__ = [
    "AnalogLinear",
    "Clipping",
    "ConversionReport",
    "LayerReport",
    "TileIds",
    "conversion",
    "register",
    "tile_ids",
    "to_analog",
]
