"""ConstantStep: every pulse has the same size until a bound is met."""

from __future__ import annotations

from dataclasses import dataclass

from .pulsed import PulsedDevice


@dataclass(frozen=True)
class ConstantStep(PulsedDevice):
    """Constant step with hard bounds (Gokmen & Vlasov 2016)::

        up:   w += s_up   (1 + sigma xi)        down: w -= s_down (1 + sigma xi)

    n noise-free up pulses: ``w_n = min(w_0 + n s_up, hi)``.
    Parameters and errors: see :class:`PulsedDevice`.
    """
