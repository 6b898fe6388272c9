"""The symmetry point of crosspoints: where a step up and a step down are equal.

Up and down pulses drive a crosspoint there (Kim et al. 2019, zero shifting). On soft bounds +-tau
with steps dw and cycle noise sigma, from e_0 away, N pulses leave::

    mean   e_0 exp(-N dw / tau)
    std    sqrt(dw tau sigma^2 / 2) alternating,  sqrt(dw tau (1 + sigma^2) / 2) with random signs

so that 1 % of the start is left after 4.6 tau / dw pulses, which every crosspoint bears.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops
from ..arrays import Array
from ..devices import PulsedDevice
from ..errors import ConfigError
from .schedule import all_columns, line_numbers

__all__ = ["find_symmetry_point"]


@torch.no_grad()
def find_symmetry_point(array: Array, pulses: int, *, cyclic: bool = True) -> Tensor:
    """Drive all crosspoints of an array to their symmetry points by pulses.

    Args:
        array: whose weights are lost.
        pulses: that each crosspoint gets. cyclic: up, down, up, ...; else signs are drawn.

    Returns:
        (rows, cols) what the array then holds, normalised: a copy.

    Raises:
        ConfigError: pulses < 0, or the device has none.
    """
    if not isinstance(array, Array):
        raise ConfigError(
            f"array is a {type(array).__name__}; use an array of a layer, such as "
            "layer.cell.arrays[1]"
        )
    if not isinstance(pulses, int) or isinstance(pulses, bool) or pulses < 0:
        raise ConfigError(f"pulses is {pulses!r:.60}; use a whole number >= 0")
    if not isinstance(array.device, PulsedDevice):
        raise ConfigError(
            f"device is {array.device.name}, which has no symmetry point; use a pulsed device"
        )
    rows, cols = array.shape
    columns = all_columns(cols, array.held.device)
    up, key = array.held.new_ones(rows, cols), ops.DrawKey(*array.identity.key)
    lines = line_numbers(0, rows * cols)
    for n in range(pulses):
        if cyclic:
            array.step(columns, up if n % 2 == 0 else -up)
            continue
        number = torch.full_like(lines, n)
        drawn = ops.uniforms(key, "chopper", number, lines, draw=2)
        signs = torch.where(drawn < 0.5, 1.0, -1.0).reshape(rows, cols)
        array.step(columns, signs.to(up))
    return array.pulsed.clone()
