"""Every idiom of torch has torch's meaning on a crossbar, or is answered by one sentence.

The oracle is an ideal device with perfect reads, which is a digital layer: the same code runs on it
and on the digital twin, and leaves the same numbers. Then the same idioms on noisy devices: the
bits of the package's own road, or weights within their bounds, never silently another physics.

Tolerance of the oracle. Inputs are at most 2, errors of the mean loss at most 1, lr is .1: a step
moves a weight by at most .2, from at most 6 samples and sums of 8 products, about 32 roundings of
2^-24 each, doubled for cancellation: 2^-20. Twelve steps or fewer, each handing on at most twice
the difference of those before in all: 12 * 2^-20 * 2 < 2^-15.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import idiom_found
import idiom_recipes
import idiom_refused
import idiom_training
import idiom_weights
import pulseline as pl
from idiom_world import NOISY, ORACLE, ROWS, SCALED, Row, World, in_units

TABLES = (
    idiom_found,
    idiom_recipes,
    idiom_refused,
    idiom_training,
    idiom_weights,
)  # which fill ROWS
ATOL = 2.0**-15
CASES = [(name, host) for name, row in ROWS.items() for host in row.hosts]
ANSWERED = [(name, host) for name, host in CASES if not ROWS[name].refused]
REFUSED = [(name, host) for name, host in CASES if ROWS[name].refused]
# The sentences, by name: a row that is to be refused is entered here as well.
SENTENCES = {
    "pruned",
    "spectrally_normed",
    "weight_normed",
    "parametrized",
    "functional_call_with_another_weight",
    "weight_assigned_or_tied",
    "product_with_the_raw_weight",
    "foreign_optimizer",
    "settings_of_other_optimizers",
    "penalty_on_the_weight",
    "gradient_clipped_by_value",
    "derivative_of_the_weight_gradient",
    "converted_to_another_type",
    "traced_or_transformed",
    "distributed_data_parallel",
}


def test_the_table_is_as_large_as_promised() -> None:
    assert {name for name, row in ROWS.items() if row.refused} == SENTENCES
    assert len(SENTENCES) <= 15
    assert len(ROWS) >= 45


def results(row: Row, host: str, crossbar: pl.Crossbar | None) -> list[Any]:
    world = World(host, crossbar)
    answer = row.run(world)
    return [*tree_leaves(answer), *world.left()]


def same(got: Any, want: Any, atol: float) -> None:
    if isinstance(want, (Tensor, float)):
        torch.testing.assert_close(torch.as_tensor(got), torch.as_tensor(want), rtol=0, atol=atol)
    else:
        assert got == want


@pytest.mark.parametrize("crossbar", [ORACLE, SCALED], ids=["ideal", "omega"])
@pytest.mark.parametrize(("name", "host"), ANSWERED)
def test_numbers_of_the_digital_twin(name: str, host: str, crossbar: pl.Crossbar) -> None:
    row = ROWS[name]
    want, got = results(row, host, None), results(row, host, crossbar)
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        same(one, other, ATOL if row.atol is None else row.atol)


@pytest.mark.parametrize("crossbar", [ORACLE, SCALED, NOISY], ids=["ideal", "omega", "noisy"])
@pytest.mark.parametrize(("name", "host"), REFUSED)
def test_sentence(name: str, host: str, crossbar: pl.Crossbar) -> None:
    """One sentence; afterwards the layer works as it did."""
    world = World(host, crossbar)
    before = [layer.cell.effective_weight() for layer in world.layers]
    with pytest.raises(pl.ConfigError) as raised:
        ROWS[name].run(world)
    assert "\n" not in str(raised.value)
    world.net.zero_grad()
    for layer, weight in zip(world.layers, before, strict=True):
        assert torch.equal(layer.cell.effective_weight(), weight)
    world.train(1)


@pytest.mark.parametrize(("name", "host"), ANSWERED)
def test_noisy_devices(name: str, host: str) -> None:
    """The own road's bits where there is one; always weights within their bounds."""
    row = ROWS[name]
    world = World(host, NOISY)
    row.run(world)
    got = world.left()
    for layer in world.layers:
        array = layer.cell.array
        lo, hi = array.bounds
        assert ((array.held >= lo) & (array.held <= hi)).all()
        assert torch.equal(layer.weight + 0, in_units(layer))
    if row.own is not None:
        own = World(host, NOISY)
        row.own(own)
        for one, other in zip(got, own.left(), strict=True):
            assert torch.equal(one, other)
