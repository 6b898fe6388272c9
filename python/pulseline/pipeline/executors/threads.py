"""The ``threads`` executor: one worker thread per stage.

The kernels release Python's lock, so stages with enough work run at the same time: worth it when
an operation takes more than about 0.3 ms (layers from 256x256 on), slower than ``sim`` below.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import cast

import torch
from torch import Tensor

from ...errors import BackendError
from ...schedules import Planned
from ..stage import Stage
from .execute import Ends, Local, perform
from .link import Poisoned, ThreadLink

__all__ = ["Answers", "Orders", "Threads"]

# What a worker is given: operations to run, or None: stop.
Orders = SimpleQueue["list[tuple[int, str, int]] | None"]
# What it answers: None when all operations are done, Poisoned when others failed.
Answers = SimpleQueue["BaseException | None"]


def _work(
    stage: Stage, ends: Ends, orders: Orders, answers: Answers, stop: threading.Event, threads: int
) -> None:
    """Life of one worker. Neither grad mode nor the thread count is inherited from its maker."""
    torch.set_num_threads(threads)
    torch.set_grad_enabled(True)
    while (operations := orders.get()) is not None:
        answer: BaseException | None = None
        try:
            for cycle, kind, k in operations:
                if stop.is_set():
                    raise Poisoned
                perform(stage, ends, cycle, kind, k)
        except BaseException as error:
            answer = error
            if not isinstance(error, Poisoned):
                stop.set()
            for link in (ends.outputs, ends.upward):
                if link is not None:
                    cast(ThreadLink, link).poison()
        answers.put(answer)
        del operations, answer


def _dismiss(orders: Sequence[Orders]) -> None:
    for queue in orders:
        queue.put(None)


class Threads(Local):
    """Runs each stage's operations in a thread of its own; their order decides, not their timing.

    After a failure the pipeline can be used again, unless a stage does not come back: it is closed
    then.

    Args:
        stages: first one first. timeout: seconds that a stage waits for a message.
    """

    def __init__(self, stages: Sequence[Stage], timeout: float) -> None:
        super().__init__(stages, lambda: ThreadLink(timeout))
        self._timeout = timeout
        self._stop = threading.Event()
        self._answers: Answers = SimpleQueue()
        self._orders: list[Orders] = [SimpleQueue() for _ in self.local]
        threads = max(1, torch.get_num_threads() // len(self.local))
        for stage, ends, orders in zip(self.local, self.ends, self._orders, strict=True):
            threading.Thread(
                target=_work,
                args=(stage, ends, orders, self._answers, self._stop, threads),
                name=f"pulseline stage {stage.index}",
                daemon=True,
            ).start()
        self._workers = weakref.finalize(self, _dismiss, self._orders)

    def run(self, plan: Iterable[Planned], losses: list[Tensor], drain: bool = False) -> None:
        """Run all of a plan; the first failure stops every stage and is raised again.

        Args:
            plan: operations by cycle. losses: receives those of micro-batches that reach the end.
            drain: changes nothing here.

        Raises:
            BackendError: the pipeline is closed.
            StageFailed: the first operation that failed.
        """
        if not self._workers.alive:
            raise BackendError("the pipeline is closed: build a new one")
        operations: list[list[tuple[int, str, int]]] = [[] for _ in self.local]
        for cycle, m, kind, k in plan:
            operations[m].append((cycle, kind, k))
        running = 0
        try:
            for orders, mine in zip(self._orders, operations, strict=True):
                orders.put(mine)
                running += 1
            while running:
                answer = self._answers.get()
                running -= 1
                if answer is not None and not isinstance(answer, Poisoned):
                    raise answer
        except BaseException:
            self._halt(running)
            raise
        finally:
            self.hand_over(losses)

    def _halt(self, running: int) -> None:
        """Wait for the other stages after a failure or an interrupt; close if one hangs."""
        self._stop.set()
        for link in self.links:
            cast(ThreadLink, link).poison()
        try:
            for _ in range(running):
                self._answers.get(timeout=self._timeout)
        except Empty:
            self.close()
        self._stop.clear()

    def abandon(self) -> None:
        """Drop everything in flight; weights stay as they are."""
        if self._workers.alive:
            super().abandon()

    def close(self) -> None:
        """End the workers, each after the operation that it is at."""
        self._workers()
