"""torch.library.opcheck on every operator: schema, autograd, fake tensors, AOT dispatch."""

from __future__ import annotations

from collections.abc import Callable
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


LAYERS: dict[str, tuple[Callable[[], Any], tuple[int, ...], tuple[int, ...]]] = {
    "linear": (lambda: pl.nn.AnalogLinear(7, 3, crossbar=ORACLE), (4, 7), (3,)),
    "conv": (lambda: pl.nn.AnalogConv1d(2, 3, 3, crossbar=ORACLE), (4, 2, 6), (3, 4)),
    "transposed": (
        lambda: pl.nn.AnalogConvTranspose2d(2, 3, 2, stride=2, crossbar=ORACLE),
        (4, 2, 3, 2),
        (3, 6, 4),
    ),
}


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(("make", "shape", "sizes"), LAYERS.values(), ids=LAYERS.keys())
def test_reads_in_graphs(
    make: Callable[[], Any],
    shape: tuple[int, ...],
    sizes: tuple[int, ...],
    grad: bool,
    trains: bool,
) -> None:
    """On the oracle, where a read that is repeated gives what it gave."""
    layer, ops = make(), torch.ops.pulseline_nn
    number, windows = layer.cell.number, ""
    if not isinstance(layer, pl.nn.AnalogLinear):
        windows = layer.windows.text
        assert type(layer.windows).of(windows).text == windows
    anchor = torch.zeros((), requires_grad=True) if trains else None
    x, d = numbers(*shape), numbers(shape[0], *sizes)
    torch.library.opcheck(ops.cell_forward.default, (x, number, sizes[0], windows, True))
    torch.library.opcheck(ops.cell_backward.default, (d, x, number, windows, True, grad, False))
    x.requires_grad_(grad)
    torch.library.opcheck(ops.cell_read.default, (x, number, anchor, sizes[0], windows, True))


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
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = first(model(mode.from_tensor(numbers(*shape))))
    assert (fake.shape, fake.dtype) == (want.shape, want.dtype)
    with on_meta():
        bare = pl.nn.AnalogLinear(8, 3)
    assert bare(torch.empty(2, 8, device="meta")).shape == (2, 3)
    got = first(model.to("meta")(torch.empty(shape, device="meta")))
    assert (got.shape, got.dtype, got.is_meta) == (want.shape, want.dtype, True)
