"""What a crosspoint has for life: steps, slopes, bounds, and what acts between pulses.

Equations: :mod:`pulseline.devices.pulsed`. All of it is a function of the array's identity, so that
no state holds it, and an array need not either: stored, its words take 8 bytes a crosspoint (12 for
models with slopes, 8 more where something acts between pulses); drawn, none, and every kernel draws
those anew that it meets. The bits are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .. import ops
from ..devices import Device, PulsedDevice
from .budget import Budget

__all__ = ["FITTING_LOSS", "Crosspoints"]

FITTING_LOSS = 0.05
_Rows = Callable[[slice], Tensor]  # weights of some rows
_AT_ONCE = 1 << 15  # crosspoints of a pass, which torch does on one thread: no barrier each time


class Crosspoints(nn.Module):
    """Parameters of (rows, cols) crosspoints of a device population.

    Args:
        device: the population; an ideal one has none.
        shape: (rows, cols), of several blocks the columns of one.
        key: Philox key of the array, see :class:`pulseline.Identity`.
        how: "stored", "drawn" or "auto", see :class:`pulseline.configs.Mapping`.
        where: device of the stored words.
        block_rows: of a block-diagonal matrix, whose blocks lie one behind the other; 0: dense.

    Attributes:
        step, slope, bound: int32 pairs, (rows, cols); None: drawn anew, or the model has none.
        words: (2, rows, cols), what acts between pulses; None: drawn anew, or nothing does.
    """

    step: Tensor | None
    slope: Tensor | None
    bound: Tensor | None
    words: Tensor | None

    def __init__(
        self,
        device: Device,
        shape: tuple[int, int],
        key: tuple[int, int],
        how: str = "stored",
        where: torch.device | None = None,
        block_rows: int = 0,
    ) -> None:
        super().__init__()
        self.device, self.shape, self._key = device, shape, key
        self.block_rows = block_rows
        for name in ("step", "slope", "bound", "words"):
            self.register_buffer(name, None, persistent=False)
        pulsed = isinstance(device, PulsedDevice)
        self.stored = pulsed and (
            how == "stored" or (how == "auto" and Budget.allows(self.stored_bytes))
        )
        if self.stored:
            Budget.took(self.stored_bytes)
        self.draw(key, where or torch.device("cpu"))
        Budget.watch(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        Budget.watch(self)

    def _apply(self, fn: Any, recurse: bool = True) -> Crosspoints:
        empty = self.step is not None and self.step.is_meta
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if empty and self.step is not None and not self.step.is_meta:  # to_empty
            self.draw(self._key, self.step.device)
        return self

    @property
    def in_memory(self) -> bool:
        """Whether words are stored on the CPU."""
        return self.step is not None and self.step.is_cpu

    @property
    def stored_bytes(self) -> int:
        """Bytes of the words, were they stored."""
        device = self.device
        if not isinstance(device, PulsedDevice):
            return 0
        words = 2 + (device.name not in ops.FLAT) + 2 * device.ages
        return 4 * words * math.prod(self.shape)

    def draw(self, key: tuple[int, int], where: torch.device) -> None:
        """Take the crosspoints of another array.

        Args:
            key: Philox key, seed and stream. where: device of the words.
        """
        self._key = key
        device = self.device
        if not self.stored or not isinstance(device, PulsedDevice):
            return
        if where.type == "meta":
            step = torch.empty(self.shape, dtype=torch.int32, device=where)
            slope = None if device.name in ops.FLAT else torch.empty_like(step)
            bound = torch.empty_like(step)
        else:
            numbers = device.parameters()
            step, slope, bound = ops.construct_pairs(
                device.name, numbers, *self.shape, key, 0, self.block_rows
            )
        self.step, self.bound = step.to(where), bound.to(where)
        self.slope = None if slope is None else slope.to(where)
        self.words = self._retention(key, where) if device.ages else None

    def _retention(self, key: tuple[int, int], where: torch.device) -> Tensor:
        """Words of decay, drift, diffusion and reset."""
        assert isinstance(self.device, PulsedDevice)
        if where.type == "meta":
            return torch.empty((2, *self.shape), dtype=torch.int32, device=where)
        drawn = (*self.shape, *key, self.block_rows)
        words: Tensor = ops.construct_retention(self.device.retention(), *drawn)
        return words.to(where)

    # ---- rows of them, whether stored or drawn ----

    def parts(self) -> Iterator[slice]:
        """All rows, so many at a time that what is worked out of them takes a few MB."""
        rows, cols = self.shape
        most = max(1, _AT_ONCE // max(cols, 1))
        for first in range(0, rows, most):
            yield slice(first, min(first + most, rows))

    def pairs(self, part: slice, where: torch.device) -> tuple[Tensor, Tensor] | None:
        """Step and bound of some rows; None: an ideal device has none.

        Args:
            part: the rows, from first to last. where: device of what is drawn anew.
        """
        device = self.device
        if not isinstance(device, PulsedDevice):
            return None
        if self.step is not None and self.bound is not None:
            return self.step[part], self.bound[part]
        count, first = part.stop - part.start, part.start
        which = (count, self.shape[1], self._key, first, self.block_rows)
        step, _, bound = ops.construct_pairs(device.name, device.parameters(), *which)
        return step.to(where), bound.to(where)

    def bounds(self, like: Tensor, part: slice | None = None) -> tuple[Tensor, Tensor]:
        """(lo, hi) of every crosspoint as float32 where ``like`` is; infinite without any.

        Args:
            like: of the size of the result. part: rows of it; None: all.
        """
        if part is None:
            lo, hi = torch.empty_like(like), torch.empty_like(like)
            for some in self.parts():
                lo[some], hi[some] = self.bounds(like[some], some)
            return lo, hi
        pairs = self.pairs(part, like.device)
        if pairs is None:
            infinite = torch.full_like(like, float("inf"))
            return -infinite, infinite
        return _limits(pairs[1])

    def clipped(self, w: Tensor, part: slice | None = None) -> Tensor:
        """``w`` within the bounds; what a stuck crosspoint holds is its own. Never -0.

        Args:
            w: weights. part: the rows that they are of; None: all.
        """
        part = slice(0, self.shape[0]) if part is None else part
        pairs = self.pairs(part, w.device)
        if pairs is None:
            return w + 0.0
        lo, hi = _limits(pairs[1])
        inside = torch.minimum(torch.maximum(w, lo), hi)
        stuck = self._stuck(pairs[0])
        if stuck is not None:
            inside = torch.where(stuck, hi + lo, inside)  # one bound is the value
        return inside + 0.0

    def _stuck(self, step: Tensor) -> Tensor | None:
        """Which crosspoints do not move, both steps 0; None where none can be stuck."""
        device = self.device
        assert isinstance(device, PulsedDevice)
        return (step & 0x7FFF7FFF) == 0 if device.corrupt_devices_prob > 0 else None

    def fitting_scale(self, w: _Rows) -> float:
        """The smallest scale s >= 1 at which crosspoints hold ``w / s``, in steps of 2^(1/8).

        They hold it if the Frobenius norm of what exceeds their bounds is at most 5 % of that of
        ``w``; those that are stuck or cannot take the sign do not count. Bounds have tails, so that
        the largest weight on the weakest crosspoint would cost the range of all others; networks
        of digits lose at most .7 points of accuracy to 5 %, and more than one point above 10 %.

        Args:
            w: the weights of some rows.
        """
        norm = math.sqrt(sum(float(size.square().sum()) for size, _ in self._sizes(w)))
        scale, n = 1.0, 0
        while self._excess(w, scale) > FITTING_LOSS * norm:
            n += 1
            scale = math.pow(2.0, n / 8)
        return scale

    def _excess(self, w: _Rows, scale: float) -> float:
        """Norm of what exceeds the bounds at a scale."""
        squares = (
            float((size - scale * limit).clamp_(min=0.0).square_().sum())
            for size, limit in self._sizes(w)
        )
        return math.sqrt(sum(squares))

    def _sizes(self, w: _Rows) -> Iterator[tuple[Tensor, Tensor]]:
        """Magnitudes and their limits where a crosspoint can take the sign, by part, as float64."""
        for part in self.parts():
            some = w(part)
            pairs = self.pairs(part, some.device)
            if pairs is None:
                continue
            lo, hi = _limits(pairs[1])
            limit = torch.where(some < 0, -lo, hi)
            counts, stuck = limit > 0, self._stuck(pairs[0])
            if stuck is not None:
                counts &= ~stuck
            yield some[counts].double().abs_(), limit[counts].double()


def _limits(bound: Tensor) -> tuple[Tensor, Tensor]:
    """(lo, hi) as float32."""
    return (bound << 16).view(torch.float32), (bound & -65536).view(torch.float32)
