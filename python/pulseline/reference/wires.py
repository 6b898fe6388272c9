"""IR drop of one physical tile: the closed form, and the nodal equations solved densely.

A weight is the difference of two arrays, ``max(w, 0)`` and ``max(-w, 0)``. Word line i (an input of
the forward read) is driven at output 0, bit line j is sensed behind the last input; every segment
of wire, and from a line's end to its driver, has the resistance r (times the conductance of weight
1). The backward read drives the sensed ends and senses the driven ones, so its matrix is the
transpose.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["approximate", "nodal"]


def _profile(g: Tensor, r: float) -> Tensor:
    """End voltage over the voltage at every crosspoint of a line, from its open end (dim 0)."""
    level = torch.ones(g.shape[1], dtype=torch.float64)
    current = torch.zeros_like(level)
    levels = []
    for conductance in g:
        levels.append(level)
        current = current + conductance * level
        level = level + r * current
    return level / torch.stack(levels)


def approximate(w: Tensor, r: float) -> Tensor:
    """Effective weights, exact to first order in the resistance.

    ``W_ij = G_ij / (u_n / u_ij + v_m / v_ij - 1)`` of each array, with the voltage profiles u of
    bit line j and v of word line i when the other end of every crosspoint is grounded.

    Args:
        w: (outputs, inputs). r: of a wire segment, times the conductance of weight 1.

    Returns:
        float32 (outputs, inputs).
    """
    total = torch.zeros(w.shape, dtype=torch.float64)
    for sign in (1.0, -1.0):
        g = (w.double() * sign).clamp(min=0.0)
        bit, word = _profile(g.t(), r).t(), _profile(g.flip(0), r).flip(0)
        total += sign * (g / ((bit + word) - 1.0))
    return total.float()


def nodal(w: Tensor, r: float) -> Tensor:
    """Effective weights from all node voltages, a dense solve.

    Args:
        w: (outputs, inputs). r: of a wire segment, times the conductance of weight 1.

    Returns:
        float64 (outputs, inputs).
    """
    outputs, inputs = w.shape
    result = torch.zeros(outputs, inputs, dtype=torch.float64)
    for sign in (1.0, -1.0):
        result += sign * _currents((w.double() * sign).clamp(min=0.0).t(), 1.0 / r).t()
    return result


def _currents(g: Tensor, c: float) -> Tensor:
    """Sensed currents (inputs, outputs) of unit voltages; wire segments of conductance c."""
    n, m = g.shape
    size = n * m
    node = torch.arange(size).reshape(n, m)
    matrix = torch.zeros(2 * size, 2 * size, dtype=torch.float64)

    def connect(a: Tensor, b: Tensor, value: Tensor | float) -> None:
        matrix[a, a] += value
        matrix[b, b] += value
        matrix[a, b] -= value
        matrix[b, a] -= value

    connect(node.flatten(), node.flatten() + size, g.flatten())
    if m > 1:
        connect(node[:, :-1].flatten(), node[:, 1:].flatten(), c)
    if n > 1:
        connect(node[:-1].flatten() + size, node[1:].flatten() + size, c)
    matrix[node[:, 0], node[:, 0]] += c  # drivers
    matrix[node[-1] + size, node[-1] + size] += c  # virtual grounds
    drive = torch.zeros(2 * size, n, dtype=torch.float64)
    drive[node[:, 0], torch.arange(n)] = c
    voltage: Tensor = torch.linalg.solve(matrix, drive)
    return (c * voltage[node[-1] + size]).t()
