"""Cuts by measured time: a layer that takes far longer than all others is alone in its stage."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

import families
import pulseline as pl
from pulseline.errors import ConfigError
from pulseline.pipeline import Pipeline, measured_balance
from pulseline.pipeline.split import units


class Slow(nn.Module):
    """A layer that takes 20 ms, some hundred times what the others take."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.02)
        return x * self.weight


def network(slow: int, layers: int = 6) -> nn.Sequential:
    parts = [Slow() if n == slow else nn.Linear(4, 4) for n in range(layers)]
    return nn.Sequential(*parts)


@pytest.mark.parametrize(("slow", "counts"), [(0, (1, 5)), (5, (5, 1))])
def test_the_slow_layer_is_alone(slow: int, counts: tuple[int, ...]) -> None:
    model = network(slow)
    before = pl.digest(model.state_dict())
    x = torch.randn(12, 4)
    found = measured_balance(
        *(model, 2, x, x),
        optimizer=families.optimizer,
        loss=nn.functional.mse_loss,
        micro_batch_size=3,
    )
    assert found.counts == counts
    assert 0.02 <= found.slowest < 1.0
    assert pl.digest(model.state_dict()) == before
    with Pipeline(
        model, 2, optimizer=families.optimizer, loss=nn.functional.mse_loss, balance=found
    ) as pipe:
        slowest = pipe.stages[0 if slow == 0 else 1].module
        assert [type(part) for part in slowest.children()] == [Slow]


def test_a_model_that_is_cut_on_its_graph() -> None:
    """On crossbars, which draw the same noise afterwards as if nobody had measured."""
    model = families.analog("gpt")
    x, y = families.samples("gpt", 3)
    found = measured_balance(
        *(model, 3, x, y),
        optimizer=families.optimizer,
        loss=families.FAMILIES["gpt"].loss,
        micro_batch_size=families.SIZE,
        inputs=("ids", "padding"),
    )
    assert sum(found.counts) == len(units(model, 3, ("ids", "padding")))
    with families.build("gpt", 3, balance=found.counts) as one:
        want = families.outcome(one, "gpt")
    with families.build("gpt", 3, model, balance=found.counts) as other:
        assert families.outcome(other, "gpt") == want


def test_too_few_samples() -> None:
    x = torch.randn(3, 4)
    with pytest.raises(ConfigError, match="x holds one micro-batch; use several"):
        measured_balance(
            *(network(0, 2), 2, x, x),
            optimizer=families.optimizer,
            loss=nn.functional.mse_loss,
            micro_batch_size=3,
        )
