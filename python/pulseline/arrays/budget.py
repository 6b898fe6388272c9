"""How many bytes of crosspoints the process may store, and holds: what ``crosspoints="auto"`` asks.

Whether words are stored or drawn decides about memory and time, never about a bit.
"""

from __future__ import annotations

import os
import weakref
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
        return size + cls.held() <= cls.limit()

    @classmethod
    def watch(cls, crosspoints: Any) -> None:
        """Count what they store, as long as they live."""
        cls._arrays.add(crosspoints)


def _memory() -> int:
    """Bytes of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
