"""What each process was called to do: compared at flushes, and when one waits for another in vain.

Under "dist" every process makes the same calls with the same arguments, though only the first stage
reads the inputs and only the last one the targets. Each call is counted and joins a running CRC-32
of names, dtypes, shapes and bytes; two runs of calls that differ share it with chance 2^-32.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Call", "Calls", "difference", "groups_named"]

_KEPT = 32


class Call(NamedTuple):
    """One call.

    Attributes:
        number: from 1. text: name, dtypes and shapes. checksum: of it and all before, with values.
    """

    number: int
    text: str
    checksum: int


class Calls:
    """The calls of this process, the newest of them by name."""

    def __init__(self) -> None:
        self._newest: deque[tuple[int, str, tuple[object, ...], int]] = deque(maxlen=_KEPT)
        self._count = 0
        self._checksum = 0

    def add(self, name: str, *arguments: Tensor | float) -> None:
        """Count a call.

        Args:
            name: of the method. arguments: that must be the same in every process.
        """
        kinds: list[object] = []
        total = zlib.crc32(name.encode(), self._checksum)
        for one in arguments:
            if not isinstance(one, Tensor):
                kinds.append(one)
                continue
            kinds += [one.dtype, tuple(one.shape)]
            if one.numel():
                flat = one.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                total = zlib.crc32(flat.numpy().data, total)
        self._checksum = zlib.crc32(repr(kinds).encode(), total)
        self._count += 1
        self._newest.append((self._count, name, tuple(kinds), self._checksum))

    def number(self) -> int:
        """Count and checksum in one: equal in processes that were called alike."""
        return (self._count & 0x7FFFFFFF) << 32 | self._checksum

    def newest(self) -> list[Call]:
        """The last calls, oldest first."""
        return [
            Call(number, f"{name}({', '.join(map(_word, kinds))})", checksum)
            for number, name, kinds, checksum in list(self._newest)
        ]


def _word(kind: object) -> str:
    return str(kind).removeprefix("torch.")


def difference(logs: Sequence[Sequence[Call]], ended: Sequence[int] = ()) -> str | None:
    """The first call in which processes differ; one that is only behind does not.

    Args:
        logs: newest calls of each process, by rank. ended: ranks that make no more calls.

    Returns:
        A clause that names the call and the ranks; None: nothing differs.
    """
    by_number = [{call.number: call for call in log} for log in logs]
    for number in sorted({number for log in by_number for number in log}):
        ranks = [rank for rank, log in enumerate(by_number) if number in log]
        calls = [by_number[rank][number] for rank in ranks]
        if len({call.checksum for call in calls}) > 1:
            if len({call.text for call in calls}) == 1:
                whose = _grouped(ranks, [call.checksum for call in calls])
                return f"the values in call {number}, {calls[0].text}, differ between {whose}"
            groups = _groups(ranks, [call.text for call in calls])
            said = " and ".join(f"{text} on {_named(who)}" for text, who in groups)
            return f"call {number} is {said}"
        gone = [rank for rank in ended if logs[rank] and logs[rank][-1].number < number]
        if gone and ranks:
            last = logs[gone[0]][-1].number
            return (
                f"{_named(gone)} ended after call {last}, and call {number} is {calls[0].text} on "
                f"{_named(ranks)}"
            )
    return None


def _groups(ranks: Sequence[int], values: Sequence[object]) -> list[tuple[object, list[int]]]:
    """Ranks by value, in order of the first of each."""
    found: dict[object, list[int]] = {}
    for rank, value in zip(ranks, values, strict=True):
        found.setdefault(value, []).append(rank)
    return list(found.items())


def _grouped(ranks: Sequence[int], values: Sequence[object]) -> str:
    return " and ".join(_named(who) for _, who in _groups(ranks, values))


def _named(ranks: Sequence[int]) -> str:
    numbers = ", ".join(map(str, ranks))
    return f"rank {numbers}" if len(ranks) == 1 else f"ranks {numbers}"


def groups_named(values: Sequence[str]) -> str:
    """Which value each rank has: "0.1 on rank 0 and 0.2 on ranks 1, 2".

    Args:
        values: by rank.
    """
    found = _groups(range(len(values)), values)
    return " and ".join(f"{value} on {_named(who)}" for value, who in found)
