"""Starting processes for tests: ranks of one run on the loopback, all output kept, no leftovers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple

# Importing torch takes seconds on a busy machine; what a rank does afterwards has its own watchdog.
LIMIT_S = 100


class Done(NamedTuple):
    """Exit code, stdout and stderr of a process that ended."""

    code: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    """This process's environment, one OpenMP thread, without another run's ranks."""
    drop = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PULSELINE_ISA")
    kept = {name: value for name, value in os.environ.items() if name not in drop}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


def start(*argv: str, **env: str) -> subprocess.Popen[str]:
    """``python argv`` with that environment."""
    return subprocess.Popen(
        [sys.executable, *argv],
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(processes: list[subprocess.Popen[str]]) -> list[Done]:
    """Wait for all of them; kill what is left at the limit."""
    try:
        done = []
        for process in processes:
            out, err = process.communicate(timeout=LIMIT_S)
            done.append(Done(process.returncode, out, err))
        return done
    finally:
        for process in processes:
            process.kill()


def run(*argv: str, **env: str) -> Done:
    """``python argv`` to its end."""
    return finish([start(*argv, **env)])[0]


def start_ranks(
    world: int, *argv: str, env: Mapping[str, str] | None = None
) -> list[subprocess.Popen[str]]:
    """``python argv`` once per rank, as torchrun starts it, but without an agent."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [start(*argv, **common, **(env or {}), RANK=str(rank)) for rank in range(world)]


def ranks(world: int, *argv: str, env: Mapping[str, str] | None = None) -> list[Done]:
    """... to their end."""
    return finish(start_ranks(world, *argv, env=env))
