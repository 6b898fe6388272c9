"""Energy and delay of converters and pulses by published formulas."""

from __future__ import annotations

__all__ = ["adc_energy_pj", "adc_time_ns", "coincidence_energy_fj"]


def adc_energy_pj(bits: int, volts: float = 1.0) -> float:
    """``(100 fF b + 1 aF 4^b) V^2``: energy of a conversion (ZigZag-IMC's converter model).

    Args:
        bits: b. volts: V.

    Returns:
        In pJ.
    """
    return float((0.1 * bits + 1e-6 * 4.0**bits) * volts**2)


def adc_time_ns(bits: int, rows: int) -> float:
    """``b (0.00653 rows + 0.64)`` ns: time of a conversion (ZigZag-IMC).

    Args:
        bits: b. rows: crosspoints on the column.

    Returns:
        In ns.
    """
    return bits * (0.00653 * rows + 0.64)


def coincidence_energy_fj(volts: float, conductance_us: float, pulse_ns: float) -> float:
    """``V^2 G t``: what one coincidence of pulses dissipates in a crosspoint.

    Args:
        volts: V. conductance_us: G in uS. pulse_ns: t.

    Returns:
        In fJ.
    """
    return volts**2 * conductance_us * pulse_ns
