"""Matrices on devices."""

from __future__ import annotations

from .array import Array
from .parameter import AnalogParameter, check_lr
from .twins import arrays_of, cells_of, refuse_twin_arrays

__all__ = [
    "AnalogParameter",
    "Array",
    "arrays_of",
    "cells_of",
    "check_lr",
    "refuse_twin_arrays",
]
