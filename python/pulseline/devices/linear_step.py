"""LinearStep: steps that change linearly with the weight."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import require
from ..settings import setting
from .pulsed import PulsedDevice

__all__ = ["LinearStep"]


@dataclass(frozen=True)
class LinearStep(PulsedDevice):
    """Linear dependence of the step on the weight (ECRAM and capacitor cells)::

        up:   w += s_up   (1 - g_up   w / W+) (1 + sigma xi)
        down: w -= s_down (1 - g_down w / W-) (1 + sigma xi)

    ``g = gamma (1 + gamma_dtod xi)`` per crosspoint; W+- are the mean bounds ``w_max``, ``w_min``
    if ``mean_bound_reference``, else the crosspoint's own. With ``mult_noise=False`` the noise is
    added inside the bracket. n noise-free up pulses contract toward ``W+ / g_up`` by
    ``1 - g_up s_up / W+`` each, until the bound.
    Affine in the weight: ``grouped`` and ``moments`` follow its closed form.

    Attributes:
        gamma_up, gamma_down: relative slope of the up and the down step.
        gamma_up_dtod, gamma_down_dtod: their device-to-device spread, relative.
        mult_noise: noise multiplies the step; False: it is added inside the bracket.
        mean_bound_reference: slopes relate to the mean bounds; False: to the crosspoint's own.

    Other parameters and errors: see :class:`PulsedDevice`; both bounds must differ from 0.
    """

    gamma_up: float = setting(0.0, inert=0.0)
    gamma_down: float = setting(0.0, inert=0.0)
    gamma_up_dtod: float = setting(0.05, inert=0.0)
    gamma_down_dtod: float = setting(0.05, inert=0.0)
    mult_noise: bool = setting(True)
    mean_bound_reference: bool = setting(True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.w_max > 0, self, "w_max", "use a bound > 0: slopes are relative to it")
        require(self.w_min < 0, self, "w_min", "use a bound < 0: slopes are relative to it")

    @classmethod
    def examples(cls) -> tuple[PulsedDevice, ...]:
        """No slope; slopes to the crosspoint's own bounds; additive noise."""
        return (
            cls(),
            cls(gamma_up=0.4, gamma_down=0.2, mean_bound_reference=False),
            cls(gamma_up=0.1, gamma_down=0.4, mult_noise=False),
        )
