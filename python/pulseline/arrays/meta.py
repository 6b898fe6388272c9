"""Arrays without memory: what a network will be, before there is room for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from .budget import Budget

__all__ = ["on_meta", "where"]

_META: ContextVar[bool] = ContextVar("pulseline_on_meta", default=False)


@contextmanager
def on_meta() -> Iterator[None]:
    """Arrays, cells and layers made in this block are on torch's meta device.

    They have shapes, settings and identities; ``nbytes`` of their tensors says what they will take.
    ``to_empty(device="cpu")`` gives them memory and their crosspoints, ``load_state_dict`` weights.
    torch's own ``torch.device("meta")`` changes nothing in an array, as any default device.
    """
    token = _META.set(True)
    try:
        with Budget.plan():
            yield
    finally:
        _META.reset(token)


def where() -> torch.device:
    """Where arrays are made."""
    return torch.device("meta" if _META.get() else "cpu")
