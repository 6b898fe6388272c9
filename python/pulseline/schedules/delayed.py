"""Delays that no clock would give: F on weights of any age, one micro-batch after the other.

``F(k, m)`` reads ``W^(m)`` as it was ``delay(m, k)`` updates ago, B the current one, and U follows:
stochastic gradient descent with delayed forward passes. With ``delay = M - m`` it leaves the bits
of the asynchronous schedule, without its clock. It copies weights, which a crossbar cannot: it asks
what a delay does to learning, no hardware runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ConfigError
from .plan import count_of
from .schedule import Schedule

__all__ = ["Delayed"]


class Delayed(Schedule):
    """Sequential training in which forward passes see weights of an earlier time.

    No delay reaches back behind the last :meth:`pulseline.Pipeline.drain`, nor the start.

    Args:
        delay: updates, as a function of (stage from 1, micro-batch from 0); asked once for each,
            when the micro-batch is fed.
        longest: largest delay there is; so many copies of its weights a stage holds.

    Raises:
        ConfigError: ``delay`` is no function, ``longest`` no integer >= 0.
    """

    delay: Callable[[int, int], int]
    longest: int

    def __init__(self, delay: Callable[[int, int], int], longest: int = 64) -> None:
        super().__init__("sequential")
        if not callable(delay):
            raise ConfigError(
                f"delay is {delay!r:.60}; use a function of stage and micro-batch, such as "
                "lambda stage, k: 3"
            )
        object.__setattr__(self, "delay", delay)
        object.__setattr__(self, "longest", count_of("longest", longest, 0))

    def __repr__(self) -> str:
        name = getattr(self.delay, "__qualname__", type(self.delay).__qualname__)
        return f"Delayed({name}, longest={self.longest})"

    def __eq__(self, other: object) -> bool:
        mine = (self.delay, self.longest)
        return isinstance(other, Delayed) and mine == (other.delay, other.longest)

    __hash__ = None  # type: ignore[assignment]

    def described(self) -> dict[str, Any]:
        return super().described() | {"kind": repr(self)}

    def of(self, stages: int, first: int, count: int) -> list[list[int]]:
        """Delays of micro-batches, of every stage.

        Args:
            stages: M. first: number of the first one. count: how many.

        Raises:
            ConfigError: the function raises, or gives no integer from 0 to ``longest``.
        """
        numbers = range(first, first + count)
        return [[self._delay(m, k) for m in range(1, stages + 1)] for k in numbers]

    def _delay(self, m: int, k: int) -> int:
        try:
            value = self.delay(m, k)
        except Exception as error:
            raise ConfigError(
                f"delay raises {type(error).__name__} ({error!s:.60}) for stage {m} and "
                f"micro-batch {k}; use a function that gives a number for each"
            ) from error
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= self.longest:
            raise ConfigError(
                f"delay gives {value!r:.60} for stage {m} and micro-batch {k}; use an integer from "
                f"0 to {self.longest}, or raise longest="
            )
        return value

    def staleness(self, stages: int, m: int) -> int:
        """A bound, ``longest``: what was, :func:`pulseline.pipeline.staleness` counts."""
        self._below(stages, m)
        return self.longest

    def versions(self, stages: int, m: int, k: int) -> tuple[int, int]:
        self._below(stages, m)
        return max(0, k - self._delay(m, k)), k
