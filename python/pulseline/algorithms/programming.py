"""Programming by write and verify: pulses and reads in turns, until weights are where they should.

``program`` of a cell writes targets exactly; a crossbar cannot. Here a round reads all columns
through the converters and gives each crosspoint that is off by more than ``tolerance`` the pulses
that its nominal step asks for.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..arrays import Array
from ..cells import Cell
from ..configs import ReadConfig
from ..devices import PulsedDevice
from ..errors import ConfigError
from ..ops import is_finite
from .schedule import all_columns

__all__ = ["Written", "write_verify"]


class Written(NamedTuple):
    """What write and verify did on one array.

    Attributes:
        rounds: of reads and writes. pulses: on all crosspoints together.
        within: part of the crosspoints whose last read was within the tolerance.
        error: root mean square of weight - target, normalised units.
    """

    rounds: int
    pulses: int
    within: float
    error: float


@torch.no_grad()
def write_verify(
    target: Array | Cell | nn.Module,
    weights: Tensor | None = None,
    *,
    tolerance: float = 0.01,
    rounds: int = 20,
    max_pulses: int = 31,
    read: ReadConfig | None = None,
) -> list[Written]:
    """Write weights by pulses, verified by reads.

    Args:
        target: an array; a cell, or a model: array 0 of all of its cells.
        weights: (rows, cols) for an array or cell, normalised; None: what each holds, written anew
            from 0.
        tolerance: of a read, normalised units. rounds: at most so many.
        max_pulses: of a crosspoint in one round.
        read: converters; None: those of the forward read.

    Returns:
        What was done on each array, in order.

    Raises:
        ConfigError: nothing to write, weights for several arrays, or a value out of range; nothing
            is written.
    """
    arrays = _arrays(target)
    if weights is not None and not isinstance(weights, Tensor):
        raise ConfigError(f"weights are {weights!r:.60}; use a (rows, cols) tensor")
    if weights is not None and (len(arrays) != 1 or weights.shape != arrays[0].shape):
        raise ConfigError(
            f"weights have shape {tuple(weights.shape)} for {len(arrays)} arrays; give those of "
            "one array, or program the model and leave them out"
        )
    if weights is not None and not is_finite(weights):
        raise ConfigError("weights hold a NaN or an infinity; write finite ones")
    if not isinstance(tolerance, (int, float)) or not 0 < tolerance < math.inf:
        raise ConfigError(f"tolerance is {tolerance!r:.60}; use a number > 0")
    for name, value, most in (("rounds", rounds, 1 << 20), ("max_pulses", max_pulses, 1 << 20)):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 1 <= value <= most:
            raise ConfigError(f"{name} is {value!r:.60}; use a whole number from 1 to {most}")
    if read is not None and not isinstance(read, ReadConfig):
        raise ConfigError(f"read is {read!r:.60}; use a ReadConfig, or None for the forward one")
    done = []
    for array in arrays:
        wanted = array.pulsed.clone() if weights is None else weights.to(array.held)
        if weights is None:
            array.write(torch.zeros_like(wanted))
        done.append(_write(array, wanted, tolerance, rounds, max_pulses, read))
    return done


def _arrays(target: Any) -> list[Array]:
    if isinstance(target, Array):
        return [target]
    cells = (
        [m for m in target.modules() if isinstance(m, Cell)]
        if isinstance(target, nn.Module)
        else []
    )
    arrays = [cell.array for cell in cells]
    if not arrays or not all(isinstance(array.device, PulsedDevice) for array in arrays):
        raise ConfigError(
            f"target is a {type(target).__name__} without arrays of pulsed devices; give an analog "
            "model, a cell or an array"
        )
    return arrays


def _write(
    array: Array,
    wanted: Tensor,
    tolerance: float,
    rounds: int,
    max_pulses: int,
    read: ReadConfig | None,
) -> Written:
    columns = all_columns(array.shape[1], wanted.device)
    step, pulses, n = array.device.granularity, 0, 0
    for n in range(1, rounds + 1):  # noqa: B007 - the report wants it
        off = wanted - array.convert(array.held.contiguous(), read)
        needed = (off / step).round().clamp(-max_pulses, max_pulses)
        needed = torch.where(off.abs() > tolerance, needed, 0.0)
        if not bool(needed.any()):
            break
        array.step(columns, needed)
        pulses += int(needed.abs().sum())
    within = (wanted - array.convert(array.held.contiguous(), read)).abs() <= tolerance
    error = float((array.held - wanted).square().mean().sqrt()) if wanted.numel() else 0.0
    share = float(within.float().mean()) if wanted.numel() else 1.0
    return Written(n, pulses, share, error)
