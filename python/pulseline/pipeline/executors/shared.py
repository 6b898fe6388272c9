"""Messages between processes of one machine, through shared memory.

gloo's threads take part of a core for themselves while messages wait, and its calls cost as much as
a small layer: with as many processes as cores that is a fifth of the run. Here a message is one
copy into a ring that both ends have mapped. gloo still carries the first message of a link (which
fixes the size of the ring's places), bodies that are larger, and everything between machines.

The memory has no name: the reader opens it through the writer's descriptor, so nothing is left
behind when a process is killed. A process that ends is noticed through its pidfd.
"""

from __future__ import annotations

import mmap
import os
import platform
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from .link import LinkFailed, Poisoned
from .transport import HEAD, Channel

__all__ = ["Neighbours", "Ring", "SharedChannel", "possible"]

_CONTROL = 64  # bytes before the first place: messages written, messages read, poison
_WRITTEN, _READ, _POISON = 0, 1, 2
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


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = os.readlink("/proc/self/ns/pid")
    return f"{socket.gethostname()} {boot.read_text().strip()} {namespace}"


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


class Neighbours:
    """What the processes of one machine need to share memory, agreed by all of them.

    Args:
        group: of gloo. me: rank of this process. processes: how many.
    """

    def __init__(self, group: Any, me: int, processes: int) -> None:
        can = possible()
        self._own = {k: os.memfd_create("pulseline") for k in "FB"} if can else {}
        mine = (_machine(), os.getpid(), self._own) if can else None
        self._found: list[Any] = [None] * processes
        dist.all_gather_object(self._found, mine, group=group)
        self._peers: dict[int, tuple[int, int]] = {}  # pidfd, descriptor of what it writes for me
        for peer, kind in ((me - 1, "F"), (me + 1, "B")):
            if mine is not None and 0 <= peer < processes:
                self._open(peer, kind, mine[0])
        ready: list[Any] = [None] * processes
        dist.all_gather_object(ready, sorted(self._peers), group=group)
        self._shared = {p for p in self._peers if me in ready[p]}
        for peer, kind in ((me + 1, "F"), (me - 1, "B")):
            if peer not in self._shared and kind in self._own:
                os.close(self._own.pop(kind))

    def _open(self, peer: int, kind: str, machine: str) -> None:
        theirs = self._found[peer]
        if theirs is None or theirs[0] != machine:
            return
        _, pid, fds = theirs
        try:
            fd = os.open(f"/proc/{pid}/fd/{fds[kind]}", os.O_RDWR)
            self._peers[peer] = (os.pidfd_open(pid), fd)
        except OSError:  # not permitted here: gloo carries the messages
            return

    def channel(self, peer: int, kind: str, writes: bool, *args: Any) -> Channel:
        """The channel to another process: through memory if both ends can, else gloo.

        Args:
            peer: its rank. kind: "F", "B" or "E" (evaluation). writes: whether this end writes.
            args: as of :class:`.transport.Channel`.
        """
        if kind == "E" or peer not in self._shared:
            return Channel(*args)
        pidfd, theirs = self._peers[peer]
        return SharedChannel(self._own[kind] if writes else theirs, pidfd, writes, *args)


class SharedChannel(Channel):
    """A channel whose messages after the first lie in a ring.

    Args:
        fd: descriptor of the ring's memory. pidfd: of the other process.
        writes: whether this end writes. args: as of :class:`.transport.Channel`.
    """

    def __init__(self, fd: int, pidfd: int, writes: bool, *args: Any) -> None:
        super().__init__(*args)
        self._fd, self._writes = fd, writes
        self._ring: Ring | None = None
        self._ended = select.poll()
        self._ended.register(pidfd, select.POLLIN)

    def put(self, k: int, message: Tensor) -> None:
        if not self._seq:
            size = HEAD + message.numel() * message.element_size()
            os.ftruncate(self._fd, _CONTROL + 2 * self._window * size)
            self._ring = Ring(self._fd, 2 * self._window, size)
        super().put(k, message)

    def poison(self) -> None:
        if self._ring is not None and self._writes:
            self._ring.set(_POISON, 1)
        super().poison()

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
        if self._ring is None:
            size = HEAD + self._room
            self._ring = Ring(self._fd, 2 * self._window, size)
        number = self._seq - 1
        self._until(lambda written, read: written > number)
        data = self._ring.place(number).clone()
        self._ring.set(_READ, number + 1)
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
                raise Poisoned
            naps += 1
            if naps % 64 == 0:
                if self._ended.poll(0):
                    name = f"the connection to stage {self._peer + 1}"
                    raise LinkFailed(f"{name} was lost (its process ended)")
                if time.monotonic() > end:
                    stage = f"stage {self._peer + 1}"
                    raise LinkFailed(f"{stage} did not answer for {self._timeout:g} s")
            time.sleep(_NAP_S)
