"""The ``dist`` executor: torch.distributed, one stage per process, started by torchrun.

Every process builds the same pipeline, calls the same methods with the same arguments and keeps
only its own stage alive: stage m is that of rank m - 1. On CPUs the stages run freely: sends do
not wait, receives do; messages go through memory to a neighbour on the same machine (``shared``),
else by gloo. On NCCL, which matches sends and receives in the order they are issued, all
stages exchange their messages once per clock tick, from the static tick table (``link`` chooses;
the NCCL path has not been run on GPUs yet).

A process that fails says so in the common store and to its neighbours, so that all raise the same
StageFailed; one that is lost or hangs is noticed by its neighbours, at once or after ``timeout``
seconds, and the last operation of every process is printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from ...errors import BackendError, ConfigError, StageFailed
from ...schedules import Planned
from ..stage import Stage
from .execute import Ends, perform, reason
from .link import Link, LinkFailed, Poisoned
from .processes import Watch, join
from .shared import Neighbours
from .transport import Channel, LockStep, transfers

__all__ = ["Distributed"]


class Distributed:
    """Runs this process's stage of the plan; losses reach every process with ``drain``.

    After a failure the pipeline is closed.

    Args:
        stages: of all processes; one of them lives here. depth: most messages in flight on a link.
        timeout: seconds to wait for another process.
        link: "free" (through memory to a neighbour on the same machine, else by gloo), "gloo" or
            "lockstep"; None: lock-step on CUDA devices, free elsewhere.

    Raises:
        ConfigError: there are other numbers of processes and stages, or no such link.
        BackendError: the processes do not come together.
    """

    def __init__(
        self, stages: Sequence[Stage], depth: int, timeout: float, link: str | None = None
    ) -> None:
        wait = timedelta(seconds=timeout)
        store = join(len(stages), wait)
        self.rank = me = dist.get_rank()
        self._stages = len(stages)
        self._timeout = timeout
        self.stage = stages[me]
        self.local = [self.stage]
        device = next(self.stage.module.parameters()).device
        self._device = device
        link = link or ("lockstep" if device.type == "cuda" else "free")
        if link not in ("free", "gloo", "lockstep"):
            raise ConfigError(f"link is {link!r}; use 'free', 'gloo' or 'lockstep'")
        self._control = dist.new_group(timeout=wait, backend="gloo")
        self._lockstep: LockStep | None = None
        if link == "lockstep":
            group = self._control
            if device.type == "cuda":
                torch.cuda.set_device(device)
                group = dist.new_group(timeout=wait, backend="nccl")
                dist.barrier(group=group)  # NCCL wants all ranks in a group's first operation
            self._lockstep = LockStep(group, device, timeout)
        last = self._stages - 1
        self._channels: list[Channel] = []

        neighbours = Neighbours(self._control, me, self._stages) if link == "free" else None

        def channel(peer: int, kind: str) -> Channel | None:
            if not 0 <= peer <= last:
                return None
            window = 1 if kind == "E" else depth + 1
            args = (self._control, peer, kind, window, timeout, device)
            writes = (peer > me) == (kind == "F")
            made = neighbours.channel(peer, kind, writes, *args) if neighbours else Channel(*args)
            self._channels.append(made)
            return made

        self._inputs, self._targets = Link(), Link()
        free = self._lockstep is None
        down = channel(me - 1, "F") if free else None
        self.ends = Ends(
            inputs=down or self._inputs,
            outputs=(channel(me + 1, "F") if free else Link()) if me < last else None,
            targets=self._targets if me == last else None,
            errors=(channel(me + 1, "B") if free else Link()) if me < last else None,
            upward=(channel(me - 1, "B") if free else Link()) if me else None,
        )
        self._eval_in, self._eval_out = channel(me - 1, "E"), channel(me + 1, "E")
        self._closed = ""
        self._watch = Watch(store, me, self._stages)
        self.share(None)  # the first operation of the connections: everybody is there
        self._watch.start()

    # ---- work ----

    def feed(self, k: int, x: Tensor, target: Tensor) -> None:
        """Queue micro-batch k where it is needed: inputs at stage 1, targets at the last.

        Args:
            k: micro-batch. x: (samples, ...) inputs. target: (samples, ...).
        """
        if self.rank == 0:
            self._inputs.put(k, x)
        if self.rank == self._stages - 1:
            self._targets.put(k, target)

    def run(self, plan: Iterable[Planned], losses: list[Tensor], drain: bool = False) -> None:
        """Run this stage's operations.

        Args:
            plan: operations of all stages. losses: receives those that finished, with ``drain``.
            drain: bring all losses to every process.

        Raises:
            BackendError: the pipeline is closed.
            StageFailed: the first failure, in all processes.
        """
        self._check_open()
        try:
            if self._lockstep is None:
                self._run_free(plan)
            else:
                self._run_lockstep(plan, self._lockstep)
            if drain:
                for channel in self._channels:
                    channel.flush()
        except (Exception, KeyboardInterrupt) as error:
            self._fail(error)
        if drain:
            shared = self.share([loss.cpu() for loss in self.ends.losses])[-1]
            losses.extend(shared)
            self.ends.losses.clear()

    def _run_free(self, plan: Iterable[Planned]) -> None:
        me, stage, ends, watch = self.rank, self.stage, self.ends, self._watch
        for cycle, m, kind, k in plan:
            if m == me:
                watch.at = (m + 1, kind, k)
                perform(stage, ends, cycle, kind, k)

    def _run_lockstep(self, plan: Iterable[Planned], lockstep: LockStep) -> None:
        boxes: dict[str, tuple[Any, Any]] = {
            "F": (self.ends.outputs, self.ends.inputs),
            "B": (self.ends.upward, self.ends.errors),
        }
        for _, ops in groupby(plan, itemgetter(0)):
            tick = list(ops)
            for cycle, m, kind, k in tick:
                if m == self.rank:
                    self._watch.at = (m + 1, kind, k)
                    perform(self.stage, self.ends, cycle, kind, k)
            sends, due = transfers(tick, self._stages, self.rank)
            if sends or due:
                outgoing = [boxes[kind][0].get(k) for _, kind, k in sends]
                incoming = lockstep.exchange(outgoing, sends, due)
                for message, (_, kind, k) in zip(incoming, due, strict=True):
                    boxes[kind][1].put(k, message)

    def eval(self, x: Tensor) -> Tensor:
        """Output of all stages, on every process."""
        self._check_open()
        try:
            with torch.no_grad():
                y: Tensor = self.stage.module(x if self._eval_in is None else self._eval_in.get(0))
            if self._eval_out is not None:
                self._eval_out.put(0, y)
                self._eval_out.flush()
        except Exception as error:
            self._fail(error)
        result: Tensor = self.share(y.cpu() if self._eval_out is None else None)[-1]
        return result.to(self._device)

    def share(self, value: Any) -> list[Any]:
        """``value`` of every process, by rank; a barrier."""
        self._check_open()
        values: list[Any] = [None] * self._stages
        try:
            dist.all_gather_object(values, value, group=self._control)
        except RuntimeError as error:
            text = str(error).splitlines()[0]
            self._fail(LinkFailed(f"a process was lost at a flush ({text})"))
        return values

    # ---- end ----

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(f"the pipeline is closed ({self._closed}); start the run again")

    def _fail(self, error: BaseException) -> NoReturn:
        """Tell the others, close, and raise what failed first."""
        stage, kind, k = self._watch.at
        watch, relayed = self._watch, isinstance(error, Poisoned)
        silent = isinstance(error, LinkFailed) or isinstance(error.__cause__, LinkFailed)
        if isinstance(error, StageFailed):
            failure = error
        else:
            text = reason(error) if isinstance(error, Exception) else "it was interrupted"
            failure = StageFailed(stage, kind, k, "a neighbour failed" if relayed else text)
        first = watch.first_failure() if silent or relayed else None
        if first is None and silent:
            watch.print_table()
        watch.record(failure)
        watch.stop()
        for channel in self._channels:
            channel.poison()
        self._closed = str(first or failure)
        if first is not None:
            raise first from error
        raise failure if silent or relayed else error

    def abandon(self) -> None:
        """Drop everything in flight; weights stay as they are."""
        self.stage.abandon()

    def close(self) -> None:
        """Leave the other processes; nothing may be in flight."""
        if not self._closed:
            self._closed = "close() was called"
            self._watch.stop()
            dist.destroy_process_group(self._control)
