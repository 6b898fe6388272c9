"""The ``threads`` executor: one worker thread per stage.

The kernels release Python's lock, so stages with enough work run at the same time: worth it when
an operation takes more than about 0.3 ms (layers from 256x256 on), slower than ``sim`` below.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ...errors import BackendError
from ...schedules import Planned
from ..stage import Stage
from .execute import Autocast, Ends, Local, autocasts, casting, perform
from .link import Poisoned, ThreadLink

__all__ = ["Answers", "Mark", "Order", "Orders", "Threads"]


class Order(NamedTuple):
    """Operations for a worker, and the modes of the caller's thread, which threads do not share."""

    operations: list[tuple[int, str, int]]
    autocast: Autocast


class Mark:
    """What a worker hands straight back: everything before it is done."""


# What a worker is given: an order, a mark, or None: stop.
Orders = SimpleQueue["Order | Mark | None"]
# What it answers: None when all operations are done, Poisoned when others failed, a mark.
Answers = SimpleQueue["BaseException | Mark | None"]


def _work(
    stage: Stage, ends: Ends, orders: Orders, answers: Answers, stop: threading.Event, threads: int
) -> None:
    """Life of one worker. Neither grad mode nor the thread count is inherited from its maker."""
    torch.set_num_threads(threads)
    torch.set_grad_enabled(True)
    while (order := orders.get()) is not None:
        answer: BaseException | Mark | None = None
        if isinstance(order, Mark):
            answers.put(order)
            continue
        try:
            with casting(order.autocast):
                for cycle, kind, k in order.operations:
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
        del order, answer


def _dismiss(orders: Sequence[Orders]) -> None:
    for queue in orders:
        queue.put(None)


_WORKERS: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_OPEN: weakref.WeakSet[Any] = weakref.WeakSet()  # executors that nobody closed
_EXIT_S = 10.0  # that a worker's last operation may take


@atexit.register
def _end() -> None:
    """Let no worker outlive the interpreter, which would end it in the middle of a destructor."""
    for executor in list(_OPEN):
        executor.close()
    end = time.monotonic() + _EXIT_S
    for worker in list(_WORKERS):
        worker.join(max(0.0, end - time.monotonic()))


class Threads(Local):
    """Runs each stage's operations in a thread of its own; their order decides, not their timing.

    After a failure the pipeline can be used again, unless a stage does not come back: it is closed
    then.

    Args:
        stages: first one first. timeout: seconds that a stage waits for a message.
        threads: of torch in each of them; None: an equal share.
    """

    def __init__(self, stages: Sequence[Stage], timeout: float, threads: int | None = None) -> None:
        super().__init__(stages, lambda: ThreadLink(timeout))
        self._timeout = timeout
        self._stop = threading.Event()
        self._answers: Answers = SimpleQueue()
        self._unsettled = False  # workers may still be at something
        self._orders: list[Orders] = [SimpleQueue() for _ in self.local]
        threads = threads or max(1, torch.get_num_threads() // len(self.local))
        for stage, ends, orders in zip(self.local, self.ends, self._orders, strict=True):
            worker = threading.Thread(
                target=_work,
                args=(stage, ends, orders, self._answers, self._stop, threads),
                name=f"pulseline stage {stage.index}",
                daemon=True,
            )
            _WORKERS.add(worker)
            worker.start()
        self._workers = weakref.finalize(self, _dismiss, self._orders)
        _OPEN.add(self)

    def run(self, plan: Iterable[Planned], losses: list[Tensor], drain: bool = False) -> None:
        """Run all of a plan; the first failure stops every stage and is raised again.

        Args:
            plan: operations by cycle. losses: receives those of micro-batches that reach the end.
            drain: changes nothing here.

        Raises:
            BackendError: the pipeline is closed.
            StageFailed: the first operation that failed.
        """
        self._recover()
        operations: list[list[tuple[int, str, int]]] = [[] for _ in self.local]
        for cycle, m, kind, k in plan:
            operations[m].append((cycle, kind, k))
        modes = autocasts()
        try:
            self._unsettled = True
            for orders, mine in zip(self._orders, operations, strict=True):
                orders.put(Order(mine, modes))
            for _ in self._orders:
                answer = self._answers.get()
                if isinstance(answer, BaseException) and not isinstance(answer, Poisoned):
                    raise answer
            self._unsettled = False
        except BaseException:
            self._settle()
            raise
        finally:
            self.hand_over(losses)

    def _settle(self) -> None:
        """Bring every worker to rest; close if one does not come back in time.

        Can be interrupted and called again: a mark goes through every worker's orders, and when
        all of this call's have come back, whatever was asked before is over.
        """
        self._stop.set()
        for link in self.links:
            cast(ThreadLink, link).poison()
        mark, end = Mark(), time.monotonic() + self._timeout
        for orders in self._orders:
            orders.put(mark)
        back = 0
        try:
            while back < len(self._orders):
                back += self._answers.get(timeout=max(end - time.monotonic(), 0.0)) is mark
        except Empty:
            self.close()
            return
        self._stop.clear()

    def abandon(self) -> None:
        """Drop everything in flight; weights stay as they are."""
        if self._workers.alive and self._unsettled:
            self._settle()
        if self._workers.alive:
            super().abandon()
            self._unsettled = False

    def feed(self, k: int, x: Any, target: Any) -> None:
        """Queue micro-batch k.

        Args:
            k: running number. x: (samples, ...) inputs. target: (samples, ...).
        """
        self._recover()
        super().feed(k, x, target)

    def eval(self, x: Any) -> Any:
        """Output of all stages, one after the other in the calling thread.

        Args:
            x: (samples, ...) inputs.
        """
        self._recover()
        return super().eval(x)

    def _recover(self) -> None:
        """Clear up what an interrupt left that came while another was being cleared up."""
        if self._workers.alive and self._unsettled:
            self.abandon()
        if not self._workers.alive:
            raise BackendError("the pipeline is closed; build a new one")

    def close(self) -> None:
        """End the workers, each after the operation that it is at."""
        self._workers()
