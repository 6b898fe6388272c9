"""Weights of a stage as they were before its latest updates, for :class:`..schedules.Delayed`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..arrays import Array

__all__ = ["Past"]


class Past:
    """Copies of what updates move: digital parameters, and what arrays hold.

    Args:
        module: of the stage. longest: copies that are kept, the newest ones.
    """

    def __init__(self, module: nn.Module, longest: int) -> None:
        self._module = module
        self._copies: deque[list[Tensor]] = deque(maxlen=longest)
        self._behind = False  # an update came since the last drain
        self.delays: deque[int] = deque()  # of micro-batches that are to come

    def __bool__(self) -> bool:
        """Whether a forward pass could see weights that are no more."""
        return self._behind

    @torch.no_grad()
    def keep(self) -> None:
        """Remember the weights; an update follows."""
        self._behind = True
        if self._copies.maxlen:
            self._copies.append([one.clone() for one in self._moved()])

    def clear(self) -> None:
        """Forget them: nothing from before this moment is seen again."""
        self._copies.clear()
        self.delays.clear()
        self._behind = False

    def back(self) -> int:
        """Updates by which the next forward pass is late, as far as the copies reach."""
        return min(self.delays.popleft(), len(self._copies)) if self.delays else 0

    @contextmanager
    def at(self, back: int) -> Iterator[None]:
        """The weights of so many updates ago, in place and unseen by autograd; then today's."""
        if not back:
            yield
            return
        moved = self._moved()
        with torch.no_grad():
            now = [one.clone() for one in moved]
            _write(moved, self._copies[-back])
        try:
            yield
        finally:
            with torch.no_grad():
                _write(moved, now)

    def _moved(self) -> list[Tensor]:
        arrays = [part for part in self._module.modules() if isinstance(part, Array)]
        shown = {id(array._parameters["weight"]) for array in arrays}
        digital = [p.data for p in self._module.parameters() if id(p) not in shown]
        return [*(array.held for array in arrays), *digital]


def _write(into: list[Tensor], values: list[Tensor]) -> None:
    for one, value in zip(into, values, strict=True):
        one.copy_(value)
