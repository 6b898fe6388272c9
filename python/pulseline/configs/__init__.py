"""What a layer is given."""

from __future__ import annotations

from .crossbar import Crossbar

__all__ = ["Crossbar"]
