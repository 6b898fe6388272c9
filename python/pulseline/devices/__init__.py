"""Device models: what one pulse does to one crosspoint.

Every model is a frozen dataclass whose fields, in order, are the parameters of the compiled model
of the same name. ``DEVICES`` maps names to classes.
"""

from __future__ import annotations

from pathlib import Path

from . import files
from .constant_step import ConstantStep
from .exp_step import ExpStep
from .files import save
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


def load(path: str | Path) -> PulsedDevice:
    """The device of a file that :func:`save` wrote.

    Args:
        path: the file.

    Returns:
        The device.

    Raises:
        ConfigError: the file cannot be read, is no JSON, or is no device; says where.
    """
    return files.read(path, DEVICES)


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
    "load",
    "save",
]
