"""The nodal solve of one physical tile, for who wants to see the wires alone."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _cpu
from ..errors import ConfigError

__all__ = ["wire_currents"]


def wire_currents(
    q: Tensor, weight: Tensor, resistance: float, tolerance: float = 1e-6, transposed: bool = False
) -> tuple[Tensor, int]:
    """What one physical tile with wires gives, solved.

    Args:
        q: (samples, inputs) line voltages. weight: (rows, cols).
        resistance: of a wire segment, times the conductance of weight 1.
        tolerance: of the solution, relative. transposed: driven from the rows.

    Returns:
        Currents (samples, outputs), and the largest number of CG iterations.

    Raises:
        ConfigError: resistance <= 0, a tolerance outside [1e-12, 1), shapes or devices.
    """
    if not (0 < resistance < float("inf") and 1e-12 <= tolerance < 1):
        raise ConfigError(
            f"resistance is {resistance} and tolerance {tolerance}; "
            "use a resistance > 0 and a tolerance from 1e-12 to 1"
        )
    if not (weight.is_cpu and q.is_cpu):
        raise ConfigError(
            f"weight is on {weight.device} and q on {q.device}; move both with .cpu()"
        )
    rows, cols = weight.shape
    inputs = rows if transposed else cols
    if q.dtype is not torch.float32 or q.dim() != 2 or q.shape[1] != inputs:
        raise ConfigError(
            f"q has shape {tuple(q.shape)} and dtype {q.dtype}; use float32 (samples, {inputs})"
        )
    shape = (q.shape[0], cols if transposed else rows)
    y = torch.zeros(shape, dtype=torch.float32, device="cpu")
    if min(rows, cols) == 0:
        return y, 0
    weight, q = weight.contiguous(), q.contiguous()
    most = _cpu.wire_currents(
        weight.data_ptr(),
        rows,
        cols,
        transposed,
        resistance,
        tolerance,
        q.data_ptr(),
        q.shape[0],
        y.data_ptr(),
    )
    return y, most
