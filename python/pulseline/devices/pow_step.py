"""PowStep: the step is a power of the distance to the bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import require
from ..settings import setting
from .pulsed import PulsedDevice

__all__ = ["PowStep"]


@dataclass(frozen=True)
class PowStep(PulsedDevice):
    """Power dependence (Fusi & Abbott 2007; Frascaroli et al. 2018), ``R = hi - lo``::

        up:   w += s_up   ((hi - w) / R)^p_up   (1 + sigma xi)
        down: w -= s_down ((w - lo) / R)^p_down (1 + sigma xi)
        gain = 1 + pow_gamma_dtod xi        r = pow_up_down_dtod xi
        p_up   = |gain + min(pow_up_down, 0) + r| pow_gamma
        p_down = |gain - max(pow_up_down, 0) - r| pow_gamma

    p = 1, n noise-free up pulses: ``w_n = hi - (hi - w_0) (1 - s_up / R)^n``. Unlike other models
    the step at weight 0 is not dw_min: it is dw_min at the far bound.
    Its step is not affine: ``grouped`` and ``moments`` have no closed form and take a second-order
    step.

    Attributes:
        pow_gamma: mean power, > 0.
        pow_gamma_dtod: its device-to-device spread, relative.
        pow_up_down, pow_up_down_dtod: asymmetry of the powers and its spread, as up_down.

    Other parameters and errors: see :class:`PulsedDevice`; both bounds must differ from 0.
    """

    affine: ClassVar[bool] = False
    moments_error: ClassVar[str] = "11 to 13 % too far"

    pow_gamma: float = setting(1.0)
    pow_gamma_dtod: float = setting(0.1, inert=0.0)
    pow_up_down: float = setting(0.0, inert=0.0)
    pow_up_down_dtod: float = setting(0.0, inert=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.w_max > 0, self, "w_max", "use a bound > 0: the step vanishes there")
        require(self.w_min < 0, self, "w_min", "use a bound < 0: the step vanishes there")
        require(0 < self.pow_gamma <= 100, self, "pow_gamma", "use a power from 0 to 100")
        require(abs(self.pow_up_down) < 1, self, "pow_up_down", "use a value between -1 and 1")

    def nominal_powers(self) -> tuple[float, float]:
        """Mean powers of the up and the down step."""
        up = (1 + min(self.pow_up_down, 0.0)) * self.pow_gamma
        return up, (1 - max(self.pow_up_down, 0.0)) * self.pow_gamma

    def nominal_reference(self) -> float:
        """The mean reference: none."""
        return 0.0

    def nominal_steps(self) -> tuple[float, float]:
        """Sizes of the mean up and down step at weight 0."""
        (up, down), (p_up, p_down) = super().nominal_steps(), self.nominal_powers()
        reach, reference = self.w_max - self.w_min, self.nominal_reference()
        return (
            up * ((self.w_max - reference) / reach) ** p_up,
            down * ((reference - self.w_min) / reach) ** p_down,
        )

    @classmethod
    def examples(cls) -> tuple[PulsedDevice, ...]:
        """Linear, and steeper powers that differ between up and down."""
        return (
            cls(),
            cls(pow_gamma=1.7, pow_up_down=0.2, pow_up_down_dtod=0.1),
        )
