"""Drop-in torch modules whose matrices live on crossbars."""

from __future__ import annotations

from .conv import (
    AnalogConv1d,
    AnalogConv2d,
    AnalogConv3d,
    AnalogConvTranspose1d,
    AnalogConvTranspose2d,
    AnalogConvTranspose3d,
)
from .convert import to_analog
from .linear import AnalogLinear
from .registry import register
from .report import Clipping, ConversionReport, LayerReport, conversion
from .tile_ids import TileIds, tile_ids

__all__ = [
    "AnalogConv1d",
    "AnalogConv2d",
    "AnalogConv3d",
    "AnalogConvTranspose1d",
    "AnalogConvTranspose2d",
    "AnalogConvTranspose3d",
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
