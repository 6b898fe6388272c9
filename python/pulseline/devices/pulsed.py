"""Parameters that all pulsed devices share.

Per crosspoint, with independent standard normals xi (Gokmen & Vlasov 2016 and later work)::

    hi = w_max (1 + w_max_dtod xi)      lo = w_min (1 + w_min_dtod xi)
    gain = 1 + dw_min_dtod xi           (exp(dw_min_dtod xi) if dw_min_dtod_log_normal)
    r = up_down_dtod xi
    s_up   = |gain + min(up_down, 0) + r| dw_min
    s_down = |gain - max(up_down, 0) - r| dw_min

Each number is a pure function of (seed, tile_id, row, column), drawn in float32 and stored as
bfloat16 (bounds rounded toward zero): the stored value is the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ..errors import ConfigError


def require(condition: bool, owner: object, field: str, fix: str) -> None:
    """Raise a ConfigError that names the field, its value and the remedy."""
    if not condition:
        value = getattr(owner, field)
        raise ConfigError(f"{type(owner).__name__}: {field} is {value!r}; {fix}")


@dataclass(frozen=True)
class PulsedDevice:
    """Base of the pulsed models. Weights and steps are in normalised conductance units.

    Attributes:
        dw_min: mean step of one pulse at weight 0.
        dw_min_dtod: device-to-device spread of the step, relative.
        dw_min_std: cycle-to-cycle noise of a step, relative (sigma).
        dw_min_dtod_log_normal: draw the step's spread log-normally.
        up_down: asymmetry; > 0 weakens only the down step, < 0 only the up step.
        up_down_dtod: device-to-device spread of the asymmetry.
        w_max, w_min: mean bounds, w_min <= 0 <= w_max.
        w_max_dtod, w_min_dtod: device-to-device spread of the bounds, relative.

    Raises:
        ConfigError: a value is not finite, or out of the range given above.
    """

    dw_min: float = 0.001
    dw_min_dtod: float = 0.3
    dw_min_std: float = 0.3
    dw_min_dtod_log_normal: bool = False
    up_down: float = 0.0
    up_down_dtod: float = 0.01
    w_max: float = 0.6
    w_min: float = -0.6
    w_max_dtod: float = 0.3
    w_min_dtod: float = 0.3

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            require(
                isinstance(value, (int, float)) and math.isfinite(value),
                self,
                field.name,
                "use a finite number",
            )
            if field.name.endswith(("_dtod", "_std")):
                require(value >= 0, self, field.name, "use a value >= 0")
        require(self.dw_min > 0, self, "dw_min", "use a step > 0")
        require(self.w_max >= 0, self, "w_max", "use a bound >= 0")
        require(self.w_min <= 0, self, "w_min", "use a bound <= 0")
        require(self.w_max > self.w_min, self, "w_max", f"use a bound above w_min = {self.w_min}")
        require(abs(self.up_down) < 1, self, "up_down", "use a value between -1 and 1")

    @property
    def name(self) -> str:
        """Name of the model in the compiled list."""
        return type(self).__name__

    def parameters(self) -> tuple[float, ...]:
        """All fields as floats, in the order of the compiled model."""
        return tuple(float(getattr(self, field.name)) for field in fields(self))

    def nominal_steps(self) -> tuple[float, float]:
        """Sizes of the mean up and down step at weight 0."""
        up = abs(1 + min(self.up_down, 0.0)) * self.dw_min
        down = abs(1 - max(self.up_down, 0.0)) * self.dw_min
        return up, down

    @property
    def granularity(self) -> float:
        """Mean of the nominal up and down step at weight 0: the unit of the pulse count."""
        return sum(self.nominal_steps()) / 2

    @property
    def default_fidelity(self) -> str:
        """``exact``, or ``strict`` where one step exceeds 1 % of the weight range."""
        return "strict" if self.granularity > 0.01 * (self.w_max - self.w_min) else "exact"
