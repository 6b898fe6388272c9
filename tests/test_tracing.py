"""Roads into a graph of torch's: one sentence each, for a graph holds neither noise nor pulses."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import pulseline as pl
from pulseline.errors import ConfigError
from pulseline.nn import AnalogLinear, to_analog

X = torch.ones(2, 4)
WORDS = r"an analog layer is {}, which would bypass noise and pulses of its crossbars"
TRACED = WORDS.format(r"traced into a graph( or transformed \([^)]*\))?")
SCRIPTED = WORDS.format(r"compiled by torch\.jit\.script")

ROADS: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "jit.trace": (lambda m: torch.jit.trace(m, X), TRACED),
    "jit.trace, unchecked": (lambda m: torch.jit.trace(m, X, check_trace=False), TRACED),
    "jit.trace of a function": (lambda m: torch.jit.trace(lambda x: m(x), X), TRACED),
    "jit.trace_module": (lambda m: torch.jit.trace_module(m, {"forward": X}), TRACED),
    "jit.script": (torch.jit.script, SCRIPTED),
    "export": (lambda m: torch.export.export(m, (X,)), TRACED),
    "fx": (torch.fx.symbolic_trace, TRACED),
    "onnx": (
        lambda m: torch.onnx.export(m, (X,), io.BytesIO(), dynamo=False),
        WORDS.format("exported to ONNX"),
    ),
}


@pytest.mark.filterwarnings("ignore")  # torch would rather see its newer roads
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "make",
    [lambda: to_analog(nn.Sequential(nn.Linear(4, 4), nn.Tanh())), lambda: AnalogLinear(4, 4)],
    ids=["model", "layer"],
)
@pytest.mark.parametrize(("road", "words"), ROADS.values(), ids=ROADS.keys())
def test_one_sentence(
    road: Callable[[nn.Module], Any], words: str, make: Callable[[], nn.Module], training: bool
) -> None:
    model = make().train(training)
    with pytest.raises(ConfigError, match=words) as error:
        road(model)
    assert "\n" not in str(error.value)
    layer = next(m for m in model.modules() if isinstance(m, AnalogLinear))
    (counts,) = layer.cell.counts()
    assert (counts.forward, counts.update, layer.cell.pending) == (0, 0, [])
    assert torch.isfinite(model(X)).all()  # afterwards it works


def test_dynamo_reports_the_sentence() -> None:
    """Strict export wraps what it meets in an error of its own."""
    with pytest.raises(torch._dynamo.exc.Unsupported, match=TRACED):
        torch.export.export(pl.to_analog(nn.Linear(4, 4)), (X,), strict=True)
