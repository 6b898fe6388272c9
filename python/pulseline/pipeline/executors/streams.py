"""The ``streams`` executor: one thread issues all stages, each on a CUDA stream of its own.

No run on a GPU has confirmed it yet. Order on a stream is program order, order between streams
comes from one event per message, so results cannot depend on timing. Whether messages are finite
is read once per call, at its end: until then the host never waits for the device. A NaN is thus
reported before the next call, but updates of this call have been issued.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import BackendError, ConfigError, StageFailed
from ...schedules import Planned
from ..messages import Bundle, tensors_of
from ..stage import Stage
from .execute import Local, perform
from .link import Link

__all__ = ["StreamLink", "Streams"]

_cuda: Any = torch.cuda  # streams and events are not in the stubs


class StreamLink(Link):
    """Messages in order; the reader's stream waits for the writer's."""

    def __init__(self) -> None:
        super().__init__()
        self._events: deque[Any] = deque()

    def put(self, k: int, message: Any) -> None:
        event = _cuda.Event()
        event.record()
        self._events.append(event)
        super().put(k, message)

    def get(self, k: int) -> Any:
        message = super().get(k)
        stream = torch.cuda.current_stream()
        stream.wait_event(self._events.popleft())
        for one in message.tensors if type(message) is Bundle else tensors_of(message):
            if one.is_cuda:
                one.record_stream(stream)
        return message

    def clear(self) -> None:
        super().clear()
        self._events.clear()


class Streams(Local):
    """Issues operations in the order of the plan, each stage on a stream of its own.

    Args:
        stages: on one CUDA device.

    Raises:
        BackendError: torch finds no CUDA.
        ConfigError: the stages are on several devices, or on the CPU.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        if not torch.cuda.is_available():
            raise BackendError(
                "executor 'streams' needs CUDA, which torch does not find on this machine; use "
                "'sim' or 'threads'"
            )
        super().__init__(stages, StreamLink)
        devices = {p.device for stage in stages for p in stage.module.parameters()}
        if len(devices) > 1 or next(iter(devices)).type != "cuda":
            found = ", ".join(sorted(map(str, devices)))
            raise ConfigError(
                f"stages are on {found} and executor 'streams' needs one CUDA device; move the "
                "model with .cuda()"
            )
        self._device = devices.pop()
        self._streams = [_cuda.Stream(self._device) for _ in self.local]
        self._flags: list[tuple[int, str, int, Tensor]] = []
        self._now = (0, "", 0)
        for stage in self.local:
            stage.finite = self._note

    def _note(self, message: Tensor) -> bool:
        self._flags.append((*self._now, torch.isfinite(message).all()))
        return True

    def run(self, plan: Iterable[Planned], losses: list[Tensor], drain: bool = False) -> None:
        """Issue all of a plan, then let the caller's stream wait for every stage.

        Args:
            plan: operations by cycle. losses: receives those of micro-batches that reach the end.
            drain: changes nothing here.

        Raises:
            StageFailed: an operation failed, or a message of the plan was not finite.
        """
        caller = torch.cuda.current_stream(self._device)
        for stream in self._streams:
            stream.wait_stream(caller)
        try:
            with torch.autograd.set_multithreading_enabled(False):
                for cycle, m, kind, k in plan:
                    self._now = (m + 1, kind, k)
                    with torch.cuda.stream(self._streams[m]):
                        perform(self.local[m], self.ends[m], cycle, kind, k)
        finally:
            for stream in self._streams:
                caller.wait_stream(stream)
            self.hand_over(losses)
            flags, self._flags = self._flags, []
        if flags:
            good = torch.stack([flag for *_, flag in flags]).tolist()
            for (m, kind, k, _), finite in zip(flags, good, strict=True):
                if not finite:
                    raise StageFailed(m, kind, k, "its result is NaN or infinite")
