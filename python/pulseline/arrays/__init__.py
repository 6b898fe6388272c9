"""Matrices on devices."""

from __future__ import annotations

from .array import Array
from .gradient import PendingGradient
from .parameter import AnalogParameter, check_lr, collect, refuse_dense
from .twins import arrays_of, cells_of, refuse_twin_arrays
from .weight import Fixed, Settings, refuse_conversion

__all__ = [
    "AnalogParameter",
    "Array",
    "Fixed",
    "PendingGradient",
    "Settings",
    "arrays_of",
    "cells_of",
    "check_lr",
    "collect",
    "refuse_conversion",
    "refuse_dense",
    "refuse_twin_arrays",
]
