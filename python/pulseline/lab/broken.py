"""Algorithms with an error in them, trained beside the sound ones: what verdicts must notice.

Their rows stand under names of their own, and no verdict is made from them; a planted error of
:mod:`.mutants` lets them take the place of the sound ones in copies of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar

from torch import Tensor

from ..algorithms import (
    AGAD,
    ERIDER,
    ChoppedTikiTaka2,
    MixedCell,
    MixedPrecision,
    TikiTaka2,
    TransferCell,
)
from ..cells import Cell
from ..ops import Batch
from .tuned import Tuned

__all__ = ["broken"]


@dataclass(frozen=True)
class _Unreferenced(AGAD):
    """AGAD whose reference stays 0."""

    def flipped(self, cell: TransferCell, columns: Tensor) -> None:
        """Nothing is taken over."""


@dataclass(frozen=True)
class _UnreferencedRider(ERIDER):
    """E-RIDER whose reference stays 0."""

    def flipped(self, cell: TransferCell, columns: Tensor) -> None:
        """Nothing is taken over."""


@dataclass(frozen=True)
class _Backwards(TikiTaka2):
    """TTv2 that pulses the slow array the wrong way."""

    def transfer(self, cell: TransferCell, columns: slice, z: Tensor, rate: float) -> Tensor:
        """See the class."""
        return -super().transfer(cell, columns, z, rate)


class _BackwardsCell(MixedCell):
    """Sums with the wrong sign."""

    def pulse(self, x: Tensor, d: Tensor, lr: float, batch: Batch | None = None) -> None:
        """See the class."""
        super().pulse(x, -d, lr, batch)


@dataclass(frozen=True)
class _BackwardsMixed(MixedPrecision):
    """Mixed precision that climbs the loss."""

    makes: ClassVar[type[Cell]] = _BackwardsCell


_AS: dict[type, type] = {
    AGAD: _Unreferenced,
    ERIDER: _UnreferencedRider,
    TikiTaka2: _Backwards,
    MixedPrecision: _BackwardsMixed,
}
_WORDS: dict[type, str] = {
    AGAD: "without reference",
    ERIDER: "without reference",
    ChoppedTikiTaka2: "without choppers",
    TikiTaka2: "backwards",
    MixedPrecision: "backwards",
}


def broken(name: str, one: Tuned) -> tuple[str, Tuned]:
    """An algorithm with its error, and what rows call it.

    Args:
        name: of the algorithm. one: the sound one with its rates.
    """
    rule = one.rule
    assert rule is not None
    words = f"{name} {_WORDS[type(rule)]}"
    if isinstance(rule, ChoppedTikiTaka2):
        return words, one._replace(rule=replace(rule, chop=0.0))
    held = {each.name: getattr(rule, each.name) for each in fields(rule)}
    return words, one._replace(rule=_AS[type(rule)](**held))
