"""Weights that are the mean of several arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from .. import ops
from ..cells import Cell
from ..errors import require
from ..hardware import Work
from ..ops import Batch
from .rule import Rule
from .schedule import line_numbers
from .sums import Summand, SummedCell

__all__ = ["Vector", "VectorCell"]


class VectorCell(SummedCell):
    """Several arrays whose weighted mean is read; see :class:`Vector`."""

    rule: Vector

    def build(self) -> None:
        """The arrays behind array 0."""
        for _ in range(1, self.rule.arrays):
            array = self.add_array(self.crossbar.fast)
            if self.rule.pulsed == "all":
                array.share_trains(0)

    @property
    def own(self) -> float:
        """The weight of array 0."""
        return self.rule.shares[0]

    @property
    def sums(self) -> bool:
        """Whether there are several arrays."""
        return self.rule.arrays > 1

    def summands(self) -> Iterator[Summand]:
        """All arrays behind array 0."""
        for n, share in enumerate(self.rule.shares[1:], 1):
            yield Summand(self.arrays[n], share)

    def work(self, step: float = 1.0, slots: Mapping[int, float] | None = None) -> Work:
        """See :meth:`pulseline.Cell.work`: a sample's trains are on all arrays, or on one."""
        count, pulsed = self.rule.arrays, self.rule.pulsed
        each = count if pulsed == "all" else 1
        takers = (0,) if pulsed == "first" else tuple(range(count))
        return replace(super().work(step, slots), takers=takers, driven=each, struck=each)

    def program(self, target: Tensor) -> None:
        """Write every array with it.

        Args:
            target: (rows, cols) in units of the layer.
        """
        self.array.program(target)
        self._spread(self.array.as_matrix(target).to(self.array.held) / self.array.out_scale)

    def initialise(self) -> None:
        """See :meth:`pulseline.Cell.initialise`."""
        self.array.initialise()
        self._spread(self.array.pulsed.clone())

    def _spread(self, values: Tensor) -> None:
        if not values.is_meta:
            for array in list(self.arrays)[1:]:
                array.write(values)

    def pulse(self, x: Tensor, d: Tensor, lr: float, batch: Batch | None = None) -> None:
        """Samples in order, on the arrays whose turn it is; see :class:`Vector`."""
        rate = lr / self.array.out_scale
        for n, array in enumerate(self.arrays):
            mine = self._turns(len(x), n)
            if mine is None:
                array.pulse(x, d, rate * array.out_scale, batch)
            elif mine:
                array.pulse(x[mine], d[mine], rate * array.out_scale, batch)
        self.samples += len(x)
        self._summed(batch)

    def _turns(self, samples: int, array: int) -> list[int] | None:
        """Which samples of an update pulse an array; None: all."""
        pulsed, count = self.rule.pulsed, self.rule.arrays
        if pulsed == "all":
            return None
        if pulsed == "first":
            return list(range(samples)) if array == 0 else []
        numbers = line_numbers(self.samples, self.samples + samples)
        if pulsed == "sequential":
            turns = (numbers % count).tolist()
        else:
            zeros = torch.zeros_like(numbers)
            drawn = ops.uniforms(ops.DrawKey(*self.identity.key), "column_choice", numbers, zeros)
            turns = (drawn * count).int().clamp(max=count - 1).tolist()
        return [s for s, turn in enumerate(turns) if turn == array]


@dataclass(frozen=True)
class Vector(Rule):
    """``W = sum_n share_n array_n``, the mean of several arrays: device variations average out.

    State: none beside the arrays. Cost: all arrays work in each read; updates are parallel.

    Attributes:
        arrays: how many.
        weights: of each, in proportion; (): the same for all. They are scaled to a sum of 1.
        pulsed: "all": every array by the same trains of each sample; "first"; "sequential": one
            after the other; "random": a drawn one, sample by sample. One of n moves the mean by 1/n
            of the update.

    Raises:
        ConfigError: a value out of range.
    """

    makes: ClassVar[type[Cell]] = VectorCell

    arrays: int = 2
    weights: tuple[float, ...] = ()
    pulsed: str = "all"

    def __post_init__(self) -> None:
        self._whole("arrays")
        require(self.arrays <= 254, self, "arrays", "use at most 254")
        given = self.weights
        ok = isinstance(given, (tuple, list)) and len(given) in (0, self.arrays)
        ok = ok and all(isinstance(w, (int, float)) and 0 < w < math.inf for w in given)
        require(ok, self, "weights", f"use {self.arrays} numbers > 0, or leave it out")
        object.__setattr__(self, "weights", tuple(given))
        self._one_of("pulsed", ("all", "first", "sequential", "random"))

    @property
    def shares(self) -> tuple[float, ...]:
        """The weights, scaled to a sum of 1."""
        weights = self.weights or (1.0,) * self.arrays
        return tuple(weight / sum(weights) for weight in weights)
