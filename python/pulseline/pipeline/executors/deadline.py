"""Waiting with an end for what has none: torch's stores, and meeting other processes through them.

A thread makes the call and the caller waits as long as it wants to. At the deadline the connection
to the store is shut down, so that the call fails and its thread ends: one that came back from C++
while the interpreter goes away would abort the process. What still runs then is waited for at the
interpreter's end.
"""

from __future__ import annotations

import atexit
import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

__all__ = ["Late", "Line", "connections", "within"]

T = TypeVar("T")

_LOOK_S = 0.1
_late: list[tuple[threading.Thread, float]] = []  # still running after their deadline, and until


class Late(Exception):
    """Something took longer than it was given."""


def _end() -> None:
    for thread, until in _late:
        thread.join(max(0.0, until - time.monotonic()))


atexit.register(_end)


def connections(port: int) -> dict[object, socket.socket]:
    """TCP connections of this process to a port, by their address here, each duplicated.

    Args:
        port: at the other end.
    """
    found: dict[object, socket.socket] = {}
    try:
        names = os.listdir("/dev/fd")
    except OSError:  # no such view of descriptors here
        return found
    for fd in map(int, names):
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                continue
            one = socket.socket(fileno=os.dup(fd))
        except OSError:  # closed meanwhile
            continue
        try:
            if one.getpeername()[1] == port and one.getsockname() not in found:
                found[one.getsockname()] = one
                continue
        except (OSError, IndexError, TypeError):  # not connected, or of another family
            pass
        one.close()
    return found


def _cut(one: socket.socket) -> None:
    with suppress(OSError):  # it is down
        one.shutdown(socket.SHUT_RDWR)
    one.close()


def within(
    seconds: float,
    work: Callable[[], T],
    port: int = 0,
    look: Callable[[], object] = lambda: None,
) -> T:
    """What ``work()`` gives or raises, if that does not take too long.

    Args:
        seconds: that it is given. work: runs in a thread of its own.
        port: of the store; connections to it are cut at the end, so that ``work`` ends too.
        look: called ten times a second meanwhile; what it raises ends the wait.

    Raises:
        Late: it took longer.
    """
    answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def call() -> None:
        try:
            answers.put((work(), None))
        except BaseException as error:
            answers.put((None, error))

    thread = threading.Thread(target=call, name="pulseline meeting", daemon=True)
    end = time.monotonic() + seconds
    thread.start()
    try:
        while True:
            try:
                value, error = answers.get(timeout=min(_LOOK_S, max(0.0, end - time.monotonic())))
                break
            except Empty:
                if time.monotonic() >= end:
                    raise Late from None
                look()
    except BaseException:
        for one in connections(port).values() if port else ():
            _cut(one)
        thread.join(1.0)
        if thread.is_alive():
            _late.append((thread, end + seconds))
        raise
    thread.join()
    if error is not None:
        raise error
    result: T = value
    return result


class Line:
    """A store that answers in time or is given up: one thread, a connection of its own.

    Args:
        store: that all processes share. seconds: that an answer may take.
        idle: called with the store whenever nothing was asked for ``every`` seconds.
    """

    def __init__(
        self, store: Any, seconds: float, idle: Callable[[Any], None], every: float
    ) -> None:
        self._seconds, self._idle, self._every = seconds, idle, every
        self._requests: SimpleQueue[tuple[Callable[[Any], Any], SimpleQueue[Any]] | None]
        self._requests = SimpleQueue()
        self._socket: socket.socket | None = None
        self._store = store
        self.broken = False
        self._thread = threading.Thread(target=self._serve, name="pulseline watch", daemon=True)
        self._thread.start()
        self.ask(self._own)

    def ask(self, work: Callable[[Any], T]) -> T | None:
        """What ``work(store)`` gives; None: the store does not answer."""
        if self.broken or not self._thread.is_alive():
            return None
        answers: SimpleQueue[T | None] = SimpleQueue()
        self._requests.put((work, answers))
        try:
            return answers.get(timeout=self._seconds)
        except Empty:
            self._give_up()
            return None

    def close(self) -> None:
        """End the thread and the connection."""
        self._requests.put(None)
        self._thread.join(self._seconds)
        if self._thread.is_alive():
            self._give_up()
            self._thread.join(1.0)
            if self._thread.is_alive():
                _late.append((self._thread, time.monotonic() + self._seconds))
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self.broken = True
        self._store = None

    def _own(self, store: Any) -> None:
        """Take a connection of its own, which may be cut without harm to others."""
        root = store
        while hasattr(root, "underlying_store"):
            root = root.underlying_store
        port = getattr(root, "port", 0)
        if not port or not hasattr(store, "clone"):
            return
        before = connections(port)
        self._store = store.clone()
        for address, one in connections(port).items():
            if address not in before and self._socket is None:
                self._socket = one
            else:
                one.close()
        for one in before.values():
            one.close()

    def _give_up(self) -> None:
        self.broken = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _stands(self) -> bool:
        """False: the other end has closed. torch would print a page about it."""
        if self._socket is None:
            return True
        try:
            return self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _serve(self) -> None:
        while True:
            try:
                request = self._requests.get(timeout=self._every)
            except Empty:
                request = (self._idle, SimpleQueue())
            if request is None:
                return
            work, answers = request
            value = None
            if not self.broken and self._stands():
                try:
                    value = work(self._store)
                except (RuntimeError, ValueError, OSError):
                    self.broken = True
            else:
                self.broken = True
            answers.put(value)
