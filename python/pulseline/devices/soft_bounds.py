"""SoftBounds: steps shrink linearly to zero at the crosspoint's own bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, require
from ..settings import setting
from .pulsed import PulsedDevice

__all__ = ["SoftBounds", "SoftBoundsPmax"]


@dataclass(frozen=True)
class SoftBounds(PulsedDevice):
    """Soft bounds (Frascaroli et al. 2018; Gokmen & Haensch 2020)::

        up:   w += s_up   (1 - w / hi) (1 + sigma xi)
        down: w -= s_down (1 - w / lo) (1 + sigma xi)

    With ``mult_noise=False`` the noise is added inside the bracket: ``(1 - w / hi + sigma xi)``.
    n noise-free up pulses: ``w_n = hi - (hi - w_0) (1 - s_up / hi)^n``; symmetry point:
    ``(s_up - s_down) / (s_up / hi - s_down / lo)``.
    Affine in the weight: ``grouped`` and ``moments`` follow its closed form.
    Parameters and errors: see :class:`PulsedDevice`; both bounds must differ from 0.
    """

    mult_noise: bool = setting(True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.w_max > 0, self, "w_max", "use a bound > 0: the step vanishes there")
        require(self.w_min < 0, self, "w_min", "use a bound < 0: the step vanishes there")

    @classmethod
    def examples(cls) -> tuple[PulsedDevice, ...]:
        """Multiplying noise; much additive noise; log-normal steps, some stuck, no noise."""
        return (
            cls(),
            cls(mult_noise=False, dw_min_std=1.5, w_max_dtod=0.9, w_min_dtod=0.9),
            cls(
                dw_min_std=0.0,
                dw_min_dtod=0.8,
                dw_min_dtod_log_normal=True,
                up_down=0.2,
                corrupt_devices_prob=0.1,
                corrupt_devices_range=0.5,
            ),
        )


def SoftBoundsPmax(
    p_max: float = 1000.0,
    alpha: float = 5e-4,
    range_min: float = -1.0,
    range_max: float = 1.0,
    **other: Any,
) -> SoftBounds:
    """A :class:`SoftBounds` given by its response curve instead of bounds and step.

    From range_min, p up pulses lead along the curve that reaches range_max at p_max; down pulses
    lead back at the same rate, towards range_min::

        b    = (range_max - range_min) / (1 - exp(-alpha p_max))
        w(p) = range_min + b (1 - exp(-alpha p))
        w(p) = range_min + (w(0) - range_min) exp(-alpha p)

    The curve ends at ``hi = range_min + b`` and ``lo = range_min``. One pulse multiplies the
    distance to a bound by ``exp(-alpha)``, which soft bounds multiply by ``1 - s_up / hi`` and
    ``1 - s_down / |lo|``. Hence, with ``a = 1 - exp(-alpha)``::

        w_max = range_min + b    w_min = range_min    s_up = a w_max    s_down = a |w_min|

    so dw_min is the larger of the two steps and up_down weakens the other one:
    ``1 - |w_min| / w_max`` if the down step is smaller, else ``w_max / |w_min| - 1``.

    Args:
        p_max: number of pulses of the response curve; alpha: its rate per pulse.
        range_min, range_max: its two ends, range_min < 0 < range_max.
        other: further fields of :class:`SoftBounds`.

    Raises:
        ConfigError: a value out of range, or ``other`` holds a derived field.
    """
    if not (math.isfinite(p_max) and p_max > 0 and math.isfinite(alpha) and alpha > 0):
        raise ConfigError(f"SoftBoundsPmax: p_max is {p_max}, alpha {alpha}; use finite values > 0")
    if not (math.isfinite(range_max - range_min) and range_min < 0 < range_max):
        raise ConfigError(
            f"SoftBoundsPmax: range_min is {range_min}, range_max {range_max}; "
            "use range_min < 0 < range_max"
        )
    derived = {"w_min", "w_max", "dw_min", "up_down"} & set(other)
    if derived:
        raise ConfigError(f"SoftBoundsPmax: {min(derived)} is derived; leave it out")
    b = (range_max - range_min) / -math.expm1(-alpha * p_max)
    w_max, depth = range_min + b, -range_min
    up_down = 1 - depth / w_max if depth < w_max else w_max / depth - 1
    dw_min = -math.expm1(-alpha) * max(w_max, depth)
    return SoftBounds(w_min=range_min, w_max=w_max, dw_min=dw_min, up_down=up_down, **other)
