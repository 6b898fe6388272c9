"""What all models share: the stored pairs, and the functions that a model gives.

Random numbers are drawn in float32 and stored as the nearest bfloat16; the stored value is the
device.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...devices import DEVICES, PulsedDevice
from ..arithmetic import bf16_nearest, f32, fma, from_bits
from ..rng import REFERENCE, ParameterDraws

__all__ = [
    "Crosspoints",
    "Model",
    "Stored",
    "affine_step",
    "as_drawn",
    "as_stored",
    "bounds",
    "first",
    "model_named",
    "never",
    "pack",
    "positive",
    "reference_of",
    "second",
    "shifted",
    "step_noise",
    "without_mult_noise",
]


class Stored(NamedTuple):
    """What a crosspoint keeps: int32 (rows, cols), pairs of bf16, the first in the upper half."""

    step: Tensor  # up, down: signed steps at weight 0
    slope: Tensor  # change of the up and the down step with the weight
    bound: Tensor  # hi, lo


@dataclass(frozen=True)
class Crosspoints:
    """The stored pairs as float32 (rows, cols), and what additive noise scales with.

    Attributes:
        up, down: signed steps at w = 0. slope_up, slope_down: their change with the weight.
        hi, lo: bounds. noise_up, noise_down: what additive noise multiplies.
    """

    up: Tensor
    down: Tensor
    slope_up: Tensor
    slope_down: Tensor
    hi: Tensor
    lo: Tensor
    noise_up: Tensor
    noise_down: Tensor

    @classmethod
    def unpack(cls, stored: Stored) -> Crosspoints:
        """Split the pairs."""
        pairs = (*stored, stored.step)
        return cls(*(half for pair in pairs for half in (first(pair), second(pair))))

    @classmethod
    def of(cls, device: PulsedDevice, stored: Stored) -> Crosspoints:
        """Split the pairs; ``up`` and ``down`` become the steps at w = 0.

        Args:
            device: whose model they follow. stored: the pairs.
        """
        return model_named(device.name).prepare(cls.unpack(stored))


def pack(first: Tensor, second: Tensor) -> Tensor:
    """Two float32 as a pair of the nearest bf16.

    Args:
        first, second: upper and lower half.

    Returns:
        int32 of their shape.
    """
    return (bf16_nearest(first) << 16 | bf16_nearest(second)).to(torch.int32)


def bounds(hi: Tensor, lo: Tensor) -> Tensor:
    """The pair (|hi|, -|lo|): 0 is +0 above and -0 below.

    Args:
        hi, lo: float32.
    """
    return pack(hi.abs(), -lo.abs())


def first(pair: Tensor) -> Tensor:
    """The first of a pair: up, or hi."""
    return from_bits(pair.to(torch.int64) & 0xFFFF0000)


def second(pair: Tensor) -> Tensor:
    """The second of a pair: down, or lo."""
    return from_bits(pair.to(torch.int64) << 16 & 0xFFFF0000)


def positive(x: Tensor) -> Tensor:
    """At least 2^-40, which keeps a slope finite."""
    return x.clamp(min=2.0**-40)


def shifted(bound_hi: Tensor, bound_lo: Tensor, reference: Tensor) -> Tensor:
    """Bounds of w = v - reference, as a pair.

    Args:
        bound_hi, bound_lo: of v. reference: of every crosspoint.
    """
    return bounds(bound_hi - reference, bound_lo - reference)


def reference_of(device: Any, draws: ParameterDraws) -> Tensor:
    """``reference_mean + reference_std xi`` of every crosspoint.

    Args:
        device: with a reference. draws: of xi.
    """
    return f32(device.reference_mean) + f32(device.reference_std) * draws.normal(REFERENCE)


# ---- what most models have in common ----


def as_drawn(_device: PulsedDevice, step: Tensor, bound: Tensor, _draws: ParameterDraws) -> Stored:
    """Steps and bounds as they are, no slopes.

    Args:
        step, bound: pairs as drawn.
    """
    return Stored(step, torch.zeros_like(step), bound)


def as_stored(c: Crosspoints) -> Crosspoints:
    """Nothing to prepare."""
    return c


def affine_step(_device: PulsedDevice, c: Crosspoints, w: Tensor, up: Tensor) -> Tensor:
    """``step + slope w``.

    Args:
        c: crosspoints. w: (rows, cols) weights. up: bool, the direction.
    """
    return fma(torch.where(up, c.slope_up, c.slope_down), w, torch.where(up, c.up, c.down))


def step_noise(_device: PulsedDevice, c: Crosspoints, _w: Tensor, up: Tensor, _f: Tensor) -> Tensor:
    """The stored step: at weight 0, or at v = 0 of a device with a reference.

    Args:
        c: crosspoints. up: bool (rows, cols), the direction.
    """
    return torch.where(up, c.noise_up, c.noise_down)


def never(_device: PulsedDevice) -> bool:
    """Noise is in proportion to the step."""
    return False


def without_mult_noise(device: Any) -> bool:
    """Noise is additive where ``mult_noise`` is off."""
    return not device.mult_noise


class Model(NamedTuple):
    """The functions of a model; what is not given is as most models have it."""

    # (device, crosspoints, w, up) -> signed noise-free step at w
    step: Callable[[Any, Crosspoints, Tensor, Tensor], Tensor]
    # (device, step pair, bound pair, draws) -> stored pairs
    build: Callable[[Any, Tensor, Tensor, ParameterDraws], Stored] = as_drawn
    # Whether cycle noise is additive: does not scale with the step alone
    additive: Callable[[Any], bool] = never
    # (device, crosspoints, w, up, step) -> what sigma xi multiplies where noise is additive
    noise: Callable[[Any, Crosspoints, Tensor, Tensor, Tensor], Tensor] = step_noise
    # Stored values -> those that ``step`` takes
    prepare: Callable[[Crosspoints], Crosspoints] = as_stored


@functools.cache
def model_named(name: str) -> Model:
    """``MODEL`` of the file beside this one that is named as the one of the dataclass."""
    file = DEVICES[name].__module__.rpartition(".")[2]
    found: Model = importlib.import_module(f".{file}", __package__).MODEL
    return found
