"""Algorithms under layers that are not linear, on every instruction set, in processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import pulseline as pl
from algorithm_cases import RULES, cell_of, crossbar, normals
from pulseline import algorithms as al

RULE_NAMES = ("TikiTaka1 trains", "ChoppedTikiTaka2", "ERIDER", "MixedPrecision", "Vector random")


class Convolutional(nn.Module):
    """Two convolutions, the second transposed, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1, bias=False)
        self.second = nn.ConvTranspose2d(3, 2, 2, stride=2, bias=False)
        self.head = nn.Linear(2 * 8 * 8, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x).tanh()).tanh().flatten(1))


class Sequences(nn.Module):
    """Attention, a recurrent layer, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True, bias=False)
        self.recurrent = nn.GRU(6, 4, batch_first=True, bias=False)
        self.head = nn.Linear(4, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed, _ = self.attention(x, x, x, need_weights=False)
        return self.head(self.recurrent(mixed)[0][:, -1])


FAMILIES: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "convolutions": (Convolutional, (2, 4, 4)),
    "sequences": (Sequences, (5, 6)),
}


def trained(family: str, rule: al.Rule, cuts: int) -> Any:
    kind, shape = FAMILIES[family]
    torch.manual_seed(0)
    model: Any = pl.to_analog(kind(), crossbar(rule), seed=2)
    optimizer = pl.optim.AnalogSGD(model.parameters(), lr=0.1)
    for step in range(3):
        x, y = normals(6, *shape, seed=step), normals(6, 3, seed=10 + step)
        optimizer.zero_grad()
        for part, target in zip(x.chunk(cuts), y.chunk(cuts), strict=True):
            (0.5 * (model(part) - target) ** 2).sum().backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("name", RULE_NAMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_layers_take_an_algorithm(family: str, name: str) -> None:
    """Every position is a sample: all matrices move, and micro-batches change no bit of them.

    But of recurrent layers, whose samples come step by step of a micro-batch.
    """
    whole = trained(family, RULES[name], 1)
    again = trained(family, RULES[name], 1 if family == "sequences" else 3)
    untrained = pl.to_analog(FAMILIES[family][0](), crossbar(RULES[name]), seed=2)
    assert isinstance(untrained, nn.Module)
    matrices = [m for m in whole.modules() if isinstance(m, pl.Cell)]
    assert len(matrices) == {"convolutions": 3, "sequences": 7}[family]
    for cell in matrices:
        assert cell.algorithm == RULES[name].name
        assert cell.samples >= 18
    assert pl.digest(whole.state_dict()) == pl.digest(again.state_dict())
    for (key, moved), (_, old) in zip(
        whole.state_dict().items(), untrained.state_dict().items(), strict=True
    ):
        if key.endswith("arrays.0.weight"):
            assert not torch.equal(moved, old), key


def test_positions_are_samples_and_steps_are_batches() -> None:
    """16 positions an image, 6 images, 3 steps; by batches one transfer a step."""
    by_samples = trained("convolutions", al.TikiTaka2(every=4), 1).first.cell
    by_steps = trained(
        "convolutions", al.TikiTaka2(every=1, units="batches", reads=2), 1
    ).first.cell
    assert by_samples.samples == by_steps.samples == 16 * 6 * 3
    assert by_samples.transfers() == 16 * 6 * 3 // 4
    assert by_steps.transfers() == 2 * 3


@pytest.mark.parametrize("name", RULES)
def test_instruction_sets_change_no_bit(name: str) -> None:
    before = str(pl.ops.info()["isa"])
    digests = set()
    try:
        for isa in pl.ops.info()["isas"]:  # type: ignore[attr-defined]
            pl.ops.use_isa(isa)
            cell = cell_of(RULES[name], 37, 35)
            cell.update(normals(20, 35), normals(20, 37, seed=1) * 0.3, 0.1)
            digests.add(pl.digest(cell.state_dict()))
    finally:
        pl.ops.use_isa(before)
    assert len(digests) == 1


@pytest.mark.parametrize("name", RULES)
def test_threads_of_a_kernel_change_no_bit(name: str) -> None:
    before, digests = torch.get_num_threads(), set()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            cell = cell_of(RULES[name], 130, 140)
            cell.update(normals(24, 140), normals(24, 130, seed=1) * 0.3, 0.1)
            digests.add(pl.digest(cell.state_dict()))
    finally:
        torch.set_num_threads(before)
    assert len(digests) == 1


@pytest.mark.parametrize("name", RULES)
def test_drawn_crosspoints_change_no_bit(name: str) -> None:
    digests = set()
    for crosspoints in ("stored", "drawn"):
        mapping = pl.configs.Mapping(crosspoints=crosspoints)
        cell = cell_of(RULES[name], 20, 33, mapping=mapping)
        cell.update(normals(40, 33), normals(40, 20, seed=1) * 0.3, 0.1)
        digests.add(pl.digest({k: v for k, v in cell.state_dict().items() if k != "_extra_state"}))
    assert len(digests) == 1
