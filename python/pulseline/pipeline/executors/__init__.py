"""The executors by name; each is imported when it is asked for."""

from __future__ import annotations

from ...errors import ConfigError
from ...schedules import Schedule
from ..stage import Stage
from .execute import Executor
from .sim import Simulator

__all__ = ["EXECUTORS", "Executor", "Simulator", "make"]

EXECUTORS = ("sim", "threads", "dist", "streams")


def make(
    name: str, stages: list[Stage], schedule: Schedule, timeout: float, threads: int | None = None
) -> Executor:
    """The executor of that name.

    Args:
        name: one of EXECUTORS. stages: of all processes. schedule: that they will run.
        timeout: seconds that a stage waits for another.
        threads: of torch in each thread of "threads"; None: an equal share.

    Raises:
        ConfigError: the time-out is not positive, or the executor cannot run these stages.
        BackendError: it cannot run here.
    """
    if not timeout > 0:
        raise ConfigError(f"timeout is {timeout!r}; use a positive number of seconds")
    if name == "sim":
        return Simulator(stages)
    if name == "threads":
        from .threads import Threads

        return Threads(stages, timeout, threads)
    if name == "dist":
        from .dist import Distributed

        return Distributed(stages, max(len(stages), schedule.depth(len(stages), 1)), timeout)
    from .streams import Streams

    return Streams(stages)
