"""The FIFO between two neighbouring stages of one process.

With one writer and one reader per link, and programs of fixed order, the stages form a Kahn
process network: results cannot depend on timing.
"""

from __future__ import annotations

from collections import deque
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from ...errors import StageFailed
from ..messages import Message

__all__ = ["Link", "LinkFailed", "Poisoned", "Sink", "Source", "ThreadLink", "check_order"]


class LinkFailed(Exception):
    """A message did not come, or is not the one that was due; the text says why.

    Args:
        text: why. peer: rank of the process that it is about, if it is about one.
    """

    def __init__(self, text: str, peer: int | None = None) -> None:
        super().__init__(text)
        self.peer = peer


class Poisoned(Exception):
    """The stage at the other end failed; what went wrong is said there.

    Args:
        failure: what it told, if it could.
    """

    def __init__(self, failure: StageFailed | None = None) -> None:
        super().__init__()
        self.failure = failure


class Source(Protocol):
    """Where a stage takes its messages from."""

    def get(self, k: int) -> Any:
        """Take the next message; of stage 1 an input, of the last one a target too.

        Raises:
            LinkFailed: it does not come, or is not that of micro-batch k.
            Poisoned: the stage at the other end failed.
        """


class Sink(Protocol):
    """Where a stage puts its messages."""

    def put(self, k: int, message: Message) -> None:
        """Send a message.

        Args:
            k: micro-batch. message: output or error of the stage.
        """


def check_order(got: int, k: int) -> None:
    """Refuse a message that is not due.

    Args:
        got: its micro-batch. k: the one that is due.

    Raises:
        LinkFailed: they differ.
    """
    if got != k:
        raise LinkFailed(f"the message of micro-batch {got} came in place of that of {k}")


class Link:
    """Messages in order, between stages of one thread."""

    def __init__(self) -> None:
        self._queue: deque[tuple[int, Any]] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, k: int, message: Any) -> None:
        self._queue.append((k, message))

    def get(self, k: int) -> Any:
        if not self._queue:
            raise LinkFailed("its message is missing")
        got, message = self._queue.popleft()
        check_order(got, k)
        return message

    def clear(self) -> None:
        """Drop everything."""
        self._queue.clear()


class ThreadLink:
    """Messages in order, between two threads.

    Without a bound: the order of operations keeps at most the schedule's depth in flight.

    Args:
        timeout: seconds that ``get`` waits.
    """

    def __init__(self, timeout: float) -> None:
        self._queue: SimpleQueue[tuple[int, Any] | None] = SimpleQueue()
        self._timeout = timeout

    def put(self, k: int, message: Any) -> None:
        self._queue.put((k, message))

    def get(self, k: int) -> Any:
        try:
            item = self._queue.get(timeout=self._timeout)
        except Empty:
            raise LinkFailed(f"no message came for {self._timeout:g} s") from None
        if item is None:
            raise Poisoned
        check_order(item[0], k)
        return item[1]

    def poison(self) -> None:
        """Make the reader stop with Poisoned."""
        self._queue.put(None)

    def clear(self) -> None:
        """Drop everything, poison too; only while nobody reads."""
        while not self._queue.empty():
            self._queue.get()
