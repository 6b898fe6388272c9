"""The ``dist`` executor: torch.distributed, one stage per process, started by torchrun.

Every process builds the same pipeline, calls the same methods with the same arguments and keeps
only its own stage alive: stage m is that of rank m - 1. On CPUs the stages run freely: sends do
not wait, receives do; messages go through memory to a neighbour on the same machine (``shared``),
else by gloo. On NCCL, which matches sends and receives in the order they are issued, all
stages exchange their messages once per clock tick, from the static tick table (``link`` chooses;
the NCCL path has not been run on GPUs yet).

A process that fails says so in the common store and to its neighbours, so that all raise the same
StageFailed; one that is lost or hangs is noticed by its neighbours, at once or after ``timeout``
seconds, and the last operation of every process is printed. All end within two timeouts. Calls of
the processes are compared at every flush (``calls``).
"""

from __future__ import annotations

import time
import weakref
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
from ..messages import decode, encode, pack, tensors_of
from ..stage import Stage
from .apart import mark_apart
from .calls import Calls, difference, groups_named
from .execute import Ends, perform, reason
from .link import Link, LinkFailed, Poisoned
from .processes import Meeting, connect, first_line, join, unreachable
from .shared import Neighbours
from .transport import Channel, LockStep, transfers
from .watch import Beat, Watch

__all__ = ["Distributed"]

_LINKS = ("free", "gloo", "lockstep")


def _release(watch: Watch, channels: Sequence[Channel]) -> None:
    """End the watch and give descriptors back: neither may outlive the pipeline."""
    watch.stop()
    for channel in channels:
        channel.close()


def _leave(groups: list[Any], channels: Sequence[Channel]) -> None:
    """Leave the groups, whose threads must not outlive the interpreter.

    They free tensors, for which they wait for Python, and one that does so too late aborts.
    """
    for channel in channels:
        channel.leave()
    while groups:
        dist.destroy_process_group(groups.pop())


class Distributed:
    """Runs this process's stage of the plan; losses reach every process with ``drain``.

    After a failure the pipeline is closed.

    Args:
        stages: of all processes; one of them lives here. depth: most messages in flight on a link.
        timeout: seconds to wait for another process.
        link: "free" (through memory to a neighbour on the same machine, else by gloo), "gloo" or
            "lockstep"; None: lock-step on CUDA devices, free elsewhere.

    Raises:
        ConfigError: there are other numbers of processes and stages, or no such link, or another
            in another process.
        BackendError: the processes do not come together.
    """

    def __init__(
        self, stages: Sequence[Stage], depth: int, timeout: float, link: str | None = None
    ) -> None:
        meeting = join(len(stages), timeout)
        self.rank = meeting.rank
        self._stages = len(stages)
        self._timeout = timeout
        self.stage = stages[self.rank]
        self.local = [self.stage]
        self._device = device = next(self.stage.module.parameters()).device
        link = link or ("lockstep" if device.type == "cuda" else "free")
        self._lockstep: LockStep | None = None
        self._channels: list[Channel] = []
        self._inputs, self._targets = Link(), Link()
        self._chunks: list[Tensor] = []
        self._closed = ""
        self._watch = watch = Watch(meeting, self._stages, timeout)
        self.calls: Calls | None = watch.calls
        self._groups: list[Any] = []  # the first is of gloo, for all but NCCL's messages
        self._left = weakref.finalize(self, _leave, self._groups, self._channels)
        self._resources = weakref.finalize(self, _release, watch, self._channels)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            watch.together(lambda: self._connect(meeting, link, depth), meeting.port)
        except (ConfigError, BackendError) as error:
            watch.trouble(f"rank {self.rank} cannot start: {error}")
            self._resources()
            self._left()
            raise

    def _connect(self, meeting: Meeting, link: str, depth: int) -> None:
        """Make groups and channels, together with the other processes."""
        wait, device, me = timedelta(seconds=self._timeout), self._device, self.rank
        try:
            self._groups.append(connect(meeting, wait, self._stages))
            links: list[Any] = [None] * self._stages
            dist.all_gather_object(links, link, group=self._control)
            if len({*links}) > 1:
                raise ConfigError(f"link is {groups_named(links)}; use the same everywhere")
            if link not in _LINKS:
                raise ConfigError(f"link is {link!r}; use 'free', 'gloo' or 'lockstep'")
            if link == "lockstep":
                group = self._control
                if device.type == "cuda":
                    torch.cuda.set_device(device)
                    group = dist.new_group(timeout=wait, backend="nccl")
                    self._groups.append(group)
                    dist.barrier(group=group)  # NCCL wants all ranks in a group's first operation
                self._lockstep = LockStep(group, device, self._timeout)
            shares = link == "free"
            self._open(Neighbours(self._control, me, self._watch.peers) if shares else None, depth)
            dist.barrier(group=self._control)  # the connections' first operation, with everybody
        except ConfigError:
            raise
        except RuntimeError as error:
            raise BackendError(unreachable(error)) from error

    @property
    def _control(self) -> Any:
        return self._groups[0]

    def _open(self, neighbours: Neighbours | None, depth: int) -> None:
        """Make the links of this stage."""
        me, last = self.rank, self._stages - 1

        def channel(peer: int, kind: str) -> Channel | None:
            if not 0 <= peer <= last:
                return None
            window = 1 if kind == "E" else depth + 1
            args = (self._control, peer, kind, window, self._timeout, self._device)
            writes = (peer > me) == (kind == "F")
            made = neighbours.channel(peer, kind, writes, *args) if neighbours else Channel(*args)
            self._channels.append(made)
            return made

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

    # ---- work ----

    def feed(self, k: int, x: Any, target: Any) -> None:
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
            ConfigError: the processes were not called alike since the last flush; the pipeline is
                closed, and what was trained is not to be used.
        """
        self._check_open()
        if drain:
            self._watch.calls.add("drain")
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
        mark_apart(self.stage.module)
        if self.ends.losses:
            self._chunks.append(torch.stack(self.ends.losses).cpu())
            self.ends.losses.clear()
        if drain:
            last = self.rank == self._stages - 1
            chunk = self._from_last(torch.cat(self._chunks) if self._chunks else None, last)
            self._chunks.clear()
            if chunk is not None:
                losses.append(chunk)

    def _run_free(self, plan: Iterable[Planned]) -> None:
        me, stage, ends, watch = self.rank, self.stage, self.ends, self._watch
        for cycle, m, kind, k in plan:
            if m == me:
                watch.begin(kind, k)
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
                    self._watch.begin(kind, k)
                    perform(self.stage, self.ends, cycle, kind, k)
            sends, due = transfers(tick, self._stages, self.rank)
            if sends or due:
                outgoing = [boxes[kind][0].get(k) for _, kind, k in sends]
                incoming = lockstep.exchange(outgoing, sends, due)
                for message, (_, kind, k) in zip(incoming, due, strict=True):
                    boxes[kind][1].put(k, message)

    def eval(self, x: Any) -> Any:
        """Output of all stages, on every process.

        Args:
            x: (samples, ...) inputs, of which those at stage 1 count.

        Raises:
            BackendError, StageFailed, ConfigError: as :meth:`run`.
        """
        self._check_open()
        self._watch.calls.add("eval", *tensors_of(x))
        self._watch.begin("eval")
        data: Tensor | None = None
        try:
            with torch.no_grad():
                if self._eval_in is not None:
                    x = self._eval_in.get(0).open()[0]  # type: ignore[union-attr]
                y, _ = pack(self.stage.module(x))
            if self._eval_out is not None:
                self._eval_out.put(0, y)
                self._eval_out.flush()
            else:
                data = encode(y)
        except (Exception, KeyboardInterrupt) as error:
            self._fail(error)
        result = self._from_last(data, self._eval_out is None)
        assert result is not None
        return decode(result.to(self._device)).open()[0]

    def share(self, value: Any) -> list[Any]:
        """``value`` of every process, by rank; a barrier.

        Raises:
            BackendError: the pipeline is closed.
            StageFailed: a process was lost.
        """
        self._check_open()
        self._watch.begin("flush")
        values: list[Any] = [None] * self._stages
        try:
            dist.all_gather_object(values, value, group=self._control)
        except (RuntimeError, KeyboardInterrupt) as error:
            self._lost_at_flush(error)
        return values

    def _from_last(self, tensor: Tensor | None, last: bool) -> Tensor | None:
        """A tensor of the last process, on every CPU, after a comparison of calls."""
        tensor = tensor.detach().cpu().contiguous() if last and tensor is not None else None
        about = None if tensor is None else (tensor.dtype, tuple(tensor.shape))
        found = self.share((self._watch.calls.number(), about))
        if len({number for number, _ in found}) > 1:
            self._refuse_calls()
        about = found[-1][1]
        if about is None:
            return None
        if tensor is None:
            tensor = torch.empty(about[1], dtype=about[0], device="cpu")
        if tensor.numel():
            source = dist.get_global_rank(self._control, self._stages - 1)
            try:
                dist.broadcast(tensor, source, group=self._control)
            except (RuntimeError, KeyboardInterrupt) as error:
                self._lost_at_flush(error)
        return tensor

    # ---- end ----

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(f"the pipeline is closed ({self._closed}); start the run again")

    def _refuse_calls(self) -> NoReturn:
        """All processes are here, and were not called alike."""
        found = difference(self.share(self._watch.calls.newest())) or "an earlier call differs"
        text = f"the processes were not called alike: {found}; make the same calls in each"
        self._closed = text
        self._resources()
        raise ConfigError(text)

    def _lost_at_flush(self, error: BaseException) -> NoReturn:
        if isinstance(error, KeyboardInterrupt):
            self._fail(error)
        self._fail(LinkFailed(f"a process was lost at a flush ({first_line(error)})"))

    def _fail(self, error: BaseException) -> NoReturn:
        """Tell the others, close, and raise what failed first."""
        kind, k, _ = self._watch.at
        watch, me = self._watch, self.rank + 1
        link = next((e for e in (error, error.__cause__) if isinstance(e, LinkFailed)), None)
        first: StageFailed | None = None
        if link is not None or isinstance(error, Poisoned):
            first = watch.first_failure()
        if first is None and isinstance(error, Poisoned):
            first = error.failure or StageFailed(me, kind, k, "a neighbour failed")
        elif first is None and link is not None:
            beats = watch.look()
            watch.print_table(beats)
            first = watch.record(StageFailed(me, kind, k, self._explain(link, beats)))
        if first is not None:
            failure = first
        elif isinstance(error, StageFailed):
            failure = error
        else:
            text = reason(error) if isinstance(error, Exception) else "it was interrupted"
            failure = StageFailed(me, kind, k, text)
        if first is None:
            watch.record(failure)
        for channel in self._channels:
            channel.poison(failure)
        self._closed = str(failure)
        self._resources()
        if first is not None:
            raise first from error
        raise error

    def _explain(self, link: LinkFailed, beats: list[Beat]) -> str:
        """Why another process is silent, as far as can be known."""
        if different := self._watch.difference(beats):
            return f"the processes were not called alike: {different}"
        text, peer, now = str(link), link.peer, time.time()
        gone = self._watch.peers.ended(wait_s=0.2 if "lost" in text else 0.0)
        if gone and peer not in gone:
            peer, text = gone[0], f"the process of stage {gone[0] + 1} ended"
        if peer is None:
            return text
        beat = beats[peer]
        said, began = now - beat.said, now - beat.began
        return (
            f"{text}; its last word, {said:.1f} s ago, was of {beat.name}, begun {began:.1f} s ago"
        )

    def abandon(self) -> None:
        """Drop everything in flight; weights stay as they are."""
        self.stage.abandon()

    def close(self) -> None:
        """Leave the other processes; nothing may be in flight."""
        self._closed = self._closed or "close() was called"
        self._lockstep = None
        self._resources()
        self._left()
