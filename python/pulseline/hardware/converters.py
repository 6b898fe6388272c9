"""Energy and delay of converters and pulses by published formulas."""

from __future__ import annotations


def adc_energy_pj(bits: int, volts: float = 1.0) -> float:
    """``(100 fF b + 1 aF 4^b) V^2`` in pJ (ZigZag-IMC's converter model)."""
    return float((0.1 * bits + 1e-6 * 4.0**bits) * volts**2)


def adc_time_ns(bits: int, rows: int) -> float:
    """``b (0.00653 rows + 0.64)`` ns for a column of so many rows (ZigZag-IMC)."""
    return bits * (0.00653 * rows + 0.64)


def coincidence_energy_fj(volts: float, conductance_us: float, pulse_ns: float) -> float:
    """``V^2 G t`` in fJ: what one coincidence of pulses dissipates in a crosspoint."""
    return volts**2 * conductance_us * pulse_ns
