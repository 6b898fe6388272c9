"""What every process does, for the others to look up: in the common store, with deadlines."""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ...errors import BackendError, StageFailed
from .calls import Call, Calls, difference
from .deadline import Late, Line, within
from .processes import Meeting

__all__ = ["Beat", "Watch", "say"]

T = TypeVar("T")

_HEARTBEAT_S = 1.0


@dataclass
class Beat:
    """The last word of a process.

    Attributes:
        kind, k: the operation that it was at ("start", "flush", "eval" have no micro-batch).
        began: when, in seconds of the clock. said: when it said so. ended: it will call no more.
        calls: its newest calls.
    """

    kind: str = "start"
    k: int = -1
    began: float = 0.0
    said: float = 0.0
    ended: bool = False
    calls: list[Call] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The operation as it is written in schedules."""
        return f"{self.kind}{self.k}" if self.k >= 0 else self.kind

    @classmethod
    def read(cls, text: bytes) -> Beat:
        """From the store."""
        kind, k, began, said, ended, calls = json.loads(text)
        return cls(kind, k, began, said, ended, [Call(*call) for call in calls])


def say(text: str, seconds: float = 1.0) -> None:
    """Print on stderr, unless nobody takes what is written there.

    Args:
        text: of less than 4096 bytes. seconds: to wait for a full pipe.
    """
    try:
        poll = select.poll()
        poll.register(sys.stderr.fileno(), select.POLLOUT)
        if not poll.poll(1000 * seconds):
            return
    except (AttributeError, OSError, ValueError):  # no descriptor: it cannot be full
        pass
    print(text[:4000], file=sys.stderr, flush=True)


class Watch:
    """Puts this process's last operation into the store, every second and at its end.

    Args:
        meeting: of the processes. processes: how many. timeout: of the pipeline, seconds.

    Attributes:
        calls: of this process. at: (kind, micro-batch, time) of its operation.
    """

    def __init__(self, meeting: Meeting, processes: int, timeout: float) -> None:
        self.peers, self.calls = meeting.peers, Calls()
        self.at: tuple[str, int, float] = ("start", -1, time.time())
        self._rank, self._timeout = meeting.rank, timeout
        self._ended = False
        self._processes, self._made = processes, time.time()
        self._beats: list[bytes] = []  # of all processes, when all have spoken
        every = min(_HEARTBEAT_S, timeout / 8)
        self._line = Line(meeting.store, max(0.5, timeout / 2), self._exchange, every)
        self.beat()

    def begin(self, kind: str, k: int = -1) -> None:
        """Note what this process does from now on.

        Args:
            kind: of the operation. k: its micro-batch.
        """
        self.at = (kind, k, time.time())

    # ---- in the line's thread ----

    def _write(self, store: Any) -> None:
        fields = [*self.at, time.time(), self._ended, self.calls.newest()]
        store.set(f"at{self._rank}", json.dumps(fields))

    def _read(self, store: Any) -> None:
        keys = [f"at{rank}" for rank in range(self._processes)]
        if store.check(keys):
            self._beats = [store.get(key) for key in keys]

    def _exchange(self, store: Any) -> None:
        self._write(store)
        self._read(store)

    # ---- in the caller's ----

    def beat(self) -> None:
        """Say at once what this process does."""
        self._line.ask(self._write)

    def look(self) -> list[Beat]:
        """The last words of all processes, by rank, as far as they have reached this one."""
        self._line.ask(self._exchange)
        kind, k, began = self.at
        mine = Beat(kind, k, began, time.time(), self._ended, self.calls.newest())
        silent = [Beat(began=self._made, said=self._made) for _ in range(self._processes)]
        beats = [Beat.read(text) for text in self._beats] or silent
        beats[self._rank] = mine
        return beats

    def difference(self, beats: list[Beat]) -> str | None:
        """The first call in which processes differ, see :func:`.calls.difference`."""
        ended = [rank for rank, beat in enumerate(beats) if beat.ended]
        return difference([beat.calls for beat in beats], ended)

    def record(self, failure: StageFailed) -> StageFailed:
        """Tell the others what failed, and hear it: the first word counts."""
        fields = json.dumps([failure.stage, failure.op, failure.k, failure.reason])
        found = self._line.ask(lambda store: store.compare_set("failed", "", fields))
        return failure if found is None else StageFailed(*json.loads(found))

    def first_failure(self) -> StageFailed | None:
        """What failed first, if any process has told."""
        found = self._line.ask(lambda s: s.get("failed") if s.check(["failed"]) else None)
        return None if found is None else StageFailed(*json.loads(found))

    def print_table(self, beats: list[Beat]) -> None:
        """One line on stderr per process: its last operation. Once for all processes.

        Args:
            beats: of all processes.
        """
        number = self._line.ask(lambda store: store.add("table", 1))
        if number is not None and number > 1:
            return
        now = time.time()
        lines = ["rank  stage  last operation  seconds ago  last heard"]
        for rank, beat in enumerate(beats):
            ago, heard = now - beat.began, now - beat.said
            lines.append(f"{rank:4}  {rank + 1:5}  {beat.name:>14}  {ago:11.1f}  {heard:10.1f}")
        say("\n".join(lines))

    # ---- while processes meet ----

    def together(self, work: Callable[[], T], port: int) -> T:
        """A part of the start that all processes must do, within the timeout.

        Args:
            work: it. port: of the store that it may use.

        Raises:
            BackendError: it took longer, or another process cannot.
        """
        try:
            return within(self._timeout, work, port, self._hope)
        except Late:
            raise BackendError(
                f"the processes did not connect within {self._timeout:g} s; see that they can "
                "reach each other (GLOO_SOCKET_IFNAME names the interface)"
            ) from None

    def trouble(self, text: str) -> None:
        """Tell those who still wait that this process cannot start."""
        self._line.ask(lambda store: store.compare_set("trouble", "", text))

    def _hope(self) -> None:
        """Give up a start that cannot succeed."""
        text = self._line.ask(lambda s: s.get("trouble") if s.check(["trouble"]) else None)
        if text is not None:
            raise BackendError(text.decode())
        if ended := self.peers.ended():
            raise BackendError(
                f"the process of rank {ended[0]} ended at the start; see what it printed"
            )

    def stop(self) -> None:
        """Write a last word and no more."""
        if not self._ended:
            self._ended = True
            self._line.ask(self._write)
            self._line.close()
            self.peers.close()
