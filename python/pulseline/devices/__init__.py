"""Device models: what one pulse does to one crosspoint.

Every model is a frozen dataclass whose fields, in order, are the parameters of the compiled model
of the same name. ``DEVICES`` maps names to classes.
"""

from __future__ import annotations

from .constant_step import ConstantStep
from .exp_step import ExpStep
from .ideal import Ideal
from .linear_step import LinearStep
from .pulsed import PulsedDevice
from .soft_bounds import SoftBounds

Device = PulsedDevice | Ideal

DEVICES: dict[str, type[PulsedDevice]] = {
    cls.__name__: cls for cls in (ConstantStep, LinearStep, SoftBounds, ExpStep)
}

__all__ = [
    "DEVICES",
    "ConstantStep",
    "Device",
    "ExpStep",
    "Ideal",
    "LinearStep",
    "PulsedDevice",
    "SoftBounds",
]
