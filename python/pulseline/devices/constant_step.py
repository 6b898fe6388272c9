"""ConstantStep: every pulse has the same size until a bound is met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .pulsed import PulsedDevice

__all__ = ["ConstantStep"]


@dataclass(frozen=True)
class ConstantStep(PulsedDevice):
    """Constant step with hard bounds (Gokmen & Vlasov 2016)::

        up:   w += s_up   (1 + sigma xi)        down: w -= s_down (1 + sigma xi)

    Closed form in every fidelity while no bound is met: steps add up, whatever their order.
    n noise-free up pulses: ``w_n = min(w_0 + n s_up, hi)``.
    Parameters and errors: see :class:`PulsedDevice`.
    """

    long_moments_error: ClassVar[str] = ""

    @classmethod
    def examples(cls) -> tuple[PulsedDevice, ...]:
        """The defaults, and a skewed range whose bounds may cross."""
        return (
            cls(),
            cls(up_down=-0.3, w_max=1.0, w_min=-0.2, w_max_dtod=1.5),
        )

    @property
    def fidelity_note(self) -> str:
        """How ``grouped`` and ``moments`` join pulses of this model, in one sentence."""
        return "grouped and moments are as exact as its counts: steps add up until a bound is met"
