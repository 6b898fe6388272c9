"""Picking numbers out of rows."""

from __future__ import annotations

from .mutants import Row, Rows, Value

__all__ = ["by_seed", "column", "mean", "number", "select"]


def select(rows: Rows, **equal: Value) -> Rows:
    """The rows whose columns have these values."""
    return [row for row in rows if all(row[name] == value for name, value in equal.items())]


def number(row: Row, name: str) -> float:
    """A column that always holds a number."""
    value = row[name]
    assert isinstance(value, (int, float)), f"{name} is {value!r}"
    return float(value)


def column(rows: Rows, name: str) -> list[float]:
    """One number per row."""
    return [number(row, name) for row in rows]


def mean(rows: Rows, name: str) -> float:
    """The mean of a column."""
    values = column(rows, name)
    return sum(values) / len(values)


def by_seed(rows: Rows) -> list[Rows]:
    """The rows of each seed, in order of seeds."""
    seeds = sorted({int(number(row, "seed")) for row in rows})
    return [select(rows, seed=seed) for seed in seeds]
