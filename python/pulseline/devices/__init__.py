"""Device models: what one pulse does to one crosspoint.

Every model is a frozen dataclass whose fields, in order, are the parameters of the compiled model
of the same name. ``DEVICES`` maps names to classes.
"""

from __future__ import annotations

from .constant_step import ConstantStep
from .exp_step import ExpStep
from .ideal import Ideal
from .linear_step import LinearStep
from .measured import MeasuredFit, fit_measurements, from_measurements
from .piecewise_step import PiecewiseStep
from .pow_step import PowStep
from .pow_step_reference import PowStepReference
from .pulsed import PulsedDevice
from .soft_bounds import SoftBounds, SoftBoundsPmax
from .soft_bounds_reference import SoftBoundsReference

Device = PulsedDevice | Ideal

DEVICES: dict[str, type[PulsedDevice]] = {
    cls.__name__: cls
    for cls in (
        ConstantStep,
        LinearStep,
        SoftBounds,
        ExpStep,
        SoftBoundsReference,
        PowStep,
        PowStepReference,
        PiecewiseStep,
    )
}

__all__ = [
    "DEVICES",
    "ConstantStep",
    "Device",
    "ExpStep",
    "Ideal",
    "LinearStep",
    "MeasuredFit",
    "PiecewiseStep",
    "PowStep",
    "PowStepReference",
    "PulsedDevice",
    "SoftBounds",
    "SoftBoundsPmax",
    "SoftBoundsReference",
    "fit_measurements",
    "from_measurements",
]
