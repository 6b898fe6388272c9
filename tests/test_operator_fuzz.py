"""Random calls of every registered operator: a result, or one sentence that changes nothing.

A result is that of the same call with plain copies of its tensors. ``PULSELINE_FUZZ_CALLS`` sets
the number of calls (default: 1,000);
under sanitizers 30,000.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from operator_calls import MAKERS, SIZES, Arguments, Maker, spoil
from pulseline import ops
from pulseline.errors import ConfigError

CALLS = int(os.environ.get("PULSELINE_FUZZ_CALLS", "1000"))


def bits(t: Tensor) -> bytes:
    return bytes(t.resolve_neg().flatten().clone().untyped_storage())


def readable(t: Tensor) -> bool:
    """Whether its values are there to be copied and compared."""
    if t.layout is not torch.strided or t.is_meta:
        return False
    return t.numel() == 0 or not t._is_zerotensor()


def whole(t: Tensor) -> bool:
    last = sum((size - 1) * step for size, step in zip(t.shape, t.stride(), strict=True))
    needed = (t.storage_offset() + last + 1) * t.element_size()
    return not t.numel() or t.untyped_storage().nbytes() >= needed


def plain(arguments: Arguments) -> Arguments:
    return [a.resolve_neg().clone().contiguous() if isinstance(a, Tensor) else a for a in arguments]


def tensors(arguments: Any) -> list[Tensor]:
    if isinstance(arguments, Tensor):
        return [arguments]
    return (
        [a for a in arguments if isinstance(a, Tensor)]
        if isinstance(arguments, (list, tuple))
        else []
    )


def storages(arguments: Arguments) -> list[bytes]:
    held = [t.untyped_storage() for t in tensors(arguments) if readable(t)]
    return [bytes(s) for s in held]


def refusal(operator: Callable[..., Any], arguments: Arguments) -> tuple[Any, str]:
    """What a call returns, and the sentence that refuses it."""
    try:
        return operator(*arguments), ""
    except ConfigError as error:
        return None, str(error)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("name", MAKERS)
def test_random_calls(name: str) -> None:
    operator = getattr(torch.ops.pulseline, name).default
    front = getattr(ops, name)

    @hypothesis.settings(max_examples=max(CALLS // len(MAKERS), 1))
    @hypothesis.given(st.integers(0, (1 << 62) - 1), st.integers(0, 2), st.booleans())
    def call(seed: int, changes: int, direct: bool) -> None:
        make = Maker(seed)
        arguments = MAKERS[name](make)
        notes = spoil(make, arguments, changes)
        copies = None
        if all(readable(t) and whole(t) for t in tensors(arguments)):
            copies = plain(arguments)
        before = storages(arguments)
        result, sentence = refusal(front if direct else operator, arguments)
        if sentence:
            assert "\n" not in sentence, notes
            assert storages(arguments) == before, notes
            assert changes, f"refused: {sentence}"
        elif copies is None:  # nothing but meta tensors has a result then
            unread = "Ideal" in arguments  # which has no pairs to look at
            assert unread or all(t.is_meta for t in tensors(arguments)), notes
        else:
            again = (*tensors(operator(*copies)), *tensors(copies))
            for got, want in zip((*tensors(result), *tensors(arguments)), again, strict=True):
                assert bits(got) == bits(want), notes

    call()


def test_all_operators_are_called() -> None:
    every = torch._C._dispatch_get_all_op_names()
    ours = {name.removeprefix("pulseline::") for name in every if name.startswith("pulseline::")}
    assert ours == set(MAKERS)
    assert {0, 1} < set(SIZES)
