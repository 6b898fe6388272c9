"""Algorithms that survive the device: cells of several arrays, described by frozen rules.

>>> import pulseline as pl
>>> rule = pl.algorithms.TikiTaka2(every=1, lr_fast=0.05, lr_transfer=1.0)
>>> crossbar = pl.Crossbar(pl.devices.SoftBounds(), algorithm=rule)
"""

from __future__ import annotations

from .buffered import AGAD, ERIDER, RIDER, ChoppedTikiTaka2, Residual2, TikiTaka2
from .chain import Chain, ChainCell, MultiTile, Residual1, TikiTaka1, advance
from .mixed import MixedCell, MixedPrecision
from .named import NAMES, rule_named
from .pairs import OneSided, OneSidedCell, ReferencePair, ReferencePairCell
from .programming import Written, write_verify
from .rule import Periodic, Rule
from .sums import Summand, SummedCell
from .symmetry import find_symmetry_point
from .transfer import Transfer, TransferCell
from .vector import Vector, VectorCell

__all__ = [
    "AGAD",
    "ERIDER",
    "NAMES",
    "RIDER",
    "Chain",
    "ChainCell",
    "ChoppedTikiTaka2",
    "MixedCell",
    "MixedPrecision",
    "MultiTile",
    "OneSided",
    "OneSidedCell",
    "Periodic",
    "ReferencePair",
    "ReferencePairCell",
    "Residual1",
    "Residual2",
    "Rule",
    "Summand",
    "SummedCell",
    "TikiTaka1",
    "TikiTaka2",
    "Transfer",
    "TransferCell",
    "Vector",
    "VectorCell",
    "Written",
    "advance",
    "find_symmetry_point",
    "rule_named",
    "write_verify",
]
