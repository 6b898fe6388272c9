"""Planted errors: what a verdict must notice, tried on copies of the rows it was made from.

A mutant belongs to one verdict of one experiment. The page of the experiment shows what the
verdict says with the error planted. Mutants change copies and nothing else: no run, no file of
rows and no verdict is ever made with one, and no setting, option or variable turns one on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = [
    "Bend",
    "Mutant",
    "Row",
    "Rows",
    "Value",
    "each",
    "exchanged",
    "planted",
    "plus",
    "times",
]

Value = str | int | float | None
Row = dict[str, Value]
Rows = list[Row]
Bend = Callable[[Row], None]  # changes one row in place: a copy that nobody else holds


class Mutant(NamedTuple):
    """An error planted in the rows, in words and in deeds, and the verdict that must turn."""

    verdict: str
    what: str
    bend: Bend


def planted(rows: Sequence[Row], mutant: Mutant) -> Rows:
    """Copies of the rows with the error in them."""
    copies = [dict(row) for row in rows]
    for row in copies:
        mutant.bend(row)
    return copies


def _fits(row: Row, where: dict[str, Value]) -> bool:
    return all(row[name] == value for name, value in where.items())


def times(columns: str | Sequence[str], factor: float, power: float = 1.0, **where: Value) -> Bend:
    """y becomes factor y^power in the rows with these values."""
    names = [columns] if isinstance(columns, str) else columns

    def bend(row: Row) -> None:
        if _fits(row, where):
            for name in names:
                value = row[name]
                if isinstance(value, (int, float)):
                    row[name] = factor * value**power

    return bend


def plus(column: str, amount: float, **where: Value) -> Bend:
    """y becomes y + amount in the rows with these values."""

    def bend(row: Row) -> None:
        value = row[column]
        if _fits(row, where) and isinstance(value, (int, float)):
            row[column] = value + amount

    return bend


def exchanged(name: str, one: Value, other: Value, **where: Value) -> Bend:
    """Two values of a column change places in the rows with these values."""
    turned = {one: other, other: one}

    def bend(row: Row) -> None:
        if _fits(row, where) and row[name] in turned:
            row[name] = turned[row[name]]

    return bend


def each(bends: Sequence[Bend]) -> Bend:
    """All of them; no two touch the same row."""

    def bend(row: Row) -> None:
        for one in bends:
            one(row)

    return bend
