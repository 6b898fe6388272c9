"""The rule of docs/examples/own_algorithm.py: states, checkpoints and executors need no help."""

from __future__ import annotations

import runpy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from pulseline.pipeline import Pipeline, checkpoint

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "examples" / "own_algorithm.py"
Leaky: Any = runpy.run_path(str(SCRIPT))["Leaky"]
STEPS = 3


def pipeline(executor: str = "sim") -> Pipeline:
    """Four layers on four stages; a sweep of 9 columns ends in the middle of a micro-batch of 4."""
    torch.manual_seed(0)
    widths = (9, 8, 7, 6, 3)
    layers: list[nn.Module] = []
    for n, m in pairwise(widths):
        layers += [nn.Linear(n, m), nn.Tanh()]
    rule = Leaky(lr_fast=0.5, lr_transfer=2.0, every=2)
    model = pl.to_analog(nn.Sequential(*layers), pl.devices.SoftBounds(), algorithm=rule, seed=1)
    make = lambda p: pl.optim.AnalogSGD(p, lr=0.3)  # noqa: E731
    loss = nn.functional.mse_loss
    return Pipeline(model, 4, optimizer=make, loss=loss, micro_batch_size=4, executor=executor)


def train(pipe: Pipeline, first: int = 0, last: int = STEPS) -> None:
    """Steps of five micro-batches, whose samples are functions of the step."""
    for step in range(first, last):
        draw = torch.Generator().manual_seed(step)
        x, y = (torch.randn(20, n, generator=draw) for n in (9, 3))
        pipe.step(x, y)
        pipe.drain()


def buffers(pipe: Pipeline) -> list[Tensor]:
    return [
        layer.cell.H for stage in pipe.stages for layer in stage.module if hasattr(layer, "cell")
    ]


@pytest.fixture(scope="module")
def whole() -> Pipeline:
    pipe = pipeline()
    train(pipe)
    return pipe


def test_it_does_something(whole: Pipeline) -> None:
    """Buffers fill and slow arrays were pulsed: equality below compares more than zeros."""
    assert all(bool(h.any()) for h in buffers(whole))
    assert whole.digest() != pipeline().digest()


def test_checkpoints_keep_its_buffer(whole: Pipeline, tmp_path: Path) -> None:
    """Saved behind step 1, loaded by a fresh pipeline, trained on: the bits of the whole run."""
    first = pipeline()
    train(first, 0, 1)
    checkpoint.save(first, tmp_path, 1, config={}, state={})
    with pipeline() as pipe:
        loaded = checkpoint.load(pipe, tmp_path, config={})
        assert loaded is not None
        assert all(map(torch.equal, buffers(pipe), buffers(first)))
        train(pipe, loaded.step)
        assert pipe.digest() == whole.digest()
        assert all(map(torch.equal, buffers(pipe), buffers(whole)))


def test_threads_give_its_bits(whole: Pipeline) -> None:
    with pipeline("threads") as pipe:
        train(pipe)
        assert pipe.digest() == whole.digest()
        assert all(map(torch.equal, buffers(pipe), buffers(whole)))
