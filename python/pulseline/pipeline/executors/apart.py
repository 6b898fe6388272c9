"""Layers that were trained where only one process sees them: their bits may differ."""

from __future__ import annotations

import weakref

from torch import nn

__all__ = ["is_apart", "mark_apart"]

_apart: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def mark_apart(module: nn.Module) -> None:
    """Remember that a stage's module is trained in this process alone."""
    _apart.update(module.modules())


def is_apart(module: nn.Module) -> bool:
    """Whether a part of the module was."""
    return not _apart.isdisjoint(module.modules())
