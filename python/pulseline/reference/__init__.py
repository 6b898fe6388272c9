"""Every operator and device in plain torch: slow, obvious, the specification.

Written from the equations, never from the kernels, and bit-identical to them: pulses, updates,
converters, device parameters and (on instruction sets with FMA) reads. 32-bit unsigned words are
held in int64 tensors. Nothing here imports a compiled module.
"""

from __future__ import annotations

from .devices import DEVICES, Crosspoints, Model, Stored, construct, initial_normals
from .read import read
from .trains import manage, pulse_train
from .update import update

__all__ = [
    "DEVICES",
    "Crosspoints",
    "Model",
    "Stored",
    "construct",
    "initial_normals",
    "manage",
    "pulse_train",
    "read",
    "update",
]
