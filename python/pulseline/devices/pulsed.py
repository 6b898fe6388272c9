"""Parameters that all pulsed devices share.

Per crosspoint, with independent standard normals xi (Gokmen & Vlasov 2016 and later work)::

    hi = w_max (1 + w_max_dtod xi)      lo = w_min (1 + w_min_dtod xi)
    gain = 1 + dw_min_dtod xi           (exp(dw_min_dtod xi) if dw_min_dtod_log_normal)
    r = up_down_dtod xi
    s_up   = |gain + min(up_down, 0) + r| dw_min
    s_down = |gain - max(up_down, 0) - r| dw_min

Each number is a pure function of (seed, tile_id, row, column), drawn in float32 and stored as the
nearest bfloat16: the stored value is the device. So a step, a slope or a bound is within 2^-9
(.2 %) of its formula; powers of two (``dw_min=2**-9``, bounds of .5) are exact, which is what a
comparison with theory should use. xi of parameters lies within +-4.85 (Kolmogorov distance to a
normal .0005).

Once per ``batch`` samples that a crossbar sees, T, b, D and nu drawn per crosspoint::

    decay      w <- w - (w - b) / T       T = lifetime (1 + lifetime_dtod xi)
                                          b = reset + reset_dtod xi
    drift      w <- w ((t + 1) / t)^-nu   nu = drift_nu (1 + drift_nu_dtod xi), t = 1, 2, ..
    diffusion  w <- w + D xi              D = |diffusion (1 + diffusion_dtod xi)|

and, when asked for, reset: ``w <- b + reset_std xi``. A weight that nothing else moves drifts as
``w_0 t^-nu``; t counts these events of the crossbar, not since the last write. Samples are those of
updates, and of training reads where the weight is frozen; the events fall on multiples of ``batch``
of them, between two samples of a call, so that no bit depends on how samples are cut into calls.
With write noise the weight that is read is ``hidden + write_noise_std dw_min xi``, xi drawn anew
when pulses arrive; pulses move the hidden weight.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from typing import ClassVar

from ..errors import require
from ..settings import setting

__all__ = ["RETENTION", "PulsedDevice", "nearest_bf16"]

# Fields that act between pulses: not parameters of the compiled pulse model.
RETENTION = (
    "lifetime",
    "lifetime_dtod",
    "reset",
    "reset_dtod",
    "reset_std",
    "diffusion",
    "diffusion_dtod",
    "drift_nu",
    "drift_nu_dtod",
)
_BETWEEN_PULSES = (*RETENTION, "batch", "write_noise_std")


def nearest_bf16(value: float) -> float:
    """``value`` as a crosspoint keeps it: the nearest bfloat16, ties to even."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    rounded: float = struct.unpack("<f", struct.pack("<I", bits))[0]
    return rounded


@dataclass(frozen=True)
class PulsedDevice:
    """Base of the pulsed models. Weights and steps are in normalised conductance units.

    Attributes:
        dw_min: mean step of one pulse at weight 0; at least 2^-24 of the larger bound, where a
            float32 weight can still move by it.
        dw_min_dtod: device-to-device spread of the step, relative.
        dw_min_std: cycle-to-cycle noise of a step, relative (sigma).
        dw_min_dtod_log_normal: draw the step's spread log-normally.
        up_down: asymmetry; > 0 weakens only the down step, < 0 only the up step.
        up_down_dtod: device-to-device spread of the asymmetry.
        w_max, w_min: mean bounds, w_min <= 0 <= w_max.
        w_max_dtod, w_min_dtod: device-to-device spread of the bounds, relative.
        corrupt_devices_prob: part of the devices that are stuck, each at one value.
        corrupt_devices_range: that value is uniform within +-range.
        batch: samples from one event of decay, drift and diffusion to the next.
        lifetime, lifetime_dtod: decay time in events (0: no decay), its spread, relative.
        reset, reset_dtod, reset_std: where decay and reset lead, its spread, noise of a reset.
        diffusion, diffusion_dtod: random walk per event, its spread, relative.
        drift_nu, drift_nu_dtod: exponent of the drift, its spread, relative.
        write_noise_std: noise of what is read, in units of dw_min.

    Raises:
        ConfigError: a value is not finite, or out of the range given above.
    """

    curves: ClassVar[tuple[str, ...]] = ()  # fields that hold a tuple of numbers
    other_spreads: ClassVar[tuple[str, ...]] = ()  # fields beside ``*_dtod`` that make devices vary
    affine: ClassVar[bool] = True  # the step changes linearly with the weight, or not at all
    # Fidelity "moments" against "strict", calls that move weights by .6 of their range: how far
    # off it is, with trains of any length and with more than 31 slots; empty: a few percent.
    moments_error: ClassVar[str] = ""
    long_moments_error: ClassVar[str] = "5 to 28 % too short with trains of more than 31 slots"

    dw_min: float = setting(0.001)
    dw_min_dtod: float = setting(0.3, inert=0.0)
    dw_min_std: float = setting(0.3, inert=0.0)
    dw_min_dtod_log_normal: bool = setting(False, inert=False)
    up_down: float = setting(0.0, inert=0.0)
    up_down_dtod: float = setting(0.01, inert=0.0)
    w_max: float = setting(0.6)
    w_min: float = setting(-0.6)
    w_max_dtod: float = setting(0.3, inert=0.0)
    w_min_dtod: float = setting(0.3, inert=0.0)
    corrupt_devices_prob: float = setting(0.0, inert=0.0)
    corrupt_devices_range: float = setting(1.0)
    batch: int = setting(1, inert=1)
    lifetime: float = setting(0.0, inert=0.0)
    lifetime_dtod: float = setting(0.0, inert=0.0)
    reset: float = setting(0.0, inert=0.0)
    reset_dtod: float = setting(0.0, inert=0.0)
    reset_std: float = setting(0.01, inert=0.0)
    diffusion: float = setting(0.0, inert=0.0)
    diffusion_dtod: float = setting(0.0, inert=0.0)
    drift_nu: float = setting(0.0, inert=0.0)
    drift_nu_dtod: float = setting(0.0, inert=0.0)
    write_noise_std: float = setting(0.0, inert=0.0)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in self.curves:
                continue
            require(
                isinstance(value, (int, float)) and abs(value) < 1e30,
                self,
                field.name,
                "use a finite number",
            )
            if field.name.endswith(("_dtod", "_std")):
                require(value >= 0, self, field.name, "use a value >= 0")
        require(self.dw_min > 1e-30, self, "dw_min", "use a step > 0")  # > 0 as float32
        require(self.w_max >= 0, self, "w_max", "use a bound >= 0")
        require(self.w_min <= 0, self, "w_min", "use a bound <= 0")
        require(self.w_max > self.w_min, self, "w_max", f"use a bound above w_min = {self.w_min}")
        least = max(self.w_max, -self.w_min) * 2.0**-24
        fix = f"use a step >= {least:.3g}, below which pulses vanish in float32 rounding at w_max"
        require(self.dw_min >= least, self, "dw_min", fix)
        require(abs(self.up_down) < 1, self, "up_down", "use a value between -1 and 1")
        ok = 0 <= self.corrupt_devices_prob <= 1
        require(ok, self, "corrupt_devices_prob", "use a probability")
        for name in ("corrupt_devices_range", "diffusion", "drift_nu"):
            require(getattr(self, name) >= 0, self, name, "use a value >= 0")
        ok = isinstance(self.batch, int) and not isinstance(self.batch, bool) and self.batch >= 1
        require(ok, self, "batch", "use a whole number of samples >= 1")
        ok = self.lifetime == 0 or self.lifetime > 1
        require(ok, self, "lifetime", "use more than 1 event, or 0 for no decay")

    @property
    def name(self) -> str:
        """Name of the model in the compiled list."""
        return type(self).__name__

    @classmethod
    def examples(cls) -> tuple[PulsedDevice, ...]:
        """Two or three instances, the defaults first, then what the model can do otherwise.

        Every test of all models runs on these, always in this order. Between them they have each
        kind of noise and each branch of the model's construction and step.
        """
        raise NotImplementedError(f"{cls.__name__}.examples: give two or three instances")

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """Fields that the compiled model takes, in its order."""
        return tuple(field.name for field in fields(cls) if field.name not in _BETWEEN_PULSES)

    def parameters(self) -> tuple[float, ...]:
        """The fields of the compiled model as floats, in its order."""
        return tuple(value for name in self.field_names() for value in self._values(name))

    def _values(self, name: str) -> tuple[float, ...]:
        return (float(getattr(self, name)),)

    def retention(self) -> tuple[float, ...]:
        """What acts between pulses, in the order of RETENTION."""
        return tuple(float(getattr(self, name)) for name in RETENTION)

    @property
    def ages(self) -> bool:
        """Whether weights change by themselves, once per ``batch`` samples."""
        return self.lifetime > 0 or self.diffusion > 0 or self.drift_nu > 0

    def nominal_steps(self) -> tuple[float, float]:
        """Sizes of the mean up and down step at weight 0."""
        up = abs(1 + min(self.up_down, 0.0)) * self.dw_min
        down = abs(1 - max(self.up_down, 0.0)) * self.dw_min
        if self.dw_min_dtod > 0 or self.up_down_dtod > 0:
            return up, down
        return nearest_bf16(up), nearest_bf16(down)  # what every crosspoint keeps

    @property
    def granularity(self) -> float:
        """Mean of the nominal up and down step at weight 0: the unit of the pulse count."""
        return sum(self.nominal_steps()) / 2

    @property
    def varies(self) -> bool:
        """Whether crosspoints differ in how they answer a pulse."""
        spreads = (name for name in self.field_names() if name.endswith("_dtod"))
        return any(getattr(self, name) > 0 for name in (*spreads, *self.other_spreads))

    @property
    def fidelity_note(self) -> str:
        """How ``grouped`` and ``moments`` join pulses of this model, in one sentence."""
        if self.affine:
            return "grouped and moments follow the closed form of its affine step to second order"
        return "grouped and moments have no closed form here and take a second-order step"

    @property
    def default_fidelity(self) -> str:
        """``exact``, or ``strict`` where one step exceeds 1 % of the weight range."""
        return "strict" if self.granularity > 0.01 * (self.w_max - self.w_min) else "exact"
