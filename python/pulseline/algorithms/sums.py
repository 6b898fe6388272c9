"""Cells whose reads see a sum of arrays: currents of several crossbars on one line.

``W = own array_0 + sum_n scale_n sign_n (array_n - reference_n)``, kept as one matrix beside the
arrays and made anew when one of them was written. It is read as the weight of array 0 would be: its
converters, its draws, its ``out_scale``. Where array 0 alone is read there is no sum to keep.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..arrays import Array
from ..hardware import Work
from ..ops import Batch
from .ruled import RuledCell

__all__ = ["Summand", "SummedCell"]


class Summand(NamedTuple):
    """What an array adds to what is read.

    Attributes:
        array: whose weight. scale: that it is multiplied with. reference: subtracted before, or
            None. signs: (rows, cols) or broadcast to it, or None.
    """

    array: Array
    scale: float
    reference: Tensor | None = None
    signs: Tensor | None = None

    def values(self, out: Tensor | None = None) -> Tensor:
        """(rows, cols), every operation rounded on its own: the same bits everywhere.

        Args:
            out: where they may be written, so that nothing is allocated; None: nowhere.
        """
        held = self.array.held
        if self.reference is not None:
            held = torch.sub(held, self.reference, out=out)
        if self.signs is not None:
            held = torch.mul(held, self.signs, out=out)
        return held if self.scale == 1.0 else torch.mul(held, self.scale, out=out)


class SummedCell(RuledCell):
    """A cell that may read more than its array 0; see the module's docstring.

    ``program`` writes array 0 so that the sum becomes the target as far as its bounds allow;
    ``weight``, the parameter, is array 0 alone, ``effective_weight`` is the sum.
    """

    @property
    def own(self) -> float:
        """What array 0 is multiplied with."""
        return 1.0

    @property
    def sums(self) -> bool:
        """Whether reads see more than array 0, so that updates have it summed anew."""
        return True

    def _summed(self, batch: Batch | None) -> None:
        """Behind an update: sum anew what is read.

        Args:
            batch: on a GPU, what is launched before.
        """
        if self.sums:
            if batch is not None:
                batch.launch()
            self.refresh()

    def summands(self) -> Iterator[Summand]:
        """Of the arrays beside array 0; empty: array 0 is what is read."""
        yield from ()

    def rest(self, out: Tensor | None = None) -> Tensor | None:
        """What the arrays beside array 0 add, normalised; None: nothing does.

        Args:
            out: where it may be written, see :meth:`Summand.values`.
        """
        total: Tensor | None = None
        for one in self.summands():
            total = one.values(out) if total is None else torch.add(total, one.values(), out=out)
        return total

    def work(self, step: float = 1.0, slots: Mapping[int, float] | None = None) -> Work:
        """See :meth:`pulseline.Cell.work`: reads drive every array of the sum."""
        return Work(crossbars=len(self.arrays), arrays=1 + len(list(self.summands())))

    @torch.no_grad()
    def refresh(self) -> None:
        """Sum the arrays anew."""
        array, shown = self.array, self.array.shown
        held = array.held
        if shown is None or shown.shape != held.shape or shown.device != held.device:
            shown = None
        rest = self.rest(shown)
        if rest is not None and not rest.is_meta:
            own = held if self.own == 1.0 else held * self.own
            array.show(torch.add(own, rest, out=shown))

    def program(self, target: Tensor) -> None:
        """Write array 0 such that the sum becomes the target, see :meth:`pulseline.Cell.program`.

        Args:
            target: (rows, cols) in units of the layer.
        """
        self.array.program(target)
        self._settle_rest()

    def initialise(self) -> None:
        """See :meth:`pulseline.Cell.initialise`."""
        self.array.initialise()
        self._settle_rest()

    @torch.no_grad()
    def _settle_rest(self) -> None:
        rest = self.rest()
        if rest is None or rest.is_meta:
            return
        self.array.write(self.array.pulsed - rest)

    def effective_weight(self) -> Tensor:
        """The sum in units of the layer: a copy."""
        rest = self.rest()
        weight = self.array.effective_weight()
        return weight if rest is None else weight * self.own + rest * self.array.out_scale

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """(lo, hi) of the sum."""
        lo, hi = (bound * self.own for bound in self.array.bounds)
        for one in self.summands():
            ends = [one._replace(array=_Bound(b)).values() for b in one.array.bounds]  # type: ignore[arg-type]
            lo, hi = lo + torch.minimum(*ends), hi + torch.maximum(*ends)
        return lo, hi


class _Bound(NamedTuple):
    held: Any
