"""Weights after n noise-free pulses of one direction, for every model, in float64.

One function per model, of the model's name in snake case: (device, crosspoints, weight, n, up) ->
weights and by how much float32 may miss them. It holds the closed form from the stored values, or,
where there is none, the equation repeated n times. It knows the model's docstring and nothing of
the kernels or of the reference's step.

Slack: each pulse rounds the weight once, 2^-24 max(1, |w|), and its step by ``rounding``.
An error is carried on by 1 + f' per pulse: not at all where steps shrink on their way, else by
f_(k+1) / f_k to first order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pulseline.presets import snake
from pulseline.reference import Crosspoints

Expected = tuple[Tensor, Tensor]
U = 2.0**-24


def closed_form(device: Any, c: Crosspoints, weight: Tensor, n: int, up: bool) -> Expected:
    """The function of the device's model, clipped to the bounds of ``c``."""
    form = globals().get(snake(device.name))
    assert form, f"tests/closed_forms.py has no {snake(device.name)}: say what n pulses do"
    c = Crosspoints(*(getattr(c, name).double() for name in c.__dataclass_fields__))
    w, slack = form(device, c, weight.double(), n, up)
    return torch.minimum(torch.maximum(w, c.lo), c.hi), slack


def repeated(
    step: Callable[[Tensor], Tensor], c: Crosspoints, w: Tensor, n: int, rounding: float
) -> Expected:
    """``w <- clip(w + step(w))`` n times."""
    slack, f = torch.zeros_like(w), step(w)
    for _ in range(n):
        w = torch.minimum(torch.maximum(w + f, c.lo), c.hi)
        before, f = f, step(w)
        growth = torch.where(before != 0, f / before, torch.ones_like(f)).clamp(min=1.0)
        slack = (slack + U * w.abs().clamp(min=1) + rounding) * growth
    return w, slack


def affine(_device: Any, c: Crosspoints, w: Tensor, n: int, up: bool) -> Expected:
    """``w_n = w_0 + (s + l w_0) ((1 + l)^n - 1) / l``; no slope: ``w_0 + n s``.

    Below a slope of -1 (a bound nearer than a step) the first pulse ends at the bound.
    """
    step, slope = (c.up, c.slope_up) if up else (c.down, c.slope_down)
    travel = torch.expm1(n * torch.log1p(slope.clamp(min=-0.5))) / slope
    travel = torch.where(slope < -0.5, ((1 + slope.clamp(min=-1)) ** n - 1) / slope, travel)
    travel = torch.where(slope == 0, torch.full_like(w, n), travel)
    travel = torch.where(slope < -1, torch.full_like(w, min(n, 1)), travel)
    last = w + (step + slope * w) * travel
    most = torch.maximum(w.abs(), last.abs()).clamp(min=1)
    return last, n * U * most * (1 + slope.clamp(min=0)) ** n


constant_step = linear_step = soft_bounds = soft_bounds_reference = affine


def exp_step(device: Any, c: Crosspoints, w: Tensor, n: int, up: bool) -> Expected:
    """``max(1 - A e^(+-g z), 0) s`` with ``z = 2 a w / (hi - lo) + b``."""
    rate, a = (device.gamma_up, device.a_up) if up else (-device.gamma_down, device.a_down)

    def step(w: Tensor) -> Tensor:
        z = 2 * device.a * w / (c.hi - c.lo) + device.b
        return (c.up if up else c.down) * (1 - a * torch.exp(rate * z)).clamp(min=0)

    return repeated(step, c, w, n, 0.0)


def pow_step(device: Any, c: Crosspoints, w: Tensor, n: int, up: bool) -> Expected:
    """``s (distance to the bound / (hi - lo))^p``; the power is good to 4e-6."""

    def step(w: Tensor) -> Tensor:
        distance = (c.hi - w if up else w - c.lo) / (c.hi - c.lo)
        return (c.up if up else c.down) * distance ** (c.slope_up if up else c.slope_down)

    return repeated(step, c, w, n, 4e-6 * device.dw_min)


pow_step_reference = pow_step


def piecewise_step(device: Any, c: Crosspoints, w: Tensor, n: int, up: bool) -> Expected:
    """``s P(w) (1 + tilt z)``, P between its nodes; the place among them is good to 4e-7."""
    nodes = torch.tensor(device.piecewise_up if up else device.piecewise_down).double()

    def step(w: Tensor) -> Tensor:
        part = (w - c.lo) / (c.hi - c.lo)
        place = part * (len(nodes) - 1)
        left = place.long().clamp(max=len(nodes) - 2)
        value = nodes[left] + (place - left) * (nodes[left + 1] - nodes[left])
        tilt = c.slope_up if up else c.slope_down
        return (c.up if up else c.down) * (value * (1 + tilt * (2 * part - 1))).clamp(min=0)

    return repeated(step, c, w, n, 4e-6 * device.dw_min)
