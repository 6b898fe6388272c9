"""Transfers from a fast array to a slow one: the cell, and the base of rules.

Per sample, in this order, which :mod:`pulseline.reference.algorithms` says again in plain torch::

    x' = c * x, d' = e * d              signs of the choppers, columns and rows
    A  <- A - lr_fast d' x'^T           pulses of the fast array, array 1
    count += 1; every ``every`` samples the next ``reads`` columns j, each:
        z = ADC(A_j)                    a read of one column
        n = rule(z)                     whole pulses, digital
        C_j <- C_j + n pulses           the slow array, array 0
        c_j flips                       if the rule chops

Forward and backward reads see C, or ``C + gamma (c e^T) (A - reference)``. A read of one column is
local to a crosspoint, so an update pulses all its samples at once and takes each column right
behind its sample: however samples are cut into updates, no bit changes. Learning rates: the fast
array moves by ``lr_fast d x^T`` in the units of the layer, the slow one by ``lr_transfer lr (z -
ref)`` a read, lr that of the optimizer, whose schedules so act on the transfers; with lr = 0 no
weight moves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..arrays import Array
from ..cells import Cell
from ..errors import ConfigError, require
from ..hardware import Work
from ..ops import Batch
from .choppers import Choppers
from .rates import FastRate
from .rule import Periodic, refuse_unpulsed, whole_pulses
from .schedule import Run, all_columns, due, runs, taps_of
from .sums import Summand, SummedCell

__all__ = ["Transfer", "TransferCell"]


class TransferCell(SummedCell):
    """A fast array A (1), a slow array C (0) and what a rule keeps between samples.

    Attributes:
        rule: that says what a transfer does.
        granularity: step of the device in which the rule counts pulses.
        sign_columns, sign_rows: of the choppers, +1 or -1.
    """

    rule: Transfer
    sign_columns: Tensor
    sign_rows: Tensor

    def build(self) -> None:
        """A and the choppers' signs, and what the rule keeps.

        Raises:
            ConfigError: the rule has no ``transfer``, or a device has no pulses that it counts.
        """
        rows, cols = self.shape
        self.add_array(self.crossbar.fast)
        if type(self.rule).transfer is Transfer.transfer:
            raise ConfigError(
                f"rule {self.rule.name} has no transfer(self, cell, columns, z, rate); write it"
            )
        counts_fast = self.rule.auto_scale or self.rule.granularity == "fast"
        refuse_unpulsed(self.arrays if counts_fast else [self.slow], self.rule)
        ones = self.slow.held.new_ones
        self.register_buffer("sign_columns", ones(cols))
        self.register_buffer("sign_rows", ones(rows))
        self.progress.update(transfers=0, steps=0, largest_x=0.0, largest_d=0.0)
        self._rate = FastRate(self.rule)
        counted = self.fast if self.rule.granularity == "fast" else self.slow
        self.granularity: float = counted.device.granularity
        self._numbers: Tensor | None = None
        self.rule.start(self)

    @property
    def slow(self) -> Array:
        """C, which transfers pulse."""
        return self.array

    @property
    def fast(self) -> Array:
        """A, which gradients pulse."""
        found = self._modules["arrays"]._modules["1"]  # type: ignore[union-attr]
        return found  # type: ignore[return-value]

    def zeros(self, *names: str) -> None:
        """Digital (rows, cols) buffers of these names, all 0, which a state holds.

        Args:
            names: of attributes of the cell, which must be free.

        Raises:
            ConfigError: one is taken.
        """
        for name in names:
            if not str(name).isidentifier() or hasattr(self, name):
                raise ConfigError(
                    f"name is {name!r:.60}, which is no free name of the cell's; use another"
                )
            self.register_buffer(name, torch.zeros_like(self.slow.held))

    def signs(self, columns: slice = slice(None)) -> Tensor:
        """(rows, columns) products of the choppers' signs; without choppers 1."""
        if not self.rule.chops_rows:
            return self.sign_columns[columns]
        return self.sign_rows[:, None] * self.sign_columns[columns]

    def transfers(self) -> int:
        """Columns read so far."""
        return int(self.progress["transfers"])

    def summands(self) -> Iterator[Summand]:
        """A, where reads see it."""
        if self.rule.gamma:
            yield Summand(self.fast, self.rule.gamma, self.rule.reference(self), self.signs())

    def work(self, step: float = 1.0, slots: Mapping[int, float] | None = None) -> Work:
        """See :meth:`pulseline.Cell.work`.

        Each column read is converted, counted (:meth:`Transfer.operations`) with its column of
        every buffer in and out, and written. A reference that reads see is a crossbar too, to which
        a column is written whenever it changes. ``auto_scale`` looks for two maxima a sample.
        """
        rule, (rows, cols) = self.rule, self.shape
        reads = rule.columns_read(step)
        held = [b for b in self.buffers(recurse=False) if b.shape == self.slow.held.shape]
        signs = cols * (rule.chop > 0) + rows * rule.chops_rows
        seen = rule.gamma > 0 and rule.reference(self) is not None
        copies = rule.reference_writes if seen else 0.0
        most = float(rule.max_pulses)
        return replace(
            super().work(step, slots),
            crossbars=2 + seen,
            arrays=1 + (rule.gamma > 0) + seen,
            update_array=rule.gamma == 0,
            takers=(1,),
            reads=reads,
            writes=reads * (1 + copies),
            write_slots=((slots or {}).get(0, most) + copies * most) / (1 + copies),
            operations=reads * rule.operations() * rows + rule.auto_scale * (rows + cols),
            traffic_bytes=reads * 2 * 4 * rows * len(held),
            buffer_bytes=4 * rows * cols * len(held) + signs / 8 + 8 * rule.auto_scale,
        )

    @property
    def chop_period(self) -> float:
        """Samples between two flips of a column, on average; 0: it never flips."""
        rule = self.rule
        sweeps = rule.period if rule.regular else 1 / rule.chop if rule.chop else 0.0
        return self.shape[1] * rule.every / rule.reads * sweeps

    # ---- an update ----

    def update(self, x: Tensor, d: Tensor, lr: float, batch: Batch | None = None) -> None:
        """See :meth:`pulseline.Cell.update`.

        Args:
            x, d, lr, batch: see there.
        """
        # The fast array comes first, and refuses what is not finite before anything is written.
        first = type(self).pulse is TransferCell.pulse and not self.rule.auto_scale
        self.check_update(x, d, lr, finite=self.ages or not first or lr == 0)
        self.apply_update(x, d, lr, batch)

    def pulse(self, x: Tensor, d: Tensor, lr: float, batch: Batch | None = None) -> None:
        """Samples in order, with their transfers; see :class:`Transfer`."""
        rule, before, samples = self.rule, self.samples, x.shape[0]
        by_samples = rule.units == "samples"
        plan = self._runs(due(before, samples, rule.every, rule.reads) if by_samples else [])
        d, rate = self._rate.of(self, x, d, lr)
        turns = self._choppers(plan)
        if turns is not None:
            x, d = turns.inputs(x, self.sign_columns), turns.errors(d, self.sign_rows)
        if not plan:
            self.fast.pulse(x, d, rate, batch)
        else:
            read = self.fast.pulse_tapped(x, d, rate, taps_of(plan), batch)
            self._transfer(plan, turns, read, lr)
        self.__dict__["samples"] = before + samples  # not by attribute: torch looks at each
        self._summed(batch)

    def behind_step(self, steps: int, lr: float, batch: Batch | None) -> None:
        """The transfers that are due."""
        if steps % self.rule.every:
            return
        if batch is not None:
            batch.launch()
        plan = self._runs([-1] * self.rule.reads)
        read = torch.cat([self.fast.held[:, run.columns] for run in plan], 1)
        self._transfer(plan, self._choppers(plan), read, lr)
        self._summed(batch)

    def _runs(self, samples: list[int]) -> list[Run]:
        if not samples:
            return []
        start = self.fast.identity.key if self.rule.order == "random" else None
        return runs(self.transfers(), samples, self.shape[1], start)

    def _choppers(self, plan: list[Run]) -> Choppers | None:
        rule = self.rule
        if not (rule.chop or rule.chops_rows):
            return None
        return Choppers(rule, self.fast.identity.key, self.shape[0], plan)

    def _lines(self, columns: slice, device: torch.device) -> Tensor:
        """Numbers of columns, int32."""
        numbers = self._numbers
        if numbers is None or numbers.device != device:
            numbers = all_columns(self.shape[1], device)
            self.__dict__["_numbers"] = numbers
        return numbers[columns]

    @property
    def sums(self) -> bool:
        """Whether reads see more than array 0."""
        return bool(self.rule.gamma)

    @torch.no_grad()
    def _transfer(self, plan: list[Run], turns: Choppers | None, read: Tensor, lr: float) -> None:
        """Rule and pulses of all runs.

        Args:
            plan: the runs. turns: whose signs turn behind them. read: (rows, transfers) the
                fast array's columns right behind their samples. lr: of the optimizer.
        """
        rule, first = self.rule, 0
        rate = rule.transfer_rate(self, lr)
        read = self.fast.convert(read, rule.read)
        for place, run in enumerate(plan):
            z = read if len(plan) == 1 else read[:, first : first + len(run)]
            first += len(run)
            pulses = whole_pulses(rule, rule.transfer(self, run.columns, z, rate), z)
            self.progress["transfers"] += len(run)
            if not rule.waits(run.sweep):
                self._step(run.columns, pulses)
            if turns is not None:
                self._turn(run, turns, turns.flips[place])

    def _step(self, columns: slice, pulses: Tensor) -> None:
        try:
            self.slow.step(self._lines(columns, pulses.device), pulses)
        except ConfigError as error:
            raise ConfigError(
                f"{self.rule.name}.transfer returned what pulses cannot be: {error}; look for NaN "
                "in the fast array and at learning rates. The update is half done, load a state"
            ) from error

    def _turn(self, run: Run, turns: Choppers, flip: Tensor | None) -> None:
        """Signs behind a run; flip: which of its columns."""
        rule = self.rule
        if flip is not None:
            turned = flip.nonzero().flatten() + run.columns.start
            self.sign_columns[turned] *= -1
            rule.flipped(self, turned)
        if run.ends and rule.chops_rows:
            self.sign_rows *= turns.row_turns(run.sweep).to(self.sign_rows)


@dataclass(frozen=True)
class Transfer(Periodic):
    """Base of rules that move a fast array's columns to a slow one; see this module.

    A rule of one's own writes ``transfer``, and ``start`` if it keeps something.

    Attributes:
        chop: probability that a column's sign flips behind its read; with ``regular_chop`` all
            columns flip every ``ceil(1 / chop)`` sweeps (at least 2).
        chop_rows: probability that a row's sign flips behind a sweep.
        max_pulses: most pulses of a crosspoint in a transfer.
        threshold: what one pulse stands for, in units of ``granularity``.
        granularity: "slow": the slow device's step; "fast": the fast one's.
        auto_granularity: > 0: the threshold is multiplied by it and divided by cols * every.
        auto_scale: lr_fast is multiplied by desired_bl and the fast device's step and divided by
            the running means of max|x| and max|d|, so that trains are as long as asked.
        auto_momentum: of these means, per sample.

    Other attributes: see :class:`pulseline.algorithms.rule.Periodic`.

    Raises:
        ConfigError: a value out of range.
    """

    makes: ClassVar[type[Cell]] = TransferCell

    chop: float = 0.0
    regular_chop: bool = False
    chop_rows: float = 0.0
    max_pulses: int = 31
    threshold: float = 1.0
    granularity: str = "slow"
    auto_granularity: float = 0.0
    auto_scale: bool = False
    auto_momentum: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        self._whole("max_pulses")
        self._positive("auto_granularity", zero=True)
        self._positive("threshold")
        self._probability("chop", "chop_rows", "auto_momentum")
        self._flags("regular_chop", "auto_scale")
        self._one_of("granularity", ("slow", "fast"))
        ok = not self.regular_chop or self.chop > 0
        require(ok, self, "regular_chop", "use it with chop > 0")

    # ---- what a rule writes ----

    def start(self, cell: TransferCell) -> None:
        """Make what is kept, with ``cell.zeros(name)``."""

    def transfer(self, cell: TransferCell, columns: slice, z: Tensor, rate: float) -> Tensor:
        """What one run of transfers does.

        Args:
            cell: with the buffers of :meth:`start`, all (rows, cols).
            columns: that were read, no one twice. z: (rows, columns) the reads, normalised.
            rate: of the transfer in pulses of the slow array per unit of z.

        Returns:
            (rows, columns) whole pulses, > 0 raises the slow array.
        """
        raise NotImplementedError

    def reference(self, cell: TransferCell) -> Tensor | None:
        """What is subtracted from the fast array where reads see it: (rows, cols) or None."""
        return None

    def flipped(self, cell: TransferCell, columns: Tensor) -> None:
        """Called when columns have just changed their sign.

        Args:
            cell: whose. columns: their numbers, int64.
        """

    def operations(self) -> int:
        """Digital operations per row of a column that was read: here multiply, add, truncate."""
        return 3

    @property
    def reference_writes(self) -> float:
        """Columns of :meth:`reference` that change per column read, in the long run."""
        return (1 / self.period if self.regular else self.chop) if self.chop else 1.0

    def waits(self, sweep: int) -> bool:
        """Whether the slow array is not pulsed yet.

        Args:
            sweep: number of the current one.
        """
        return False

    # ---- what follows from the fields ----

    @property
    def period(self) -> int:
        """Sweeps between two regular flips, and over which means are taken."""
        return max(2, math.ceil(1 / self.chop)) if self.chop else 2

    @property
    def regular(self) -> bool:
        """Whether columns flip in step."""
        return self.regular_chop and self.chop > 0

    @property
    def chops_rows(self) -> bool:
        """Whether rows have signs too."""
        return self.chop_rows > 0

    def transfer_rate(self, cell: TransferCell, lr: float) -> float:
        """Pulses of the slow array per unit that was read.

        Args:
            cell: whose. lr: of the optimizer.
        """
        unit = self.threshold * cell.granularity
        if self.auto_granularity:
            unit *= self.auto_granularity / (cell.shape[1] * self.every)
        rate: float = self.slow_rate(lr) / unit
        return rate
