"""ExpStep: steps that fall off exponentially near the bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ..errors import require
from ..settings import setting
from .pulsed import PulsedDevice

__all__ = ["ExpStep"]


@dataclass(frozen=True)
class ExpStep(PulsedDevice):
    """Exponential step (ReRAM fits: Gokmen, Onen & Haensch 2017; Gong et al. 2018)::

        z = 2 a w / (hi - lo) + b
        up:   w += max(1 - a_up   e^( gamma_up   z), 0) s_up   (1 + sigma xi)
        down: w -= max(1 - a_down e^(-gamma_down z), 0) s_down (1 + sigma xi)

    With ``dw_min_std_add`` or ``dw_min_std_slope`` the noise of a pulse is
    ``sigma (|step| + dw_min_std_add + dw_min_std_slope |w|) xi``.

    Its step is not affine: ``grouped`` and ``moments`` have no closed form and take a second-order
    step.

    Attributes:
        a_up, a_down: weights of the exponentials (A_up, A_down).
        gamma_up, gamma_down: their rates.
        a, b: scale and offset of the weight in the exponent.
        dw_min_std_add, dw_min_std_slope: noise beside that of the step, relative to sigma.

    Other parameters and errors: see :class:`PulsedDevice`; at weight 0 both steps must be > 0.
    """

    affine: ClassVar[bool] = False
    moments_error: ClassVar[str] = "up to 9 % too short or 7 % too far"

    a_up: float = setting(0.00081)
    a_down: float = setting(0.36833)
    gamma_up: float = setting(12.44625)
    gamma_down: float = setting(12.78785)
    a: float = setting(0.244)
    b: float = setting(0.2425)
    dw_min_std_add: float = setting(0.0, inert=0.0)
    dw_min_std_slope: float = setting(0.0, inert=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        exponent = max(abs(self.gamma_up), abs(self.gamma_down)) * (abs(self.b) + 2 * abs(self.a))
        require(exponent < 69, self, "gamma_up", "use rates with gamma (|b| + 2 |a|) < 69")
        for name in ("dw_min_std_add", "dw_min_std_slope"):
            require(getattr(self, name) >= 0, self, name, "use a value >= 0")
        up, down = self.nominal_steps()
        require(up > 0, self, "a_up", "use a value with a_up e^(gamma_up b) < 1")
        require(down > 0, self, "a_down", "use a value with a_down e^(-gamma_down b) < 1")

    def nominal_steps(self) -> tuple[float, float]:
        """Sizes of the mean up and down step at weight 0."""
        up, down = super().nominal_steps()
        return (
            up * max(1 - self.a_up * math.exp(self.gamma_up * self.b), 0.0),
            down * max(1 - self.a_down * math.exp(-self.gamma_down * self.b), 0.0),
        )

    @classmethod
    def examples(cls) -> tuple[PulsedDevice, ...]:
        """Noise in proportion to the step, and complex noise with stuck devices."""
        return (
            cls(),
            cls(dw_min_std_add=0.002, dw_min_std_slope=0.01, corrupt_devices_prob=0.1),
        )
