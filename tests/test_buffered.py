"""The rule of buffered transfers in one pass against the tensor operations that state it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import pulseline as pl
from algorithm_cases import RULES, cell_of, normals
from pulseline import ConfigError, ops
from pulseline import algorithms as al

BUFFERED = {name: rule for name, rule in RULES.items() if isinstance(rule, al.TikiTaka2)}
SIZES = [(7, 5), (33, 40), (1, 1)]


def by_tensors(rule: al.TikiTaka2) -> Any:
    """The same rule, which counts by itself: its tensors, and no pass at once."""

    class Own(type(rule)):  # type: ignore[misc]
        def count(self, cell: Any, columns: slice, value: Tensor, rate: float) -> Tensor:
            calls.append(columns)
            return super().count(cell, columns, value, rate)  # type: ignore[no-any-return]

    calls: list[slice] = []
    fields = {one.name: getattr(rule, one.name) for one in dataclasses.fields(rule)}
    made = Own(**fields)
    object.__setattr__(made, "calls", calls)
    return made


@pytest.mark.parametrize("name", BUFFERED)
@pytest.mark.parametrize(("rows", "cols"), SIZES)
def test_one_pass_equals_tensors(name: str, rows: int, cols: int) -> None:
    """All buffers behind transfers of parts of a row, with pulses above ``max_pulses``."""
    rule = BUFFERED[name]
    own = by_tensors(rule)
    one, other = cell_of(rule, rows, cols), cell_of(own, rows, cols)
    pulses = 0.0
    for n in range(6):
        first = n % cols
        columns = slice(first, min(cols, first + 1 + 7 * n))
        z = normals(rows, columns.stop - first, seed=n)
        z[z.abs() < 0.3] = -0.0
        for cell, which in ((one, rule), (other, own)):
            if rule.chop:  # else no sign turns
                cell.sign_columns.copy_(torch.where(normals(cols, seed=n) < 0, -1.0, 1.0))
            cell.sign_rows.copy_(torch.where(normals(rows, seed=n) < 0, -1.0, 1.0))
            which.flipped(cell, torch.arange(first, columns.stop))
        rate = 0.3 * 10.0**n / 10
        got, want = (r.transfer(c, columns, z, rate) for r, c in ((rule, one), (own, other)))
        assert torch.equal(got, want)
        pulses += float(want.abs().sum())
        for buffer in ("H", "mean", "rho"):
            if hasattr(one, buffer):
                mine, its = getattr(one, buffer), getattr(other, buffer)
                assert torch.equal(mine.view(torch.int32), its.view(torch.int32))
    assert pulses >= rule.max_pulses
    assert len(own.calls) == 6  # the one went through tensors


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_sizes_change_no_bit(threads: int) -> None:
    """A pass that is large enough for two threads."""
    rule = al.AGAD(chop=0.5)
    own = by_tensors(rule)
    one, other = cell_of(rule, 500, 600), cell_of(own, 500, 600)
    z, before = normals(500, 600), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for _ in range(2):
            got = rule.transfer(one, slice(0, 600), z, 3.0)
            want = own.transfer(other, slice(0, 600), z, 3.0)
            assert torch.equal(got, want)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one.H, other.H)
    assert torch.equal(one.mean, other.mean)


def test_what_is_not_finite_counts_as_no_number() -> None:
    """As by tensors; the pulses are refused behind it."""
    rule = al.TikiTaka2()
    cells = [cell_of(rule), cell_of(by_tensors(rule))]
    z = torch.tensor([[math.nan, math.inf, -math.inf, 1e30, 0.0]] * 7)
    got, want = (c.rule.transfer(c, slice(0, 5), z, 1.0) for c in cells)
    assert torch.equal(got, want)
    assert torch.equal(got[0, 1:], torch.tensor([31.0, -31.0, 31.0, 0.0]))
    assert torch.equal(cells[0].H.isnan(), cells[1].H.isnan())


def test_a_transfer_is_seen_by_a_rule_of_ones_own() -> None:
    """What overrides ``count`` is called, whatever ``transfer`` is."""
    cell = cell_of(by_tensors(al.ERIDER(chop=0.5)))
    cell.update(normals(3, 5), normals(3, 7), 0.1)
    assert len(cell.rule.calls) == 1


SETTINGS = ops.CountSettings(1.0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"held": torch.zeros(4, 6, dtype=torch.float64)}, "weight has dtype torch.float64"),
        ({"values": torch.zeros(4, 7)}, "columns 0 to 7 are counted of 6; use those"),
        ({"column": 5}, "columns 5 to 7 are counted of 6; use those"),
        ({"column": -1}, "columns -1 to 1 are counted of 6; use those"),
        ({"values": torch.zeros(3, 2)}, r"values has shape \(3, 2\)"),
        ({"signs": (torch.ones(5), None)}, r"signs has shape \(5,\)"),
        ({"signs": (torch.ones(6), torch.ones(6))}, r"signs has shape \(6,\)"),
        ({"mean": torch.zeros(4, 6)}, "rho has no memory"),
        ({"settings": SETTINGS._replace(max_pulses=0)}, "max_pulses is 0; use a whole number"),
        ({"settings": SETTINGS._replace(beta=1.5)}, "beta is 1.5; use a number from 0 to 1"),
        ({"settings": SETTINGS._replace(rate=math.nan)}, "rate is nan"),
        ({"settings": (1.0, 31)}, "CountSettings has 2 numbers; use its 6 fields"),
    ],
)
def test_refusals(change: dict[str, Any], match: str) -> None:
    held = torch.zeros(4, 6)
    arguments: dict[str, Any] = {
        "held": held,
        "values": torch.ones(4, 2),
        "column": 0,
        "signs": (torch.ones(6), None),
        "settings": SETTINGS,
    }
    with pytest.raises(ConfigError, match=match):
        ops.count_columns_(**{**arguments, **change})
    assert not held.any()
    assert bool(ops.count_columns_(**arguments).all())


def test_buffers_that_share_memory_are_refused() -> None:
    held, ones = torch.zeros(4, 6), (torch.ones(6), None)
    with pytest.raises(ConfigError, match="shares memory with held"):
        ops.count_columns_(held, torch.ones(4, 2), 0, ones, SETTINGS, held.clone(), held)


def test_more_pulses_than_a_call_takes_are_counted_by_tensors() -> None:
    """``max_pulses`` above what a call of pulses takes is left to them."""
    rule = al.TikiTaka2(max_pulses=pl.ops.MOST_COUNTED + 1)
    cell = cell_of(rule)
    n = rule.transfer(cell, slice(0, 5), torch.full((7, 5), 2.0), 1e9)
    assert torch.equal(n, torch.full((7, 5), float(pl.ops.MOST_COUNTED + 1)))
