"""Algorithms of several arrays, sample by sample: the specification of :mod:`pulseline.algorithms`.

Plain torch, one loop per sample, no batches, no kernels. Arrays come in as three functions, so that
the same specification runs on the package's arrays, on reference operators or on plain matrices.
Buffers are (rows, cols) float32; numbers of Python are doubles, rounded where a matrix takes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from .arithmetic import fma

__all__ = ["Arrays", "Buffered", "Chained", "Mixed"]


class Arrays(Protocol):
    """What an algorithm asks of its arrays, by number."""

    def pulse(self, array: int, x: Tensor, d: Tensor, lr: float) -> None:
        """``W <- W - lr d x^T`` by trains, one sample.

        Args:
            array: which. x: (cols,). d: (rows,). lr: rate.
        """

    def column(self, array: int, j: int) -> Tensor:
        """A read of one column: (rows,).

        Args:
            array: which. j: column.
        """

    def step(self, array: int, j: int, pulses: Tensor) -> None:
        """Whole pulses on one column.

        Args:
            array: which. j: column. pulses: (rows,).
        """


_Draw = Callable[[str, int, int], float]  # purpose, number, line -> [0, 1)


@dataclass
class Buffered:
    """TTv2, c-TTv2, AGAD, RIDER, E-RIDER, residual v2: array 1 is fast, array 0 slow.

    Args:
        rule: a :class:`pulseline.algorithms.Transfer` with ``units="samples"``.
        shape: (rows, cols). steps: (slow, fast) granularities. draw: uniforms of choppers.
        reference: "none", "flip" (AGAD, E-RIDER) or "read" (RIDER). bl: longest train.
        count, transfers: samples and columns so far. largest: running means of max|x|, max|d|.
    """

    rule: Any
    shape: tuple[int, int]
    steps: tuple[float, float]
    draw: _Draw
    reference: str = "none"
    bl: int = 31
    count: int = 0
    transfers: int = 0
    largest: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def __post_init__(self) -> None:
        rows, cols = self.shape
        self.H, self.mean, self.rho = (torch.zeros(rows, cols) for _ in range(3))
        self.c, self.e = torch.ones(cols), torch.ones(rows)

    def sample(self, arrays: Arrays, x: Tensor, d: Tensor, lr: float) -> None:
        """One sample with what is due behind it.

        Args:
            arrays: to be read and pulsed. x: (cols,). d: (rows,). lr: of the optimizer.
        """
        rule, cols = self.rule, self.shape[1]
        fast = rule.lr_fast * (lr if rule.scale_fast else float(lr > 0))
        if rule.auto_scale:
            d, fast = d * torch.tensor(self._auto(x, d, fast)), 1.0
        arrays.pulse(1, x * self.c, d * self.e, fast)
        self.count += 1
        if self.count % rule.every:
            return
        for _ in range(rule.reads):
            sweep, place = divmod(self.transfers, cols)
            start = 0
            if rule.order == "random":
                start = min(int(self.draw("column_choice", sweep, 0) * cols), cols - 1)
            self._transfer(arrays, (start + place) % cols, sweep, lr)
            self.transfers += 1
            if place == cols - 1 and rule.chop_rows > 0:
                for i in range(self.shape[0]):
                    if self.draw("chopper_rows", sweep, i) < rule.chop_rows:
                        self.e[i] = -self.e[i]

    def _auto(self, x: Tensor, d: Tensor, fast: float) -> float:
        for n, v in enumerate((x, d)):
            top = float(v.abs().max())
            if top > 0:
                old = self.largest[n]
                self.largest[n] = old + (1 - self.rule.auto_momentum) * (top - old) if old else top
        product = self.largest[0] * self.largest[1]
        return fast * self.bl * self.steps[1] / product if product > 0 else 0.0

    def _transfer(self, arrays: Arrays, j: int, sweep: int, lr: float) -> None:
        rule = self.rule
        z = arrays.column(1, j)
        if self.reference == "read":
            self.rho[:, j] = self.mean[:, j]
        value = z - self.rho[:, j] if self.reference != "none" else z
        if rule.chop > 0 or rule.chop_rows > 0:
            value = value * (self.c[j] * self.e if rule.chop_rows > 0 else self.c[j])
        unit = rule.threshold * self.steps[rule.granularity == "fast"]
        if rule.auto_granularity > 0:
            unit *= rule.auto_granularity / (self.shape[1] * rule.every)
        rate = rule.lr_transfer * (lr if rule.scale_transfer else float(lr > 0)) / unit
        kept = self.H[:, j] * (1 - rule.leak) if rule.leak > 0 else self.H[:, j]
        h = kept + value * rate
        n = torch.zeros_like(h)
        for i in range(len(h)):
            if abs(float(h[i])) >= 1:
                n[i] = max(-rule.max_pulses, min(rule.max_pulses, math.trunc(float(h[i]))))
        for i in range(len(h)):
            if n[i] == 0:
                self.H[i, j] = h[i]
            elif rule.forget:
                self.H[i, j] = h[i] * rule.momentum
            else:
                self.H[i, j] = h[i] - n[i] * (1 - rule.momentum)
        if self.reference != "none":
            self.mean[:, j] += (z - self.mean[:, j]) * rule.beta
        if sweep >= rule.warm_up:
            arrays.step(0, j, n)
        period = max(2, math.ceil(1 / rule.chop)) if rule.chop > 0 else 2
        if rule.chop > 0 and rule.regular_chop:
            flips = sweep % period + 1 == period
        else:
            flips = rule.chop > 0 and self.draw("chopper", sweep, j) < rule.chop
        if flips:
            self.c[j] = -self.c[j]
            if self.reference == "flip":
                self.rho[:, j] = self.mean[:, j]

    def read_weight(self, slow: Tensor, fast: Tensor) -> Tensor:
        """What forward and backward reads see.

        Args:
            slow, fast: (rows, cols) what the arrays hold.
        """
        if self.rule.gamma == 0:
            return slow
        visible = fast - self.rho if self.reference != "none" else fast
        signs = self.e[:, None] * self.c if self.rule.chop_rows > 0 else self.c
        seen: Tensor = slow + (visible * signs) * self.rule.gamma
        return seen


@dataclass
class Chained:
    """TTv1, residual v1, several tiles: the last array is fast, each hands on to the one before.

    Args:
        rule: a :class:`pulseline.algorithms.Chain` with ``units="samples"``. shape: (rows, cols).
        draw: uniforms of where sweeps start, by array. count: samples so far.
    """

    rule: Any
    shape: tuple[int, int]
    draw: Callable[[int, str, int, int], float]
    count: int = 0

    def __post_init__(self) -> None:
        self.transfers = [0] * (self.rule.arrays - 1)

    def sample(self, arrays: Arrays, x: Tensor, d: Tensor, lr: float) -> None:
        """One sample with what is due behind it.

        Args:
            arrays: to be read and pulsed. x: (cols,). d: (rows,). lr: of the optimizer.
        """
        rule, cols = self.rule, self.shape[1]
        last = rule.arrays - 1
        arrays.pulse(last, x, d, rule.lr_fast * (lr if rule.scale_fast else float(lr > 0)))
        self.count += 1
        for level in range(last):
            if self.count % (rule.every * rule.every_factor**level):
                break
            rate = rule.lr_transfer * (lr if rule.scale_transfer else float(lr > 0))
            rate *= rule.lr_transfer_factor**level
            read = []
            for _ in range(rule.reads):
                sweep, place = divmod(self.transfers[level], cols)
                start = 0
                if rule.order == "random":
                    drawn = self.draw(last - level, "column_choice", sweep, 0)
                    start = min(int(drawn * cols), cols - 1)
                j = (start + place) % cols
                read.append((j, arrays.column(last - level, j)))
                self.transfers[level] += 1
            for j, z in read:
                one = torch.zeros(cols)
                one[j] = 1.0
                arrays.pulse(last - level - 1, one, -z, rate)


@dataclass
class Mixed:
    """Mixed precision: chi is summed exactly, whole steps of it are written.

    Args:
        every: samples between writes. shape: (rows, cols). unit: what one pulse stands for.
        most: pulses of a crosspoint in a write. count: samples so far.
    """

    every: int
    shape: tuple[int, int]
    unit: float
    most: int
    count: int = 0

    def __post_init__(self) -> None:
        self.chi = torch.zeros(self.shape)

    def sample(self, arrays: Arrays, x: Tensor, d: Tensor, lr: float) -> None:
        """One sample with what is due behind it.

        Args:
            arrays: to be read and pulsed. x: (cols,). d: (rows,). lr: of the optimizer.
        """
        self.chi = fma(-(torch.tensor(lr) * d)[:, None], x[None, :], self.chi)
        self.count += 1
        if self.count % self.every:
            return
        n = (self.chi / self.unit).trunc().clamp(-self.most, self.most)
        self.chi = self.chi - n * self.unit
        for j in range(self.shape[1]):
            arrays.step(0, j, n[:, j])
