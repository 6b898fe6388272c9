"""Arguments of algorithms that nobody can mean: one sentence that names argument, value and fix."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from pulseline import algorithms as al
from pulseline.errors import ConfigError

DEVICE = pl.devices.SoftBounds()


def layer(rule: Any, **more: Any) -> Any:
    return pl.to_analog(nn.Linear(8, 4, bias=False), DEVICE, algorithm=rule, seed=1, **more)


class Halves(al.Transfer):
    """Half a pulse."""

    def transfer(self, cell: al.TransferCell, columns: slice, z: Tensor, rate: float) -> Tensor:
        return torch.full_like(z, 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: al.AGAD(chop=0), "AGAD: chop is 0; use a probability > 0"),
        (lambda: al.AGAD(chop=True), "AGAD: chop is True; use a probability"),
        (lambda: layer(al.Periodic()), r"algorithm is Periodic\(\), a base of rules"),
        (lambda: layer(al.Rule()), r"algorithm is Rule\(\), a base of rules"),
        (lambda: layer(al.AGAD(), fast_device="softbound"), "fast_device is 'softbound'; did you"),
        (lambda: layer(al.AGAD(), fast_device="cuda"), "fast_device is 'cuda', but fast_device is"),
        (lambda: layer(al.MixedPrecision(), fast_device="reram_es"), "fast_device is .* one array"),
        (lambda: al.find_symmetry_point(layer(al.AGAD()).cell, 3), "array is a TransferCell; use"),
        (lambda: al.advance(3), "model is 3; use a module with layers of MultiTile"),  # type: ignore[arg-type]
        (lambda: al.rule_named(["agad"]), r"algorithm is \['agad'\]; use sgd or one of"),  # type: ignore[arg-type]
        (lambda: layer(al.AGAD()).cell.zeros("a.b"), "name is 'a.b', which is no free name"),
    ],
)
def test_sentences(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


def test_pulses_that_are_no_pulses_name_the_rule() -> None:
    cell = layer(Halves()).cell
    kept = cell.slow.held.clone()
    with pytest.raises(ConfigError, match=r"^Halves.transfer returned .*counts\[0, 0\] is 0\.5"):
        cell.update(torch.ones(1, 8), torch.ones(1, 4), 0.1)
    assert torch.equal(cell.slow.held, kept)


@pytest.mark.parametrize("chop", [0.05, 0.3, 0.5, 0.9])
def test_period_of_regular_choppers(chop: float) -> None:
    """All columns flip behind whole sweeps."""
    cell = layer(al.AGAD(chop=chop)).cell
    flips, before = [], cell.sign_columns[0].item()
    for sample in range(1, 400):
        cell.update(torch.ones(1, 8), torch.ones(1, 4), 0.1)
        if cell.sign_columns[0].item() != before:
            flips.append(sample)
            before = -before
    assert len(flips) > 1
    assert {b - a for a, b in itertools.pairwise(flips)} == {cell.chop_period}


def test_arrays_behind_the_first_go_with_it() -> None:
    made = layer(al.AGAD())
    first, second = (array.weight for array in made.cell.arrays)
    behind = "holds an array behind the first of matrix 0 without that one"
    for groups in ([second], [{"params": [first]}, {"params": [second]}]):
        with pytest.raises(ConfigError, match=behind):
            pl.optim.AnalogSGD(groups, lr=0.1)
    pl.optim.AnalogSGD(made.parameters(), lr=0.1)
    pl.optim.AnalogSGD([first], lr=0.1)
