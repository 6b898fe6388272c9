"""Networks by name, digital or on crossbars: what the command line and the lab train.

The network of the digits: tanh 64-128-128-64-10 without bias, init std 2/sqrt(n_in), crosspoints
with w in [-1, 1] and dw_min .001.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from . import devices, presets
from .configs import IOConfig, ReadConfig, UpdateConfig
from .devices import files
from .errors import ConfigError
from .nn import to_analog

__all__ = ["DEVICES", "WIDTHS", "converters", "crosspoint", "device_name", "mlp", "network"]

WIDTHS = (64, 128, 128, 64, 10)
DEVICES = (*presets.models(), *presets.list(), "ideal", "digital")


def mlp(seed: int, widths: Sequence[int] = WIDTHS) -> nn.Sequential:
    """A digital tanh network without bias, weights normal with std 2/sqrt(n_in).

    Args:
        seed: of torch's generator that draws them. widths: units of every layer, inputs first.
    """
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layer = nn.Linear(n_in, n_out, bias=False)
        with torch.no_grad():
            layer.weight.normal_(0.0, 2 / math.sqrt(n_in), generator=generator)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


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
) -> nn.Module:
    """The network of :func:`mlp` on tiles of the named device ("digital": as it is).

    A preset is used as published, a device file as it is, a model with weights in [-1, 1] and
    dw_min .001 (soft_bounds_pmax: with its own curve).

    Args:
        device: one of DEVICES, or a device file. seed: of weights and devices.
        settings: fields of the device that differ.
        read: fields of the converters, of both directions, that differ.

    Raises:
        ConfigError: there is no such device, or a value cannot be.
    """
    device, model = device_name(device), mlp(seed)
    if device == "digital" and not settings and not read:
        return model
    kind = replace(crosspoint(device), **settings or {})
    one = replace(converters(device), **read or {})
    return to_analog(model, device=kind, io=IOConfig(one, one), update=UpdateConfig(), seed=seed)
