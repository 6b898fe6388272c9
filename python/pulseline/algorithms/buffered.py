"""Rules that count what they read in a digital buffer H and pulse the slow array when it is full.

``h = H + rate c e (z - rho)``; ``n = trunc(h)`` within +-max_pulses; the rest stays in H. Options
make the family: choppers turn offsets of the fast array into a sign that averages out, a reference
rho is what a column read before its sign turned, ``gamma`` shows the fast array to the reads.

State: H, and mean mu and reference rho where used, each rows x cols of float32 in digital memory.
Digital cost of a transfer of m rows: multiply, add and truncate, 3 m operations, with a leak m and
with mean and reference 4 m more, one column of each buffer in and out; one read with m conversions,
one write of m rows. What a run pays: :meth:`pulseline.Cell.work`, ``pulseline.cost``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..errors import require
from .transfer import Transfer, TransferCell

__all__ = ["AGAD", "ERIDER", "RIDER", "ChoppedTikiTaka2", "Residual2", "TikiTaka2"]


@dataclass(frozen=True)
class TikiTaka2(Transfer):
    """TTv2: low-pass by counting (Gokmen 2021, Frontiers in Artificial Intelligence 4:699148).

    ``h = H + rate z; n = trunc(h); H = h - n``: each pulse of C stands for a step's worth of reads
    of A. ``forget`` empties H to ``momentum h`` behind pulses, else it keeps
    ``h - (1 - momentum) n``, by default the remainder.

    Attributes:
        momentum: what stays in H of pulses that were given, 0 to 1.
        forget: drop the remainder too.
        leak: part of H that is lost at each read, ``h = (1 - leak) H + rate z``.
        warm_up: sweeps in which C is not pulsed yet, though H is emptied.

    Other attributes: see :class:`Transfer`.

    Raises:
        ConfigError: a value out of range.
    """

    momentum: float = 0.0
    forget: bool = False
    leak: float = 0.0
    warm_up: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._probability("momentum", "leak")
        self._flags("forget")
        self._whole("warm_up", least=0)

    def start(self, cell: TransferCell) -> None:
        """H."""
        cell.zeros("H")

    def transfer(self, cell: TransferCell, columns: slice, z: Tensor, rate: float) -> Tensor:
        """See the class."""
        n = self._at_once(cell, columns, z, rate)
        return self.count(cell, columns, z, rate) if n is None else n

    def _at_once(
        self, cell: TransferCell, columns: slice, z: Tensor, rate: float, beta: float | None = None
    ) -> Tensor | None:
        """What :meth:`transfer` does by tensors, in one pass and with the same bits.

        Args:
            cell, columns, z, rate: see there. beta: of the mean; None: neither mean nor rho.

        Returns:
            (rows, columns) pulses; None, and nothing is done: on a GPU, in a graph, and where a
            rule of one's own counts otherwise.
        """
        counts = type(self).count is TikiTaka2.count and self.max_pulses <= ops.MOST_COUNTED
        if not counts or not ops.direct(z):
            return None
        held: Any = cell._buffers  # not by attribute, which torch looks up in Python
        mean, rho = (None, None) if beta is None else (held["mean"], held["rho"])
        rows = held["sign_rows"] if self.chops_rows else None
        kept = (self.max_pulses, self.leak, self.momentum, self.forget, beta or 0.0)
        return ops.count_columns_(
            *(held["H"], z.contiguous(), columns.start, (held["sign_columns"], rows)),
            *(ops.CountSettings(rate, *kept), mean, rho),
        )

    def count(self, cell: TransferCell, columns: slice, value: Tensor, rate: float) -> Tensor:
        """Add to H what was read, and take out the pulses.

        Args:
            cell: with H. columns: that were read. value: (rows, columns) what is added.
            rate: pulses per unit of it.

        Returns:
            (rows, columns) pulses.
        """
        held: Tensor = cell.H[:, columns]  # type: ignore[index]
        if self.chop or self.chop_rows:
            value = value * cell.signs(columns)
        h = (held if self.leak == 0 else held * (1 - self.leak)) + value * rate
        n = h.clamp(-self.max_pulses, self.max_pulses).int().float()  # trunc() is 60 times slower
        if self.forget:
            held.copy_(torch.where(n != 0, h * self.momentum, h))
        else:
            held.copy_(h - (n if self.momentum == 0 else n * (1 - self.momentum)))
        return n

    def operations(self) -> int:
        """Of :meth:`count`; the remainder that stays is what truncation leaves."""
        return super().operations() + (self.leak > 0)

    def waits(self, sweep: int) -> bool:
        """In the first ``warm_up`` sweeps."""
        return sweep < self.warm_up


@dataclass(frozen=True)
class ChoppedTikiTaka2(TikiTaka2):
    """c-TTv2: TTv2 with random choppers (Rasch et al. 2024, Nature Communications 15:7133).

    A column's sign c_j flips with probability ``chop`` behind its read; what A moves around, an
    offset of its symmetry point, changes sign with it in H and averages out. State beside H: one
    bit a column.

    Attributes:
        chop: .1 by default.

    Other attributes: see :class:`TikiTaka2`.

    Raises:
        ConfigError: a value out of range.
    """

    chop: float = 0.1


@dataclass(frozen=True)
class AGAD(TikiTaka2):
    """AGAD: choppers and a reference that is measured on the way (Rasch et al. 2024).

    ``mu += beta (z - mu)``, ``beta = min(tail / period, 1)`` at each read; when a column's sign
    flips, ``rho = mu``: what A rested at under the other sign. H counts ``c (z - rho)``. State: H,
    mu, rho.

    Attributes:
        chop: .05 by default, and ``regular_chop``: all columns flip every 20 sweeps.
        tail: over which part of a period mu forgets, 5: over its last fifth.

    Other attributes: see :class:`TikiTaka2`.

    Raises:
        ConfigError: a value out of range, or no chopper.
    """

    chop: float = 0.05
    regular_chop: bool = True
    tail: float = 5.0

    def __post_init__(self) -> None:
        require(self.chop != 0 or not self.flips, self, "chop", "use a probability > 0")
        super().__post_init__()
        self._positive("tail")

    @property
    def flips(self) -> bool:
        """Whether the reference is taken at flips, so that there must be some."""
        return True

    @property
    def beta(self) -> float:
        """How fast the mean follows."""
        return min(self.tail / self.period, 1.0)

    def start(self, cell: TransferCell) -> None:
        """H, mean, rho."""
        cell.zeros("H", "mean", "rho")

    def transfer(self, cell: TransferCell, columns: slice, z: Tensor, rate: float) -> Tensor:
        """See the class."""
        at_once = self._at_once(cell, columns, z, rate, self.beta)
        if at_once is not None:
            return at_once
        mean: Tensor = cell.mean[:, columns]  # type: ignore[index]
        n = self.count(cell, columns, z - cell.rho[:, columns], rate)  # type: ignore[index]
        mean.add_((z - mean) * self.beta)
        return n

    def flipped(self, cell: TransferCell, columns: Tensor) -> None:
        """The mean under the old sign is the reference under the new one."""
        cell.rho[:, columns] = cell.mean[:, columns]  # type: ignore[index, operator]

    def operations(self) -> int:
        """``z - rho``, and three for the mean."""
        return super().operations() + 4

    def reference(self, cell: TransferCell) -> Tensor | None:
        """rho."""
        found: Tensor = cell.rho  # type: ignore[assignment]
        return found


@dataclass(frozen=True)
class ERIDER(AGAD):
    """E-RIDER: AGAD whose fast array is read too (Xiao et al. 2026, arXiv 2602.21321).

    Forward and backward see ``C + gamma (c e^T) (A - rho)``: gradients correct what the transfer
    leaves over. How the mean runs and is handed over at a flip is inferred from the text.

    Attributes:
        gamma: .1 by default.

    Other attributes: see :class:`AGAD`.

    Raises:
        ConfigError: a value out of range, or no chopper.
    """

    gamma: float = 0.1


@dataclass(frozen=True)
class RIDER(ERIDER):
    """RIDER: the reference follows at every read, nothing is chopped (Xiao et al. 2026).

    ``rho = mu`` before each read is used, then ``mu += beta (z - mu)``.

    Attributes:
        chop, regular_chop: none, as published.
        smoothing: beta, .02 by default.

    Other attributes: see :class:`ERIDER`.

    Raises:
        ConfigError: a value out of range.
    """

    chop: float = 0.0
    regular_chop: bool = False
    smoothing: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        self._probability("smoothing")

    @property
    def flips(self) -> bool:
        """Not needed."""
        return False

    @property
    def beta(self) -> float:
        """``smoothing``."""
        return self.smoothing

    def transfer(self, cell: TransferCell, columns: slice, z: Tensor, rate: float) -> Tensor:
        """See the class."""
        cell.rho[:, columns] = cell.mean[:, columns]  # type: ignore[index, operator]
        return super().transfer(cell, columns, z, rate)


@dataclass(frozen=True)
class Residual2(TikiTaka2):
    """Residual learning, version 2: TTv2 whose fast array is read too (Wu et al. 2025, 2502.06309).

    Forward and backward see ``C + gamma A``, so that A holds what C cannot yet: the bias of a
    pulsed update falls with it. Published with ``leak`` = ``lr_transfer``; without a leak, as here
    by default, H rests where A does too.

    Attributes:
        gamma: .4 by default, as published; the results were flat from .1 on.

    Other attributes: see :class:`TikiTaka2`.

    Raises:
        ConfigError: a value out of range.
    """

    gamma: float = 0.4
