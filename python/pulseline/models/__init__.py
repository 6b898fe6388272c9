"""Networks by name, digital or on crossbars: what the command line and the lab train."""

from __future__ import annotations

from .crossbars import DEVICES, converters, crosspoint, device_name, network, on_crossbars
from .named import MODELS, Sizes, digital, from_file
from .nets import GPT, WIDTHS, ResNet, lenet, mlp

__all__ = [
    "DEVICES",
    "GPT",
    "MODELS",
    "WIDTHS",
    "ResNet",
    "Sizes",
    "converters",
    "crosspoint",
    "device_name",
    "digital",
    "from_file",
    "lenet",
    "mlp",
    "network",
    "on_crossbars",
]
