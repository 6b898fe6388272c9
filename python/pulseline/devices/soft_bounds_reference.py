"""SoftBoundsReference: soft bounds against a reference device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import require
from ..settings import setting
from .pulsed import PulsedDevice, nearest_bf16

__all__ = ["SoftBoundsReference"]


@dataclass(frozen=True)
class SoftBoundsReference(PulsedDevice):
    """Soft bounds on ``v = w + ref``, ref kept by a second device (Gong, Rasch et al. 2022)::

        up:   v += s_up   (1 - v / v_max + sigma xi)
        down: v -= s_down (1 - v / v_min + sigma xi)

    With ``mult_noise`` the noise multiplies: ``(1 - v / v_max) (1 + sigma xi)``. ``v_max`` is the
    crosspoint's bound over ``|1 + slope_up_dtod xi|`` (at most 16 times as far), ``v_min`` too;
    ``ref = reference_mean + reference_std xi``, plus the symmetry point
    ``(s_up - s_down) / (s_up / v_max - s_down / v_min)`` if ``subtract_symmetry_point``, limited to
    [v_min, v_max]. Bounds of w: ``hi = v_max - ref``, ``lo = v_min - ref``. n noise-free up pulses:
    ``w_n = hi - (hi - w_0) (1 - s_up / v_max)^n``.
    Affine in the weight: ``grouped`` and ``moments`` follow its closed form.

    Attributes:
        mult_noise: noise multiplies the step; False: it is added inside the bracket.
        slope_up_dtod, slope_down_dtod: device-to-device spread of the slopes, relative.
        reference_mean, reference_std: the reference, in weight units.
        subtract_symmetry_point: put the symmetry point at w = 0.

    Other parameters and errors: see :class:`PulsedDevice`; both bounds must differ from 0 and the
    mean reference must lie between them.
    """

    other_spreads: ClassVar[tuple[str, ...]] = ("reference_std",)

    mult_noise: bool = setting(False)
    slope_up_dtod: float = setting(0.0, inert=0.0)
    slope_down_dtod: float = setting(0.0, inert=0.0)
    reference_mean: float = setting(0.0, inert=0.0)
    reference_std: float = setting(0.0, inert=0.0)
    subtract_symmetry_point: bool = setting(False, inert=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.w_max > 0, self, "w_max", "use a bound > 0: the step vanishes there")
        require(self.w_min < 0, self, "w_min", "use a bound < 0: the step vanishes there")
        reference = self.nominal_reference()
        ok = self.w_min < reference < self.w_max
        require(
            ok,
            self,
            "reference_mean",
            f"use one that puts the reference {reference} within the bounds",
        )

    def nominal_reference(self) -> float:
        """The mean reference, symmetry point included."""
        if not self.subtract_symmetry_point:
            return self.reference_mean
        up, down = super().nominal_steps()
        return self.reference_mean + (up - down) / (up / self.w_max - down / self.w_min)

    def nominal_steps(self) -> tuple[float, float]:
        """Sizes of the mean up and down step at weight 0."""
        up, down = super().nominal_steps()
        reference = self.nominal_reference()
        if self.varies:
            return up * (1 - reference / self.w_max), down * (1 - reference / self.w_min)
        # Every crosspoint keeps the same slopes and bounds of w, whose product is the step at 0.
        v_max, v_min = nearest_bf16(self.w_max), nearest_bf16(self.w_min)
        return (
            nearest_bf16(up / v_max) * nearest_bf16(v_max - reference),
            nearest_bf16(down / v_min) * nearest_bf16(v_min - reference),
        )

    @classmethod
    def examples(cls) -> tuple[PulsedDevice, ...]:
        """Additive noise; with the symmetry point; multiplying noise, references, some stuck."""
        return (
            cls(),
            cls(
                up_down=0.4,
                w_max_dtod=0.8,
                slope_up_dtod=0.3,
                subtract_symmetry_point=True,
            ),
            cls(
                mult_noise=True,
                reference_mean=0.04,
                reference_std=0.1,
                corrupt_devices_prob=0.1,
            ),
        )
