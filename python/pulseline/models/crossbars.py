"""Networks on crossbars of a named device.

The network of the digits: tanh 64-128-128-64-10 without bias, init std 2/sqrt(n_in), crosspoints
with w in [-1, 1] and dw_min .001.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from .. import devices, presets
from ..algorithms import Rule
from ..configs import Crossbar, IOConfig, ReadConfig, UpdateConfig
from ..devices import files
from ..errors import ConfigError
from ..nn import to_analog
from .nets import mlp

__all__ = ["DEVICES", "converters", "crosspoint", "device_name", "network", "on_crossbars"]

DEVICES = (*presets.models(), *presets.list(), "ideal", "digital")


def device_name(text: str) -> str:
    """The one of DEVICES that is meant; case, ``_`` and ``-`` do not matter. A device file's as is.

    Raises:
        ConfigError: there is none; the sentence lists them, or says what is wrong in the file.
    """
    if files.is_file_name(text):
        devices.load(text)
        return text
    found = presets.canonical(text, DEVICES)
    if found is None:
        raise ConfigError(
            f"device is {text!r}; use one of {', '.join(DEVICES)}, "
            "or a device file (.json; pulseline device TABLE --save FILE makes one)"
        )
    return found


def crosspoint(device: str) -> devices.Device:
    """The device that :func:`network` takes for a name; a model has weights in [-1, 1].

    Args:
        device: one of DEVICES but "digital", or a device file.

    Raises:
        ConfigError: there is no such device, or it is "digital".
    """
    device = device_name(device)
    if device == "digital":
        raise ConfigError("device is 'digital', which has no settings; use another device")
    if device == "ideal":
        return devices.Ideal()
    if device in (*presets.PRESETS, "soft_bounds_pmax") or files.is_file_name(device):
        return presets.find(device)
    return presets.models()[device](w_max=1.0, w_min=-1.0, dw_min=0.001)


def converters(device: str) -> ReadConfig:
    """Those of both directions that :func:`network` takes: perfect ones of the ideal device."""
    return ReadConfig.perfect() if device == "ideal" else ReadConfig()


def network(
    device: str,
    seed: int,
    settings: Mapping[str, Any] | None = None,
    read: Mapping[str, Any] | None = None,
    algorithm: Rule | None = None,
) -> nn.Module:
    """The network of :func:`.nets.mlp` on crossbars, see :func:`on_crossbars`."""
    return on_crossbars(mlp(seed), device, seed, settings, read, algorithm)


def on_crossbars(
    model: nn.Module,
    device: str,
    seed: int,
    settings: Mapping[str, Any] | None = None,
    read: Mapping[str, Any] | None = None,
    algorithm: Rule | None = None,
) -> nn.Module:
    """A network on crossbars of the named device ("digital": as it is).

    A preset is used as published, a device file as it is, a model with weights in [-1, 1] and
    dw_min .001 (soft_bounds_pmax: with its own curve).

    Args:
        model: in plain torch. device: one of DEVICES, or a device file. seed: of the devices.
        settings: fields of the device that differ.
        read: fields of the converters, of both directions, that differ.
        algorithm: that trains them; None: plain pulsed SGD.

    Raises:
        ConfigError: there is no such device, or a value cannot be.
    """
    device = device_name(device)
    if device == "digital" and not settings and not read and algorithm is None:
        return model
    kind = replace(crosspoint(device), **settings or {})
    one = replace(converters(device), **read or {})
    io = IOConfig(one, one)
    crossbar = Crossbar(kind, io=io, update=UpdateConfig(), algorithm=algorithm)
    return to_analog(model, crossbar, seed=seed)
