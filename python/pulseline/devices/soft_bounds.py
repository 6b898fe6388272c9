"""SoftBounds: steps shrink linearly to zero at the crosspoint's own bounds."""

from __future__ import annotations

from dataclasses import dataclass

from .pulsed import PulsedDevice, require


@dataclass(frozen=True)
class SoftBounds(PulsedDevice):
    """Soft bounds (Frascaroli et al. 2018; Gokmen & Haensch 2020)::

        up:   w += s_up   (1 - w / hi) (1 + sigma xi)
        down: w -= s_down (1 - w / lo) (1 + sigma xi)

    With ``mult_noise=False`` the noise is added inside the bracket: ``(1 - w / hi + sigma xi)``.
    n noise-free up pulses: ``w_n = hi - (hi - w_0) (1 - s_up / hi)^n``; symmetry point:
    ``(s_up - s_down) / (s_up / hi - s_down / lo)``.
    Parameters and errors: see :class:`PulsedDevice`; both bounds must differ from 0.
    """

    mult_noise: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.w_max > 0, self, "w_max", "use a bound > 0: the step vanishes there")
        require(self.w_min < 0, self, "w_min", "use a bound < 0: the step vanishes there")
