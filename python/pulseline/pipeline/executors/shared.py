"""Messages between processes of one machine, through shared memory.

gloo's threads take part of a core for themselves while messages wait, and its calls cost as much as
a small layer. With two processes on two cores that nothing else used a micro-batch of one sample
through four layers of 64 units took .26 ms here and .91 by gloo, one of 8 through four of 256 .37
and .76, one of 16 texts through a GPT of 256 columns 2 to 4 % less (`bench/pipeline.py`). A message
is one copy into a ring that both ends have mapped. gloo still carries the first message of a link
(which fixes the size of the ring's places), bodies that are larger, and everything between
machines.

The memory has no name: the reader opens it through the writer's descriptor, so nothing is left
behind when a process is killed. A process that ends is noticed through its pidfd.
"""

from __future__ import annotations

import mmap
import os
import platform
import select
import sys
import time
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ...errors import StageFailed
from .link import LinkFailed, Poisoned
from .processes import Peers
from .transport import HEAD, Channel, poison, read_poison

__all__ = ["Neighbours", "Ring", "SharedChannel", "possible"]

_CONTROL = 512  # bytes before the first place: messages written, messages read, poison
_WRITTEN, _READ, _POISON, _WHY = 0, 1, 2, 8
_NAP_S = 2e-5


def possible() -> bool:
    """Whether this process could share memory: Linux, and stores that stay in order (x86-64)."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # an old kernel, a sandbox
        return False
    return hasattr(os, "memfd_create")


class Ring:
    """Places in memory that two processes have mapped; one writes, one reads.

    Args:
        fd: descriptor of the memory, closed here. places: how many. size: bytes of each.
    """

    def __init__(self, fd: int, places: int, size: int) -> None:
        self._places, self._size = places, size
        self._memory = mmap.mmap(fd, _CONTROL + places * size)
        os.close(fd)
        self._control = np.frombuffer(self._memory, np.int64, _CONTROL // 8)
        self._why = torch.from_numpy(self._control[_WHY:])
        self._data = torch.frombuffer(self._memory, dtype=torch.uint8)

    def place(self, number: int) -> Tensor:
        """Bytes of the message of that number."""
        start = _CONTROL + number % self._places * self._size
        return self._data[start : start + self._size]

    def state(self) -> tuple[int, int, int]:
        """Messages written, messages read, poison."""
        c = self._control
        return int(c[_WRITTEN]), int(c[_READ]), int(c[_POISON])

    def set(self, what: int, value: int) -> None:
        """Publish: everything written before is seen by whoever sees this.

        Args:
            what: place of the number in the head of the memory. value: of it.
        """
        self._control[what] = value

    def poison(self, failure: StageFailed | None) -> None:
        """Tell the reader why no more will come."""
        self._why.copy_(poison(failure, len(self._why)))
        self.set(_POISON, 1)

    def why(self) -> StageFailed | None:
        """What the writer said."""
        return read_poison(self._why)


class Neighbours:
    """What the processes of one machine need to share memory, agreed by all of them.

    Args:
        group: of gloo. me: rank of this process. peers: those on this machine.
    """

    def __init__(self, group: Any, me: int, peers: Peers) -> None:
        self._pidfds = peers.pidfds
        processes = len(peers.pids)
        self._own = {k: os.memfd_create("pulseline") for k in "FB"} if possible() else {}
        self._theirs: dict[int, int] = {}  # descriptor of what a neighbour writes for me
        found: list[Any] = [None] * processes
        dist.all_gather_object(found, self._own, group=group)
        for peer, kind in ((me - 1, "F"), (me + 1, "B")):
            if self._own and peer in peers.pidfds and kind in found[peer]:
                try:
                    name = f"/proc/{peers.pids[peer]}/fd/{found[peer][kind]}"
                    self._theirs[peer] = os.open(name, os.O_RDWR)
                except OSError:  # not permitted here: gloo carries the messages
                    continue
        ready: list[Any] = [None] * processes
        dist.all_gather_object(ready, sorted(self._theirs), group=group)
        self._shared = {p for p in self._theirs if me in ready[p]}
        for peer, kind in ((me + 1, "F"), (me - 1, "B")):
            if peer not in self._shared:
                self._close(self._own.pop(kind, None), self._theirs.pop(peer, None))

    @staticmethod
    def _close(*descriptors: int | None) -> None:
        for fd in descriptors:
            if fd is not None:
                os.close(fd)

    def channel(self, peer: int, kind: str, writes: bool, *args: Any) -> Channel:
        """The channel to another process: through memory if both ends can, else gloo.

        Args:
            peer: its rank. kind: "F", "B" or "E" (evaluation). writes: whether this end writes.
            args: as of :class:`.transport.Channel`.
        """
        if kind == "E" or peer not in self._shared:
            return Channel(*args)
        fd = self._own.pop(kind) if writes else self._theirs[peer]
        return SharedChannel(fd, self._pidfds[peer], *args)


class SharedChannel(Channel):
    """A channel whose messages after the first lie in a ring.

    Args:
        fd: descriptor of the ring's memory. pidfd: of the other process.
        args: as of :class:`.transport.Channel`.
    """

    def __init__(self, fd: int, pidfd: int, *args: Any) -> None:
        super().__init__(*args)
        self._fd: int | None = fd  # until it is mapped
        self._ring: Ring | None = None
        self._ended = select.poll()
        self._ended.register(pidfd, select.POLLIN)

    def _begin(self, size: int) -> None:
        if not self._seq:
            self._map(HEAD + size, grow=True)

    def poison(self, failure: StageFailed | None = None) -> None:
        if self._ring is not None:  # a reader too: its writer may wait for room
            self._ring.poison(failure)
        super().poison(failure)

    def close(self) -> None:
        self._ring = None
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _map(self, size: int, grow: bool = False) -> Ring:
        """The ring, when the size of its places is known."""
        if self._ring is None:
            fd, self._fd = self._fd, None
            assert fd is not None
            if grow:
                os.ftruncate(fd, _CONTROL + 2 * self._window * size)
            self._ring = Ring(fd, 2 * self._window, size)
        return self._ring

    def _transmit(self, parts: tuple[Tensor, ...]) -> None:
        if self._ring is None or not self._seq:
            super()._transmit(parts)
            return
        number = self._seq - 1
        self._until(lambda written, read: number - read < 2 * self._window)
        place, start = self._ring.place(number), 0
        for part in parts:
            place[start : start + len(part)] = part
            start += len(part)
        self._ring.set(_WRITTEN, number + 1)

    def _next(self) -> Tensor:
        if not self._seq:
            self._post()
            return self._take()
        ring, number = self._map(HEAD + self._room), self._seq - 1
        self._until(lambda written, read: written > number)
        data = ring.place(number).clone()
        ring.set(_READ, number + 1)
        return data

    def _ahead(self) -> None:
        """No receives are posted: the ring is the room."""

    def _until(self, condition: Any) -> None:
        """Wait; the neighbour's failure, its end and the time-out end it too."""
        assert self._ring is not None
        end, naps = time.monotonic() + self._timeout, 0
        while True:
            written, read, poisoned = self._ring.state()
            if condition(written, read):
                return
            if poisoned:
                raise Poisoned(self._ring.why())
            naps += 1
            if naps % 64 == 0:
                if self._ended.poll(0):
                    name = f"the connection to stage {self._peer + 1}"
                    raise LinkFailed(f"{name} was lost (its process ended)", self._peer)
                if time.monotonic() > end:
                    stage = f"stage {self._peer + 1}"
                    raise LinkFailed(f"{stage} did not answer for {self._timeout:g} s", self._peer)
            time.sleep(_NAP_S)
