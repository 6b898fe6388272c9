"""PowStepReference: a power of the distance to the bound, against a reference device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import require
from ..settings import setting
from .pow_step import PowStep
from .pulsed import PulsedDevice

__all__ = ["PowStepReference"]


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
    moments_error: ClassVar[str] = "11 to 13 % too far"

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

    @classmethod
    def examples(cls) -> tuple[PulsedDevice, ...]:
        """No reference, and one at the symmetry point of skewed powers, with a spread."""
        return (
            cls(),
            cls(up_down=-0.4, pow_gamma=2.0, reference_std=0.05, subtract_symmetry_point=True),
        )
