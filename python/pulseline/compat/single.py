"""Devices of aihwkit, one per crosspoint, in terms of this package."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection
from typing import Any

from .. import devices
from ..errors import ConfigError
from .fields import refusal, same

__all__ = ["IDEAL", "MODELS", "OFF_DEVICE", "known_class", "pulsed_device", "single_device"]

IDEAL = ("IdealDevice", "FloatingPointDevice")
# The classes of aihwkit that are known, by their names there, and what takes their fields here.
MODELS: dict[str, Callable[..., devices.PulsedDevice]] = {
    "ConstantStepDevice": devices.ConstantStep,
    "LinearStepDevice": devices.LinearStep,
    "SoftBoundsDevice": devices.SoftBounds,
    "SoftBoundsPmaxDevice": devices.SoftBoundsPmax,
    "SoftBoundsReferenceDevice": devices.SoftBoundsReference,
    "ExpStepDevice": devices.ExpStep,
    "PowStepDevice": devices.PowStep,
    "PowStepReferenceDevice": devices.PowStepReference,
    "PiecewiseStepDevice": devices.PiecewiseStep,
}
# Values at which a field without counterpart does nothing; None: it does nothing by itself.
OFF_DEVICE: dict[str, Collection[Any] | None] = {
    "construction_seed": (0,),
    "enforce_consistency": (True,),
    "perfect_bias": (False,),
    "count_pulses": None,
    "apply_write_noise_on_set": None,
    "allow_increasing": (False,),
    "reverse_up": (False,),
    "reverse_down": (False,),
    "reverse_offset": None,
    "n_estimation_steps": (-1, 0),  # of the symmetry point, which is found by bisection here
}
_DERIVED = ("w_min", "w_max", "dw_min", "up_down")


def known_class(theirs: object, known: Collection[str]) -> str | None:
    """The first class of an object, its own before its bases, whose name is known.

    Args:
        theirs: the object. known: names.
    """
    return next((cls.__name__ for cls in type(theirs).__mro__ if cls.__name__ in known), None)


def single_device(
    theirs: object, batch: int | None, name: str = "device", more: Collection[str] = ()
) -> devices.Device:
    """The model of one device per crosspoint.

    Args:
        theirs: their device. batch: samples of a mini-batch, or None.
        name: where it stands in their configuration. more: classes that it could have been too.

    Raises:
        ConfigError: its class or a field has no counterpart, its value is bad, or weights decay or
            diffuse and batch is None.
    """
    kind = known_class(theirs, (*IDEAL, *MODELS))
    if kind is None:
        known = ", ".join(sorted((*MODELS, *more)))
        raise refusal(name, type(theirs).__name__, f"use one of {known} or IdealDevice")
    if kind in IDEAL:
        for field in ("diffusion", "lifetime"):
            if getattr(theirs, field, 0):
                raise refusal(f"{name}.{field}", getattr(theirs, field), "set it to 0")
        return devices.Ideal()
    device = _pulsed(theirs, MODELS[kind], name)
    if not device.ages:
        return device
    if batch is None:
        raise ConfigError(
            "batch is None, but weights of this device decay or diffuse once per mini-batch; "
            "pass its number of samples"
        )
    return dataclasses.replace(device, batch=batch)


def pulsed_device(theirs: object, batch: int | None, name: str) -> devices.PulsedDevice:
    """The same of a device that a compound is made of, which must take pulses.

    Args:
        theirs: their device. batch: samples of a mini-batch, or None. name: where it stands.

    Raises:
        ConfigError: as :func:`single_device`, or the device is ideal.
    """
    device = single_device(theirs, batch, name)
    if not isinstance(device, devices.PulsedDevice):
        raise refusal(name, type(theirs).__name__, f"use one of {', '.join(sorted(MODELS))}")
    return device


def _pulsed(
    theirs: object, model: Callable[..., devices.PulsedDevice], name: str
) -> devices.PulsedDevice:
    drift = getattr(theirs, "drift", None)
    if getattr(drift, "nu", 0):
        raise refusal(f"{name}.drift.nu", drift.nu, "set it to 0 and give our device drift_nu")  # type: ignore[union-attr]
    off: dict[str, Collection[Any] | None] = {**OFF_DEVICE, "drift": None}
    ours = set(inspect.signature(model).parameters)
    if model is devices.SoftBoundsPmax:  # bounds and steps follow from its curve
        off |= dict.fromkeys(_DERIVED)
        ours |= {field.name for field in dataclasses.fields(devices.SoftBounds)} - set(_DERIVED)
    values = same(theirs, name, ours, off)
    for field, nodes in values.items():
        if isinstance(nodes, (list, tuple)):  # one node: a constant, which needs two here
            values[field] = tuple(nodes) * (2 if len(nodes) == 1 else 1)
    return model(**values)
