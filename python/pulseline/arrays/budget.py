"""How many bytes of crosspoints the process may store, and holds: what ``crosspoints="auto"`` asks.

Whether words are stored or drawn decides about memory and time, never about a bit.
"""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar

__all__ = ["Budget"]

_SHARE = 0.25  # of the machine's memory


class Budget:
    """Bytes of stored crosspoints on the CPU, of all arrays that live.

    Attributes:
        most: bytes that "auto" may store; None: a quarter of the machine's memory.
    """

    most: ClassVar[int | None] = None
    _arrays: ClassVar[weakref.WeakSet[Any]] = weakref.WeakSet()
    _living: ClassVar[int] = -1  # bytes held when garbage was last looked for
    _planned: ClassVar[ContextVar[list[int] | None]] = ContextVar("planned", default=None)

    @classmethod
    def limit(cls) -> int:
        """Bytes that may be stored."""
        return int(_SHARE * _memory()) if cls.most is None else cls.most

    @classmethod
    def held(cls) -> int:
        """Bytes that are stored."""
        return sum(one.stored_bytes for one in cls._arrays if one.in_memory)

    @classmethod
    def allows(cls, size: int) -> bool:
        """Whether so many bytes more may be stored."""
        planned, most = cls._planned.get(), cls.limit() - size
        if planned:
            return planned[0] <= most
        held = cls.held()
        if held > most and held != cls._living:  # arrays are in cycles: some may live no more
            gc.collect()
            cls._living = held = cls.held()
        return held <= most

    @classmethod
    @contextmanager
    def plan(cls) -> Iterator[None]:
        """What arrays made in this block store counts as long as the block, even if they do not."""
        token = cls._planned.set(cls._planned.get() or [cls.held()])
        try:
            yield
        finally:
            cls._planned.reset(token)

    @classmethod
    def took(cls, size: int) -> None:
        """Count what a new array stores.

        Args:
            size: bytes.
        """
        planned = cls._planned.get()
        if planned:
            planned[0] += size

    @classmethod
    def watch(cls, crosspoints: Any) -> None:
        """Count what they store, as long as they live."""
        cls._arrays.add(crosspoints)


def _memory() -> int:
    """Bytes of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
