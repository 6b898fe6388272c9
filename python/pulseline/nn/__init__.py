"""Drop-in torch modules whose matrices live on crossbars."""

from __future__ import annotations

from .convert import to_analog
from .linear import AnalogLinear

__all__ = ["AnalogLinear", "to_analog"]
