"""Devices from one's own measurements: a table, its sweeps, and a population fitted to them."""

from .fit import fit_measurements, from_measurements
from .summary import MeasuredFit

__all__ = ["MeasuredFit", "fit_measurements", "from_measurements"]
