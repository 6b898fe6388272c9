"""Drop-in torch modules whose matrices live on crossbars."""

from __future__ import annotations

from .attention import AnalogMultiheadAttention
from .composite import Composite
from .conv import (
    AnalogConv1d,
    AnalogConv2d,
    AnalogConv3d,
    AnalogConvTranspose1d,
    AnalogConvTranspose2d,
    AnalogConvTranspose3d,
)
from .convert import to_analog
from .digital import to_digital
from .linear import AnalogLinear
from .reconfigure import reconfigure
from .recurrent import (
    AnalogGRU,
    AnalogGRUCell,
    AnalogLSTM,
    AnalogLSTMCell,
    AnalogRNN,
    AnalogRNNCell,
)
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
    "AnalogGRU",
    "AnalogGRUCell",
    "AnalogLSTM",
    "AnalogLSTMCell",
    "AnalogLinear",
    "AnalogMultiheadAttention",
    "AnalogRNN",
    "AnalogRNNCell",
    "Clipping",
    "Composite",
    "ConversionReport",
    "LayerReport",
    "TileIds",
    "conversion",
    "reconfigure",
    "register",
    "tile_ids",
    "to_analog",
    "to_digital",
]
