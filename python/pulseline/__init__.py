"""pulseline: training neural networks on simulated analog in-memory crossbars, pipelined.

>>> import pulseline as pl
>>> layer = pl.nn.AnalogLinear(64, 10, device=pl.devices.SoftBounds())
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from . import (
    algorithms,
    compat,
    configs,
    cost,
    devices,
    hardware,
    nn,
    ops,
    optim,
    pipeline,
    presets,
    schedules,
)
from .arrays import Array
from .cells import Cell
from .configs import Crossbar
from .digest import digest
from .errors import BackendError, ConfigError, StageFailed
from .identity import Identity, manual_seed
from .nn import to_analog, to_digital
from .pipeline import Pipeline

try:
    __version__ = version("pulseline")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "Array",
    "BackendError",
    "Cell",
    "ConfigError",
    "Crossbar",
    "Identity",
    "Pipeline",
    "StageFailed",
    "algorithms",
    "compat",
    "configs",
    "cost",
    "devices",
    "digest",
    "hardware",
    "manual_seed",
    "nn",
    "ops",
    "optim",
    "pipeline",
    "presets",
    "schedules",
    "to_analog",
    "to_digital",
]
