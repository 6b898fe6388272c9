"""Mixed precision: the gradient is summed in digital memory, whole pulses of it are written.

State: chi, rows x cols of float32. Cost of a sample: rows x cols multiply-accumulates in digital
hardware; of a transfer: the traffic of chi, and a write of every row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from .. import ops
from ..arrays import Packed
from ..cells import Cell
from ..devices import Ideal
from ..errors import ConfigError
from ..hardware import Work
from ..ops import Batch
from .rule import Rule, refuse_unpulsed
from .ruled import RuledCell
from .schedule import all_columns

__all__ = ["MixedCell", "MixedPrecision"]


class MixedCell(RuledCell):
    """One array and the digital sum chi of what it is still to move by, in its units."""

    rule: MixedPrecision
    chi: Tensor

    def build(self) -> None:
        """chi.

        Raises:
            ConfigError: a device without pulses, or one for an array that there is not.
        """
        refuse_unpulsed(self.arrays, self.rule)
        if self.crossbar.fast_device is not None:
            raise ConfigError(
                f"fast_device is {self.crossbar.fast_device!r:.60}, but {self.rule.name} has one "
                "array, of device; leave fast_device out"
            )
        self.register_buffer("chi", torch.zeros_like(self.array.held))
        counters = torch.zeros_like(self.array.counters)
        self.register_buffer("counters", counters, persistent=False)
        self.progress.update(steps=0, writes=0)
        digital = replace(self.crossbar, device=Ideal(), algorithm=None, fast_device=None)
        self._sums = Packed.of(self.identity.key, digital, 1.0)

    def transfers(self) -> int:
        """Columns written so far; none was read."""
        return int(self.progress["writes"]) * self.shape[1]

    def work(self, step: float = 1.0, slots: Mapping[int, float] | None = None) -> Work:
        """See :meth:`pulseline.Cell.work`.

        Per sample a multiply and an add per crosspoint on chi, in and out; per write all rows one
        after the other, and three operations (divide, truncate, subtract) per crosspoint on it.
        """
        rule, (rows, cols) = self.rule, self.shape
        every = rule.every if rule.units == "samples" else rule.every * step
        size = rows * cols
        return Work(
            takers=(),
            driven=0,
            struck=0,
            writes=rows / every,
            by_rows=True,
            write_slots=(slots or {}).get(0, float(rule.max_pulses)),
            operations=2 * size + 3 * size / every,
            traffic_bytes=2 * 4 * size * (1 + 1 / every),
            buffer_bytes=4 * size,
        )

    def pulse(self, x: Tensor, d: Tensor, lr: float, batch: Batch | None = None) -> None:
        """Samples in order, with their transfers; see :class:`MixedPrecision`."""
        rule = self.rule
        rate = lr / self.array.out_scale
        x, d = _binned(x, rule.bins_x), _binned(d, rule.bins_d)
        if rule.units == "batches":
            self._sum(x, d, rate, batch)
            self.samples += len(x)
            return
        for part, border in self.spans(len(x), rule.every):
            self._sum(x[part], d[part], rate, batch)
            if border is not None:
                self._write(batch)

    def behind_step(self, steps: int, lr: float, batch: Batch | None) -> None:
        """The write, if it is due."""
        if steps % self.rule.every == 0:
            self._write(batch)

    def _sum(self, x: Tensor, d: Tensor, rate: float, batch: Batch | None) -> None:
        """chi <- chi - rate d x^T, sample by sample: the same bits however they are cut."""
        if batch is not None:
            batch.launch()
        counters: Tensor = self.counters  # type: ignore[assignment]
        ops.update_(
            *(self.chi, None, None, None, x, d, rate, "Ideal", (), self._sums.pulses),
            *(counters, self._sums.update),
        )

    @torch.no_grad()
    def _write(self, batch: Batch | None) -> None:
        if batch is not None:
            batch.launch()
        rule, unit = self.rule, self.rule.threshold * self.array.device.granularity
        pulses = (self.chi / unit).trunc_().clamp_(-rule.max_pulses, rule.max_pulses)
        self.chi.sub_(pulses * unit)
        columns = all_columns(self.shape[1], self.chi.device)
        self.array.step(columns, pulses)
        self.progress["writes"] += 1


def _binned(v: Tensor, bins: int) -> Tensor:
    """Every sample on the grid of 2 max / bins; 0: as it is."""
    if bins == 0 or not v.numel():
        return v
    width = v.abs().amax(1, keepdim=True) * (2.0 / bins)
    return torch.where(width > 0, (v / width).round() * width, v)


@dataclass(frozen=True)
class MixedPrecision(Rule):
    """Mixed precision (Nandakumar et al. 2020, Frontiers in Neuroscience 14:406).

    ``chi <- chi - lr d x^T`` each sample; every ``every`` steps of the optimizer
    ``n = trunc(chi / dw)``, n pulses are written and ``chi <- chi - n dw``.

    Attributes:
        every: steps of the optimizer, or samples with ``units="samples"``, between writes.
        units: "batches" or "samples".
        max_pulses: most pulses of a crosspoint in a write; the rest stays in chi.
        threshold: what one pulse stands for, in units of the device's step.
        bins_x, bins_d: levels of inputs and errors in the sum, of ``2 max / bins`` each; 0: none.

    Raises:
        ConfigError: a value out of range.
    """

    makes: ClassVar[type[Cell]] = MixedCell

    every: int = 1
    units: str = "batches"
    max_pulses: int = 31
    threshold: float = 1.0
    bins_x: int = 0
    bins_d: int = 0

    def __post_init__(self) -> None:
        self._whole("every", "max_pulses")
        self._whole("bins_x", "bins_d", least=0)
        self._one_of("units", ("samples", "batches"))
        self._positive("threshold")
