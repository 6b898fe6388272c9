"""The FIFO between two neighbouring stages."""

from __future__ import annotations

from collections import deque

from torch import Tensor

from ..errors import StageFailed


class Link:
    """Messages in order, each usable from the cycle after the one it was sent in.

    With one writer and one reader per link, and programs of fixed order, the stages form a Kahn
    process network: results cannot depend on timing.
    """

    def __init__(self) -> None:
        self._queue: deque[tuple[int, int, Tensor]] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, time: int, k: int, message: Tensor) -> None:
        """Send micro-batch k's message in cycle ``time``."""
        self._queue.append((time, k, message))

    def ready(self, time: int) -> bool:
        """Is there a message that was sent before cycle ``time``?"""
        return bool(self._queue) and self._queue[0][0] < time

    def get(self, stage: int, kind: str, k: int) -> Tensor:
        """The oldest message, which must be that of micro-batch k."""
        if not self._queue or self._queue[0][1] != k:
            raise StageFailed(stage, kind, k, "its message is missing or out of order")
        return self._queue.popleft()[2]

    def clear(self) -> None:
        self._queue.clear()
