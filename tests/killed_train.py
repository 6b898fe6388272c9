"""``killed_train.py WHEN ARGUMENTS``: the command with those arguments, killed in the middle.

WHEN is ``update:N``: SIGKILL in the N-th update of this process, or ``write:N:PHASE``: an exit
without any clean-up at the N-th file that a checkpoint writes, see ``faulty``. Under
torchrun only rank 1 dies, in the first attempt.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from pulseline.cli import main
from pulseline.pipeline.stage import Stage


def at_update(number: int) -> None:
    """SIGKILL instead of that update."""
    update = Stage.update
    left = number

    def counting(stage: Stage, k: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        update(stage, k)

    Stage.update = counting  # type: ignore[method-assign]


def at_write(number: int, phase: str) -> None:
    """Exit around that file."""

    def crash() -> NoReturn:
        os._exit(77)

    os.fsync, os.replace = faulty(number, phase, crash)


def faulty(number: int, phase: str, crash: Callable[[], Any]) -> tuple[Any, Any]:
    """``os.fsync`` and ``os.replace`` with a crash at the ``number``-th file.

    "before": nothing of it has come to the disk, "during": half of it has, "unnamed": all of it,
    under its temporary name, "after": it has its name.
    """
    fsync, replace = os.fsync, os.replace
    left = number

    def faulty_fsync(handle: int) -> None:
        nonlocal left
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            left -= 1
            if not left and phase in ("before", "during"):
                half = os.fstat(handle).st_size // 2
                os.ftruncate(handle, half if phase == "during" else 0)
                crash()
        fsync(handle)

    def faulty_replace(source: Path, target: Path) -> None:
        if not left and phase == "unnamed":
            crash()
        replace(source, target)
        if not left and phase == "after":
            crash()

    return faulty_fsync, faulty_replace


if __name__ == "__main__":
    kind, number, *phase = sys.argv[1].split(":")
    first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if first and os.environ.get("RANK", "1") == "1":
        if kind == "update":
            at_update(int(number))
        else:
            at_write(int(number), *phase)
    sys.exit(main(sys.argv[2:]))
