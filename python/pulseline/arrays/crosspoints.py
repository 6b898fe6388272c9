"""What a crosspoint keeps for life: steps, slopes, bounds, and what acts between pulses.

Equations: :mod:`pulseline.devices.pulsed`. All of it is a function of the array's identity, so that
no state holds it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import ops
from ..devices import Device, PulsedDevice

__all__ = ["Crosspoints"]


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
        """Draw all crosspoints of the array with this key."""
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
        device = self.device
        if (
            self.step is not None
            and isinstance(device, PulsedDevice)
            and device.corrupt_devices_prob > 0
        ):
            stuck = (self.step & 0x7FFF7FFF) == 0  # both steps 0: one bound is the value
            inside = torch.where(stuck, hi + lo, inside)
        return inside + 0.0
