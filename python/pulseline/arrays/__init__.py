"""Matrices on devices."""

from __future__ import annotations

from .array import Array
from .budget import Budget
from .form import Form
from .gradient import Pairs, PendingGradient
from .meta import on_meta
from .packed import Packed
from .parameter import AnalogParameter, check_lr, collect, refuse_dense
from .patches import Patches, chunk_rows, parts
from .twins import arrays_of, cells_of, refuse_twin_arrays
from .weight import Fixed, Settings, refuse_conversion

__all__ = [
    "AnalogParameter",
    "Array",
    "Budget",
    "Fixed",
    "Form",
    "Packed",
    "Pairs",
    "Patches",
    "PendingGradient",
    "Settings",
    "arrays_of",
    "cells_of",
    "check_lr",
    "chunk_rows",
    "collect",
    "on_meta",
    "parts",
    "refuse_conversion",
    "refuse_dense",
    "refuse_twin_arrays",
]
