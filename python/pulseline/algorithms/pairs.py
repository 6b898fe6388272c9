"""Weights that are the difference of two arrays: G+ and G-, or an array and its reference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..arrays import Array
from ..cells import Cell
from ..configs import ReadConfig
from ..hardware import Work
from ..ops import Batch
from .rule import Rule, refuse_unpulsed
from .schedule import all_columns
from .sums import Summand, SummedCell
from .symmetry import find_symmetry_point

__all__ = ["OneSided", "OneSidedCell", "PairCell", "ReferencePair", "ReferencePairCell"]


class PairCell(SummedCell):
    """``W = array 0 - array 1``."""

    def build(self) -> None:
        """Array 1."""
        self.add_array(self.crossbar.fast)

    @property
    def other(self) -> Array:
        """Array 1, which is subtracted."""
        found: Array = self.arrays[1]
        return found

    def summands(self) -> Iterator[Summand]:
        """Array 1, subtracted."""
        yield Summand(self.other, -1.0)


class OneSidedCell(PairCell):
    """G+ (0) and G- (1), both of which only rise; see :class:`OneSided`."""

    def build(self) -> None:
        """G-."""
        super().build()
        refuse_unpulsed(self.arrays, self.rule)
        self.progress.update(refreshed=0)

    def transfers(self) -> int:
        """Columns that refreshes read so far."""
        return int(self.progress["refreshed"]) * self.shape[1]

    def work(self, step: float = 1.0, slots: Mapping[int, float] | None = None) -> Work:
        """See :meth:`pulseline.Cell.work`.

        Two phases of one sign take as long as two signs of one array; a crosspoint is struck on one
        array of the two. A refresh reads all columns of both, compares twice and subtracts per
        crosspoint, and writes each column once; resets take neither time nor energy here.
        """
        rule, (rows, cols) = self.rule, self.shape
        device: Any = self.array.device
        share = 1 / rule.refresh_every if rule.refresh_every else 0.0
        most = math.ceil((1 - rule.both) * device.w_max / device.granularity)
        counted = [value for n, value in (slots or {}).items() if n in (0, 1)]
        return replace(
            super().work(step, slots),
            takers=(0, 1),
            driven=2,
            reads=2 * cols * share,
            writes=cols * share,
            write_slots=(max(counted) if counted else float(most)) if share else 0.0,
            operations=3 * rows * cols * share,
        )

    def program(self, target: Tensor) -> None:
        """Write the positive part on G+, the negative one on G-.

        Args:
            target: (rows, cols) in units of the layer.
        """
        self.array.program(target)  # which checks it, and finds its scale
        self._split(self.array.as_matrix(target).to(self.array.held) / self.array.out_scale)

    def initialise(self) -> None:
        """See :meth:`pulseline.Cell.initialise`."""
        self.array.initialise()
        self._split(self.array.pulsed.clone())

    def _split(self, values: Tensor) -> None:
        if not values.is_meta:
            self.array.write(values.clamp(min=0))
            self.other.write((-values).clamp(min=0))

    def pulse(self, x: Tensor, d: Tensor, lr: float, batch: Batch | None = None) -> None:
        """Samples in order, with refreshes; see :class:`OneSided`."""
        rate = lr / self.array.out_scale
        every = self.rule.refresh_every
        if not every:
            self._raise(x, d, rate, batch)
            self.samples += len(x)
        else:
            for part, border in self.spans(len(x), every):
                self._raise(x[part], d[part], rate, batch)
                if border is not None:
                    if batch is not None:
                        batch.launch()
                    self._refresh_pairs()
        self._summed(batch)

    def _raise(self, x: Tensor, d: Tensor, rate: float, batch: Batch | None) -> None:
        """Each sample in two phases, one per sign of the inputs: all pulses of a phase raise.

        G+ gets what raises W: inputs and errors of opposite signs; G- what lowers it.
        """
        inputs = torch.stack((x.clamp(min=0), (-x).clamp(min=0)), 1).reshape(-1, x.shape[1])
        negative, positive = (-d).clamp(min=0), d.clamp(min=0)
        phases_of = ((self.array, (negative, positive)), (self.other, (positive, negative)))
        for array, phases in phases_of:
            errors = torch.stack(phases, 1).reshape(-1, d.shape[1])
            array.pulse(inputs, -errors, rate * array.out_scale, batch)

    @torch.no_grad()
    def _refresh_pairs(self) -> None:
        """Reset pairs that are nearly full, and write their difference on one of them."""
        rule = self.rule
        plus, minus = self.array, self.other
        read = [array.convert(array.held.contiguous(), rule.read) for array in (plus, minus)]
        parts = [v / a.device.w_max for v, a in zip(read, (plus, minus), strict=True)]
        full = torch.maximum(*parts) > rule.full
        full &= torch.minimum(*parts) > rule.both
        for array in (plus, minus):
            array.reset(where=full, number=int(self.progress["refreshed"]))
        self.progress["refreshed"] += 1
        difference = torch.where(full, read[0] - read[1], 0.0)
        columns = all_columns(self.shape[1], full.device)
        for array, sign in ((plus, 1.0), (minus, -1.0)):
            pulses = (difference * (sign / array.device.granularity)).round_().clamp_(min=0)
            array.step(columns, pulses)


@dataclass(frozen=True)
class OneSided(Rule):
    """``W = G+ - G-`` on devices that are only ever raised, such as phase-change memory.

    What raises W pulses G+ up, what lowers it G- up. Each sample is pulsed in two phases, one per
    sign of its inputs. Pairs fill up: every ``refresh_every`` samples all are read, and those whose
    larger part exceeds ``full`` and whose smaller one exceeds ``both`` (of w_max) are reset, their
    difference written back in open loop.

    State: none beside the arrays. Cost of a refresh: two reads a column, resets, one write.

    Attributes:
        refresh_every: samples; 0: never.
        full, both: parts of w_max, .75 and .25.
        read: converters of these reads; None: those of the forward read.

    Raises:
        ConfigError: a value out of range.
    """

    makes: ClassVar[type[Cell]] = OneSidedCell

    refresh_every: int = 0
    full: float = 0.75
    both: float = 0.25
    read: ReadConfig | None = None

    def __post_init__(self) -> None:
        self._whole("refresh_every", least=0)
        self._probability("full", "both")
        self._read()


class ReferencePairCell(PairCell):
    """A (0) and its reference R (1), which no update pulses; see :class:`ReferencePair`."""

    def build(self) -> None:
        """R, at the symmetry point if asked."""
        super().build()
        rule = self.rule
        if rule.pulses and not self.array.held.is_meta:
            point = find_symmetry_point(self.array, rule.pulses, cyclic=rule.cyclic)
            self.other.write(point)

    def work(self, step: float = 1.0, slots: Mapping[int, float] | None = None) -> Work:
        """See :meth:`pulseline.Cell.work`: the reference is read, and never written."""
        return replace(super().work(step, slots), takers=(0,))

    def pulse(self, x: Tensor, d: Tensor, lr: float, batch: Batch | None = None) -> None:
        """Pulse A; see :class:`ReferencePair`."""
        self.array.pulse(x, d, lr, batch)
        self.samples += len(x)
        self._summed(batch)


@dataclass(frozen=True)
class ReferencePair(Rule):
    """``W = A - R``: plain pulsed SGD on A, against a reference of devices that stays.

    With ``pulses`` A is driven to its symmetry point, which is written onto R: the weight 0 then
    lies where up and down steps are equal (Kim et al. 2019, zero shifting).

    State: none beside the arrays. Cost: ``pulses`` on every crosspoint once.

    Attributes:
        pulses: of the search, see :func:`find_symmetry_point`; 0: R is 0.
        cyclic: whether they alternate.

    Raises:
        ConfigError: a value out of range.
    """

    makes: ClassVar[type[Cell]] = ReferencePairCell

    pulses: int = 0
    cyclic: bool = True

    def __post_init__(self) -> None:
        self._whole("pulses", least=0)
        self._flags("cyclic")
