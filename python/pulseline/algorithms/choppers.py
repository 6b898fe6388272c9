"""Choppers: signs of lines that flip, so that what does not follow them averages out.

Draws alone decide when a line flips, so all signs of an update are known before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import ops
from .schedule import Run, line_numbers

__all__ = ["Choppers"]

_Turns = list[tuple[list[int], Tensor]]  # samples, and of each the line whose sign turns behind it


class Choppers:
    """When signs turn during the transfers of an update.

    Args:
        rule: a :class:`pulseline.algorithms.Transfer`. key: of the draws. rows: of the matrix.
        plan: the transfers.

    Attributes:
        flips: of each run, which of its columns turn behind their read; None: none does.
    """

    def __init__(self, rule: Any, key: tuple[int, int], rows: int, plan: Sequence[Run]) -> None:
        self._rule, self._rows, self._plan = rule, rows, plan
        self._key = ops.DrawKey(*key)
        self.flips = [self._flips(run) for run in plan]

    def _flips(self, run: Run) -> Tensor | None:
        rule = self._rule
        if rule.regular:
            whole = run.sweep % rule.period + 1 == rule.period
            return torch.ones(len(run), dtype=torch.bool, device="cpu") if whole else None
        if not rule.chop:
            return None
        lines = line_numbers(run.columns.start, run.columns.stop)
        sweep = torch.full_like(lines, run.sweep)
        found = ops.uniforms(self._key, "chopper", sweep, lines) < rule.chop
        return found if bool(found.any()) else None

    def row_turns(self, sweep: int) -> Tensor:
        """+-1 of every row behind a sweep.

        Args:
            sweep: its number.
        """
        lines = line_numbers(0, self._rows)
        drawn = ops.uniforms(self._key, "chopper", torch.full_like(lines, sweep), lines, draw=1)
        return torch.where(drawn < self._rule.chop_rows, -1.0, 1.0)

    def inputs(self, x: Tensor, signs: Tensor) -> Tensor:
        """Inputs with the signs of their columns.

        Args:
            x: (samples, cols). signs: of the columns before the first sample.
        """
        if not self._rule.chop:
            return x
        turns: _Turns = []
        for run, flip in zip(self._plan, self.flips, strict=True):
            if flip is not None:
                places = flip.nonzero().flatten()
                samples = [run.samples[place] for place in places.tolist()]
                turns.append((samples, places + run.columns.start))
        return x * _during(signs, len(x), turns)

    def errors(self, d: Tensor, signs: Tensor) -> Tensor:
        """Errors with the signs of their rows.

        Args:
            d: (samples, rows). signs: of the rows before the first sample.
        """
        if not self._rule.chops_rows:
            return d
        ends = [run for run in self._plan if run.ends]
        turns: _Turns = []
        for run in ends:
            lines = self.row_turns(run.sweep).lt(0).nonzero().flatten()
            turns.append((run.samples[-1:] * len(lines), lines))
        return d * _during(signs, len(d), turns)


def _during(signs: Tensor, samples: int, turns: _Turns) -> Tensor:
    """Signs at each sample, (samples, lines), or (lines,) if nothing turns."""
    if not turns:
        return signs
    turned = signs.new_zeros(samples + 1, len(signs))
    for behind, lines in turns:
        place = (torch.tensor(behind, dtype=torch.int64, device="cpu") + 1, lines)
        where: list[Tensor | None] = [one.to(signs.device) for one in place]
        turned.index_put_(where, turned.new_ones(()), accumulate=True)
    return signs * (1 - 2 * (turned.cumsum(0)[:-1] % 2))
