"""Modelled time of what really ran: positions of sequences, and what is not counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from pulseline import cost
from pulseline.errors import ConfigError
from pulseline.pipeline import checkpoint
from pulseline.uncounted import watched


def mean_square(out: Tensor, _: Tensor) -> Tensor:
    return out.square().mean()


def pipeline(*layers: nn.Module, stages: int = 2) -> pl.Pipeline:
    return pl.Pipeline(
        pl.to_analog(nn.Sequential(*layers), seed=0),
        stages,
        optimizer=lambda parameters: pl.optim.AnalogSGD(parameters, lr=0.1),
        loss=mean_square,
    )


@pytest.fixture
def pipe() -> Iterator[pl.Pipeline]:
    with pipeline(nn.Linear(64, 64), nn.Linear(64, 10)) as made:
        yield made


def test_positions_are_those_that_ran(pipe: pl.Pipeline) -> None:
    """As with an example; 32 positions cost 32 times the products and updates of one."""
    x = torch.rand(20, 32, 64)
    pipe.step(x, torch.zeros(20))
    pipe.drain()
    found = cost.report(pipe)
    assert found == cost.report(pipe, example=x[:1])
    assert found != cost.report(pipe, example=x[:1, 0])
    modules = [stage.module for stage in pipe.stages]
    for costs, one in zip(
        cost.stage_costs(modules, example=x[:1]), cost.stage_costs(modules), strict=True
    ):
        assert costs.times() == pytest.approx([32 * t for t in one.times()])
    assert cost.timeline(pipe) == cost.timeline(pipe, example=x[:1])


def test_convolutions_need_no_example() -> None:
    layers = (nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 4))
    with pipeline(*layers) as pipe:
        x = torch.rand(3, 1, 8, 8)
        pipe.step(x, torch.zeros(3))
        pipe.drain()
        assert cost.report(pipe) == cost.report(pipe, example=x)


def test_a_report_moves_nothing(pipe: pl.Pipeline) -> None:
    pipe.step(torch.rand(4, 64), torch.zeros(4))
    pipe.drain()
    before = pipe.digest()
    cost.report(pipe)
    cost.timeline(pipe)
    assert pipe.digest() == before


def test_a_loaded_run_without_a_sample_asks_for_an_example(
    pipe: pl.Pipeline, tmp_path: Path
) -> None:
    """Arrays know how many updates they took: more than samples are several positions each."""
    x = torch.rand(4, 3, 64)
    for array in cost.arrays(stage.module for stage in pipe.stages):
        array.count_pulses()
    pipe.step(x, torch.zeros(4))
    pipe.drain()
    checkpoint.save(pipe, tmp_path, 1)
    with pipeline(nn.Linear(64, 64), nn.Linear(64, 10)) as again:
        checkpoint.load(again, tmp_path)
        with pytest.raises(ConfigError, match="12 updates for 4 samples, several positions each"):
            cost.report(again)
        assert cost.report(again, example=x[:1]) == cost.report(pipe)


class Block(nn.Module):
    """Attention by hand, with a residual sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mix(self.norm(x)).chunk(3, dim=-1)
        weights = (q @ k.transpose(-1, -2) / 3.0).softmax(dim=-1)
        return x + self.drop(self.out(weights @ v))


def test_what_is_not_counted_is_named() -> None:
    """Embedding, normalisation, scores, sums; not views, and not what a crossbar does."""
    layers = (nn.Embedding(10, 8), Block(8), nn.GELU(), nn.Flatten(), nn.Linear(24, 4))
    with pipeline(*layers) as pipe:
        pipe.step(torch.randint(0, 10, (5, 3)), torch.zeros(5))
        pipe.drain()
        found = cost.report(pipe)
    expected = ("embedding", "layer_norm", "matmul", "div", "softmax", "add", "gelu")
    assert found.not_counted == expected
    assert f"not counted: {', '.join(expected)}" in str(found)
    assert found.as_dict()["not_counted"] == list(expected)


def test_attention_of_torch_is_named() -> None:
    for fused in (True, False):
        kind = nn.functional.scaled_dot_product_attention if fused else torch.bmm
        with watched([], lambda _: False) as names, torch.no_grad():
            kind(*(torch.rand(2, 3, 3) for _ in range(3 if fused else 2)))
        assert [*names] == [kind.__name__]


def test_changes_in_place_count_and_views_do_not() -> None:
    with watched([], lambda _: False) as names:
        x = torch.rand(4, 4)
        y = x.view(16)[2:].reshape(2, 7).t().contiguous()
        y.add_(1)
        torch.cat([y, y, torch.zeros_like(y), y.new_ones(7, 2)])
        assert y.shape == (7, 2)
        assert y.sum() > 0
    assert [*names] == ["add", "sum", "gt"]
