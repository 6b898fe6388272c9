"""Processes of one run: how they find each other, and how one learns what happened to another.

Nobody is waited for longer than the timeout, and only for as long as there is hope: a process that
cannot start says so in the common store, and the end of one on the same machine shows in its pidfd.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist

from ...errors import BackendError, ConfigError
from .deadline import Late, within

__all__ = [
    "Meeting",
    "Peers",
    "connect",
    "first_line",
    "join",
    "place",
    "unreachable",
    "world_size",
]

_c10d: Any = dist  # its stores are not in the stubs
_numbers = count()


def world_size() -> int:
    """Processes of this run: those of torchrun, or of a process group that exists; else 0."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    text = os.environ.get("WORLD_SIZE", "")
    return int(text) if text.isdecimal() and "RANK" in os.environ else 0


def first_line(error: BaseException) -> str:
    """The first line of what torch says, without the stack below it."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def unreachable(error: BaseException) -> str:
    """The sentence for whatever torch says when processes do not connect."""
    return (
        f"the processes cannot reach each other ({first_line(error)}); start all of them with "
        "torchrun, and see that GLOO_SOCKET_IFNAME names their interface"
    )


def place() -> tuple[str, int]:
    """Machine and number of this process: equal machines mean that numbers can be looked up."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux
        return f"{socket.gethostname()} {os.getpid()}", os.getpid()
    return f"{socket.gethostname()} {boot} {namespace}", os.getpid()


class Peers:
    """The processes of one run that live on this machine, as far as this one may look at them.

    Args:
        places: of all processes, by rank, see :func:`place`. me: rank of this one.
    """

    def __init__(self, places: Sequence[tuple[str, int]], me: int) -> None:
        self.pids = [pid for _, pid in places]
        self.pidfds: dict[int, int] = {}
        self._gone: set[int] = set()
        for rank, (machine, pid) in enumerate(places):
            if rank == me or machine != places[me][0]:
                continue
            try:
                self.pidfds[rank] = os.pidfd_open(pid)
            except ProcessLookupError:
                self._gone.add(rank)
            except (AttributeError, OSError):  # an old kernel, a sandbox
                continue

    def ended(self, wait_s: float = 0.0) -> list[int]:
        """Ranks of those whose process is known to have ended.

        Args:
            wait_s: for one to end, seconds.
        """
        poll = select.poll()
        ranks = {fd: rank for rank, fd in self.pidfds.items()}
        for fd in ranks:
            poll.register(fd, select.POLLIN)
        return sorted(self._gone | {ranks[fd] for fd, _ in poll.poll(1000 * wait_s)})

    def close(self) -> None:
        """Give the descriptors back."""
        while self.pidfds:
            os.close(self.pidfds.popitem()[1])


class Meeting(NamedTuple):
    """What :func:`join` found.

    Attributes:
        store: of this pipeline, shared by all processes. common: of all pipelines.
        port: of it at rank 0, 0 if unknown. rank: of this process. peers: those on this machine.
    """

    store: Any
    common: Any
    port: int
    rank: int
    peers: Peers


def join(stages: int, timeout: float) -> Meeting:
    """Find the other processes; nothing connects them yet but a store.

    Args:
        stages: how many processes there must be. timeout: seconds to wait for them.

    Raises:
        ConfigError: their number is not that of the stages, or the environment makes no sense.
        BackendError: they do not come together, or this torch cannot.
    """
    if not dist.is_available():
        raise BackendError(
            "executor 'dist' needs torch.distributed, which this torch lacks; use 'threads'"
        )
    host, port = "", 0
    if not dist.is_initialized():
        host, port = _environment(stages)
    processes = world_size()
    if processes != stages:
        raise ConfigError(
            f"stages is {stages} and there are {processes} processes; run one process per stage"
        )
    if dist.is_initialized():
        common, me = _c10d.distributed_c10d._get_default_store(), dist.get_rank()
    else:
        common, me = _first_store(host, port, timeout), int(os.environ["RANK"])
    store = _c10d.PrefixStore(f"pulseline/pipeline{next(_numbers)}", common)
    call = partial(_roll_call, store, me, processes, time.monotonic() + timeout)
    try:
        places = within(timeout + 1.0, call, port)
    except Late:
        raise BackendError(_silent(host, port, timeout)) from None
    except RuntimeError as error:
        if isinstance(error, BackendError):
            raise
        raise BackendError(unreachable(error)) from error
    return Meeting(store, common, port, me, Peers(places, me))


def connect(meeting: Meeting, wait: timedelta, processes: int) -> Any:
    """A group of gloo for one pipeline; makes torch's default group if there is none.

    Args:
        meeting: of all processes. wait: how long an operation may take. processes: how many.
    """
    if not dist.is_initialized():
        dist.init_process_group(
            "gloo", store=meeting.common, rank=meeting.rank, world_size=processes, timeout=wait
        )
    return dist.new_group(timeout=wait, backend="gloo")


def _environment(stages: int) -> tuple[str, int]:
    """Address and port of the store.

    Raises:
        ConfigError: a variable is missing or makes no sense.
    """
    told = os.environ
    if "RANK" not in told or "WORLD_SIZE" not in told:
        raise ConfigError(
            "executor 'dist' needs one process per stage, and RANK and WORLD_SIZE are not set; "
            f"start it with torchrun --nproc-per-node {stages}"
        )
    size = _number("WORLD_SIZE", 1, 1 << 20)
    _number("RANK", 0, size - 1)
    if not told.get("MASTER_ADDR"):
        raise ConfigError("MASTER_ADDR is not set; use the address of rank 0, or torchrun")
    return told["MASTER_ADDR"], _number("MASTER_PORT", 1, 65535)


def _number(name: str, least: int, most: int) -> int:
    text = os.environ.get(name, "")
    if not text.strip().isdecimal() or not least <= int(text) <= most:
        raise ConfigError(f"{name} is {text or 'not set'}; use an integer from {least} to {most}")
    return int(text)


def _first_store(host: str, port: int, timeout: float) -> Any:
    """torch's store of this run, by the environment; no process of another attempt is in it."""
    wait = timedelta(seconds=timeout)

    def meet() -> Any:
        if os.environ["RANK"] != "0":
            _listens(host, port, time.monotonic() + timeout)
        return next(iter(_c10d.rendezvous("env://", timeout=wait)))[0]

    try:
        store = within(timeout, meet, port)
    except Late:
        raise BackendError(_silent(host, port, timeout)) from None
    except (RuntimeError, ValueError, OSError) as error:
        text = str(error)
        if "EADDRINUSE" in text or "already in use" in text:
            raise BackendError(
                f"port {port} is taken by another program; choose another MASTER_PORT"
            ) from None
        if "imed out" in text or "timeout" in text:
            raise BackendError(_silent(host, port, timeout)) from None
        raise BackendError(unreachable(error)) from error
    # After a restart by torchrun its store still holds the addresses of the dead.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return _c10d.PrefixStore(f"pulseline/{attempt}", store)


def _listens(host: str, port: int, until: float) -> None:
    """Wait until somebody listens there; torch would complain at length meanwhile."""
    while True:
        try:
            socket.create_connection((host, port), max(0.1, until - time.monotonic())).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise Late from error
            time.sleep(0.02)


def _silent(host: str, port: int, timeout: float) -> str:
    where = f"at {host}:{port} " if port else ""
    return (
        f"the store {where}did not answer for {timeout:g} s; start rank 0 there, or choose another "
        "MASTER_PORT if another program has this one"
    )


def _roll_call(store: Any, me: int, processes: int, until: float) -> list[tuple[str, int]]:
    """Where all processes are, by rank, when all have come."""
    if store.add(f"came{me}", 1) > 1:
        raise BackendError(
            f"another process is rank {me} of the run at this MASTER_ADDR and MASTER_PORT; give "
            "each run a port of its own"
        )
    store.set(f"place{me}", json.dumps(place()))
    keys = [f"place{rank}" for rank in range(processes)]
    start, nap = time.monotonic(), 1e-3
    while not store.check(keys):
        if store.check(["trouble"]):
            raise BackendError(store.get("trouble").decode())
        if time.monotonic() > until:
            missing = [rank for rank, key in enumerate(keys) if not store.check([key])]
            raise BackendError(
                f"{'ranks' if len(missing) > 1 else 'rank'} {', '.join(map(str, missing))} did not "
                f"come within {time.monotonic() - start:.0f} s; start all {processes} processes, "
                "and build the same pipeline in each"
            )
        time.sleep(nap)
        nap = min(2 * nap, 0.05)
    return [_as_place(store.get(key)) for key in keys]


def _as_place(text: bytes) -> tuple[str, int]:
    machine, pid = json.loads(text)
    return machine, pid
