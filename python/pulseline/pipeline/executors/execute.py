"""What all executors share: how a stage runs one operation, and the stages of one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ...errors import StageFailed
from ...schedules import Planned, Span
from ..messages import Message
from ..stage import Stage
from .calls import Calls
from .link import Link, LinkFailed, Poisoned, Sink, Source, ThreadLink

__all__ = [
    "Autocast",
    "Ends",
    "Executor",
    "Local",
    "autocasts",
    "casting",
    "computing",
    "perform",
    "reason",
]

T = TypeVar("T")


class Executor(Protocol):
    """Runs planned operations; one of them stands behind each :class:`Pipeline`."""

    rank: int
    local: list[Stage]
    calls: Calls | None  # what processes must be told alike; None: there is one

    def feed(self, k: int, x: Any, target: Any) -> None:
        """Queue a micro-batch.

        Args:
            k: its number. x: (samples, ...) inputs. target: (samples, ...).
        """

    def run(self, plan: Iterable[Planned], losses: list[Tensor], drain: bool) -> None:
        """Run operations.

        Args:
            plan: those that are decided, by cycle.
            losses: receives those of micro-batches that reach the end.
            drain: the plan ends at a flush point.

        Raises:
            StageFailed: where one of them failed.
            BackendError: the executor is closed.
        """

    def abandon(self) -> None:
        """Drop everything in flight; weights stay as they are."""

    def eval(self, x: Any) -> Any:
        """Output of all stages for ``x``; they are in eval mode, nothing is in flight."""

    def share(self, value: T) -> list[T]:
        """``value`` of every process, by rank; a barrier."""

    def close(self) -> None:
        """Give threads, processes' connections and queues back."""


@dataclass
class Ends:
    """The link ends of one stage: inputs and outputs go down, errors go up.

    Attributes:
        inputs: of stage 1 the micro-batches.
        outputs, errors: to and from the next stage; the last one has none.
        targets, losses: of the last stage. upward: to the stage before; stage 1 has none.
    """

    inputs: Source
    outputs: Sink | None = None
    targets: Source | None = None
    errors: Source | None = None
    upward: Sink | None = None
    losses: list[Tensor] = field(default_factory=list)


def perform(stage: Stage, ends: Ends, cycle: int, kind: str, k: int) -> None:
    """Run one operation of a stage: take the message, compute, pass the result on.

    Args:
        stage: that works. ends: its links. cycle: clock cycle.
        kind: "F", "B" or "U". k: micro-batch.

    Raises:
        StageFailed: whatever failed in the stage.
        Poisoned: a neighbour failed.
    """
    stage.time = cycle
    spans, start = stage.spans, 0.0
    version = stage.version
    result: Message | None = None
    try:
        if kind == "F":
            x = ends.inputs.get(k)
            target = ends.targets.get(k) if ends.targets is not None else None
            start = time.perf_counter() if spans is not None else 0.0
            result = stage.forward(k, x, target)
        elif kind == "B":
            grad = ends.errors.get(k) if ends.errors is not None else None
            start = time.perf_counter() if spans is not None else 0.0
            result = stage.backward(k, grad)
        else:
            start = time.perf_counter() if spans is not None else 0.0
            stage.update(k)
        if spans is not None:
            spans.append(Span(stage.index, kind, k, version, start, time.perf_counter()))
        if result is None:
            return
        sink = ends.outputs if kind == "F" else ends.upward
        if sink is not None:
            sink.put(k, result)
        else:
            ends.losses.append(result)  # type: ignore[arg-type]  # the last stage gives its loss
    except (StageFailed, Poisoned):
        raise
    except Exception as error:
        raise StageFailed(stage.index, kind, k, reason(error)) from error


def reason(error: Exception) -> str:
    """One line that says what went wrong inside a stage."""
    text = str(error)
    if isinstance(error, LinkFailed):
        return text
    if "modified by an inplace operation" in text:
        return (
            "autograd refuses what was changed in place behind its forward pass: by the "
            "optimizer's step, then use AnalogSGD, or by the model, then use operations that make "
            "new tensors"
        )
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"


# Kinds of devices on which a thread casts by itself, and to what.
Autocast = list[tuple[str, torch.dtype]]


def autocasts() -> Autocast:
    """What torch.autocast does in the calling thread."""
    kinds = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    return [(kind, torch.get_autocast_dtype(kind)) for kind in kinds]


@contextmanager
def casting(modes: Autocast) -> Iterator[None]:
    """Cast like that, without a cache, which would keep weights from before updates."""
    with ExitStack() as stack:
        for kind, dtype in modes:
            stack.enter_context(torch.autocast(kind, dtype, cache_enabled=False))
        yield


@contextmanager
def computing(threads: int | None) -> Iterator[None]:
    """On so many threads of torch; None: on as many as there are."""
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Local:
    """Stages of one process, joined by links of one kind.

    Args:
        stages: first one first. link: makes a link.
    """

    rank = 0
    calls: Calls | None = None

    def __init__(self, stages: Sequence[Stage], link: Callable[[], Link | ThreadLink]) -> None:
        self.local = list(stages)
        last = len(self.local) - 1
        down = [link() for _ in range(last + 1)]
        up = [link() for _ in range(last)]
        targets = link()
        self.links = [*down, *up, targets]
        self.ends = [
            Ends(
                inputs=down[m],
                outputs=down[m + 1] if m < last else None,
                targets=targets if m == last else None,
                errors=up[m] if m < last else None,
                upward=up[m - 1] if m else None,
            )
            for m in range(last + 1)
        ]
        self._inputs, self._targets = down[0], targets

    def feed(self, k: int, x: Any, target: Any) -> None:
        """Queue a micro-batch.

        Args:
            k: its number. x: (samples, ...) inputs. target: (samples, ...).
        """
        self._inputs.put(k, x)
        self._targets.put(k, target)

    def hand_over(self, losses: list[Tensor]) -> None:
        """Move the losses that reached the end to the caller's list, as one tensor."""
        found = self.ends[-1].losses
        if found:
            losses.append(torch.stack(found))
            found.clear()

    def abandon(self) -> None:
        """Drop everything in flight; weights stay as they are."""
        for link in self.links:
            link.clear()
        for stage in self.local:
            stage.abandon()

    def eval(self, x: Any) -> Any:
        """Output of all stages, one after the other in the calling thread."""
        with torch.no_grad():
            for stage in self.local:
                x = stage.module(x)
        return x

    def share(self, value: Any) -> list[Any]:
        """There is no other process."""
        return [value]

    def close(self) -> None:
        """Nothing to give back."""
