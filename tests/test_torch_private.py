"""What is expected of every private name of torch that ``torch_private.py`` uses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pulseline as pl
from pulseline import torch_private as names

SOURCES = Path(pl.__file__).parent


def test_no_other_file_uses_private_names() -> None:
    """Written out, a private name of torch is in that file alone."""
    private = re.compile(r"\btorch(\.\w+)*\._(?!_)|\bTensor\._(?!_)")
    for path in SOURCES.rglob("*.py"):
        if path.name != "torch_private.py":
            found = [line for line in path.read_text().splitlines() if private.search(line)]
            found = [line for line in found if "_ConvNd" not in line]  # a class of modules
            assert not found, f"{path}: {found}"


def test_trees() -> None:
    assert list(names.tree_iter(([1, {"a": 2}], 3))) == [1, 2, 3]
    assert names.tree_map(lambda leaf: leaf + 1, ([1, {"a": 2}], 3)) == ([2, {"a": 3}], 4)


class Loud(nn.Parameter):
    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} was looked up")


def test_plain_tensors() -> None:
    loud = Loud(torch.ones(2))
    with names.PlainTensors():
        assert type(torch.Tensor.detach(loud)) is Tensor
        assert loud.shape == (2,)


def test_grad_slot_and_data() -> None:
    p = nn.Parameter(torch.ones(2))
    p.sum().backward()
    assert names.grad_slot.__get__(p) is p.grad is not None
    names.grad_slot.__set__(p, None)
    assert p.grad is None
    names.set_data(p, torch.zeros(3))
    assert p.shape == (3,)


def test_writes_are_counted_by_aliases_that_detach_makes_not_by_data() -> None:
    """What :class:`pulseline.arrays.weight.Weighted` rests on."""
    p = nn.Parameter(torch.ones(2))
    watched, held = p.detach(), p.detach().data
    before = watched._version
    held.fill_(2.0)
    assert watched._version == before
    with torch.no_grad():
        p.mul_(2.0)
    assert watched._version == before + 1
    assert torch.equal(held, torch.full((2,), 4.0))


class Asking(torch.autograd.Function):
    answers: list[bool | None]

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Any:  # type: ignore[override]
        Asking.answers.append(names.will_accumulate(ctx.next_functions[1][0]))
        return d, torch.ones(3)


def test_will_accumulate() -> None:
    x, w, b = (torch.ones(3, requires_grad=True) for _ in range(3))
    Asking.answers = []

    def y() -> Tensor:
        return Asking.apply(x, w).sum() + b.sum()

    y().backward()
    torch.autograd.grad(y(), x)
    torch.autograd.grad(y(), w)
    y().backward(inputs=[w])
    y().backward(inputs=[x, b])
    assert Asking.answers == [True, False, None, True, False]


def test_functorch_is_active() -> None:
    assert not names.functorch_is_active()
    seen = []
    torch.func.vmap(lambda x: seen.append(names.functorch_is_active()) or x)(torch.ones(2))
    assert seen == [True]


def test_without_storage() -> None:
    class Shape(Tensor):
        __torch_function__ = names.no_torch_function

        @classmethod
        def __torch_dispatch__(cls, func: Any, *rest: Any) -> Any:  # type: ignore[override]
            called.append(func.overloadpacket.__name__)
            return torch.ones(2, 3)

    called: list[str] = []
    made = names.without_storage(Shape, torch.Size((2, 3)), torch.device("cpu"))
    assert made.shape == (2, 3)
    assert made.dtype is torch.float32
    assert torch.equal(-made, torch.ones(2, 3))
    assert called == ["neg"]


def test_not_compiled() -> None:
    traced = []

    @names.not_compiled
    def inner(x: Tensor) -> Tensor:
        traced.append(torch.compiler.is_compiling())
        return x + 1

    assert torch.equal(torch.compile(inner, backend="eager")(torch.ones(2)), torch.full((2,), 2.0))
    assert traced == [False]


def test_not_compiled_within() -> None:
    traced = []

    def inner(x: Tensor) -> Tensor:
        traced.append(torch.compiler.is_compiling())
        return x + 1

    @names.not_compiled_within
    def outer(x: Tensor) -> Tensor:
        return inner(x)

    assert torch.equal(torch.compile(outer, backend="eager")(torch.ones(2)), torch.full((2,), 2.0))
    compiled = torch.compile(lambda x: outer(x) * 2, backend="eager")
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 4.0))
    assert traced == [False] * 2


def test_dispatch_modes() -> None:
    assert not names.dispatch_modes()
    with torch.utils.flop_counter.FlopCounterMode(display=False):
        assert names.dispatch_modes()


def test_run_backward() -> None:
    """As Tensor.backward: gradients are added, the graph is freed."""
    p = nn.Parameter(torch.ones(2))
    for _ in range(2):
        names.run_backward((p * 3,), (torch.tensor([1.0, 2.0]),))
    assert p.grad is not None
    assert torch.equal(p.grad, torch.tensor([6.0, 12.0]))
    out = p.square()
    names.run_backward((out,), (torch.ones(2),))
    with pytest.raises(RuntimeError, match="a second time"):
        names.run_backward((out,), (torch.ones(2),))


def test_plain_apply() -> None:
    """As function.apply: a graph, contexts, and no transforms of torch.func."""

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, n: int) -> torch.Tensor:
            ctx.n = n
            return x * n

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
            return grads[0] * ctx.n, None

    apply = names.plain_apply(Twice)
    x = torch.ones(2, requires_grad=True)
    y = apply(x, 2)
    y.backward(torch.tensor([1.0, 3.0]))
    assert x.grad is not None
    assert torch.equal(y, torch.full((2,), 2.0))
    assert torch.equal(x.grad, torch.tensor([2.0, 6.0]))
    with torch.no_grad():
        assert not apply(x, 2).requires_grad
