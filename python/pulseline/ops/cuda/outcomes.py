"""What the GPU says of updates: a value of x or d that is not finite is found there.

Such an update writes nothing. With an :class:`Outcomes` nobody waits for that answer: it is looked
at when it has come. Without one, with CUDA_LAUNCH_BLOCKING=1 and in the emulator of the tests it is
looked at at once. A CUDA graph reports nothing.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import ConfigError

__all__ = ["Outcome", "Outcomes", "note", "refuse"]

_torch_cuda: Any = torch.cuda  # events are not in the stubs


class Outcome(NamedTuple):
    """Of one update."""

    status: Tensor  # on the host, once `event` has happened
    event: Any


class Outcomes:
    """What the GPU has not said yet of one array's updates; copies begin without."""

    def __init__(self) -> None:
        self._held: deque[Outcome] = deque()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Outcomes], tuple[()]]:
        return Outcomes, ()

    def __len__(self) -> int:
        return len(self._held)

    def add(self, outcome: Outcome) -> None:
        """Remember to look at it."""
        self._held.append(outcome)

    def check(self, wait: bool = True) -> None:
        """Look at what has been said.

        Args:
            wait: for all updates so far; otherwise only those that have ended are looked at, and
                none while a CUDA graph captures: to query an event would break the capture.

        Raises:
            ConfigError: an update met a value that is not finite; each is reported once.
        """
        if not self._held or (not wait and _torch_cuda.is_current_stream_capturing()):
            return
        with self._lock:  # who asks about an outcome is who takes it
            while self._held and (wait or self._held[0].event.query()):
                outcome = self._held.popleft()
                if wait:
                    outcome.event.synchronize()
                refuse(int(outcome.status))


def refuse(code: int) -> None:
    """Say what a status means.

    Args:
        code: -1: nothing; else 2 sample + (0: x, 1: d).

    Raises:
        ConfigError: it is not -1.
    """
    if code != -1:
        sample, source = divmod(code, 2)
        raise ConfigError(
            f"{'xd'[source]}[{sample}] held a NaN or an infinity; that update wrote nothing, "
            "check the learning rate and the loss"
        )


def note(status: Tensor, outcomes: Outcomes | None) -> None:
    """Look at the status of a launch, now or when it is there.

    Args:
        status: int64 number, where the launch was. outcomes: who looks later; None: now.

    Raises:
        ConfigError: see :meth:`Outcomes.check`.
    """
    if not status.is_cuda:
        refuse(int(status))
    elif _torch_cuda.is_current_stream_capturing():
        return
    elif outcomes is None or os.environ.get("CUDA_LAUNCH_BLOCKING") == "1":
        refuse(int(status.cpu()))
    else:
        host = torch.empty((), dtype=torch.int64, device="cpu", pin_memory=True)
        host.copy_(status, non_blocking=True)
        event = _torch_cuda.Event()
        event.record()
        outcomes.add(Outcome(host, event))
