"""PowStep, PowStepReference: the step is a power of the distance to the bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..settings import setting
from .pulsed import PulsedDevice, require


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


@dataclass(frozen=True)
class PowStepReference(PowStep):
    """PowStep on ``v = w + ref``, ref kept by a second device.

    ``ref = reference_mean + reference_std xi``, plus the symmetry point (where up and down step are
    equal, found by bisection) if ``subtract_symmetry_point``, limited to the bounds of v. Bounds of
    w: ``hi = v_max - ref``, ``lo = v_min - ref``; in them it is a PowStep.

    Attributes:
        reference_mean, reference_std: the reference, in weight units.
        subtract_symmetry_point: put the symmetry point at w = 0.

    Other parameters and errors: see :class:`PowStep`; the mean reference must lie within
    the bounds.
    """

    other_spreads: ClassVar[tuple[str, ...]] = ("reference_std",)

    reference_mean: float = setting(0.0, inert=0.0)
    reference_std: float = setting(0.0, inert=0.0)
    subtract_symmetry_point: bool = setting(False, inert=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        reference = self.nominal_reference()
        ok = self.w_min < reference < self.w_max
        require(ok, self, "reference_mean", f"the reference {reference} must lie within the bounds")

    def nominal_reference(self) -> float:
        """The mean reference, symmetry point included."""
        if not self.subtract_symmetry_point:
            return self.reference_mean
        (up, down), (p_up, p_down) = PulsedDevice.nominal_steps(self), self.nominal_powers()
        low, high = 0.0, 1.0
        for _ in range(60):
            x = (low + high) / 2
            low, high = (x, high) if up * (1 - x) ** p_up > down * x**p_down else (low, x)
        return self.reference_mean + self.w_min + (self.w_max - self.w_min) * low
