"""Devices that take one pulse at a time, for response curves."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..arrays import Array
from ..configs import IOConfig, UpdateConfig
from ..devices import PulsedDevice

__all__ = ["pulse", "pulser"]


def pulser(device: PulsedDevice, count: int, seed: int, fidelity: str) -> Array:
    """A column of devices in which every update is one pulse, and no time passes."""
    device = replace(device, lifetime=0.0, diffusion=0.0, drift_nu=0.0)
    one = UpdateConfig(
        desired_bl=1, update_management=False, update_bl_management=False, fidelity=fidelity
    )
    return Array(count, 1, device, io=IOConfig.perfect(), update=one, seed=seed)


def pulse(array: Array, device: PulsedDevice, up: bool) -> None:
    """One pulse to every device of the column."""
    d = torch.full((1, array.shape[0]), -1.0 if up else 1.0, dtype=torch.float32, device="cpu")
    array.pulse(d.new_ones(1, 1), d, device.granularity)
