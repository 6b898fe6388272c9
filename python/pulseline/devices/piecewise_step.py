"""PiecewiseStep: steps along measured curves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ..errors import require
from ..settings import setting
from .pulsed import PulsedDevice

__all__ = ["MOST_NODES", "PiecewiseStep"]

MOST_NODES = 16


@dataclass(frozen=True)
class PiecewiseStep(PulsedDevice):
    """Step along a curve through nodes, each device with a tilt of its own::

        up:   w += s_up   P_up(w)   (1 + tilt_up   z) (1 + sigma xi)
        down: w -= s_down P_down(w) (1 + tilt_down z) (1 + sigma xi)

    P is linear between equidistant nodes over [lo, hi], z runs from -1 to 1 over the same range,
    ``tilt = tilt_dtod xi`` limited to [-1, 1]. A device from measurements:
    :func:`pulseline.devices.from_measurements`.
    Its step is not affine: ``grouped`` and ``moments`` have no closed form and take a second-order
    step.

    Attributes:
        tilt_up_dtod, tilt_down_dtod: spread of the curves' shapes.
        piecewise_up, piecewise_down: 2 to 16 node values >= 0, relative to dw_min, from w_min to
            w_max; their step at weight 0 must be > 0.

    Other parameters and errors: see :class:`PulsedDevice`.
    """

    curves: ClassVar[tuple[str, ...]] = ("piecewise_up", "piecewise_down")

    affine: ClassVar[bool] = False

    tilt_up_dtod: float = setting(0.0, inert=0.0)
    tilt_down_dtod: float = setting(0.0, inert=0.0)
    piecewise_up: tuple[float, ...] = setting((1.0, 1.0))
    piecewise_down: tuple[float, ...] = setting((1.0, 1.0))

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.curves:
            nodes = getattr(self, name)
            ok = isinstance(nodes, (tuple, list)) and 2 <= len(nodes) <= MOST_NODES
            require(ok, self, name, f"use 2 to {MOST_NODES} numbers")
            ok = all(isinstance(v, (int, float)) and 0 <= v < math.inf for v in nodes)
            require(ok, self, name, "use finite numbers >= 0")
            object.__setattr__(self, name, tuple(float(v) for v in nodes))
        for name, step in zip(self.curves, self.nominal_steps(), strict=True):
            require(step > 0, self, name, "use a curve that is above 0 at weight 0")

    @classmethod
    def examples(cls) -> tuple[PulsedDevice, ...]:
        """Flat curves, and two of different lengths that each device tilts."""
        return (
            cls(),
            cls(
                tilt_up_dtod=0.3,
                tilt_down_dtod=0.6,
                piecewise_up=tuple(1.5 - 0.09 * n for n in range(MOST_NODES)),
                piecewise_down=(0.1, 0.7, 1.2),
            ),
        )

    def _values(self, name: str) -> tuple[float, ...]:
        """A curve goes as its number of intervals and 17 values, the last one repeated."""
        if name not in self.curves:
            return super()._values(name)
        nodes: tuple[float, ...] = getattr(self, name)
        return (len(nodes) - 1.0, *nodes, *[nodes[-1]] * (MOST_NODES + 1 - len(nodes)))

    def nominal_steps(self) -> tuple[float, float]:
        """Sizes of the mean up and down step at weight 0."""
        up, down = super().nominal_steps()
        part = -self.w_min / (self.w_max - self.w_min)
        return up * _at(self.piecewise_up, part), down * _at(self.piecewise_down, part)


def _at(nodes: tuple[float, ...], part: float) -> float:
    """Value of the curve at a part of the range."""
    t = part * (len(nodes) - 1)
    left = min(int(t), len(nodes) - 2)
    return nodes[left] + (t - left) * (nodes[left + 1] - nodes[left])
