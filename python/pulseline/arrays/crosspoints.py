"""What a crosspoint keeps for life: steps, slopes, bounds, and what acts between pulses.

Equations: :mod:`pulseline.devices.pulsed`. All of it is a function of the array's identity, so that
no state holds it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .. import ops
from ..devices import Device, PulsedDevice

__all__ = ["FITTING_LOSS", "Crosspoints"]

FITTING_LOSS = 0.05


class Crosspoints(nn.Module):
    """Parameters of (rows, cols) crosspoints of a device population, stored.

    Args:
        device: the population; an ideal one stores nothing.
        shape: (rows, cols).
        key: Philox key of the array, see :class:`pulseline.Identity`.
    """

    step: Tensor | None
    slope: Tensor | None
    bound: Tensor | None
    words: Tensor | None  # what acts between pulses; None: nothing does

    def __init__(self, device: Device, shape: tuple[int, int], key: tuple[int, int]) -> None:
        super().__init__()
        self.device, self.shape = device, shape
        for name in ("step", "slope", "bound", "words"):
            self.register_buffer(name, None, persistent=False)
        self.draw(key, torch.device("cpu"))

    def draw(self, key: tuple[int, int], where: torch.device) -> None:
        """Draw all crosspoints of the array.

        Args:
            key: Philox key, seed and stream. where: device of the stored pairs.
        """
        if not isinstance(self.device, PulsedDevice):
            return
        drawn = ops.construct(self.device.name, self.device.parameters(), *self.shape, *key)
        self.step, self.slope, self.bound = (t.to(where) for t in drawn)
        self.words = self.draw_retention(key).to(where) if self.device.ages else None

    def draw_retention(self, key: tuple[int, int]) -> Tensor:
        """Words of decay, drift, diffusion and reset."""
        assert isinstance(self.device, PulsedDevice)
        words: Tensor = ops.construct_retention(self.device.retention(), *self.shape, *key)
        return words

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """(lo, hi) of every crosspoint as float32 where ``like`` is; infinite without any."""
        if self.bound is None:
            infinite = torch.full_like(like, float("inf"))
            return -infinite, infinite
        return (self.bound << 16).view(torch.float32), (self.bound & -65536).view(torch.float32)

    def clipped(self, w: Tensor) -> Tensor:
        """``w`` within the bounds; what a stuck crosspoint holds is its own. Never -0."""
        lo, hi = self.bounds(w)
        inside = torch.minimum(torch.maximum(w, lo), hi)
        stuck = self._stuck()
        if stuck is not None:
            inside = torch.where(stuck, hi + lo, inside)  # one bound is the value
        return inside + 0.0

    def _stuck(self) -> Tensor | None:
        """Which crosspoints do not move, both steps 0; None where none can be stuck."""
        device = self.device
        if self.step is None or not isinstance(device, PulsedDevice):
            return None
        return (self.step & 0x7FFF7FFF) == 0 if device.corrupt_devices_prob > 0 else None

    def fitting_scale(self, w: Tensor) -> float:
        """The smallest scale s >= 1 at which crosspoints hold ``w / s``, in steps of 2^(1/8).

        They hold it if the Frobenius norm of what exceeds their bounds is at most 5 % of that of
        ``w``; those that are stuck or cannot take the sign do not count. Bounds have tails, so that
        the largest weight on the weakest crosspoint would cost the range of all others; networks
        of digits lose at most .7 points of accuracy to 5 %, and more than one point above 10 %.
        """
        lo, hi = self.bounds(w)
        limit = torch.where(w < 0, -lo, hi)
        counts, stuck = limit > 0, self._stuck()
        if stuck is not None:
            counts &= ~stuck
        size, limit = w[counts].double().abs(), limit[counts].double()
        most = FITTING_LOSS * float(size.square().sum()) ** 0.5
        scale, n = 1.0, 0
        while float((size - scale * limit).clamp_(min=0.0).square().sum()) ** 0.5 > most:
            n += 1
            scale = math.pow(2.0, n / 8)
        return scale
