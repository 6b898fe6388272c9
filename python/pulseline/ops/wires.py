"""The nodal solve of one physical tile, for who wants to see the wires alone."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _cpu
from .checks import check_tensor, operand, weight_address

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
        ConfigError: a resistance or a tolerance out of its range, or one that the equations do not
            reach; shapes, dtypes or devices.
    """
    check_tensor(weight)
    if weight.layout is torch.strided and weight.is_cpu and weight.dim() == 2:
        weight = weight.contiguous()
    at = weight_address(weight, "cpu")
    rows, cols = weight.shape
    q = operand("q", q, rows if transposed else cols, weight)
    _cpu.check_wires(resistance, tolerance)
    shape = (q.shape[0], cols if transposed else rows)
    y = torch.zeros(shape, dtype=torch.float32, device="cpu")
    if min(rows, cols) == 0:
        return y, 0
    most = _cpu.wire_currents(
        at,
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
