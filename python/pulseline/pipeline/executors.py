"""The executors by name; each is imported when it is asked for."""

from __future__ import annotations

from ..errors import ConfigError
from .execute import Executor
from .plan import Schedule
from .simulate import Simulator
from .stage import Stage

EXECUTORS = ("sim", "threads", "dist", "streams")


def make(name: str, stages: list[Stage], schedule: Schedule, timeout: float) -> Executor:
    """The executor of that name, see :class:`pulseline.pipeline.Pipeline`."""
    if not timeout > 0:
        raise ConfigError(f"timeout must be a positive number of seconds, got {timeout!r}")
    if name == "sim":
        return Simulator(stages)
    if name == "threads":
        from .threads import Threads

        return Threads(stages, timeout)
    if name == "dist":
        from .distributed import Distributed

        return Distributed(stages, max(len(stages), schedule.depth(len(stages), 1)), timeout)
    from .streams import Streams

    return Streams(stages)
