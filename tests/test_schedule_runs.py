"""Warm-up and averaged updates, as data and as runs with the same bits as two plain runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import delayed
from pulseline.configs import IOConfig
from pulseline.devices import Ideal
from pulseline.errors import ConfigError
from pulseline.nn import AnalogLinear
from pulseline.optim import AnalogSGD, average_pending, check_averaging
from pulseline.pipeline import Pipeline
from pulseline.schedules import NAMES, Schedule, asynchronous, named, sequential, synchronous

SIZE, COUNT, LR = 2, 20, 0.05


class IdealTiles(delayed.Analog):
    """Perfect reads and exact outer products, on tiles."""

    def linear(self, m: int) -> nn.Module:
        width = delayed.WIDTH
        io = IOConfig.perfect()
        layer = AnalogLinear(width, width, False, device=Ideal(), io=io, tile_id=m)
        layer.cell.array.program(delayed.Digital().linear(m).weight.data)  # type: ignore[operator]
        return layer


KINDS = {"digital": delayed.Digital(), "analog": delayed.Analog(), "ideal": IdealTiles()}


def build(kind: Any, model: nn.Module, plan: Schedule, lr: float = LR) -> Pipeline:
    return Pipeline(
        model,
        3,
        optimizer=lambda parameters: kind.optimizer(parameters, lr),
        loss=nn.functional.mse_loss,
        schedule=plan,
        micro_batch_size=SIZE,
    )


def train(pipe: Pipeline, x: Tensor, y: Tensor, cut: int = COUNT) -> None:
    for inputs, targets in zip(x.split(cut * SIZE), y.split(cut * SIZE), strict=True):
        pipe.step(inputs, targets)
    pipe.drain()


def test_warmup_is_synchronous_then_asynchronous() -> None:
    plan = asynchronous(flush_every=5, warmup=6, micro_batches=4)
    assert plan.segments(19) == [4, 2, 5, 5, 3]
    assert plan.at(0) == synchronous(4)
    assert plan.at(4) == synchronous(2)
    assert plan.at(6) == asynchronous(flush_every=5) == plan.at(11)
    assert asynchronous().at(3) == asynchronous()
    sync, rest = synchronous(4).cycles(3, 6), asynchronous(flush_every=5).cycles(3, 13)
    assert plan.cycles(3, 19) == sync + rest
    assert plan.cycles(3, 5) == synchronous(4).cycles(3, 5)
    assert [plan.versions(3, 1, k) for k in (3, 5, 6, 8, 9, 12)] == [
        (0, 0),
        (1, 1),
        (2, 2),
        (2, 4),
        (3, 5),
        (7, 8),
    ]
    assert asynchronous(warmup=0, micro_batches=4) == asynchronous()


def test_names() -> None:
    assert [named(name, 4) for name in NAMES] == [
        asynchronous(),
        synchronous(4),
        sequential(),
        synchronous(4, "gpipe"),
        asynchronous(full_duplex=True),
    ]


@pytest.mark.parametrize("kind", [KINDS["digital"], KINDS["analog"]], ids=["digital", "analog"])
@pytest.mark.parametrize("warmup", [3, 8, 11, COUNT, 50])
@pytest.mark.parametrize("cut", [COUNT, 3])
def test_warmup_equals_a_synchronous_and_an_asynchronous_run(
    kind: Any, warmup: int, cut: int
) -> None:
    x, y = delayed.samples(COUNT, SIZE)
    model = delayed.network(kind, 3)
    plan = asynchronous(warmup=warmup, micro_batches=4)
    pipe = build(kind, model, plan)
    train(pipe, x, y, cut)
    twice = delayed.network(kind, 3)
    w = min(warmup, COUNT) * SIZE
    train(build(kind, twice, synchronous(4)), x[:w], y[:w])
    if w < len(x):
        train(build(kind, twice, asynchronous()), x[w:], y[w:])
    assert delayed.weights_digest(kind, model) == delayed.weights_digest(kind, twice)
    assert pipe.cycles == plan.cycles(3, COUNT)
    key = lambda e: (e.cycle, e.stage, "FBU".index(e.kind))  # noqa: E731
    assert pipe.events() == sorted(plan.events(3, COUNT), key=key)
    for m, stage in enumerate(pipe.stages, start=1):
        assert stage.peak == plan.inflight(3, m, COUNT)


def test_warmup_starts_a_mini_batch_after_a_drain() -> None:
    """An epoch that ends inside a mini-batch: the next one begins a new mini-batch."""
    kind = KINDS["digital"]
    x, y = delayed.samples(COUNT, SIZE)
    model = delayed.network(kind, 3)
    pipe = build(kind, model, asynchronous(warmup=12, micro_batches=4))
    for inputs, targets in zip(x.split(6 * SIZE), y.split(6 * SIZE), strict=True):
        train(pipe, inputs, targets)
    assert [segment.micro_batches for segment in pipe.segments] == [4, 2, 4, 2, 6, 2]


@pytest.mark.parametrize("name", ["digital", "ideal"])
@pytest.mark.parametrize("plan", [synchronous, sequential], ids=["sync", "sequential"])
def test_averaged_is_the_pulsed_update_at_a_smaller_rate(name: str, plan: Any) -> None:
    """With B = 4, a power of two, dividing errors or the rate by B gives the same bits."""
    kind = KINDS[name]
    x, y = delayed.samples(COUNT, SIZE)
    mean, smaller = delayed.network(kind, 3), delayed.network(kind, 3)
    train(build(kind, mean, plan(4, update="averaged")), x, y)
    train(build(kind, smaller, plan(4), LR / 4), x, y)
    assert delayed.weights_digest(kind, mean) == delayed.weights_digest(kind, smaller)


def test_a_short_mini_batch_is_averaged_over_its_own_length() -> None:
    kind = KINDS["digital"]
    x, y = delayed.samples(5, SIZE)
    model, by_hand = delayed.network(kind, 3), delayed.network(kind, 3)
    train(build(kind, model, synchronous(3, update="averaged")), x, y)
    optimizer = kind.optimizer(by_hand.parameters(), LR)
    for group in ((0, 1, 2), (3, 4)):
        for k in group:
            part = slice(k * SIZE, (k + 1) * SIZE)
            nn.functional.mse_loss(by_hand(x[part]), y[part]).backward()  # type: ignore[no-untyped-call]
        for p in by_hand.parameters():
            assert p.grad is not None
            p.grad.div_(len(group))
        optimizer.step()
        optimizer.zero_grad()
    assert delayed.weights_digest(kind, model) == delayed.weights_digest(kind, by_hand)


def test_pulsed_tiles_refuse_averaging() -> None:
    kind = KINDS["analog"]
    with pytest.raises(
        ConfigError, match="not possible on matrix 0 of device SoftBounds"
    ) as caught:
        build(kind, delayed.network(kind, 3), synchronous(4, update="averaged"))
    assert "\n" not in str(caught.value)
    build(kind, delayed.network(kind, 3), synchronous(4))


def test_averaging_divides_what_is_pending() -> None:
    layer = IdealTiles().linear(0)
    digital = nn.Linear(3, 2)
    digital.weight.grad = torch.full((2, 3), 6.0)
    layer.cell.pending.append((torch.ones(1, 16), torch.full((1, 16), 3.0)))  # type: ignore[union-attr,operator]
    parameters = [*layer.parameters(), *digital.parameters()]
    check_averaging(parameters)
    average_pending(parameters, 3)
    (pair,) = layer.cell.pending  # type: ignore[union-attr,misc]
    assert torch.equal(pair[0], torch.ones(1, 16))
    assert torch.equal(pair[1], torch.ones(1, 16))
    assert torch.equal(digital.weight.grad, torch.full((2, 3), 2.0))
    assert digital.bias.grad is None
    before = layer.cell.array.weight.data.clone()  # type: ignore[union-attr,operator]
    AnalogSGD(layer.parameters(), 0.5).step()
    assert torch.allclose(layer.cell.array.weight.data, before - 0.5)  # type: ignore[union-attr,arg-type]
