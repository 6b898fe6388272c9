"""Processes of one run: how they find each other, and how one learns what happened to another."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from datetime import timedelta
from itertools import count
from typing import Any

import torch.distributed as dist

from ...errors import BackendError, ConfigError, StageFailed

__all__ = ["Watch", "join", "world_size"]

_HEARTBEAT_S = 2.0
_c10d: Any = dist  # its stores are not in the stubs
_numbers = count()


def world_size() -> int:
    """Processes of this run: those of torchrun, or of a process group that exists; else 0."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    text = os.environ.get("WORLD_SIZE", "")
    return int(text) if text.isdecimal() and "RANK" in os.environ else 0


def join(stages: int, timeout: timedelta) -> Any:
    """Join the other processes unless that has been done.

    Args:
        stages: how many processes there must be. timeout: how long to wait for them.

    Returns:
        A store that all of them share.

    Raises:
        ConfigError: their number is not that of the stages.
        BackendError: they do not come together, or this torch cannot.
    """
    if not dist.is_available():
        raise BackendError(
            "executor 'dist' needs torch.distributed, which this torch lacks; use 'threads'"
        )
    processes = world_size()
    if not processes:
        raise ConfigError(
            "executor 'dist' needs one process per stage, and RANK and WORLD_SIZE are not set; "
            f"start it with torchrun --nproc-per-node {stages}"
        )
    if processes != stages:
        raise ConfigError(
            f"stages is {stages} and there are {processes} processes; run one process per stage"
        )
    if not dist.is_initialized():
        try:
            store, rank, size = next(iter(_c10d.rendezvous("env://", timeout=timeout)))
            # After a restart by torchrun its store still holds the addresses of the dead.
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = _c10d.PrefixStore(f"pulseline/{attempt}", store)
            dist.init_process_group(
                "gloo", store=store, rank=rank, world_size=size, timeout=timeout
            )
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise BackendError(
                f"the processes cannot reach each other ({reason}); start all of them with torchrun"
            ) from error
    common = _c10d.distributed_c10d._get_default_store()
    return _c10d.PrefixStore(f"pulseline/pipeline{next(_numbers)}", common)


class Watch:
    """Puts this process's last operation into the store, every 2 s and at its end.

    Args:
        store: that all processes share. rank: of this one. processes: how many.

    Attributes:
        at: (stage, kind, micro-batch), written by the executor before each operation.
    """

    def __init__(self, store: Any, rank: int, processes: int) -> None:
        self.at: tuple[int, str, int] = (rank + 1, "flush", -1)
        self._store, self._rank, self._processes = store, rank, processes
        self._end = threading.Event()
        self._beat()
        self._thread = threading.Thread(target=self._run, name="pulseline watch", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write no more."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(_HEARTBEAT_S):
            self._beat()

    def _beat(self) -> None:
        try:
            self._store.set(f"at{self._rank}", json.dumps([*self.at, time.time()]))
        except RuntimeError:
            self._end.set()

    def record(self, failure: StageFailed) -> None:
        """Tell the others what failed; the first word counts."""
        fields = [failure.stage, failure.op, failure.k, failure.reason]
        try:
            self._store.compare_set("failed", "", json.dumps(fields))
        except RuntimeError:
            return

    def first_failure(self) -> StageFailed | None:
        """What failed first, if any process has told."""
        try:
            if self._store.check(["failed"]):
                return StageFailed(*json.loads(self._store.get("failed")))
        except RuntimeError:
            pass
        return None

    def print_table(self) -> None:
        """One line on stderr per process: its last operation. Once for all processes."""
        self._beat()
        try:
            if self._store.add("table", 1) > 1:
                return
            lines = ["rank  stage  last operation  seconds ago"]
            for rank in range(self._processes):
                stage, kind, k, then = json.loads(self._store.get(f"at{rank}"))
                name = f"{kind}{k}" if k >= 0 else "start"
                lines.append(f"{rank:4}  {stage:5}  {name:>14}  {time.time() - then:11.1f}")
        except RuntimeError:
            return
        print("\n".join(lines), file=sys.stderr, flush=True)
