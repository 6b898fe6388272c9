"""torch.library.opcheck on every operator: schema, autograd, fake tensors, AOT dispatch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import pulseline as pl
from operator_calls import MAKERS, Maker
from pulseline.arrays import on_meta
from twin_modules import NOISY, ORACLE, numbers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # in torch itself


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", MAKERS)
def test_operators(name: str, seed: int) -> None:
    """Random sizes, 0 and 1 among them; results are functions of the arguments, counters too."""
    arguments = MAKERS[name](Maker(seed))
    plain = tuple(list(a) if isinstance(a, tuple) else a for a in arguments)
    torch.library.opcheck(getattr(torch.ops.pulseline, name).default, plain)


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("grad", [True, False])
def test_reads_in_graphs(trains: bool, grad: bool) -> None:
    """On the oracle, where a read that is repeated gives what it gave."""
    layer = pl.nn.AnalogLinear(7, 3, crossbar=ORACLE)
    read = torch.ops.pulseline_nn.cell_read.default
    backward = torch.ops.pulseline_nn.cell_backward.default
    anchor = torch.zeros((), requires_grad=True) if trains else None
    x, d = numbers(4, 7).requires_grad_(grad), numbers(4, 3)
    torch.library.opcheck(read, (x, layer.cell.number, anchor, 3, True))
    torch.library.opcheck(backward, (d, x.detach(), layer.cell.number, True, grad, False))


@pytest.mark.parametrize("make", ["linear", "conv", "lstm", "attention"])
def test_fake_and_meta_tensors(make: str) -> None:
    """Shapes and dtypes of what a layer would give, where no number is."""
    kinds: dict[str, tuple[Any, tuple[int, ...]]] = {
        "linear": (lambda: nn.Linear(8, 3), (2, 8)),
        "conv": (lambda: nn.Conv1d(8, 3, 3), (2, 8, 6)),
        "lstm": (lambda: nn.LSTM(8, 4), (5, 2, 8)),
        "attention": (lambda: nn.TransformerEncoderLayer(8, 2, 8), (5, 2, 8)),
    }
    digital, shape = kinds[make]
    model = pl.to_analog(digital(), NOISY, seed=0)

    def first(y: Any) -> Tensor:
        out: Tensor = y[0] if isinstance(y, tuple) else y
        return out

    want = first(model(numbers(*shape)))
    if make != "conv":  # which looks for what is not finite itself
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fake = first(model(mode.from_tensor(numbers(*shape))))
        assert (fake.shape, fake.dtype) == (want.shape, want.dtype)
    with on_meta():
        bare = pl.nn.AnalogLinear(8, 3)
    assert bare(torch.empty(2, 8, device="meta")).shape == (2, 3)
    got = first(model.to("meta")(torch.empty(shape, device="meta")))
    assert (got.shape, got.dtype, got.is_meta) == (want.shape, want.dtype, True)
