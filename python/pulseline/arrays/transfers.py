"""Transfers: what algorithms of several arrays do to one, beside reads and pulses.

Columns right after their samples, counted pulses on single crosspoints, and the converters of reads
of one driven line on values that are there. Lines and reads are counted on the host
(``stepped``, ``transferred``), which numbers their draws: as often as they are cut, the bits stay.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..configs import ReadConfig
from ..errors import ConfigError
from .aged import Aged
from .fired import tally
from .parameter import check_lr

__all__ = ["Transfers"]

_IN_ORDER = frozenset(ops.FIDELITY_INDEX[name] for name in ("exact", "strict", "expected"))
_PERFECT = ReadConfig.perfect()


class Transfers(Aged):
    """An array that others are transferred from, or to.

    Attributes:
        fired: coincidences, slots and samples counted so far, or None.
        trains_of: number of the array whose pulse trains updates take; None: its own.
        stepped: lines that :meth:`step` has pulsed. transferred: reads of :meth:`convert`.
    """

    fired: Tensor | None
    stepped: int = 0
    transferred: int = 0
    trains_of: int | None = None
    _converts: tuple[ReadConfig | None, Any] = (None, None)  # settings of reads, packed once
    _deviation: float

    @property
    def _trains(self) -> int:
        """The stream whose trains updates take; -1: the array's own."""
        if self.trains_of is None:
            return -1
        seed_and_stream: tuple[int, int] = replace(self._identity, array=self.trains_of).key
        return seed_and_stream[1]

    def share_trains(self, array: int) -> None:
        """Take the pulse trains of another array of the matrix: lines that run through both.

        Args:
            array: its number.
        """
        self.trains_of = array
        self._pack()  # type: ignore[operator]

    def column(self, j: int) -> Tensor:
        """A training read of input ``j`` alone: (rows,), column j as the converters see it.

        Raises:
            ConfigError: there is no such column.
        """
        array: Any = self
        cols: int = array.shape[1]
        if not 0 <= j < cols:
            raise ConfigError(f"column is {j}; this array has columns 0 to {cols - 1}")
        one = self.held.new_zeros(1, cols)
        one[0, j] = 1.0
        read: Tensor = array.read(one)[0]
        return read

    def pulse_tapped(
        self, x: Tensor, d: Tensor, lr: float, taps: Tensor, batch: ops.Batch | None = None
    ) -> Tensor:
        """:meth:`pulse`, and what columns hold right after their samples, as reads see them.

        Bit for bit that of a batch cut behind every tapped sample. Where nothing but pulses happens
        to crosspoints, and samples are not joined, the kernel writes the values on its way; else
        the batch is cut (which grouped and moments feel), and that of the ideal device on a GPU.

        Args:
            x, d, lr: as of :meth:`pulse`.
            batch: whose updates of this array come first; those of others may still wait.
            taps: (taps, 2) int32 on the CPU, sample and column, in the order of samples.

        Returns:
            (rows, taps) float32, normalised.

        Raises:
            ConfigError: as of :meth:`pulse`; a tap of no sample or column, or out of order; a
                matrix of several blocks.
        """
        rate, (rows, cols) = check_lr(lr) / self.out_scale, self.held.shape
        if self._block_rows:
            raise ConfigError(
                f"columns are tapped of a matrix of {rows // self._block_rows} blocks; use a layer "
                "of one group"
            )
        ops.check_tensor(taps)
        values = self.held.new_empty((rows, taps.shape[0]))
        if self._taps_on_the_way:  # the operator looks at everything
            self._pulse(x, d, rate, batch, (taps, values))  # type: ignore[operator]
            return values
        for name, t, width in (("x", x, cols), ("d", d, rows)):
            ops.check_tensor(t)
            ops.refuse_matrix(name, t, width)
        ops.check_taps(taps, x.shape[0], cols)
        self._pulse_cut(x, d, lr, taps, values, batch)
        return values

    @property
    def _taps_on_the_way(self) -> bool:
        """Whether the update's kernel takes taps, and its weight is what is read."""
        if self._name == "Ideal":
            in_order: bool = self.held.is_cpu
        else:
            in_order = self._packed.update.fidelity in _IN_ORDER
        return in_order and self._buffers["hidden"] is None and not self._ages

    def _pulse_cut(
        self,
        x: Tensor,
        d: Tensor,
        lr: float,
        taps: Tensor,
        values: Tensor,
        batch: ops.Batch | None,
    ) -> None:
        """:meth:`pulse_tapped` by updates that end behind the tapped samples."""
        samples, rate = x.shape[0], lr / self.out_scale
        if samples != d.shape[0]:
            self._pulse(x, d, rate, batch)  # type: ignore[operator]  # which says so
        x, d = self._all_or_nothing(x, d, rate)  # type: ignore[operator]
        first = 0
        for t, (sample, column) in enumerate(taps.tolist()):
            if sample >= first:
                self.pulse(x[first : sample + 1], d[first : sample + 1], lr, batch)  # type: ignore[operator]
                first = sample + 1
                if batch is not None:
                    batch.launch()
            values[:, t] = self.held[:, column]
        if first < samples or not samples:
            self.pulse(x[first:], d[first:], lr, batch)  # type: ignore[operator]

    def step(self, columns: Tensor, counts: Tensor) -> None:
        """Counted, signed pulses on single crosspoints, see :func:`pulseline.ops.pulse_`.

        Where the weight that is read carries write noise, it gets that of the step wherever a pulse
        came, drawn by the number of the line: no update and no programming draws the same.

        Args:
            columns: (lines,) int32, all different.
            counts: (rows, lines) float32, whole numbers; n > 0 raises the weight. Of the ideal
                device n steps of ``granularity``, 1.

        Raises:
            ConfigError: as of the operator; nothing is written.
        """
        self.settle()
        held, settings, number = self._buffers, self._packed, self.stepped
        hidden, fired = held["hidden"], held["fired"]
        visible, weight = (None, self.held) if hidden is None else (self.held, hidden)
        counted = None if fired is None else fired.new_zeros(2)
        rest: Any = (settings.update, counted, visible, self._deviation)
        if self._params and ops.direct(counts) and weight.is_cpu:
            near: ops.Resident = self._near(weight, held["counters"])  # type: ignore[operator]
            near.step(columns, counts, number, *rest)
        else:
            cells: dict[str, Tensor | None] = self._stored  # type: ignore[assignment]
            pairs = (cells["step"], cells["slope"], cells["bound"])
            params = self._params or (settings.pulses.granularity,)
            with torch.no_grad():
                ops.pulse_(weight, *pairs, columns, counts, number, self._name, params, *rest)
        lines = columns.shape[0]
        if fired is not None:
            tally(fired, counted, lines)
        self.__dict__["stepped"] = number + lines
        self._tell()

    def convert(self, values: Tensor, settings: ReadConfig | None = None) -> Tensor:
        """Values of columns as reads of one driven line give them, in normalised units.

        See :func:`pulseline.ops.convert`: neither managements nor ``out_scale`` act.

        Args:
            values: (rows, reads) float32. settings: of the reads; None: those of forward reads.

        Returns:
            (rows, reads); the values themselves where reads are perfect.

        Raises:
            ConfigError: as of the operator, wires for instance.
        """
        config = self.crossbar.io.forward if settings is None else settings
        held = self.__dict__  # not by attribute, which torch looks up in Python
        if config is not self._converts[0]:
            held["_converts"] = (config, _settings(config))
        out, how, number = values, self._converts[1], self.transferred
        if how is not None:
            out = ops.convert(values, number, self._packed.draws, *how)
        held["transferred"] = number + values.shape[1]
        return out


def _settings(config: ReadConfig) -> tuple[ops.ReadSettings, ops.ConverterSettings] | None:
    """What the operator takes; None: values stay as they are."""
    if config == _PERFECT:
        return None
    return ops.ReadSettings.of(config), ops.ConverterSettings.of(config)
