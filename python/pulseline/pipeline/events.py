"""What ran, as the stages recorded it."""

from __future__ import annotations

from collections.abc import Iterable

from ..schedules import Event
from .stage import Stage

__all__ = ["events_of"]

# Clock cycle, stage, place within the cycle, event.
_Sorted = tuple[int, int, int, Event]


def events_of(stages: Iterable[Stage]) -> list[_Sorted]:
    """What stages still hold, with what sorts it."""
    found: list[_Sorted] = []
    for stage in stages:
        m = stage.index
        for k, v_f, v_b, t_f, t_b in (*stage.records, *stage.open_records):
            found.append((t_f, m, 0, Event(t_f, m, "F", k, v_f)))
            if t_b >= 0:
                found.append((t_b, m, 1, Event(t_b, m, "B", k, v_b)))
        for k, version, time in stage.updates:
            found.append((time, m, 2, Event(time, m, "U", k, version)))
    return found
