"""Arrays in a chain: what one holds is moved to the next by pulse trains.

The last of T arrays takes the gradient; every ``every`` samples one of its columns is read and
pulsed onto the array before it, ``C <- C + lr z e_j^T`` by trains as in any update; that one's
columns move on ``every_factor`` times more rarely, and so to array 0. Level l goes from array
T-1-l to T-2-l, every ``every every_factor^l`` samples, at ``lr_transfer lr_transfer_factor^l``.
Reads see ``sum_n gamma^n array_n``.

``fast_device`` is that of the last array alone.

Within a sample levels follow each other. As in :mod:`.transfer` all samples of an update are pulsed
at once, and its transfers are one update of the next array; no bit depends on how samples are cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..arrays import Array
from ..cells import Cell
from ..configs import UpdateConfig
from ..errors import ConfigError, require
from ..hardware import Work
from ..ops import Batch
from .rule import Periodic
from .schedule import due, runs, taps_of
from .sums import Summand, SummedCell

__all__ = ["Chain", "ChainCell", "MultiTile", "Residual1", "TikiTaka1", "advance"]


class ChainCell(SummedCell):
    """Arrays that hand their columns on, see this module.

    ``progress`` holds the transfers of each level and the phase of a warm start.
    """

    rule: Chain

    def build(self) -> None:
        """The arrays behind array 0; those that transfers pulse have their trains."""
        rule, taken = self.rule, self.crossbar.fast
        if rule.transfer_update is not None:
            self.reconfigure(update=rule.transfer_update)
        slow = replace(taken, device=self.array.device, update=self.array.update_config)
        for n in range(1, rule.arrays):
            self.add_array(taken if n == rule.arrays - 1 else slow)
        self.progress.update({f"transfers{level}": 0 for level in range(rule.arrays - 1)})
        self.progress.update(steps=0, phase=0)

    def transfers(self) -> int:
        """Columns read so far, of all arrays."""
        return sum(int(self.progress[f"transfers{n}"]) for n in range(self.rule.arrays - 1))

    def summands(self) -> Iterator[Summand]:
        """All arrays behind array 0, at powers of gamma."""
        for n in range(1, self.rule.arrays) if self.rule.gamma else ():
            yield Summand(self.arrays[n], self.rule.gamma**n)

    def work(self, step: float = 1.0, slots: Mapping[int, float] | None = None) -> Work:
        """See :meth:`pulseline.Cell.work`.

        A column read and a train of one column per transfer of each level, no digital work. With
        two arrays and gamma = 0 gradients have a crossbar of their own.
        """
        rule, targets = self.rule, self.targets()
        reads = [rule.columns_read(step, rule.period(n)) for n in range(len(targets))]
        most = [
            (slots or {}).get(n, float(self.arrays[n].update_config.desired_bl)) for n in targets
        ]
        total = sum(reads)
        return replace(
            super().work(step, slots),
            update_array=rule.gamma == 0 and rule.arrays == 2,
            reads=total,
            writes=total,
            write_slots=sum(r * s for r, s in zip(reads, most, strict=True)) / total,
        )

    def targets(self) -> list[int]:
        """Which array each level pulses: those of a warm start first, coarse to fine."""
        count, phase = self.rule.arrays, int(self.progress["phase"])
        if self.rule.warm_start and phase < count - 2:
            return [phase]
        return list(range(count - 2, -1, -1))

    def pulse(self, x: Tensor, d: Tensor, lr: float, batch: Batch | None = None) -> None:
        """Samples in order, with their transfers; see this module."""
        rule = self.rule
        rate = rule.fast_rate(lr) / self.array.out_scale
        periods = [rule.period(level) for level in range(rule.arrays - 1)]
        if rule.units == "batches":
            self.arrays[-1].pulse(x, d, rate, batch)
        else:
            plans = [due(self.samples, len(x), every, rule.reads) for every in periods]
            self._pass_on(x, d, rate, plans, lr, batch)
        self.__dict__["samples"] = self.samples + len(x)  # not by attribute: torch looks at each
        self._summed(batch)

    def behind_step(self, steps: int, lr: float, batch: Batch | None) -> None:
        """The transfers that are due."""
        levels = range(self.rule.arrays - 1)
        due_now = [steps % self.rule.period(level) == 0 for level in levels]
        if due_now[0]:
            if batch is not None:
                batch.launch()
            plans = [[-1] * self.rule.reads if now else [] for now in due_now]
            nothing = self.array.held.new_zeros
            rows, cols = self.shape
            self._pass_on(nothing(0, cols), nothing(0, rows), 0.0, plans, lr, batch)
            self._summed(batch)

    @property
    def sums(self) -> bool:
        """Whether reads see more than array 0."""
        return bool(self.rule.gamma)

    @torch.no_grad()
    def _pass_on(
        self,
        x: Tensor,
        d: Tensor,
        rate: float,
        plans: list[list[int]],
        lr: float,
        batch: Batch | None,
    ) -> None:
        """Pulse the last array, read columns right behind their samples, pulse them on.

        Args:
            x, d, rate: of the last array's update. plans: of each level, behind which samples.
            lr: of the optimizer. batch: on a GPU.
        """
        array: Array = self.arrays[-1]
        behind: list[int] = list(range(len(x)))  # which sample of the cell each of an update is
        for level, target in enumerate(self.targets()):
            if not plans[level]:
                break
            samples = _places(behind, plans[level])
            columns, z = self._read(array, x, d, rate, level, samples, batch)
            x = z.new_zeros(len(columns), self.shape[1]).scatter_(1, columns[:, None], 1.0)
            d, behind = -z.T.contiguous(), plans[level]
            array = self.arrays[target]
            rate = self.rule.slow_rate(lr) * self.rule.lr_transfer_factor**level * array.out_scale
        array.pulse(x, d, rate, batch)

    def _read(
        self,
        array: Array,
        x: Tensor,
        d: Tensor,
        rate: float,
        level: int,
        samples: list[int],
        batch: Batch | None,
    ) -> tuple[Tensor, Tensor]:
        """Columns of an array behind samples of its update: their numbers, and what was read."""
        name = f"transfers{level}"
        start = array.identity.key if self.rule.order == "random" else None
        plan = runs(int(self.progress[name]), samples, self.shape[1], start)
        taps = taps_of(plan)
        columns = taps[:, 1].long().to(array.held.device, non_blocking=True)
        # without samples, behind a step: what it holds
        read = array.pulse_tapped(x, d, rate, taps, batch) if len(x) else array.held[:, columns]
        self.progress[name] += len(samples)
        return columns, array.convert(read, self.rule.read)


def _places(behind: list[int], samples: list[int]) -> list[int]:
    """The last of an array's own samples that is not behind each sample of the cell."""
    found, place = [], -1
    for sample in samples:
        while place + 1 < len(behind) and behind[place + 1] <= sample:
            place += 1
        found.append(place)
    return found


@dataclass(frozen=True)
class Chain(Periodic):
    """Base of rules that move columns on by pulse trains; see this module.

    Attributes:
        arrays: how many, at least 2.
        every_factor: how much more rarely each array hands on than the one behind it; whole.
        lr_transfer_factor: how much faster.
        warm_start: at first the last array feeds array 0, then 1, ..., and in the end the one
            before it; :func:`advance` moves on to the next, for instance when the loss no longer
            falls.
        transfer_update: trains of transfers; None: those of the crossbar.

    Other attributes: see :class:`pulseline.algorithms.rule.Periodic`.

    Raises:
        ConfigError: a value out of range.
    """

    makes: ClassVar[type[Cell]] = ChainCell

    arrays: int = 2
    every_factor: int = 1
    lr_transfer_factor: float = 1.0
    warm_start: bool = False
    transfer_update: UpdateConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._whole("arrays", least=2)
        require(self.arrays <= 254, self, "arrays", "use at most 254")
        self._whole("every_factor")
        self._positive("lr_transfer_factor")
        self._flags("warm_start")
        update = self.transfer_update
        ok = update is None or isinstance(update, UpdateConfig)
        require(ok, self, "transfer_update", "use an UpdateConfig, or None for the crossbar's")

    def period(self, level: int) -> int:
        """Samples or steps between two transfers of a level."""
        period: int = self.every * self.every_factor**level
        return period


@dataclass(frozen=True)
class TikiTaka1(Chain):
    """TTv1: reads see the slow one of two arrays (Gokmen, Haensch 2020, Frontiers in Neuroscience).

    Each column of A that is read is pulsed onto C at ``lr_transfer lr``. No digital state. Cost of
    a transfer: one read with m conversions, one update of a single column.

    Attributes: see :class:`Chain`.

    Raises:
        ConfigError: a value out of range.
    """


@dataclass(frozen=True)
class Residual1(Chain):
    """Residual learning: TTv1 whose fast array is read too (Wu et al. 2025, arXiv 2502.06309).

    Reads see ``C + gamma A``: A learns what C lacks.

    Attributes:
        gamma: .4 by default, as published.

    Other attributes: see :class:`Chain`.

    Raises:
        ConfigError: a value out of range.
    """

    gamma: float = 0.4


@dataclass(frozen=True)
class MultiTile(Chain):
    """Several arrays of few states as digits of one weight (Li et al. 2025, arXiv 2510.02516).

    ``W = sum_n gamma^n array_n``; gradients pulse the array of the smallest weight.

    Attributes:
        arrays: 4 by default. gamma: .5, slightly above the inverse of the states of a device.
        every, every_factor: 2 and 5.
        lr_transfer, lr_transfer_factor, scale_transfer: .1 and 1.2, not times lr.

    Other attributes: see :class:`Chain`.

    Raises:
        ConfigError: a value out of range.
    """

    arrays: int = 4
    gamma: float = 0.5
    every: int = 2
    every_factor: int = 5
    lr_transfer: float = 0.1
    scale_transfer: bool = False
    lr_transfer_factor: float = 1.2


def advance(model: torch.nn.Module) -> int:
    """Move warm starts on: the last arrays feed the next finer ones, in the end all in a chain.

    Args:
        model: with cells of a :class:`Chain` with ``warm_start``.

    Returns:
        How many cells are still in their warm start.

    Raises:
        ConfigError: there is no such cell.
    """
    if not isinstance(model, torch.nn.Module):
        raise ConfigError(f"model is {model!r:.60}; use a module with layers of MultiTile")
    cells = [one for one in model.modules() if isinstance(one, ChainCell) and one.rule.warm_start]
    if not cells:
        raise ConfigError("model has no cell with warm_start; use MultiTile(warm_start=True)")
    for cell in cells:
        cell.progress["phase"] = min(int(cell.progress["phase"]) + 1, cell.rule.arrays - 2)
    return sum(len(cell.targets()) == 1 and cell.rule.arrays > 2 for cell in cells)
