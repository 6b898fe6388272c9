"""Coming from another simulator: its configurations, read by attribute names."""

from __future__ import annotations

from .aihwkit import Configuration, differences, from_aihwkit

__all__ = ["Configuration", "differences", "from_aihwkit"]
