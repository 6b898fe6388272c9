"""Time and energy of the modelled hardware, from geometry, converters and pulse length.

No torch, no simulation: numbers in, numbers out. What a network costs on it is computed by
``pulseline.cost``.
"""

from __future__ import annotations

from .balance import Balance, balance
from .converters import adc_energy_pj, adc_time_ns, coincidence_energy_fj
from .cost import Matrix, StageCost, stage_cost
from .files import find, read, save
from .formulas import asynchronous_ns, sequential_ns, synchronous_ns
from .model import Hardware, Source
from .presets import PRESETS, preset
from .report import RunReport, Wear
from .work import Work

__all__ = [
    "PRESETS",
    "Balance",
    "Hardware",
    "Matrix",
    "RunReport",
    "Source",
    "StageCost",
    "Wear",
    "Work",
    "adc_energy_pj",
    "adc_time_ns",
    "asynchronous_ns",
    "balance",
    "coincidence_energy_fj",
    "find",
    "preset",
    "read",
    "save",
    "sequential_ns",
    "stage_cost",
    "synchronous_ns",
]
