"""What a layer is given: a crossbar of devices, reads, updates and physical tiles."""

from __future__ import annotations

from .crossbar import Crossbar
from .mapping import CUDA_PRODUCTS, Mapping
from .read import (
    BOUND_MANAGEMENTS,
    IR_DROPS,
    MV_TYPES,
    NOISE_MANAGEMENTS,
    WEIGHT_NOISES,
    IOConfig,
    ReadConfig,
)
from .update import FIDELITIES, NOISES, UpdateConfig

__all__ = [
    "BOUND_MANAGEMENTS",
    "CUDA_PRODUCTS",
    "FIDELITIES",
    "IR_DROPS",
    "MV_TYPES",
    "NOISES",
    "NOISE_MANAGEMENTS",
    "WEIGHT_NOISES",
    "Crossbar",
    "IOConfig",
    "Mapping",
    "ReadConfig",
    "UpdateConfig",
]
