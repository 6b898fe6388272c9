"""Autocast and gradient accumulation around layers of every family.

A crossbar has a precision of its own, that of its converters: what comes in as bfloat16 is read as
the float32 of the same value, and goes out as it came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from pulseline.errors import ConfigError
from twin_modules import NOISY, ORACLE, numbers

Make = Callable[[], nn.Module]
FAMILIES: dict[str, tuple[Make, tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(8, 3), (4, 8)),
    "conv": (lambda: nn.Conv1d(8, 3, 3), (4, 8, 6)),
    "lstm": (lambda: nn.LSTM(8, 4, batch_first=True), (4, 5, 8)),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 8, 0.0, batch_first=True), (4, 5, 8)),
}


def made(make: Make, crossbar: pl.Crossbar) -> nn.Module:
    torch.manual_seed(0)
    return pl.to_analog(make(), crossbar, seed=0)


def first(y: Any) -> Tensor:
    out: Tensor = y[0] if isinstance(y, tuple) else y
    return out


def halves(x: Tensor) -> Tensor:
    """Numbers that bfloat16 has."""
    return x.bfloat16().float()


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_product_of_bfloat16_is_that_of_the_same_numbers(kind: str) -> None:
    make, shape = FAMILIES[kind]
    plain, mixed = made(make, NOISY), made(make, NOISY)
    x = halves(numbers(*shape))
    want = plain(x)
    with torch.autocast("cpu", torch.bfloat16):
        got = mixed(x.bfloat16())
        assert mixed(x).dtype is torch.float32
    assert got.dtype is torch.bfloat16
    assert torch.equal(got, want.bfloat16())
    d = halves(numbers(*want.shape, seed=1))
    want.backward(d)
    got.backward(d.bfloat16())
    for one, other in zip(plain.parameters(), mixed.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad + 0, other.grad + 0)
    with pytest.raises(ConfigError, match=r"x has dtype torch\.bfloat16; convert it with"):
        mixed(x.bfloat16())


@pytest.mark.parametrize(("make", "shape"), FAMILIES.values(), ids=FAMILIES.keys())
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # in torch itself
def test_training_under_autocast(make: Make, shape: tuple[int, ...], compiled: bool) -> None:
    """It runs and stays close: bfloat16 rounds by 2^-9, states and scores below 4, ten times."""
    plain, mixed = made(make, ORACLE), made(make, ORACLE)
    call: Any = mixed
    if compiled:
        torch.compiler.reset()
        call = torch.compile(mixed, backend="aot_eager")
    x = halves(numbers(*shape))
    want = first(plain(x))
    with torch.autocast("cpu", torch.bfloat16):
        got = first(call(x))
    torch.testing.assert_close(got.float(), want, rtol=0, atol=10 * 4 * 2.0**-9)
    optimizer = pl.optim.AnalogSGD(mixed.parameters(), lr=0.1)
    got.float().square().mean().backward()
    optimizer.step()
    assert all(torch.isfinite(p + 0).all() for p in mixed.parameters())


@pytest.mark.parametrize(("make", "shape"), FAMILIES.values(), ids=FAMILIES.keys())
def test_passes_that_pile_up_are_one_update(make: Make, shape: tuple[int, ...]) -> None:
    """On the oracle, halves of a batch, each with half of the loss, move weights as the whole.

    Sums of at most 24 samples in another order: 24 * 2^-24 of gradients below 4, lr is .1.
    """
    whole, parts = made(make, ORACLE), made(make, ORACLE)
    x = numbers(*shape)
    for model, cuts in ((whole, (x,)), (parts, x.split(2))):
        optimizer = pl.optim.AnalogSGD(model.parameters(), lr=0.1)
        for cut in cuts:
            (first(model(cut)).square().mean() / len(cuts)).backward()
        optimizer.step()
    one, other = (pl.to_digital(m).state_dict() for m in (whole, parts))
    torch.testing.assert_close(one, other, rtol=0, atol=0.1 * 24 * 4 * 2.0**-24)
