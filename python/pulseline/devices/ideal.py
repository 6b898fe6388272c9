"""Ideal: the exact outer product, as a baseline on the same kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = ["Ideal"]


@dataclass(frozen=True)
class Ideal:
    """No pulses, no bounds: ``w <- fma(-(lr d_i), x_j, w)``, one sample after the other."""

    moments_error: ClassVar[str] = ""
    long_moments_error: ClassVar[str] = ""

    @property
    def name(self) -> str:
        """Name of the model."""
        return "Ideal"

    @property
    def fidelity_note(self) -> str:
        """Fidelities of a device without pulses, in one sentence."""
        return "every fidelity is the exact outer product"

    @property
    def default_fidelity(self) -> str:
        """The update is exact by definition."""
        return "exact"
